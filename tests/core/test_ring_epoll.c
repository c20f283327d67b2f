/* test_ring_epoll.c: the ring on epoll, without a loop around it: each opcode, descriptors that are
 * closed behind its back, queues that grow, and failures. */
#include "gy_test.h"
#include "prep.h"
#include "ring.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/poll.h>
#include <sys/resource.h>

#define MS_NS INT64_C(1000000)

/* user_data of these tests: an even address that stands for no op. */
static uint64_t
mark(unsigned number)
{
    return (uint64_t)(number + 1) * 2;
}

static unsigned
number_of(const struct gy_event *ev)
{
    return (unsigned)((uintptr_t)ev->op / 2 - 1);
}

static struct gy_ring *
ring_new(void)
{
    struct gy_ring_options options = gy_test_options();
    struct gy_ring *ring = NULL;
    CHECK_EQ(gy_ring_epoll_create(&options, &ring), 0);
    CHECK_EQ(strcmp(ring->ops->name, "epoll"), 0);
    CHECK_EQ(ring->ops->enable(ring), 0);
    return ring;
}

static struct io_uring_sqe *
sqe_for(struct gy_ring *ring, unsigned number)
{
    struct io_uring_sqe *sqe = ring->ops->sqe(ring);
    CHECK(sqe != NULL);
    sqe->user_data = mark(number);
    return sqe;
}

static void
queue_poll(struct gy_ring *ring, int fd, uint32_t mask, bool multishot, unsigned number)
{
    gy_prep_poll(sqe_for(ring, number), fd, mask, multishot);
}

static void
queue_cancel(struct gy_ring *ring, unsigned number)
{
    struct io_uring_sqe *sqe = sqe_for(ring, number);
    gy_prep_cancel(sqe, mark(number));
    sqe->user_data = mark(number) | 1;
}

static struct gy_event
take(struct gy_ring *ring)
{
    struct gy_event ev;
    CHECK(ring->ops->next_event(ring, &ev));
    return ev;
}

static void
check_event(struct gy_ring *ring, unsigned number, int32_t res, uint32_t flags)
{
    struct gy_event ev = take(ring);
    CHECK_EQ(number_of(&ev), number);
    CHECK_EQ(ev.res, res);
    CHECK_EQ(ev.flags, flags);
    CHECK(!ev.is_cancel);
}

static void
check_cancel(struct gy_ring *ring, unsigned number, int32_t res)
{
    struct gy_event ev = take(ring);
    CHECK_EQ(number_of(&ev), number);
    CHECK(ev.is_cancel);
    CHECK_EQ(ev.res, res);
}

static void
check_quiet(struct gy_ring *ring)
{
    struct gy_event ev;
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    CHECK(!ring->ops->next_event(ring, &ev));
}

static void
enter(struct gy_ring *ring)
{
    CHECK_EQ(ring->ops->enter(ring, GY_NS_PER_SECOND), 0);
}

static void
stream_pair(int pair[2])
{
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
}

static void
put(int fd, const char *text)
{
    CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
}

/* Fills the socket, so that a send has to wait.  Returns how many bytes it took. */
static size_t
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

static size_t
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
static int
reopen_as(int number)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK_EQ(fd, number);
    return fd;
}

/* ---- polls ---- */

static void
test_poll_once_sees_the_state(void)
{
    struct gy_ring *ring = ring_new();
    int pair[2];
    stream_pair(pair);
    queue_poll(ring, pair[0], POLLIN, false, 1);
    check_quiet(ring);
    put(pair[1], "abc");
    enter(ring);
    check_event(ring, 1, POLLIN, 0);
    check_quiet(ring);
    /* Nothing was read: the state is there still, and asking again finds it. */
    for (unsigned i = 0; i < 3; i++) {
        queue_poll(ring, pair[0], POLLIN, false, 2);
        enter(ring);
        check_event(ring, 2, POLLIN, 0);
    }
    close(pair[1]);
    queue_poll(ring, pair[0], POLLIN | POLLRDHUP, false, 3);
    enter(ring);
    check_event(ring, 3, POLLIN | POLLRDHUP | POLLHUP, 0);
    ring->ops->destroy(ring, false);
    close(pair[0]);
}

static void
test_poll_multishot_tells_edges(void)
{
    struct gy_ring *ring = ring_new();
    int pair[2];
    stream_pair(pair);
    put(pair[1], "there before");
    queue_poll(ring, pair[0], POLLIN | POLLRDHUP, true, 1);
    enter(ring);
    check_event(ring, 1, POLLIN, IORING_CQE_F_MORE);
    check_quiet(ring);
    put(pair[1], "again");
    enter(ring);
    check_event(ring, 1, POLLIN, IORING_CQE_F_MORE);
    /* Edges that nobody has taken are one event. */
    put(pair[1], "one");
    enter(ring);
    put(pair[1], "two");
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    CHECK_EQ(shutdown(pair[1], SHUT_WR), 0);
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    check_event(ring, 1, POLLIN | POLLRDHUP, IORING_CQE_F_MORE);
    check_quiet(ring);
    CHECK_EQ(ring->counters.controls, 1); /* for all of it */
    queue_cancel(ring, 1);
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    check_event(ring, 1, -ECANCELED, 0);
    check_cancel(ring, 1, 0);
    CHECK_EQ(ring->counters.controls, 1); /* it may wait again */
    ring->ops->destroy(ring, false);
    close(pair[0]);
    close(pair[1]);
}

static void
test_several_polls_of_one_descriptor(void)
{
    struct gy_ring *ring = ring_new();
    int pair[2];
    stream_pair(pair);
    queue_poll(ring, pair[0], POLLIN, false, 1);
    queue_poll(ring, pair[0], POLLOUT, false, 2);
    queue_poll(ring, pair[0], POLLIN, false, 3);
    enter(ring);
    check_event(ring, 2, POLLOUT, 0);
    check_quiet(ring);
    put(pair[1], "x");
    enter(ring);
    check_event(ring, 1, POLLIN, 0);
    check_event(ring, 3, POLLIN, 0);
    check_quiet(ring);
    ring->ops->destroy(ring, false);
    close(pair[0]);
    close(pair[1]);
}

static void
test_poll_of_what_cannot_wait(void)
{
    struct gy_ring *ring = ring_new();
    char buf[8];
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    CHECK_LE(0, fd);
    queue_poll(ring, fd, POLLIN, false, 1);
    queue_poll(ring, 1000, POLLIN, false, 2);
    queue_poll(ring, -1, POLLIN, false, 3);
    gy_prep_recv(sqe_for(ring, 5), fd, buf, sizeof buf);
    sqe_for(ring, 6)->opcode = 200;
    enter(ring);
    check_event(ring, 1, POLLIN, 0);
    check_event(ring, 2, -EBADF, 0);
    check_event(ring, 3, -EBADF, 0);
    check_event(ring, 5, -ENOTSOCK, 0);
    check_event(ring, 6, -EINVAL, 0);
    gy_prep_read(sqe_for(ring, 4), fd, buf, sizeof buf, 0); /* in a thread */
    CHECK_EQ(ring->ops->enter(ring, GY_NS_PER_SECOND * 10), 0);
    check_event(ring, 4, sizeof buf, 0);
    CHECK(memcmp(buf, "\177ELF", 4) == 0);
    ring->ops->destroy(ring, false);
    close(fd);
}

/* ---- calls ---- */

static void
test_read_and_recv_wait_for_bytes(void)
{
    struct gy_ring *ring = ring_new();
    uint64_t value = 0;
    char text[8] = {0};
    int fd = eventfd(0, EFD_CLOEXEC); /* blocking, as that of a wakeup is */
    int pair[2];
    stream_pair(pair);
    gy_prep_read(sqe_for(ring, 1), fd, &value, sizeof value, 0);
    gy_prep_recv(sqe_for(ring, 2), pair[0], text, sizeof text);
    check_quiet(ring);
    gy_sys_eventfd_add(fd);
    enter(ring);
    check_event(ring, 1, sizeof value, 0);
    CHECK_EQ(value, 1);
    put(pair[1], "hello");
    enter(ring);
    check_event(ring, 2, 5, 0);
    CHECK_EQ(strcmp(text, "hello"), 0);
    /* Again, with the descriptor known. */
    gy_sys_eventfd_add(fd);
    gy_prep_read(sqe_for(ring, 3), fd, &value, sizeof value, 0);
    enter(ring);
    check_event(ring, 3, sizeof value, 0);
    check_quiet(ring);
    ring->ops->destroy(ring, false);
    close(fd);
    close(pair[0]);
    close(pair[1]);
}

struct send_test {
    struct gy_ring *ring;
    int pair[2];
    char *data;
    struct iovec iov[100];
    struct msghdr message;
    size_t total;
};

enum { SEND_PIECES = 100, SEND_PIECE_BYTES = 30000 };

static void
send_begin(struct send_test *test)
{
    test->ring = ring_new();
    stream_pair(test->pair);
    test->total = (size_t)SEND_PIECES * SEND_PIECE_BYTES;
    test->data = malloc(test->total);
    for (size_t i = 0; i < test->total; i++)
        test->data[i] = (char)(i * 7 + i / 251);
    for (unsigned i = 0; i < SEND_PIECES; i++)
        test->iov[i] = (struct iovec){.iov_base = test->data + (size_t)i * SEND_PIECE_BYTES,
                                      .iov_len = SEND_PIECE_BYTES};
    test->message = (struct msghdr){.msg_iov = test->iov, .msg_iovlen = SEND_PIECES};
    gy_prep_sendmsg(sqe_for(test->ring, 1), test->pair[0], &test->message,
                    MSG_WAITALL | MSG_NOSIGNAL);
    CHECK_EQ(test->ring->ops->enter(test->ring, 0), 0);
}

static void
send_end(struct send_test *test)
{
    test->ring->ops->destroy(test->ring, false);
    free(test->data);
    close(test->pair[0]);
    if (test->pair[1] >= 0)
        close(test->pair[1]);
}

static void
test_sendmsg_sends_all(void)
{
    struct send_test test;
    struct gy_event ev;
    char *got;
    size_t len = 0;
    send_begin(&test);
    got = malloc(test.total);
    while (!test.ring->ops->next_event(test.ring, &ev)) {
        ssize_t part = read(test.pair[1], got + len, 50000);
        CHECK_LT(0, part);
        len += (size_t)part;
        CHECK_EQ(test.ring->ops->enter(test.ring, 0), 0);
    }
    CHECK_EQ(ev.res, test.total);
    CHECK_EQ(ev.flags, 0);
    while (len < test.total) {
        ssize_t part = read(test.pair[1], got + len, test.total - len);
        CHECK_LT(0, part);
        len += (size_t)part;
    }
    CHECK_EQ(memcmp(got, test.data, test.total), 0);
    CHECK_EQ(test.iov[5].iov_len, SEND_PIECE_BYTES); /* the message is the caller's */
    check_quiet(test.ring);
    free(got);
    send_end(&test);
}

static void
test_sendmsg_cancelled_tells_how_far_it_came(void)
{
    struct send_test test;
    struct gy_event ev;
    send_begin(&test);
    CHECK_EQ(test.ring->ops->enter(test.ring, 0), 0);
    queue_cancel(test.ring, 1);
    CHECK_EQ(test.ring->ops->enter(test.ring, 0), 0);
    ev = take(test.ring);
    CHECK_LT(0, ev.res);
    CHECK_LT(ev.res, test.total);
    check_cancel(test.ring, 1, 0);
    CHECK_EQ(drain(test.pair[1], test.total), ev.res);
    send_end(&test);
}

static void
test_sendmsg_to_a_peer_that_goes(void)
{
    struct send_test test;
    struct gy_event ev;
    send_begin(&test);
    close(test.pair[1]);
    test.pair[1] = -1;
    enter(test.ring);
    ev = take(test.ring);
    CHECK_EQ(ev.res, -EPIPE);
    gy_prep_sendmsg(sqe_for(test.ring, 2), test.pair[0], &test.message, MSG_NOSIGNAL);
    enter(test.ring);
    check_event(test.ring, 2, -EPIPE, 0);
    send_end(&test);
}

static void
test_both_directions_of_one_descriptor(void)
{
    struct gy_ring *ring = ring_new();
    char text[] = "answer";
    struct iovec iov = {.iov_base = text, .iov_len = 6};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    size_t before;
    int pair[2];
    stream_pair(pair);
    before = fill(pair[0]);
    queue_poll(ring, pair[0], POLLIN, true, 1);
    gy_prep_sendmsg(sqe_for(ring, 2), pair[0], &message, MSG_WAITALL);
    check_quiet(ring);
    put(pair[1], "question");
    enter(ring);
    check_event(ring, 1, POLLIN, IORING_CQE_F_MORE);
    check_quiet(ring);
    CHECK_EQ(drain(pair[0], 100), 8);
    CHECK_EQ(drain(pair[1], before), before);
    enter(ring);
    check_event(ring, 2, 6, 0);
    check_quiet(ring);
    /* Room in the socket, of which nobody waits to hear, is reported once and then no more. */
    for (unsigned i = 0; i < 8; i++) {
        CHECK_EQ(write(pair[0], text, 1), 1);
        CHECK_LT(0, drain(pair[1], 100));
        check_quiet(ring);
    }
    CHECK_LE(ring->counters.controls, 5);
    put(pair[1], "more");
    enter(ring);
    check_event(ring, 1, POLLIN, IORING_CQE_F_MORE);
    ring->ops->destroy(ring, false);
    close(pair[0]);
    close(pair[1]);
}

static int
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

static int
connect_to(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_LE(0, fd);
    CHECK_EQ(connect(fd, (const struct sockaddr *)address, sizeof *address), 0);
    return fd;
}

static void
test_accept(void)
{
    enum { CLIENTS = 200 };
    struct gy_ring *ring = ring_new();
    struct sockaddr_in address;
    int clients[CLIENTS];
    int listener = listen_here(&address);
    unsigned seen = 0;
    struct gy_event ev;
    for (unsigned i = 0; i < CLIENTS; i++)
        clients[i] = connect_to(&address);
    gy_prep_accept(sqe_for(ring, 1), listener, SOCK_NONBLOCK | SOCK_CLOEXEC, false);
    enter(ring);
    ev = take(ring);
    CHECK_LE(0, ev.res);
    CHECK_EQ(ev.flags, 0);
    CHECK_EQ(fcntl(ev.res, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    CHECK_EQ(fcntl(ev.res, F_GETFD), FD_CLOEXEC);
    close(ev.res);
    check_quiet(ring);
    /* A flood does not keep the others from their turn. */
    gy_prep_accept(sqe_for(ring, 2), listener, SOCK_NONBLOCK | SOCK_CLOEXEC, true);
    for (seen = 1; seen < CLIENTS;) {
        unsigned before = seen;
        enter(ring);
        while (ring->ops->next_event(ring, &ev)) {
            CHECK_EQ(number_of(&ev), 2);
            CHECK_LE(0, ev.res);
            CHECK_EQ(ev.flags, IORING_CQE_F_MORE);
            close(ev.res);
            seen++;
        }
        CHECK_LT(before, seen);
        CHECK_LE(seen, before + 64);
    }
    check_quiet(ring);
    queue_cancel(ring, 2);
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    check_event(ring, 2, -ECANCELED, 0);
    check_cancel(ring, 2, 0);
    ring->ops->close(ring, listener);
    for (unsigned i = 0; i < CLIENTS; i++)
        close(clients[i]);
    ring->ops->destroy(ring, false);
}

static void
test_accept_without_descriptors(void)
{
    struct gy_ring *ring = ring_new();
    struct sockaddr_in address;
    struct rlimit limit;
    struct rlimit low;
    int listener = listen_here(&address);
    int client = connect_to(&address);
    gy_test_skip_under_valgrind(VALGRIND_FAKES_LIMITS);
    gy_prep_accept(sqe_for(ring, 1), listener, SOCK_NONBLOCK | SOCK_CLOEXEC, true);
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    low = limit;
    low.rlim_cur = (rlim_t)client + 1;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
    enter(ring);
    check_event(ring, 1, -EMFILE, 0);
    check_quiet(ring);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    gy_prep_accept(sqe_for(ring, 2), listener, SOCK_NONBLOCK | SOCK_CLOEXEC, false);
    enter(ring);
    close(take(ring).res);
    ring->ops->destroy(ring, false);
    close(listener);
    close(client);
}

static void
test_connect(void)
{
    struct gy_ring *ring = ring_new();
    struct sockaddr_in address;
    int listener = listen_here(&address);
    int fds[2];
    for (unsigned i = 0; i < 2; i++)
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    gy_prep_connect(sqe_for(ring, 1), fds[0], (struct sockaddr *)&address, sizeof address);
    enter(ring);
    check_event(ring, 1, 0, 0);
    CHECK_EQ(write(fds[0], "x", 1), 1);
    close(listener);
    gy_prep_connect(sqe_for(ring, 2), fds[1], (struct sockaddr *)&address, sizeof address);
    enter(ring);
    check_event(ring, 2, -ECONNREFUSED, 0);
    ring->ops->destroy(ring, false);
    for (unsigned i = 0; i < 2; i++)
        close(fds[i]);
}

/* ---- cancelling ---- */

static void
test_cancels(void)
{
    struct gy_ring *ring = ring_new();
    struct io_uring_sqe *sqe;
    int fd = eventfd(0, EFD_CLOEXEC);
    int other = eventfd(0, EFD_CLOEXEC);
    struct gy_event ev;
    for (unsigned i = 0; i < 5; i++)
        queue_poll(ring, fd, POLLIN, i % 2 != 0, i);
    queue_poll(ring, other, POLLIN, false, 5);
    queue_cancel(ring, 3);
    queue_cancel(ring, 3);
    queue_cancel(ring, 7);
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    check_event(ring, 3, -ECANCELED, 0);
    check_cancel(ring, 3, 0);
    check_cancel(ring, 3, -ENOENT);
    check_cancel(ring, 7, -ENOENT);
    sqe = sqe_for(ring, 8); /* the oldest of a descriptor */
    gy_prep_cancel(sqe, 0);
    sqe->fd = fd;
    sqe->cancel_flags = IORING_ASYNC_CANCEL_FD;
    sqe = sqe_for(ring, 9); /* all of a descriptor */
    gy_prep_cancel(sqe, 0);
    sqe->fd = fd;
    sqe->cancel_flags = IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ALL;
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    check_event(ring, 0, -ECANCELED, 0);
    check_event(ring, 8, 0, 0);
    check_event(ring, 1, -ECANCELED, 0);
    check_event(ring, 2, -ECANCELED, 0);
    check_event(ring, 4, -ECANCELED, 0);
    check_event(ring, 9, 3, 0);
    check_quiet(ring);
    /* Ended before its cancel came: the cancel finds nothing. */
    gy_sys_eventfd_add(other);
    enter(ring);
    queue_cancel(ring, 5);
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    check_event(ring, 5, POLLIN, 0);
    check_cancel(ring, 5, -ENOENT);
    ring->ops->cancel_all(ring);
    CHECK_EQ(ring->ops->enter(ring, GY_NS_NEVER), 0);
    ev = take(ring);
    CHECK(ev.op == NULL);
    ring->ops->destroy(ring, false);
    close(fd);
    close(other);
}

static void
check_enters(struct gy_ring *ring, uint64_t count)
{
    uint64_t enters = ring->counters.enters;
    CHECK_EQ(ring->ops->enter(ring, 2 * MS_NS), -ETIME);
    CHECK_EQ(ring->counters.enters, enters + count);
}

/* A listener that forked workers share: after the cancel it does not wake this process any more. */
static void
test_cancelled_listeners_are_forgotten(void)
{
    struct gy_ring *ring = ring_new();
    struct sockaddr_in address;
    int listener = listen_here(&address);
    int copy = dup(listener);
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    gy_prep_accept(sqe_for(ring, 1), listener, SOCK_NONBLOCK | SOCK_CLOEXEC, true);
    check_quiet(ring);
    queue_cancel(ring, 1);
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    check_event(ring, 1, -ECANCELED, 0);
    check_cancel(ring, 1, 0);
    ring->ops->close(ring, listener);
    CHECK_EQ(connect(client, (struct sockaddr *)&address, sizeof address), 0);
    check_enters(ring, 1);
    ring->ops->destroy(ring, false);
    close(client);
    close(copy);
}

/* Others cost one wake-up at most. */
static void
test_cancelled_descriptors_are_forgotten_with_the_next_event(void)
{
    struct gy_ring *ring = ring_new();
    uint64_t controls;
    int pair[2];
    stream_pair(pair);
    queue_poll(ring, pair[0], POLLIN, true, 1);
    check_quiet(ring);
    controls = ring->counters.controls;
    queue_cancel(ring, 1);
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    check_event(ring, 1, -ECANCELED, 0);
    check_cancel(ring, 1, 0);
    CHECK_EQ(ring->counters.controls, controls);
    put(pair[1], "for nobody");
    check_enters(ring, 2);
    CHECK_EQ(ring->counters.controls, controls + 1);
    put(pair[1], "unheard");
    check_enters(ring, 1);
    /* Who waits again hears of what is there already. */
    queue_poll(ring, pair[0], POLLIN, true, 2);
    enter(ring);
    check_event(ring, 2, POLLIN, IORING_CQE_F_MORE);
    ring->ops->close(ring, pair[0]);
    check_event(ring, 2, -EBADF, 0);
    ring->ops->destroy(ring, false);
    close(pair[1]);
}

/* Closed while a duplicate keeps the file in epoll: an event of it is for nobody, nor for whoever
 * has the number now. */
static void
test_closed_here_while_the_file_lives_on(void)
{
    struct gy_ring *ring = ring_new();
    int old[2];
    int new[2];
    int copy;
    stream_pair(old);
    copy = dup(old[0]);
    queue_poll(ring, old[0], POLLIN, true, 1);
    check_quiet(ring);
    ring->ops->close(ring, old[0]);
    check_event(ring, 1, -EBADF, 0);
    put(old[1], "for the copy");
    check_enters(ring, 2);
    stream_pair(new);
    CHECK_EQ(new[0], old[0]);
    queue_poll(ring, new[0], POLLIN, true, 2);
    check_quiet(ring);
    put(old[1], "for the copy");
    check_enters(ring, 2);
    put(new[1], "for the new one");
    enter(ring);
    check_event(ring, 2, POLLIN, IORING_CQE_F_MORE);
    ring->ops->close(ring, new[0]);
    check_event(ring, 2, -EBADF, 0);
    ring->ops->destroy(ring, false);
    close(copy);
    close(new[1]);
    close(old[1]);
}

/* ---- descriptors that are closed behind the ring's back ---- */

static void
test_closed_and_reused(void)
{
    struct gy_ring *ring = ring_new();
    int pair[2];
    int fd;
    stream_pair(pair);
    queue_poll(ring, pair[0], POLLIN, true, 1);
    queue_poll(ring, pair[0], POLLIN, false, 2);
    check_quiet(ring);
    close(pair[0]);
    check_quiet(ring);
    fd = reopen_as(pair[0]);
    gy_sys_eventfd_add(fd); /* the new file is ready, which the old polls must not hear */
    check_quiet(ring);
    queue_poll(ring, fd, POLLIN, false, 3);
    enter(ring);
    check_event(ring, 1, -EBADF, 0);
    check_event(ring, 2, -EBADF, 0);
    check_event(ring, 3, POLLIN, 0);
    check_quiet(ring);
    ring->ops->destroy(ring, false);
    close(fd);
    close(pair[1]);
}

/* Closed, not reused: a cancel ends the wait. */
static void
test_closed_and_cancelled(void)
{
    struct gy_ring *ring = ring_new();
    int pair[2];
    stream_pair(pair);
    queue_poll(ring, pair[0], POLLIN, true, 1);
    check_quiet(ring);
    close(pair[0]);
    queue_poll(ring, pair[0], POLLIN, false, 2);
    queue_cancel(ring, 1);
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    check_event(ring, 2, -EBADF, 0);
    check_event(ring, 1, -ECANCELED, 0);
    check_cancel(ring, 1, 0);
    ring->ops->destroy(ring, false);
    close(pair[1]);
}

/* A duplicate keeps the old file in epoll.  What happens there is heard by those who waited for it;
 * a call on the number, which is another file by now, is not made. */
static void
test_reused_while_the_file_lives_on(void)
{
    struct gy_ring *ring = ring_new();
    char text[] = "to the old file only";
    struct iovec iov = {.iov_base = text, .iov_len = sizeof text};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    int old[2];
    int new[2];
    int copy;
    size_t before;
    uint64_t enters;
    stream_pair(old);
    before = fill(old[0]);
    queue_poll(ring, old[0], POLLIN, true, 1);
    gy_prep_sendmsg(sqe_for(ring, 2), old[0], &message, MSG_WAITALL);
    check_quiet(ring);
    copy = dup(old[0]);
    close(old[0]);
    stream_pair(new);
    CHECK_EQ(new[0], old[0]);
    put(old[1], "to the copy");
    enter(ring);
    check_event(ring, 1, POLLIN, IORING_CQE_F_MORE);
    CHECK_EQ(drain(copy, 100), 11);
    CHECK_EQ(drain(old[1], before), before); /* now the old file could be written */
    enter(ring);
    check_event(ring, 1, -EBADF, 0);
    check_event(ring, 2, -EBADF, 0);
    CHECK_EQ(drain(new[1], 100), 0);
    /* The registration that cannot be removed does not keep the loop awake. */
    put(old[1], "again");
    enters = ring->counters.enters;
    CHECK_EQ(ring->ops->enter(ring, 2 * MS_NS), -ETIME);
    CHECK_LE(ring->counters.enters, enters + 2);
    queue_poll(ring, new[0], POLLIN, true, 3);
    check_quiet(ring);
    put(old[1], "and again");
    check_quiet(ring);
    put(new[1], "new");
    enter(ring);
    check_event(ring, 3, POLLIN, IORING_CQE_F_MORE);
    queue_cancel(ring, 3);
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    check_event(ring, 3, -ECANCELED, 0);
    check_cancel(ring, 3, 0);
    /* Back to its number, where epoll knows it from before. */
    CHECK_EQ(dup2(copy, new[0]), new[0]);
    queue_poll(ring, new[0], POLLIN, false, 4);
    enter(ring);
    check_event(ring, 4, POLLIN, 0);
    ring->ops->destroy(ring, false);
    close(copy);
    close(new[0]);
    close(new[1]);
    close(old[1]);
}

/* In the child of a fork the epoll is the parent's: closing there must not change it. */
static void
test_close_in_a_forked_child(void)
{
    struct gy_ring *ring = ring_new();
    int status = 0;
    int pair[2];
    pid_t pid;
    stream_pair(pair);
    queue_poll(ring, pair[0], POLLIN, true, 1);
    check_quiet(ring);
    pid = fork();
    if (pid == 0) {
        ring->ops->close(ring, pair[0]);
        ring->ops->destroy(ring, true);
        _exit(0);
    }
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    put(pair[1], "still watched");
    enter(ring);
    check_event(ring, 1, POLLIN, IORING_CQE_F_MORE);
    ring->ops->destroy(ring, false);
    close(pair[0]);
    close(pair[1]);
}

/* ---- size ---- */

static void
test_many_requests_and_high_descriptors(void)
{
    enum { POLLS = 3000 };
    static bool seen[POLLS];
    struct gy_ring *ring = ring_new();
    struct rlimit limit;
    struct gy_event ev;
    int fd = eventfd(0, EFD_CLOEXEC);
    int high;
    for (unsigned i = 0; i < POLLS; i++)
        queue_poll(ring, fd, POLLIN, i % 3 == 0, i);
    check_quiet(ring);
    gy_sys_eventfd_add(fd);
    enter(ring);
    for (unsigned i = 0; i < POLLS; i++)
        check_event(ring, i, POLLIN, i % 3 == 0 ? IORING_CQE_F_MORE : 0);
    ring->ops->cancel_all(ring);
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    for (unsigned i = 0; i < POLLS / 3; i++) {
        ev = take(ring);
        CHECK(!seen[number_of(&ev)]);
        seen[number_of(&ev)] = true;
        CHECK_EQ(ev.res, -ECANCELED);
    }
    CHECK(take(ring).op == NULL);
    check_quiet(ring);
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    high = limit.rlim_cur > 5000 ? 5000 : (int)limit.rlim_cur - 1;
    CHECK_EQ(dup2(fd, high), high);
    queue_poll(ring, high, POLLIN, false, 1);
    enter(ring);
    check_event(ring, 1, POLLIN, 0);
    ring->ops->destroy(ring, false);
    close(fd);
    close(high);
}

/* ---- time ---- */

static void
test_waits_without_pwait2(void)
{
#if GY_FAULTS
    static const int errors[] = {-ENOSYS, -EPERM};
    for (unsigned i = 0; i < 2; i++) {
        struct gy_ring *ring = ring_new();
        int64_t start_ns = gy_sys_now_ns();
        if (!(ring->features & GY_FEAT_EPOLL_PWAIT2))
            SKIP("this profile does without epoll_pwait2");
        gy_fault_arm(GY_FAULT_SYSCALL, 1, errors[i]);
        CHECK_EQ(ring->ops->enter(ring, MS_NS + 1), -ETIME);
        CHECK(gy_fault_fired(GY_FAULT_SYSCALL));
        CHECK_LE(start_ns + 2 * MS_NS, gy_sys_now_ns()); /* whole milliseconds, never too early */
        CHECK(!(ring->features & GY_FEAT_EPOLL_PWAIT2));
        ring->ops->destroy(ring, false);
    }
#else
    SKIP("built without fault injection");
#endif
}

static void
test_asks_for_a_look_from_time_to_time(void)
{
    struct gy_ring *ring = ring_new();
    int fd = eventfd(0, EFD_CLOEXEC);
    int64_t end_ns;
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    for (unsigned i = 0; i < 100; i++)
        CHECK(!ring->ops->needs_enter(ring)); /* nothing waits, nothing can come */
    queue_poll(ring, fd, POLLIN, true, 1);
    CHECK(ring->ops->needs_enter(ring));
    check_quiet(ring);
    end_ns = gy_sys_now_ns() + GY_NS_PER_SECOND;
    while (!ring->ops->needs_enter(ring))
        CHECK_LT(gy_sys_now_ns(), end_ns);
    check_quiet(ring);
    ring->ops->destroy(ring, false);
    close(fd);
}

/* ---- failures ---- */

#if GY_FAULTS
static int
live(int fd)
{
    struct gy_ring_options options = gy_test_options();
    struct gy_ring *ring = NULL;
    struct gy_event ev;
    unsigned ended = 0;
    unsigned queued = 0;
    int err = gy_ring_epoll_create(&options, &ring);
    if (err < 0) {
        CHECK(ring == NULL);
        return err;
    }
    for (unsigned tries = 0; queued < 200 && tries < 1000; tries++) {
        struct io_uring_sqe *sqe = ring->ops->sqe(ring);
        if (sqe == NULL)
            continue; /* later there is memory */
        gy_prep_poll(sqe, queued % 2 ? fd : 300 + fd, POLLIN, false);
        sqe->user_data = mark(queued++);
    }
    CHECK_EQ(queued, 200);
    (void)ring->ops->enter(ring, 0);
    ring->ops->cancel_all(ring);
    for (unsigned tries = 0; ended < 200 && tries < 3; tries++) {
        int res = ring->ops->enter(ring, 0);
        if (res < 0)
            err = res;
        while (ring->ops->next_event(ring, &ev)) {
            if (ev.op == NULL)
                continue;
            ended++;
            if (ev.res != -ECANCELED && ev.res != -EBADF)
                err = ev.res;
        }
    }
    CHECK_EQ(ended, 200);
    ring->ops->destroy(ring, false);
    return err;
}
#endif

static void
test_nth_failure(void)
{
#if GY_FAULTS
    static const struct {
        enum gy_fault_kind kind;
        int err;
    } faults[] = {{GY_FAULT_ALLOC, -ENOMEM}, {GY_FAULT_SYSCALL, -EMFILE}, {GY_FAULT_RING, -EMFILE}};
    int fd = eventfd(0, EFD_CLOEXEC);
    for (unsigned i = 0; i < 3; i++) {
        unsigned failures = 0;
        for (uint32_t nth = 1;; nth++) {
            int err;
            gy_fault_arm(faults[i].kind, nth, faults[i].err);
            err = live(fd);
            if (!gy_fault_fired(faults[i].kind)) {
                CHECK_EQ(err, 0);
                break;
            }
            CHECK(err == 0 || err == faults[i].err);
            failures += err != 0;
        }
        gy_fault_arm(faults[i].kind, 0, 0);
        CHECK_LT(0, failures);
    }
    close(fd);
#else
    SKIP("built without fault injection");
#endif
}

static const struct gy_test tests[] = {
    GY_TEST(test_poll_once_sees_the_state),
    GY_TEST(test_poll_multishot_tells_edges),
    GY_TEST(test_several_polls_of_one_descriptor),
    GY_TEST(test_poll_of_what_cannot_wait),
    GY_TEST(test_read_and_recv_wait_for_bytes),
    GY_TEST(test_sendmsg_sends_all),
    GY_TEST(test_sendmsg_cancelled_tells_how_far_it_came),
    GY_TEST(test_sendmsg_to_a_peer_that_goes),
    GY_TEST(test_both_directions_of_one_descriptor),
    GY_TEST(test_accept),
    GY_TEST(test_accept_without_descriptors),
    GY_TEST(test_connect),
    GY_TEST(test_cancels),
    GY_TEST(test_cancelled_listeners_are_forgotten),
    GY_TEST(test_cancelled_descriptors_are_forgotten_with_the_next_event),
    GY_TEST(test_closed_here_while_the_file_lives_on),
    GY_TEST(test_closed_and_reused),
    GY_TEST(test_closed_and_cancelled),
    GY_TEST(test_reused_while_the_file_lives_on),
    GY_TEST(test_close_in_a_forked_child),
    GY_TEST(test_many_requests_and_high_descriptors),
    GY_TEST(test_waits_without_pwait2),
    GY_TEST(test_asks_for_a_look_from_time_to_time),
    GY_TEST(test_nth_failure),
};
GY_TEST_MAIN(tests)
