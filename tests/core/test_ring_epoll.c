/* test_ring_epoll.c: the ring on epoll, without a loop around it: polls, cancels, queues that grow,
 * time. */
#include "gy_test_epoll.h"

#include <fcntl.h>
#include <sys/resource.h>

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
    if (!(ring->features & GY_FEAT_EPOLL_PWAIT2))
        SKIP("the kernel has no epoll_pwait2: a wait of milliseconds may take one more");
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

static const struct gy_test tests[] = {
    GY_TEST(test_poll_once_sees_the_state),
    GY_TEST(test_poll_multishot_tells_edges),
    GY_TEST(test_several_polls_of_one_descriptor),
    GY_TEST(test_poll_of_what_cannot_wait),
    GY_TEST(test_cancels),
    GY_TEST(test_cancelled_listeners_are_forgotten),
    GY_TEST(test_cancelled_descriptors_are_forgotten_with_the_next_event),
    GY_TEST(test_closed_here_while_the_file_lives_on),
    GY_TEST(test_many_requests_and_high_descriptors),
    GY_TEST(test_waits_without_pwait2),
    GY_TEST(test_asks_for_a_look_from_time_to_time),
};
GY_TEST_MAIN(tests)
