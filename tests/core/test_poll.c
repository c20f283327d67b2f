/* test_poll.c: readiness of one descriptor, and the set behind add_reader/add_writer. */
#include "gy_test.h"
#include "poll.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/poll.h>
#include <sys/socket.h>

/* ---- one descriptor ---- */

struct watch {
    struct gy_poll poll;
    struct gy_loop *loop;
    unsigned calls;
    int res;
    unsigned start_again;
};

static void
watch_ready(struct gy_poll *poll, int res)
{
    struct watch *watch = container_of(poll, struct watch, poll);
    CHECK(gy_op_is_idle(&poll->op));
    CHECK(!watch->loop->quiet);
    watch->calls++;
    watch->res = res;
    if (watch->start_again > 0) {
        watch->start_again--;
        gy_poll_start(watch->loop, poll, poll->fd, poll->mask);
    }
}

static const struct gy_poll_host watch_host = {.ready = watch_ready};

static void
watch_start(struct gy_loop *loop, struct watch *watch, int fd)
{
    memset(watch, 0, sizeof *watch);
    watch->loop = loop;
    gy_poll_init(&watch->poll, &watch_host);
    gy_poll_start(loop, &watch->poll, fd, POLLIN);
}

static void
test_ready_now_and_later(void)
{
    struct gy_loop loop;
    struct watch watch;
    int fd = eventfd(1, EFD_CLOEXEC);
    uint64_t value;
    gy_test_loop_begin(&loop);
    watch_start(&loop, &watch, fd);
    watch.start_again = 2; /* one-shot: armed again while readable it fires again */
    TURN_UNTIL(&loop, watch.calls == 3);
    CHECK_EQ(watch.res, POLLIN);
    CHECK_EQ(read(fd, &value, sizeof value), sizeof value);
    gy_poll_start(&loop, &watch.poll, fd, POLLIN);
    for (int i = 0; i < 3; i++)
        (void)gy_test_turn(&loop, 0);
    CHECK_EQ(watch.calls, 3);
    gy_sys_eventfd_add(fd);
    TURN_UNTIL(&loop, watch.calls == 4);
    gy_test_loop_end(&loop);
    close(fd);
}

static void
test_errors_of_the_descriptor(void)
{
    struct gy_loop loop;
    struct watch watch;
    int pair[2];
    gy_test_loop_begin(&loop);
    watch_start(&loop, &watch, 1000);
    TURN_UNTIL(&loop, watch.calls == 1);
    CHECK_EQ(watch.res, -EBADF);
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    watch_start(&loop, &watch, pair[0]);
    close(pair[1]);
    TURN_UNTIL(&loop, watch.calls == 1);
    CHECK_LT(0, watch.res);
    CHECK(watch.res & POLLHUP);
    gy_test_loop_end(&loop);
    close(pair[0]);
}

static void
test_cancel(void)
{
    struct gy_loop loop;
    struct watch watch;
    int fd = eventfd(0, EFD_CLOEXEC);
    gy_test_loop_begin(&loop);
    watch_start(&loop, &watch, fd);
    CHECK(gy_poll_cancel(&loop, &watch.poll)); /* only queued */
    CHECK(gy_poll_cancel(&loop, &watch.poll)); /* idle */
    CHECK_EQ(gy_test_turn(&loop, 0), 0);
    gy_poll_start(&loop, &watch.poll, fd, POLLIN);
    (void)gy_test_turn(&loop, 0);
    CHECK_EQ(loop.inflight, 1);
    CHECK(!gy_poll_cancel(&loop, &watch.poll));
    CHECK(!gy_poll_cancel(&loop, &watch.poll));
    TURN_UNTIL(&loop, watch.calls == 1);
    CHECK_EQ(watch.res, -ECANCELED);
    CHECK(gy_op_is_idle(&watch.poll.op));
    /* Ready and cancelled in the same turn: the host hears of the cancel, once. */
    gy_poll_start(&loop, &watch.poll, fd, POLLIN);
    (void)gy_test_turn(&loop, 0);
    gy_sys_eventfd_add(fd);
    CHECK(!gy_poll_cancel(&loop, &watch.poll));
    TURN_UNTIL(&loop, watch.calls == 2);
    CHECK_EQ(watch.res, -ECANCELED);
    /* And a new start knows nothing of it. */
    gy_poll_start(&loop, &watch.poll, fd, POLLIN);
    TURN_UNTIL(&loop, watch.calls == 3);
    CHECK_EQ(watch.res, POLLIN);
    gy_test_loop_end(&loop);
    close(fd);
}

static void
test_quiesce_keeps_what_is_wanted(void)
{
    struct gy_loop loop;
    struct watch watch;
    int fd = eventfd(0, EFD_CLOEXEC);
    gy_test_loop_begin(&loop);
    watch_start(&loop, &watch, fd);
    for (int run = 0; run < 5; run++) {
        (void)gy_test_turn(&loop, 0);
        CHECK_EQ(loop.inflight, 1);
        CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 0);
        CHECK_EQ(watch.poll.op.state, GY_OP_QUEUED);
        CHECK_EQ(watch.calls, 0);
        CHECK_EQ(gy_loop_begin(&loop), 0);
    }
    /* It becomes ready just before the quiesce: the next run hears of it. */
    (void)gy_test_turn(&loop, 0);
    gy_sys_eventfd_add(fd);
    CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 0);
    CHECK_EQ(watch.calls, 0);
    CHECK_EQ(gy_loop_begin(&loop), 0);
    TURN_UNTIL(&loop, watch.calls == 1);
    CHECK_EQ(watch.res, POLLIN);
    gy_test_loop_end(&loop);
    close(fd);
}

static void
test_cancel_that_lands_in_a_quiesce_is_told_later(void)
{
    struct gy_loop loop;
    struct watch watch;
    int fd = eventfd(0, EFD_CLOEXEC);
    gy_test_loop_begin(&loop);
    watch_start(&loop, &watch, fd);
    (void)gy_test_turn(&loop, 0);
    CHECK(!gy_poll_cancel(&loop, &watch.poll));
    CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 0);
    CHECK_EQ(watch.calls, 0);
    CHECK(!gy_op_is_idle(&watch.poll.op)); /* the promise keeps the memory pinned */
    CHECK_EQ(gy_loop_begin(&loop), 0);
    TURN_UNTIL(&loop, watch.calls == 1);
    CHECK_EQ(watch.res, -ECANCELED);
    /* Cancelled once more while it waits for the next run: over at once, nothing more is told. */
    gy_poll_start(&loop, &watch.poll, fd, POLLIN);
    (void)gy_test_turn(&loop, 0);
    CHECK(!gy_poll_cancel(&loop, &watch.poll));
    CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 0);
    CHECK(gy_poll_cancel(&loop, &watch.poll));
    CHECK_EQ(gy_loop_begin(&loop), 0);
    CHECK_EQ(gy_test_turn(&loop, 0), 0);
    CHECK_EQ(watch.calls, 1);
    gy_test_loop_end(&loop);
    close(fd);
}

/* More polls than the queue has entries, all at once. */
static void
test_many(void)
{
    enum { MANY = 700 };
    static struct watch watches[MANY];
    struct gy_loop loop;
    int fd = eventfd(0, EFD_CLOEXEC);
    unsigned done = 0;
    gy_test_loop_begin(&loop);
    for (int i = 0; i < MANY; i++)
        watch_start(&loop, &watches[i], fd);
    (void)gy_test_turn(&loop, 0);
    CHECK_EQ(loop.inflight, MANY);
    for (int i = 0; i < MANY; i += 2)
        CHECK(!gy_poll_cancel(&loop, &watches[i].poll));
    TURN_UNTIL(&loop, loop.counters.ops_landed == MANY / 2);
    gy_sys_eventfd_add(fd);
    TURN_UNTIL(&loop, loop.counters.ops_landed == MANY);
    for (int i = 0; i < MANY; i++) {
        CHECK_EQ(watches[i].calls, 1);
        CHECK_EQ(watches[i].res, i % 2 == 0 ? -ECANCELED : POLLIN);
        done++;
    }
    CHECK_EQ(done, MANY);
    gy_test_loop_end(&loop);
    close(fd);
}

/* ---- a set of descriptors ---- */

enum { SET_FDS = GY_POLLSET_EVENTS_MAX + 50 };

struct set_test {
    struct gy_loop loop;
    struct gy_pollset set;
    unsigned calls[SET_FDS + 64]; /* by descriptor */
    uint32_t masks[SET_FDS + 64];
    unsigned total;
    int remove_all_but; /* the callback removes every other one it knows; -1: does not */
    int fds[SET_FDS];
    int count;
    bool interrupt;
    bool close_set;
    bool read_it;
};

static void
set_ready(struct gy_pollset *set, int fd, uint32_t mask)
{
    struct set_test *test = container_of(set, struct set_test, set);
    uint64_t value;
    CHECK_LT(fd, SET_FDS + 64);
    test->calls[fd]++;
    test->masks[fd] = mask;
    test->total++;
    if (test->read_it)
        CHECK_EQ(read(fd, &value, sizeof value), sizeof value);
    for (int i = 0; test->remove_all_but >= 0 && i < test->count; i++) {
        if (test->fds[i] != fd)
            CHECK_EQ(gy_pollset_modify(set, test->fds[i], EPOLLIN, 0), 0);
    }
    test->remove_all_but = -1;
    if (test->close_set)
        CHECK(gy_pollset_close(set)); /* its poll has just ended */
    test->loop.interrupted = test->interrupt;
}

static const struct gy_pollset_host set_host = {.ready = set_ready};

static void
set_begin(struct set_test *test)
{
    memset(test, 0, sizeof *test);
    test->remove_all_but = -1;
    gy_test_loop_begin(&test->loop);
    gy_pollset_init(&test->set, &test->loop, &set_host);
}

static void
set_add_eventfds(struct set_test *test, int count, unsigned value)
{
    for (int i = 0; i < count; i++) {
        int fd = eventfd(value, EFD_CLOEXEC);
        CHECK_EQ(gy_pollset_modify(&test->set, fd, 0, EPOLLIN), 0);
        test->fds[test->count++] = fd;
    }
}

static void
set_end(struct set_test *test)
{
    bool idle = gy_pollset_close(&test->set);
    CHECK_EQ(idle, gy_pollset_closed(&test->set));
    TURN_UNTIL(&test->loop, gy_pollset_closed(&test->set));
    CHECK(gy_pollset_close(&test->set));
    gy_test_loop_end(&test->loop);
    for (int i = 0; i < test->count; i++)
        close(test->fds[i]);
}

static void
test_set_is_level_triggered(void)
{
    static struct set_test test;
    int fd;
    set_begin(&test);
    set_add_eventfds(&test, 1, 0);
    fd = test.fds[0];
    for (int i = 0; i < 3; i++)
        (void)gy_test_turn(&test.loop, 0);
    CHECK_EQ(test.total, 0);
    gy_sys_eventfd_add(fd);
    TURN_UNTIL(&test.loop, test.calls[fd] == 5);
    CHECK_EQ(test.masks[fd], EPOLLIN);
    test.read_it = true;
    TURN_UNTIL(&test.loop, test.calls[fd] == 6);
    for (int i = 0; i < 5; i++)
        (void)gy_test_turn(&test.loop, 0);
    CHECK_EQ(test.calls[fd], 6);
    gy_sys_eventfd_add(fd);
    TURN_UNTIL(&test.loop, test.calls[fd] == 7);
    set_end(&test);
}

/* More than are told in a pass, and none starves. */
static void
test_set_of_many(void)
{
    static struct set_test test;
    set_begin(&test);
    set_add_eventfds(&test, SET_FDS, 1);
    CHECK_EQ(test.set.count, SET_FDS);
    (void)gy_test_turn(&test.loop, 0);
    CHECK_EQ(test.total, GY_POLLSET_EVENTS_MAX);
    TURN_UNTIL(&test.loop, test.total >= 2 * SET_FDS);
    for (int i = 0; i < SET_FDS; i++)
        CHECK_LT(0, test.calls[test.fds[i]]);
    set_end(&test);
}

/* While each look finds something no poll is armed; one that finds nothing arms it. */
static void
test_set_looks_again(void)
{
    static struct set_test test;
    uint64_t armed;
    set_begin(&test);
    set_add_eventfds(&test, 2, 1);
    TURN_UNTIL(&test.loop, test.total == 2);
    armed = test.loop.counters.ops_submitted;
    for (unsigned i = 2; i <= 5; i++) {
        CHECK(gy_loop_has_work(&test.loop)); /* it does not sleep */
        (void)gy_test_turn(&test.loop, 0);
        CHECK_EQ(test.total, 2 * i);
    }
    CHECK_EQ(test.loop.counters.ops_submitted, armed);
    set_add_eventfds(&test, 1, 1);
    (void)gy_test_turn(&test.loop, 0);
    CHECK_EQ(test.total, 13);
    test.read_it = true;
    (void)gy_test_turn(&test.loop, 0);
    CHECK_EQ(test.total, 16);
    (void)gy_test_turn(&test.loop, 0);
    CHECK(!gy_op_is_idle(&test.set.poll.op));
    (void)gy_test_turn(&test.loop, 0);
    CHECK(!gy_loop_has_work(&test.loop));
    CHECK_EQ(test.loop.counters.ops_submitted, armed + 1);
    CHECK_EQ(test.total, 16);
    gy_sys_eventfd_add(test.fds[0]);
    TURN_UNTIL(&test.loop, test.total == 17);
    set_end(&test);
}

/* A look to be made when the run ends is made in the next; a set that is closed looks no more. */
static void
test_set_looks_in_the_next_run(void)
{
    static struct set_test test;
    set_begin(&test);
    set_add_eventfds(&test, 2, 1);
    TURN_UNTIL(&test.loop, test.total == 2);
    CHECK(gy_op_is_idle(&test.set.poll.op));
    CHECK_EQ(gy_loop_quiesce(&test.loop, GY_NS_PER_SECOND), 0);
    CHECK_EQ(test.total, 2);
    CHECK_EQ(gy_loop_begin(&test.loop), 0);
    TURN_UNTIL(&test.loop, test.total >= 4);
    CHECK(gy_pollset_close(&test.set));
    test.total = 0;
    (void)gy_test_turn(&test.loop, 0);
    CHECK_EQ(test.total, 0);
    set_end(&test);
}

static void
test_set_directions(void)
{
    static struct set_test test;
    int pair[2];
    int fd;
    set_begin(&test);
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    fd = pair[0];
    CHECK_EQ(gy_pollset_modify(&test.set, fd, 0, EPOLLOUT), 0);
    TURN_UNTIL(&test.loop, test.calls[fd] > 0);
    CHECK_EQ(test.masks[fd], EPOLLOUT);
    CHECK_EQ(gy_pollset_modify(&test.set, fd, EPOLLOUT, EPOLLIN), 0);
    CHECK_EQ(test.set.count, 1);
    test.calls[fd] = 0;
    for (int i = 0; i < 3; i++)
        (void)gy_test_turn(&test.loop, 0);
    CHECK_EQ(test.calls[fd], 0);
    CHECK_EQ(write(pair[1], "x", 1), 1);
    CHECK_EQ(gy_pollset_modify(&test.set, fd, EPOLLIN, EPOLLIN | EPOLLOUT), 0);
    TURN_UNTIL(&test.loop, test.masks[fd] == (EPOLLIN | EPOLLOUT));
    close(pair[1]);
    TURN_UNTIL(&test.loop, test.masks[fd] & EPOLLHUP);
    CHECK_EQ(gy_pollset_modify(&test.set, fd, EPOLLIN | EPOLLOUT, 0), 0);
    CHECK_EQ(test.set.count, 0);
    CHECK_EQ(gy_pollset_modify(&test.set, fd, 0, 0), 0);
    CHECK_EQ(test.set.count, 0);
    close(fd);
    set_end(&test);
}

static void
test_set_refusals(void)
{
    static struct set_test test;
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    set_begin(&test);
    CHECK_EQ(gy_pollset_modify(&test.set, file, 0, EPOLLIN), -EPERM);
    CHECK_EQ(gy_pollset_modify(&test.set, 1000, 0, EPOLLIN), -EBADF);
    CHECK_EQ(test.set.count, 0);
    CHECK_EQ(gy_test_turn(&test.loop, 0), 0);
    CHECK_EQ(test.loop.inflight, 0);
    close(file);
    set_end(&test);
}

/* The user closes a registered descriptor and gets its number back for another file. */
static void
test_set_number_comes_back(void)
{
    static struct set_test test;
    int fd;
    int copy;
    set_begin(&test);
    set_add_eventfds(&test, 1, 1);
    fd = test.fds[0];
    TURN_UNTIL(&test.loop, test.calls[fd] > 0);
    /* Closed: it leaves the set by itself, as with a selector. */
    CHECK_EQ(close(fd), 0);
    test.calls[fd] = 0;
    for (int i = 0; i < 4; i++)
        (void)gy_test_turn(&test.loop, 0);
    CHECK_EQ(test.calls[fd], 0);
    CHECK_EQ(eventfd(1, EFD_CLOEXEC), fd);
    /* The caller believes that it is still registered. */
    CHECK_EQ(gy_pollset_modify(&test.set, fd, EPOLLIN, EPOLLIN | EPOLLOUT), 0);
    TURN_UNTIL(&test.loop, test.calls[fd] > 0);
    CHECK_EQ(test.masks[fd], EPOLLIN | EPOLLOUT);
    /* And the other way round: the caller believes that it is not. */
    CHECK_EQ(gy_pollset_modify(&test.set, fd, 0, EPOLLIN), 0);
    test.masks[fd] = 0;
    TURN_UNTIL(&test.loop, test.masks[fd] == EPOLLIN);
    /* Closed while a copy keeps the file open, then removed by its number: not an error. */
    copy = dup(fd);
    CHECK_EQ(close(fd), 0);
    CHECK_EQ(gy_pollset_modify(&test.set, fd, EPOLLIN, 0), 0);
    CHECK_EQ(dup2(copy, fd), fd);
    close(copy);
    set_end(&test);
}

/* A callback removes all the others: not one of them is called in the same pass any more. */
static void
test_set_removed_in_the_pass(void)
{
    static struct set_test test;
    set_begin(&test);
    set_add_eventfds(&test, 20, 1);
    test.remove_all_but = 0;
    TURN_UNTIL(&test.loop, test.total > 0);
    CHECK_EQ(test.total, 1);
    CHECK_EQ(test.set.count, 1);
    TURN_UNTIL(&test.loop, test.total == 4);
    for (int i = 0; i < test.count; i++)
        CHECK(test.calls[test.fds[i]] == 0 || test.calls[test.fds[i]] == 4);
    set_end(&test);
}

static void
test_set_interrupted_and_closed_in_a_callback(void)
{
    static struct set_test test;
    set_begin(&test);
    set_add_eventfds(&test, 20, 1);
    test.interrupt = true;
    TURN_UNTIL(&test.loop, test.total > 0);
    CHECK_EQ(test.total, 1);
    test.interrupt = false;
    test.loop.interrupted = false;
    TURN_UNTIL(&test.loop, test.total >= 21);
    test.total = 0;
    test.close_set = true;
    TURN_UNTIL(&test.loop, test.total > 0);
    CHECK_EQ(test.total, 1);
    CHECK(gy_pollset_closed(&test.set));
    for (int i = 0; i < 3; i++)
        (void)gy_test_turn(&test.loop, 0);
    CHECK_EQ(test.total, 1);
    set_end(&test);
}

static void
test_set_over_runs(void)
{
    static struct set_test test;
    set_begin(&test);
    set_add_eventfds(&test, 1, 0);
    (void)gy_test_turn(&test.loop, 0);
    CHECK_EQ(gy_loop_quiesce(&test.loop, GY_NS_PER_SECOND), 0);
    gy_sys_eventfd_add(test.fds[0]);
    set_add_eventfds(&test, 1, 1); /* outside of a run */
    CHECK_EQ(test.total, 0);
    CHECK_EQ(gy_loop_begin(&test.loop), 0);
    TURN_UNTIL(&test.loop, test.calls[test.fds[0]] > 0 && test.calls[test.fds[1]] > 0);
    test.read_it = true;
    TURN_UNTIL(&test.loop, !gy_op_is_idle(&test.set.poll.op));
    /* Closed while its poll is in flight, and the loop comes to rest before that has ended. */
    (void)gy_loop_poll(&test.loop, true);
    CHECK(!gy_pollset_close(&test.set));
    CHECK_EQ(gy_loop_quiesce(&test.loop, GY_NS_PER_SECOND), 0);
    CHECK(gy_pollset_close(&test.set));
    CHECK(gy_pollset_closed(&test.set));
    CHECK_EQ(gy_loop_begin(&test.loop), 0);
    set_end(&test);
}

static const struct gy_test tests[] = {
    GY_TEST(test_ready_now_and_later),
    GY_TEST(test_errors_of_the_descriptor),
    GY_TEST(test_cancel),
    GY_TEST(test_quiesce_keeps_what_is_wanted),
    GY_TEST(test_cancel_that_lands_in_a_quiesce_is_told_later),
    GY_TEST(test_many),
    GY_TEST(test_set_is_level_triggered),
    GY_TEST(test_set_of_many),
    GY_TEST(test_set_looks_again),
    GY_TEST(test_set_looks_in_the_next_run),
    GY_TEST(test_set_directions),
    GY_TEST(test_set_refusals),
    GY_TEST(test_set_number_comes_back),
    GY_TEST(test_set_removed_in_the_pass),
    GY_TEST(test_set_interrupted_and_closed_in_a_callback),
    GY_TEST(test_set_over_runs),
};
GY_TEST_MAIN(tests)
