/* load_udp.c: UDP: echo, one way to the server (sink), one way from it (source).
 *
 * Echo: N sockets with `depth` datagrams in flight each. A datagram begins with its number; one
 * that does not come back within LOSS_NS is counted as lost and sent again. One way: datagrams may
 * be lost, so the server counts those that it got or sent, and is asked at both ends of the window,
 * while nothing else is sent to it: a datagram of one byte is a question, its answer the count.
 * With
 * --gso as many as fit leave and arrive by one call, so that the client is not the limit. */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
    EVENTS_MAX = 512,
    NUMBER_BYTES = 8,
    RECV_BYTES = 1 << 16,
    SOCKET_BYTES = 4 << 20,
    SEGMENTS_MAX = 64,
    BATCH_BYTES_MAX = 65000,
    SENDS_PER_LOOK = 16,
    ANSWER_MS = 10
};
#define LOSS_NS UINT64_C(50000000)

struct flow {
    int fd;
    uint64_t sent;     /* datagrams */
    uint64_t answered; /* the number of the oldest that is in flight */
    uint64_t *sent_ns; /* of number i at i % depth */
};

struct udp {
    struct load *load;
    struct flow *flows;
    unsigned char *buffer;
    unsigned char *message;
    uint64_t lost;
};

static void *
allocate(size_t bytes)
{
    void *memory = calloc(1, bytes);
    if (memory == NULL)
        load_fail(LOAD_EXIT_USAGE, "out of memory");
    return memory;
}

static int
udp_socket(const struct load_address *address)
{
    int bytes = SOCKET_BYTES;
    int fd = socket(address->family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address->storage, address->length) != 0)
        load_fail(LOAD_EXIT_NETWORK, "socket: %s", strerror(errno));
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) != 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    return fd;
}

/* ---- echo ---- */

static void
flow_send(struct udp *udp, struct flow *flow, uint64_t number)
{
    struct load *load = udp->load;
    size_t size = load->options.message_size;
    memcpy(udp->message, pattern_at(number % PATTERN_PERIOD), size);
    memcpy(udp->message, &number, NUMBER_BYTES);
    flow->sent_ns[number % load->options.depth] = load_now_ns();
    if (send(flow->fd, udp->message, size, 0) < 0 && errno != EAGAIN && errno != ENOBUFS)
        load_fail(LOAD_EXIT_NETWORK, "send: %s", strerror(errno));
    if (load_counting(load))
        load->bytes_out += size;
}

static void
flow_send_next(struct udp *udp, struct flow *flow)
{
    while (load_sending(udp->load) && flow->sent - flow->answered < udp->load->options.depth) {
        udp->load->in_flight++;
        flow_send(udp, flow, flow->sent++);
    }
}

static void
flow_receive(struct udp *udp, struct flow *flow)
{
    struct load *load = udp->load;
    size_t size = load->options.message_size;
    for (;;) {
        uint64_t number;
        ssize_t got = recv(flow->fd, udp->buffer, RECV_BYTES, 0);
        if (got < 0 && errno == EAGAIN)
            break;
        if (got < 0)
            load_fail(LOAD_EXIT_NETWORK, "recv: %s", strerror(errno));
        if ((size_t)got != size)
            load_fail(LOAD_EXIT_CONTENT, "a datagram of %zd bytes and not %zu", got, size);
        memcpy(&number, udp->buffer, NUMBER_BYTES);
        if (memcmp(udp->buffer + NUMBER_BYTES, pattern_at(number % PATTERN_PERIOD) + NUMBER_BYTES,
                   size - NUMBER_BYTES) != 0)
            load_fail(LOAD_EXIT_CONTENT, "wrong bytes in datagram %zu", (size_t)number);
        if (number != flow->answered) /* a copy of one that was only late */
            continue;
        flow->answered++;
        load->in_flight--;
        load->now_ns = load->progress_ns = load_now_ns();
        if (load_counting(load)) {
            load->messages++;
            load->bytes_in += (uint64_t)got;
            hist_add(&load->latency, load->now_ns - flow->sent_ns[number % load->options.depth]);
        }
        flow_send_next(udp, flow);
    }
}

static void
resend_lost(struct udp *udp)
{
    struct load *load = udp->load;
    for (unsigned i = 0; i < load->options.connections; i++) {
        struct flow *flow = &udp->flows[i];
        if (flow->sent == flow->answered ||
            load->now_ns < flow->sent_ns[flow->answered % load->options.depth] + LOSS_NS)
            continue;
        for (uint64_t number = flow->answered; number < flow->sent; number++)
            flow_send(udp, flow, number);
        udp->lost++;
    }
}

static void
run_echo(struct udp *udp, const struct load_address *address)
{
    struct load *load = udp->load;
    struct epoll_event events[EVENTS_MAX];
    uint64_t look_ns = 0;

    for (unsigned i = 0; i < load->options.connections; i++) {
        struct flow *flow = &udp->flows[i];
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = flow};
        flow->fd = udp_socket(address);
        flow->sent_ns = allocate(load->options.depth * sizeof(*flow->sent_ns));
        if (epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, flow->fd, &event) != 0)
            load_fail(LOAD_EXIT_NETWORK, "epoll_ctl: %s", strerror(errno));
    }
    load_start_clock(load);
    for (unsigned i = 0; i < load->options.connections; i++)
        flow_send_next(udp, &udp->flows[i]);
    while (load->phase != PHASE_DONE) {
        int count = load_wait(load, events, EVENTS_MAX, false, load->now_ns + LOSS_NS);
        for (int i = 0; i < count; i++)
            flow_receive(udp, events[i].data.ptr);
        if (load->now_ns > look_ns) {
            resend_lost(udp);
            look_ns = load->now_ns + LOSS_NS / 5;
        }
        bool held = load->phase == PHASE_SETTLE_BEGIN;
        if (!load_turn_phase(load) || !held || load->phase != PHASE_MEASURE)
            continue;
        for (unsigned i = 0; i < load->options.connections; i++)
            flow_send_next(udp, &udp->flows[i]);
    }
}

/* ---- one way ---- */

static void
discard(struct udp *udp, int fd)
{
    for (unsigned i = 0; i < SENDS_PER_LOOK; i++) {
        ssize_t got = recv(fd, udp->buffer, RECV_BYTES, MSG_DONTWAIT);
        if (got <= 0)
            return;
        if (load_counting(udp->load))
            udp->load->bytes_in += (uint64_t)got;
    }
}

/* What the server has counted.  A source goes on sending: its answer is the short datagram. */
static uint64_t
ask(struct udp *udp, int fd)
{
    uint64_t count;
    uint64_t until_ns = load_now_ns() + UINT64_C(5000000000);
    uint64_t asked_ns = 0;
    while (recv(fd, udp->buffer, RECV_BYTES, MSG_DONTWAIT) > 0)
        continue; /* answers to questions that were asked twice */
    while (load_now_ns() < until_ns) {
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        if (load_now_ns() > asked_ns + ANSWER_MS * UINT64_C(1000000)) {
            (void)!send(fd, "?", 1, 0);
            asked_ns = load_now_ns();
        }
        if (poll(&poll_fd, 1, ANSWER_MS) == 1 &&
            recv(fd, udp->buffer, RECV_BYTES, MSG_DONTWAIT) == sizeof(count)) {
            memcpy(&count, udp->buffer, sizeof(count));
            return count;
        }
    }
    load_fail(LOAD_EXIT_NETWORK, "the server does not say what it has counted");
}

static void
send_batch(struct udp *udp, int fd)
{
    struct load *load = udp->load;
    size_t size = load->options.message_size;
    size_t count = load->options.gso ? BATCH_BYTES_MAX / size : 1;
    uint16_t segment = (uint16_t)size;
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(segment))] = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)pattern_at(0)};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (count > SEGMENTS_MAX)
        count = SEGMENTS_MAX;
    iov.iov_len = size * count;
    if (load->options.gso) {
        message.msg_control = control;
        message.msg_controllen = sizeof(control);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = IPPROTO_UDP;
        header->cmsg_type = UDP_SEGMENT;
        header->cmsg_len = CMSG_LEN(sizeof(segment));
        memcpy(CMSG_DATA(header), &segment, sizeof(segment));
    }
    if (sendmsg(fd, &message, MSG_DONTWAIT) < 0 && errno != EAGAIN && errno != ENOBUFS)
        load_fail(LOAD_EXIT_NETWORK, "sendmsg: %s", strerror(errno));
    if (load_counting(load))
        load->bytes_out += iov.iov_len;
}

static void
run_one_way(struct udp *udp, const struct load_address *address)
{
    struct load *load = udp->load;
    int fd = udp_socket(address);
    int answers = load->options.mode == LOAD_SINK ? fd : udp_socket(address);
    uint64_t begin = 0;
    int on = 1;

    udp->flows[0].fd = fd;
    if (load->options.gso && load->options.mode == LOAD_SOURCE)
        setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof(on));
    load_start_clock(load);
    if (load->options.mode == LOAD_SOURCE && send(fd, "go", 2, 0) != 2)
        load_fail(LOAD_EXIT_NETWORK, "send: %s", strerror(errno));
    while (load->phase != PHASE_DONE) {
        for (unsigned i = 0; i < SENDS_PER_LOOK && load->options.mode == LOAD_SINK; i++)
            send_batch(udp, fd);
        if (load->options.mode == LOAD_SOURCE)
            discard(udp, fd);
        load->now_ns = load->progress_ns = load_now_ns();
        if (load->now_ns < load->edge_ns)
            continue;
        uint64_t count = ask(udp, answers);
        if (load->phase == PHASE_MEASURE)
            load->messages = count - begin;
        begin = count;
        load->now_ns = load_now_ns();
        load_turn_phase(load);
    }
    if (answers != fd)
        close(answers);
}

void
load_run_udp(struct load *load, const struct load_address *address)
{
    struct udp udp = {.load = load};
    unsigned flows = load->options.mode == LOAD_ECHO ? load->options.connections : 1;

    udp.flows = allocate(flows * sizeof(*udp.flows));
    udp.buffer = allocate(RECV_BYTES);
    udp.message = allocate(load->options.message_size);
    if (load->options.mode == LOAD_ECHO)
        run_echo(&udp, address);
    else
        run_one_way(&udp, address);
    for (unsigned i = 0; i < flows; i++) {
        close(udp.flows[i].fd);
        free(udp.flows[i].sent_ns);
    }
    free(udp.flows);
    free(udp.buffer);
    free(udp.message);
}
