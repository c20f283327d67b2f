/* limit_uring.c: the least that an echo server on io_uring can do, as a second physical limit.
 *
 * Multishot accept, multishot receive into 256 shared buffers of 64 KiB, and send(2) at once: the
 * fastest shape for small messages. (Messages of 64 KiB and more go faster through epoll, because
 * one large read beats several buffers.) Needs liburing >= 2.3 and a kernel >= 6.1.
 * usage: limit_uring [--unix PATH] [--spin-us N] */
#define _GNU_SOURCE
#include "limit.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFERS = 256, BUFFER_BYTES = 64 * 1024, GROUP = 1, QUEUE = 256, COMPLETIONS = 4096 };

/* What a completion belongs to: the client's address, bit 0 set for its poll; 0 is the listener. */
static const uintptr_t POLL_BIT = 1;

struct client {
    int fd;
    bool receiving;
    bool polling;
    bool closing;
    unsigned char *rest; /* received and not yet sent, or NULL */
    size_t rest_size;
    size_t rest_sent;
};

static struct io_uring ring;
static struct io_uring_buf_ring *buffers;
static unsigned char *memory;

static struct io_uring_sqe *
next_sqe(void)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    if (sqe != NULL)
        return sqe;
    io_uring_submit(&ring);
    sqe = io_uring_get_sqe(&ring);
    if (sqe == NULL)
        limit_die("the submission queue stays full");
    return sqe;
}

static void
give_back(unsigned id)
{
    io_uring_buf_ring_add(buffers, memory + (size_t)id * BUFFER_BYTES, BUFFER_BYTES,
                          (unsigned short)id, io_uring_buf_ring_mask(BUFFERS), 0);
    io_uring_buf_ring_advance(buffers, 1);
}

static void
ring_open(void)
{
    struct io_uring_params params = {.cq_entries = COMPLETIONS};
    params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE;
    int err = io_uring_queue_init_params(QUEUE, &ring, &params);
    if (err < 0) {
        fprintf(stderr, "io_uring: %s\n", strerror(-err));
        exit(1);
    }
    size_t ring_bytes = BUFFERS * sizeof(struct io_uring_buf);
    int map = MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE;
    buffers = mmap(NULL, ring_bytes, PROT_READ | PROT_WRITE, map, -1, 0);
    memory = mmap(NULL, (size_t)BUFFERS * BUFFER_BYTES, PROT_READ | PROT_WRITE, map, -1, 0);
    if (buffers == MAP_FAILED || memory == MAP_FAILED)
        limit_die("mmap");
    struct io_uring_buf_reg reg = {
        .ring_addr = (uint64_t)(uintptr_t)buffers, .ring_entries = BUFFERS, .bgid = GROUP};
    if (io_uring_register_buf_ring(&ring, &reg, 0) < 0)
        limit_die("io_uring_register_buf_ring");
    io_uring_buf_ring_init(buffers);
    for (unsigned i = 0; i < BUFFERS; i++)
        give_back(i);
}

static void
arm_accept(int listener)
{
    struct io_uring_sqe *sqe = next_sqe();
    io_uring_prep_multishot_accept(sqe, listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    sqe->user_data = 0;
}

static void
arm_receive(struct client *client)
{
    struct io_uring_sqe *sqe = next_sqe();
    io_uring_prep_recv_multishot(sqe, client->fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = GROUP;
    sqe->user_data = (uint64_t)(uintptr_t)client;
    client->receiving = true;
}

static void
arm_poll(struct client *client)
{
    struct io_uring_sqe *sqe = next_sqe();
    io_uring_prep_poll_add(sqe, client->fd, POLLOUT);
    sqe->user_data = (uint64_t)((uintptr_t)client | POLL_BIT);
    client->polling = true;
}

/* The kernel still holds an operation: shutdown makes it complete, and the last one frees. */
static void
client_close(struct client *client)
{
    if (!client->closing)
        shutdown(client->fd, SHUT_RDWR);
    client->closing = true;
    if (client->receiving || client->polling)
        return;
    close(client->fd);
    free(client->rest);
    free(client);
}

static bool
client_send(struct client *client, const unsigned char *data, size_t size, size_t *sent)
{
    *sent = 0;
    while (*sent < size) {
        ssize_t done = send(client->fd, data + *sent, size - *sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (done < 0)
            return errno == EAGAIN;
        *sent += (size_t)done;
    }
    return true;
}

static void
client_keep(struct client *client, const unsigned char *data, size_t size)
{
    unsigned char *grown = realloc(client->rest, client->rest_size + size);
    if (grown == NULL)
        limit_die("realloc");
    memcpy(grown + client->rest_size, data, size);
    client->rest = grown;
    client->rest_size += size;
    if (!client->polling)
        arm_poll(client);
}

static bool
client_echo(struct client *client, const unsigned char *data, size_t size)
{
    size_t sent = 0;
    if (client->rest == NULL && !client_send(client, data, size, &sent))
        return false;
    if (sent < size)
        client_keep(client, data + sent, size - sent);
    return true;
}

static void
on_receive(struct client *client, const struct io_uring_cqe *cqe)
{
    bool alive = cqe->res > 0 || cqe->res == -ENOBUFS;
    if (!(cqe->flags & IORING_CQE_F_MORE))
        client->receiving = false;
    if (cqe->flags & IORING_CQE_F_BUFFER) {
        unsigned id = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
        if (cqe->res > 0 && !client->closing)
            alive = client_echo(client, memory + (size_t)id * BUFFER_BYTES, (size_t)cqe->res);
        give_back(id);
    }
    if (!alive || client->closing)
        client_close(client);
    else if (!client->receiving)
        arm_receive(client);
}

static void
on_writable(struct client *client)
{
    size_t sent = 0;
    client->polling = false;
    if (client->closing || !client_send(client, client->rest + client->rest_sent,
                                        client->rest_size - client->rest_sent, &sent)) {
        client_close(client);
        return;
    }
    client->rest_sent += sent;
    if (client->rest_sent < client->rest_size) {
        arm_poll(client);
        return;
    }
    free(client->rest);
    client->rest = NULL;
    client->rest_size = client->rest_sent = 0;
}

static void
on_accept(int listener, const struct io_uring_cqe *cqe)
{
    if (cqe->res >= 0) {
        struct client *client = calloc(1, sizeof(*client));
        if (client == NULL)
            limit_die("calloc");
        client->fd = cqe->res;
        arm_receive(client);
    }
    if (!(cqe->flags & IORING_CQE_F_MORE))
        arm_accept(listener);
}

static void
dispatch(int listener, const struct io_uring_cqe *cqe)
{
    uintptr_t tag = (uintptr_t)cqe->user_data;
    struct client *client = (struct client *)(tag & ~POLL_BIT);
    if (tag == 0)
        on_accept(listener, cqe);
    else if (tag & POLL_BIT)
        on_writable(client);
    else
        on_receive(client, cqe);
}

static void
submit_and_wait(int64_t spin_us)
{
    if (spin_us > 0) {
        int64_t until = limit_now_us() + spin_us;
        do {
            io_uring_submit_and_get_events(&ring);
            if (io_uring_cq_ready(&ring) != 0)
                return;
        } while (limit_now_us() < until);
    }
    io_uring_submit_and_wait(&ring, 1);
}

int
main(int argc, char **argv)
{
    struct limit_options options = limit_options(argc, argv);
    int listener = limit_listen(&options);

    ring_open();
    arm_accept(listener);
    limit_announce(listener, "io_uring");
    for (;;) {
        struct io_uring_cqe *cqe, copy;
        submit_and_wait(options.spin_us);
        while (io_uring_peek_cqe(&ring, &cqe) == 0) {
            copy = *cqe; /* the slot is free before the handler submits anything */
            io_uring_cqe_seen(&ring, cqe);
            dispatch(listener, &copy);
        }
    }
}
