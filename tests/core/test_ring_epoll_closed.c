/* test_ring_epoll_closed.c: the ring on epoll when descriptors are closed behind its back, and its
 * failures. */
#include "gy_test_epoll.h"

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
    GY_TEST(test_closed_and_reused),
    GY_TEST(test_closed_and_cancelled),
    GY_TEST(test_reused_while_the_file_lives_on),
    GY_TEST(test_close_in_a_forked_child),
    GY_TEST(test_nth_failure),
};
GY_TEST_MAIN(tests)
