/* load_churn.c: connection churn (connect, one echo, close), and idle connections.
 *
 * Each of the N slots runs one connection after the other. The closing side keeps the port pair for
 * a minute (TIME_WAIT), and that is us: source addresses 127.0.0.2 to 127.0.0.251 in turn give 250
 * times the ports, so that a run never waits for one. */
#define _GNU_SOURCE
#include "load_tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { EVENTS_MAX = 512, SOURCES = 250, RECV_BUFFER = 64 * 1024 };

struct slot {
    int fd;          /* -1: resting */
    struct tls *tls; /* or NULL */
    uint64_t started_ns;
    size_t sent;     /* bytes */
    size_t received; /* bytes */
};

struct churn {
    struct load *load;
    const struct load_address *address;
    struct slot *slots;
    uint64_t opened;
    unsigned char *buffer;
};

static void
bind_source(const struct churn *churn, int fd)
{
    int one = 1;
    struct sockaddr_in source = {.sin_family = AF_INET};
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + (uint32_t)(churn->opened % SOURCES));
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
    if (bind(fd, (struct sockaddr *)&source, sizeof(source)) != 0)
        load_fail(LOAD_EXIT_NETWORK, "bind: %s", strerror(errno));
}

static void
slot_open(struct churn *churn, struct slot *slot)
{
    struct load *load = churn->load;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.ptr = slot};
    slot->started_ns = load->now_ns = load_now_ns();
    slot->sent = slot->received = 0;
    slot->fd = load_socket(churn->address);
    fcntl(slot->fd, F_SETFL, O_NONBLOCK);
    if (churn->address->family == AF_INET)
        bind_source(churn, slot->fd);
    const struct sockaddr *to = (const struct sockaddr *)&churn->address->storage;
    if (connect(slot->fd, to, churn->address->length) != 0 && errno != EINPROGRESS)
        load_fail(LOAD_EXIT_NETWORK, "connect: %s", strerror(errno));
    if (load->options.tls)
        slot->tls = tls_new(slot->fd, false);
    if (epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, slot->fd, &event) != 0)
        load_fail(LOAD_EXIT_NETWORK, "epoll_ctl: %s", strerror(errno));
    churn->opened++;
    load->in_flight++;
}

static void
slot_complete(struct churn *churn, struct slot *slot)
{
    struct load *load = churn->load;
    tls_free(slot->tls);
    close(slot->fd);
    slot->tls = NULL;
    slot->fd = -1;
    load->now_ns = load_now_ns();
    load->in_flight--;
    if (load_counting(load)) {
        load->messages++;
        hist_add(&load->latency, load->now_ns - slot->started_ns);
    }
    if (load_sending(load))
        slot_open(churn, slot);
}

static void
slot_send(struct churn *churn, struct slot *slot)
{
    struct load *load = churn->load;
    while (slot->sent < load->options.message_size) {
        const unsigned char *data = pattern_at(slot->sent);
        size_t size = load->options.message_size - slot->sent;
        ssize_t sent = slot->tls != NULL ? tls_send(slot->tls, data, size)
                                         : send(slot->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (sent < 0)
            load_fail(LOAD_EXIT_NETWORK, "send: %s", strerror(errno));
        slot->sent += (size_t)sent;
        if (load_counting(load))
            load->bytes_out += (uint64_t)sent;
    }
}

static void
slot_receive(struct churn *churn, struct slot *slot)
{
    struct load *load = churn->load;
    while (slot->received < load->options.message_size) {
        ssize_t got = slot->tls != NULL ? tls_recv(slot->tls, churn->buffer, RECV_BUFFER)
                                        : recv(slot->fd, churn->buffer, RECV_BUFFER, MSG_DONTWAIT);
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (got < 0)
            load_fail(LOAD_EXIT_NETWORK, "recv: %s", strerror(errno));
        if (got == 0)
            load_fail(LOAD_EXIT_NETWORK, "the server closed a connection before its echo");
        if (!pattern_equal(slot->received, churn->buffer, (size_t)got, true))
            load_fail(LOAD_EXIT_CONTENT, "wrong bytes at %zu of a connection", slot->received);
        slot->received += (size_t)got;
        if (load_counting(load))
            load->bytes_in += (uint64_t)got;
    }
    slot_complete(churn, slot);
}

/* A connection that failed says so by EPOLLERR; its reason is the socket's pending error. */
static void
slot_ready(struct churn *churn, struct slot *slot, uint32_t events)
{
    if (events & EPOLLERR) {
        int error = 0;
        socklen_t length = sizeof(error);
        getsockopt(slot->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        load_fail(LOAD_EXIT_NETWORK, "a connection failed: %s", strerror(error));
    }
    if (slot->tls != NULL)
        tls_readable(slot->tls);
    if (events & EPOLLOUT)
        slot_send(churn, slot);
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP))
        slot_receive(churn, slot);
    if (slot->tls != NULL && slot->fd >= 0 && slot->sent == 0)
        slot_send(churn, slot); /* the handshake may have ended */
}

void
load_run_churn(struct load *load, const struct load_address *address)
{
    unsigned slots = load->options.connections;
    struct epoll_event events[EVENTS_MAX];
    struct churn churn = {.load = load, .address = address};
    churn.slots = calloc(slots, sizeof(*churn.slots));
    churn.buffer = malloc(RECV_BUFFER);
    if (churn.slots == NULL || churn.buffer == NULL)
        load_fail(LOAD_EXIT_USAGE, "out of memory");

    load_start_clock(load);
    for (unsigned i = 0; i < slots; i++)
        slot_open(&churn, &churn.slots[i]);
    while (load->phase != PHASE_DONE) {
        int count = load_wait(load, events, EVENTS_MAX, false, UINT64_MAX);
        if (count > 0)
            load->progress_ns = load->now_ns;
        for (int i = 0; i < count; i++)
            slot_ready(&churn, events[i].data.ptr, events[i].events);
        bool held = load->phase == PHASE_SETTLE_BEGIN;
        if (!load_turn_phase(load) || !held || load->phase != PHASE_MEASURE)
            continue;
        for (unsigned i = 0; i < slots; i++)
            slot_open(&churn, &churn.slots[i]);
    }
    for (unsigned i = 0; i < slots; i++)
        if (churn.slots[i].fd >= 0)
            close(churn.slots[i].fd);
    free(churn.slots);
    free(churn.buffer);
}

/* One echo per connection first, so that the server has made what it makes for a used connection.
 */
static void
idle_greet(struct load *load, int fd, struct tls *tls)
{
    unsigned char answer[4096];
    size_t size = load->options.message_size, have = 0;
    if (size > sizeof(answer))
        load_fail(LOAD_EXIT_USAGE, "--mode idle takes messages of up to %zu bytes", sizeof(answer));
    ssize_t sent = tls != NULL ? tls_send(tls, pattern_at(0), size)
                               : send(fd, pattern_at(0), size, MSG_NOSIGNAL);
    if (sent != (ssize_t)size)
        load_fail(LOAD_EXIT_NETWORK, "send: %s", strerror(errno));
    while (have < size) {
        ssize_t got = tls != NULL ? tls_recv(tls, answer + have, size - have)
                                  : recv(fd, answer + have, size - have, 0);
        if (got <= 0)
            load_fail(LOAD_EXIT_NETWORK, "recv: %s", got ? strerror(errno) : "end of stream");
        have += (size_t)got;
    }
    if (!pattern_equal(0, answer, size, true))
        load_fail(LOAD_EXIT_CONTENT, "wrong bytes");
}

void
load_run_idle(struct load *load, const struct load_address *address)
{
    unsigned count = load->options.connections;
    int *fds = calloc(count, sizeof(*fds));
    struct tls **tls = calloc(count, sizeof(*tls));
    if (fds == NULL || tls == NULL)
        load_fail(LOAD_EXIT_USAGE, "out of memory");
    for (unsigned i = 0; i < count; i++) {
        fds[i] = load_socket(address);
        if (connect(fds[i], (const struct sockaddr *)&address->storage, address->length) != 0)
            load_fail(LOAD_EXIT_NETWORK, "connect %u: %s", i, strerror(errno));
        if (load->options.tls) {
            tls[i] = tls_new(fds[i], true);
            tls_handshake(tls[i]);
        }
        idle_greet(load, fds[i], tls[i]);
    }
    load_start_clock(load);
    while (load->phase != PHASE_DONE) {
        usleep(1000);
        load->now_ns = load->progress_ns = load_now_ns();
        load_turn_phase(load);
    }
    for (unsigned i = 0; i < count; i++) {
        tls_free(tls[i]);
        close(fds[i]);
    }
    free(tls);
    free(fds);
}
