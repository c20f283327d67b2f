/* test_loop.c: turns, timers, wakeups, quiesce, threads, fork, and the failures of each. */
#include "gy_test.h"
#include "poll.h"

#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/poll.h>
#include <sys/wait.h>

struct watch {
    struct gy_poll poll;
    unsigned calls;
    int res;
};

static void
watch_ready(struct gy_poll *poll, int res)
{
    struct watch *watch = container_of(poll, struct watch, poll);
    watch->calls++;
    watch->res = res;
}

static const struct gy_poll_host watch_host = {.ready = watch_ready};

static void
watch_start(struct gy_loop *loop, struct watch *watch, int fd)
{
    memset(watch, 0, sizeof *watch);
    gy_poll_init(&watch->poll, &watch_host);
    gy_poll_start(loop, &watch->poll, fd, POLLIN);
}

static void
test_poll_timer_wakeup_turn(void)
{
    struct gy_loop loop;
    struct watch watch;
    struct gy_timer timer;
    int64_t start_ns;
    int fd = eventfd(0, EFD_CLOEXEC);
    gy_test_loop_begin(&loop);
    watch_start(&loop, &watch, fd);
    CHECK_EQ(gy_test_turn(&loop, 0), 0);
    CHECK_EQ(watch.calls, 0);
    CHECK_EQ(loop.inflight, 1);
    gy_sys_eventfd_add(fd);
    TURN_UNTIL(&loop, watch.calls > 0);
    CHECK_EQ(watch.res, POLLIN);
    CHECK_EQ(watch.calls, 1);

    gy_timer_init(&timer, GY_TIMER_HOST);
    start_ns = gy_loop_now_ns(&loop);
    CHECK_EQ(gy_timers_add(&loop.timers, &timer, start_ns + 5 * 1000 * 1000), 0);
    CHECK(gy_loop_pop_due(&loop, start_ns) == NULL);
    gy_loop_prepare_wait(&loop);
    CHECK_EQ(gy_loop_wait(&loop, gy_timers_next_ns(&loop.timers)), 0);
    gy_loop_finish_wait(&loop);
    CHECK_LE(start_ns + 5 * 1000 * 1000, gy_loop_now_ns(&loop));
    CHECK(gy_loop_pop_due(&loop, gy_loop_now_ns(&loop)) == &timer);
    CHECK(!gy_timer_is_set(&timer));

    gy_loop_prepare_wait(&loop);
    gy_wakeup_send(&loop.wakeup);
    CHECK_EQ(gy_loop_wait(&loop, GY_NS_NEVER), 0);
    gy_loop_finish_wait(&loop);
    CHECK_EQ(gy_loop_reap(&loop), 1);
    CHECK_EQ(atomic_load(&loop.wakeup.sent), 1);
    gy_test_loop_end(&loop);
    close(fd);
}

static const struct gy_test tests[] = {
    GY_TEST(test_poll_timer_wakeup_turn),
};
GY_TEST_MAIN(tests)
