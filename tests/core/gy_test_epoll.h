/* gy_test_epoll.h: a ring on epoll without a loop around it, its requests and events by number. */
#ifndef GY_TEST_EPOLL_H
#define GY_TEST_EPOLL_H

#include "gy_test.h"
#include "prep.h"
#include "ring.h"

#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/poll.h>

#define MS_NS INT64_C(1000000)

/* user_data of these tests: an even address that stands for no op. */
static inline uint64_t
mark(unsigned number)
{
    return (uint64_t)(number + 1) * 2;
}

static inline unsigned
number_of(const struct gy_event *ev)
{
    return (unsigned)((uintptr_t)ev->op / 2 - 1);
}

static inline struct gy_ring *
ring_new(void)
{
    struct gy_ring_options options = gy_test_options();
    struct gy_ring *ring = NULL;
    CHECK_EQ(gy_ring_epoll_create(&options, &ring), 0);
    CHECK_EQ(strcmp(ring->ops->name, "epoll"), 0);
    CHECK_EQ(ring->ops->enable(ring), 0);
    return ring;
}

static inline struct io_uring_sqe *
sqe_for(struct gy_ring *ring, unsigned number)
{
    struct io_uring_sqe *sqe = ring->ops->sqe(ring);
    CHECK(sqe != NULL);
    sqe->user_data = mark(number);
    return sqe;
}

static inline void
queue_poll(struct gy_ring *ring, int fd, uint32_t mask, bool multishot, unsigned number)
{
    gy_prep_poll(sqe_for(ring, number), fd, mask, multishot);
}

static inline void
queue_cancel(struct gy_ring *ring, unsigned number)
{
    struct io_uring_sqe *sqe = sqe_for(ring, number);
    gy_prep_cancel(sqe, mark(number));
    sqe->user_data = mark(number) | 1;
}

static inline struct gy_event
take(struct gy_ring *ring)
{
    struct gy_event ev;
    CHECK(ring->ops->next_event(ring, &ev));
    return ev;
}

static inline void
check_event(struct gy_ring *ring, unsigned number, int32_t res, uint32_t flags)
{
    struct gy_event ev = take(ring);
    CHECK_EQ(number_of(&ev), number);
    CHECK_EQ(ev.res, res);
    CHECK_EQ(ev.flags, flags);
    CHECK(!ev.is_cancel);
}

static inline void
check_cancel(struct gy_ring *ring, unsigned number, int32_t res)
{
    struct gy_event ev = take(ring);
    CHECK_EQ(number_of(&ev), number);
    CHECK(ev.is_cancel);
    CHECK_EQ(ev.res, res);
}

static inline void
check_quiet(struct gy_ring *ring)
{
    struct gy_event ev;
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    CHECK(!ring->ops->next_event(ring, &ev));
}

static inline void
enter(struct gy_ring *ring)
{
    CHECK_EQ(ring->ops->enter(ring, GY_NS_PER_SECOND), 0);
}

static inline void
stream_pair(int pair[2])
{
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
}

static inline void
put(int fd, const char *text)
{
    CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
}

/* Fills the socket, so that a send has to wait.  Returns how many bytes it took. */
static inline size_t
fill(int fd)
{
    char block[4096] = {0};
    size_t total = 0;
    ssize_t sent;
    while ((sent = write(fd, block, sizeof block)) > 0)
        total += (size_t)sent;
    CHECK_EQ(errno, EAGAIN);
    return total;
}

static inline size_t
drain(int fd, size_t limit)
{
    char block[65536];
    size_t total = 0;
    while (total < limit) {
        size_t want = limit - total < sizeof block ? limit - total : sizeof block;
        ssize_t got = read(fd, block, want);
        if (got <= 0)
            break;
        total += (size_t)got;
    }
    return total;
}

/* The descriptor gets the lowest number there is, which is the one that was closed last. */
static inline int
reopen_as(int number)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK_EQ(fd, number);
    return fd;
}

static inline int
listen_here(struct sockaddr_in *address)
{
    socklen_t len = sizeof *address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    *address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    CHECK_EQ(bind(fd, (struct sockaddr *)address, len), 0);
    CHECK_EQ(listen(fd, 1024), 0);
    CHECK_EQ(getsockname(fd, (struct sockaddr *)address, &len), 0);
    return fd;
}

static inline int
connect_to(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_LE(0, fd);
    CHECK_EQ(connect(fd, (const struct sockaddr *)address, sizeof *address), 0);
    return fd;
}

#endif
