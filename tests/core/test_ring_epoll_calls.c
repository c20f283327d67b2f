/* test_ring_epoll_calls.c: the calls that the ring on epoll makes itself: sends, receives, accept,
 * connect. */
#include "gy_test_epoll.h"

#include <fcntl.h>
#include <sys/resource.h>

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

static const struct gy_test tests[] = {
    GY_TEST(test_read_and_recv_wait_for_bytes),
    GY_TEST(test_sendmsg_sends_all),
    GY_TEST(test_sendmsg_cancelled_tells_how_far_it_came),
    GY_TEST(test_sendmsg_to_a_peer_that_goes),
    GY_TEST(test_both_directions_of_one_descriptor),
    GY_TEST(test_accept),
    GY_TEST(test_accept_without_descriptors),
    GY_TEST(test_connect),
};
GY_TEST_MAIN(tests)
