/* test_loop.c: turns, timers, wakeups, quiesce, threads, fork, and the failures of each. */
#include "gy_test.h"
#include "poll.h"

#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/poll.h>
#include <sys/time.h>
#include <sys/wait.h>

#define MS_NS INT64_C(1000000)

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

/* ---- turns ---- */

static void
ignore_signal(int signal_number)
{
    GY_UNUSED(signal_number);
}

static void
test_waits(void)
{
    struct gy_loop loop;
    int64_t deadline_ns;
    int err;
    gy_test_loop_begin(&loop);
    for (int64_t wait_ns = 1; wait_ns < 4 * MS_NS; wait_ns *= 7) {
        gy_loop_prepare_wait(&loop);
        deadline_ns = gy_loop_now_ns(&loop) + wait_ns;
        err = gy_loop_wait(&loop, deadline_ns);
        CHECK(err == 0 || err == -EINTR);
        CHECK_LE(deadline_ns, gy_loop_now_ns(&loop)); /* never early */
        gy_loop_finish_wait(&loop);
        (void)gy_loop_reap(&loop);
    }
    gy_loop_prepare_wait(&loop);
    deadline_ns = gy_loop_now_ns(&loop);
    CHECK_EQ(gy_loop_wait(&loop, deadline_ns - GY_NS_PER_SECOND), 0); /* passed long ago */
    CHECK_EQ(gy_loop_wait(&loop, 0), 0);
    CHECK_EQ(gy_loop_wait(&loop, -1), 0);
    CHECK_LT(gy_loop_now_ns(&loop), deadline_ns + GY_NS_PER_SECOND);
    gy_loop_finish_wait(&loop);
    gy_test_loop_end(&loop);
}

static void
test_signals_end_a_wait(void)
{
    struct gy_loop loop;
    struct itimerval interval = {.it_value.tv_usec = 10000};
    gy_test_skip_under_valgrind(VALGRIND_WAITS_ALONE);
    gy_test_loop_begin(&loop);
    alarm(0);
    CHECK(signal(SIGALRM, ignore_signal) != SIG_ERR);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(setitimer(ITIMER_REAL, &interval, NULL), 0);
        gy_loop_prepare_wait(&loop);
        CHECK_EQ(gy_loop_wait(&loop, GY_NS_NEVER), -EINTR);
        gy_loop_finish_wait(&loop);
        (void)gy_loop_reap(&loop);
    }
    gy_test_loop_end(&loop);
}

/* A turn with nothing to do makes no system call; force makes one. */
static void
test_poll_enters_only_when_needed(void)
{
    struct gy_loop loop;
    struct watch watch;
    int fd = eventfd(0, EFD_CLOEXEC);
    uint64_t enters;
    gy_test_loop_begin(&loop);
    CHECK_EQ(gy_loop_poll(&loop, false), 0);
    CHECK_EQ(loop.ring->counters.enters, 0);
    watch_start(&loop, &watch, fd);
    CHECK_EQ(gy_loop_poll(&loop, false), 0);
    CHECK_EQ(loop.ring->counters.enters, 1);
    if (gy_test_on_epoll()) { /* nothing is flagged there: it looks from time to time */
        gy_sys_eventfd_add(fd);
        while (loop.ring->counters.enters == 1)
            CHECK_EQ(gy_loop_poll(&loop, false), 0);
    } else {
        for (int i = 0; i < 5; i++)
            CHECK_EQ(gy_loop_poll(&loop, false), 0);
        CHECK_EQ(loop.ring->counters.enters, 1);
        gy_sys_eventfd_add(fd);
        CHECK_EQ(gy_loop_poll(&loop, false), 0); /* the kernel flagged its deferred work */
    }
    CHECK_EQ(gy_loop_reap(&loop), 1);
    CHECK_EQ(watch.calls, 1);
    enters = loop.ring->counters.enters;
    CHECK_EQ(enters, 2);
    CHECK_EQ(gy_loop_poll(&loop, true), 0);
    CHECK_EQ(loop.ring->counters.enters, 3);
    gy_test_loop_end(&loop);
    close(fd);
}

static void
test_begin_and_close_twice(void)
{
    struct gy_loop loop;
    int64_t now_ns;
    gy_test_loop_begin(&loop);
    CHECK_EQ(gy_loop_begin(&loop), -EBUSY);
    CHECK_EQ(gy_loop_quiesce(&loop, MS_NS), 0);
    CHECK_EQ(gy_loop_quiesce(&loop, MS_NS), 0);
    gy_loop_close(&loop);
    gy_loop_close(&loop);
    CHECK(!gy_loop_forked(&loop));
    now_ns = gy_loop_now_ns(&loop); /* the clock goes on */
    CHECK_LE(now_ns, gy_sys_now_ns());
    CHECK_LT(gy_sys_now_ns() - now_ns, GY_NS_PER_SECOND);
    gy_wakeup_send(&loop.wakeup); /* a thread that comes late */
}

/* Closed in the middle: the loop comes to rest by itself, and the polls are theirs again. */
static void
test_close_while_running(void)
{
    struct gy_loop loop;
    struct watch watches[10];
    struct gy_timer timer;
    int fd = eventfd(0, EFD_CLOEXEC);
    gy_test_loop_begin(&loop);
    for (int i = 0; i < 10; i++)
        watch_start(&loop, &watches[i], fd);
    gy_timer_init(&timer, GY_TIMER_HOST);
    CHECK_EQ(gy_timers_add(&loop.timers, &timer, GY_NS_NEVER), 0);
    (void)gy_test_turn(&loop, 0);
    CHECK_EQ(loop.inflight, 10);
    gy_loop_close(&loop);
    CHECK_EQ(loop.inflight, 0);
    CHECK(!gy_timer_is_set(&timer));
    for (int i = 0; i < 10; i++) {
        CHECK_EQ(watches[i].calls, 0);
        CHECK(gy_op_is_idle(&watches[i].poll.op));
        CHECK(!gy_list_linked(&watches[i].poll.op.link));
    }
    close(fd);
}

static void
test_never_begun(void)
{
    struct gy_loop loop;
    struct gy_ring_options options = gy_test_options();
    struct watch watch;
    gy_test_need_ring();
    CHECK_EQ(gy_loop_init(&loop, &options, gy_test_create), 0);
    watch_start(&loop, &watch, 0);
    gy_wakeup_send(&loop.wakeup);
    gy_loop_close(&loop);
    CHECK(gy_op_is_idle(&watch.poll.op));
}

/* ---- threads ---- */

struct run {
    struct gy_loop *loop;
    struct watch *watch;
    int fd;
    int begin_result;
};

static void *
run_in_thread(void *argument)
{
    struct run *run = argument;
    unsigned calls = run->watch->calls;
    run->begin_result = gy_loop_begin(run->loop);
    if (run->begin_result < 0)
        return NULL;
    (void)gy_test_turn(run->loop, 0);
    CHECK_EQ(run->watch->calls, calls);
    gy_sys_eventfd_add(run->fd);
    TURN_UNTIL(run->loop, run->watch->calls == calls + 1);
    gy_poll_start(run->loop, &run->watch->poll, run->fd, POLLIN);
    (void)eventfd_read(run->fd, &(eventfd_t){0});
    (void)gy_test_turn(run->loop, 0);
    CHECK_EQ(gy_loop_quiesce(run->loop, GY_NS_PER_SECOND), 0);
    return NULL;
}

/* Run after run, each in another thread (glibc gives most of them the same pthread_t); what is
 * wanted follows. */
static void
test_runs_in_other_threads(void)
{
    struct gy_loop loop;
    struct watch watch;
    struct run run = {.loop = &loop, .watch = &watch, .fd = eventfd(0, EFD_CLOEXEC)};
    uint64_t enters = 0;
    gy_test_loop_begin(&loop);
    watch_start(&loop, &watch, run.fd);
    (void)gy_test_turn(&loop, 0);
    CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 0);
    for (unsigned i = 0; i < 6; i++) {
        pthread_t thread;
        CHECK_EQ(pthread_create(&thread, NULL, run_in_thread, &run), 0);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        CHECK_EQ(run.begin_result, 0);
        CHECK_EQ(watch.calls, i + 1);
        CHECK_LT(enters, loop.ring->counters.enters); /* counters go on over rings */
        enters = loop.ring->counters.enters;
    }
    CHECK_EQ(gy_loop_begin(&loop), 0);
    gy_sys_eventfd_add(run.fd);
    TURN_UNTIL(&loop, watch.calls == 7);
    gy_test_loop_end(&loop);
    close(run.fd);
}

static void *
close_in_thread(void *loop)
{
    gy_loop_close(loop);
    return NULL;
}

static void
test_closed_in_another_thread(void)
{
    struct gy_loop loop;
    pthread_t thread;
    gy_test_loop_begin(&loop);
    for (int i = 0; i < 200; i++) /* long enough to register the descriptor */
        (void)gy_test_turn(&loop, 0);
    CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 0);
    CHECK_EQ(pthread_create(&thread, NULL, close_in_thread, &loop), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK(loop.closed);
}

/* ---- fork ---- */

static void
in_forked_child(struct gy_loop *loop, struct watch *watch)
{
    struct gy_loop own;
    struct watch own_watch;
    int fd = eventfd(0, EFD_CLOEXEC);
    CHECK(gy_loop_forked(loop));
    CHECK_EQ(gy_loop_poll(loop, true), -ECHILD);
    gy_loop_prepare_wait(loop);
    CHECK_EQ(gy_loop_wait(loop, GY_NS_NEVER), -ECHILD);
    gy_loop_finish_wait(loop);
    CHECK_EQ(gy_loop_reap(loop), 0);
    CHECK(!gy_poll_cancel(loop, &watch->poll));
    (void)gy_loop_quiesce(loop, GY_NS_PER_SECOND);
    CHECK_EQ(gy_loop_begin(loop), -ECHILD);
    /* What the child maps now may lie where the parent's ring was: the close must not touch it. */
    gy_test_loop_begin(&own);
    gy_loop_close(loop);
    CHECK(loop->closed);
    watch_start(&own, &own_watch, fd);
    (void)gy_test_turn(&own, 0);
    gy_sys_eventfd_add(fd);
    TURN_UNTIL(&own, own_watch.calls == 1);
    gy_test_loop_end(&own);
    close(fd);
}

static void
test_fork(void)
{
    gy_test_skip_under_valgrind("valgrind does not know that the child lacks the ring's memory");
    for (int running = 0; running < 2; running++) {
        struct gy_loop loop;
        struct watch watch;
        int fd = eventfd(0, EFD_CLOEXEC);
        int status = 0;
        pid_t pid;
        gy_test_loop_begin(&loop);
        watch_start(&loop, &watch, fd);
        (void)gy_test_turn(&loop, 0);
        (void)gy_test_turn(&loop, MS_NS); /* the wakeup is armed, too */
        pid = fork();
        if (pid == 0) {
            in_forked_child(&loop, &watch);
            exit(0);
        }
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK_EQ(status, 0);
        /* The parent has noticed nothing. */
        CHECK(!gy_loop_forked(&loop));
        CHECK_EQ(loop.inflight, 2);
        gy_sys_eventfd_add(fd);
        TURN_UNTIL(&loop, watch.calls == 1);
        gy_loop_prepare_wait(&loop);
        gy_wakeup_send(&loop.wakeup);
        CHECK_EQ(gy_loop_wait(&loop, GY_NS_NEVER), 0);
        gy_loop_finish_wait(&loop);
        gy_test_loop_end(&loop);
        close(fd);
    }
}

/* The child of a fork in a callback goes on in the middle of a reap. */
static struct gy_loop *fork_loop;

static void
fork_ready(struct gy_poll *poll, int res)
{
    GY_UNUSED(res);
    watch_ready(poll, res);
    if (fork() == 0)
        gy_poll_start(fork_loop, poll, poll->fd, poll->mask);
}

static const struct gy_poll_host fork_host = {.ready = fork_ready};

static void
test_fork_in_a_callback(void)
{
    struct gy_loop loop;
    struct watch watches[3];
    int fd = eventfd(1, EFD_CLOEXEC);
    int status = 0;
    gy_test_loop_begin(&loop);
    fork_loop = &loop;
    for (int i = 0; i < 3; i++)
        watch_start(&loop, &watches[i], fd);
    watches[0].poll.host = &fork_host;
    CHECK_EQ(gy_loop_poll(&loop, true), 0);
    if (gy_loop_reap(&loop) == 1) { /* in the child: it stops at once */
        bool forked = gy_loop_forked(&loop);
        gy_loop_close(&loop);
        exit(forked && loop.closed ? 0 : 1);
    }
    CHECK_EQ(wait(&status) > 0, 1);
    CHECK_EQ(status, 0);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(watches[i].calls, 1);
    gy_test_loop_end(&loop);
    close(fd);
}

/* ---- failures ---- */

#if GY_FAULTS
/* A life with everything in it.  0, or the first error that it met; either way nothing is left. */
static int
live(int fd)
{
    struct gy_loop loop;
    struct gy_ring_options options = gy_test_options();
    struct watch watch;
    struct gy_pollset set;
    static const struct gy_pollset_host set_host = {.ready = NULL};
    int err = gy_loop_init(&loop, &options, gy_test_create);
    if (err < 0)
        return err;
    err = gy_loop_begin(&loop);
    if (err < 0) {
        gy_loop_close(&loop);
        return err;
    }
    watch_start(&loop, &watch, fd);
    gy_pollset_init(&set, &loop, &set_host);
    err = gy_pollset_modify(&set, fd, 0, EPOLLOUT);
    if (err == 0)
        err = gy_pollset_modify(&set, fd, EPOLLOUT, 0);
    for (int i = 0; err == 0 && i < 4; i++) {
        gy_loop_prepare_wait(&loop);
        err = gy_loop_wait(&loop, gy_loop_now_ns(&loop) + MS_NS / 10);
        gy_loop_finish_wait(&loop);
        (void)gy_loop_reap(&loop);
        if (err == -EINTR)
            err = 0; /* the embedder runs its signal handlers and goes on */
    }
    (void)gy_pollset_close(&set);
    CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 0);
    CHECK(gy_pollset_close(&set));
    CHECK(gy_poll_cancel(&loop, &watch.poll));
    gy_loop_close(&loop);
    return err;
}

/* Each place fails once; at least one failure must have come out. */
static void
live_with_failures(enum gy_fault_kind kind, int error)
{
    int fd = eventfd(0, EFD_CLOEXEC);
    unsigned before = gy_test_open_descriptors();
    unsigned failures = 0;
    for (uint32_t nth = 1; nth < 1000; nth++) {
        int err;
        gy_fault_arm(kind, nth, error);
        err = live(fd);
        CHECK_EQ(gy_test_open_descriptors(), before);
        if (!gy_fault_fired(kind)) {
            CHECK_EQ(err, 0);
            break;
        }
        CHECK(err == 0 || err == error);
        failures += err != 0;
        CHECK_LT(nth, 999);
    }
    gy_fault_arm(kind, 0, 0);
    CHECK_LT(0, failures);
    close(fd);
}
#endif

static void
test_nth_failure(void)
{
#if GY_FAULTS
    gy_test_need_ring();
    live_with_failures(GY_FAULT_ALLOC, -ENOMEM);
    live_with_failures(GY_FAULT_SYSCALL, -EMFILE);
    live_with_failures(GY_FAULT_RING, -EMFILE);
    live_with_failures(GY_FAULT_RING, -EINTR);
    live_with_failures(GY_FAULT_RING, -EPERM);
#else
    SKIP("built without fault injection");
#endif
}

/* Failures that are got over by themselves: smaller queues, another enter. */
static void
test_nth_passing_failure(void)
{
#if GY_FAULTS
    static const int errors[] = {-EAGAIN, -EBUSY, -ENOMEM};
    int fd = eventfd(0, EFD_CLOEXEC);
    struct gy_loop loop;
    struct watch watch;
    gy_test_need_uring(); /* epoll knows no such failures */
    for (unsigned i = 0; i < 3; i++) {
        for (uint32_t nth = 1; nth < 30; nth++) {
            gy_test_loop_begin(&loop);
            watch_start(&loop, &watch, fd);
            if (errors[i] != -ENOMEM)
                gy_fault_arm(GY_FAULT_RING, nth, errors[i]);
            for (int turn = 0; turn < 4; turn++)
                (void)gy_test_turn(&loop, MS_NS / 10);
            gy_sys_eventfd_add(fd);
            TURN_UNTIL(&loop, watch.calls == 1);
            (void)eventfd_read(fd, &(eventfd_t){0});
            gy_fault_arm(GY_FAULT_RING, 0, 0);
            gy_test_loop_end(&loop);
        }
    }
    close(fd);
#else
    SKIP("built without fault injection");
#endif
}

/* A new thread's ring cannot be made: the loop is as before, and runs in its old thread. */
static void
test_new_ring_fails(void)
{
#if GY_FAULTS
    struct gy_loop loop;
    struct watch watch;
    struct run run = {.loop = &loop, .watch = &watch, .fd = eventfd(0, EFD_CLOEXEC)};
    pthread_t thread;
    gy_test_loop_begin(&loop);
    watch_start(&loop, &watch, run.fd);
    (void)gy_test_turn(&loop, 0);
    CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 0);
    gy_fault_arm(GY_FAULT_RING, 1, -EMFILE);
    CHECK_EQ(pthread_create(&thread, NULL, run_in_thread, &run), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(run.begin_result, -EMFILE);
    CHECK_LE(0, gy_loop_now_ns(&loop));
    CHECK_EQ(gy_loop_begin(&loop), 0);
    gy_sys_eventfd_add(run.fd);
    TURN_UNTIL(&loop, watch.calls == 1);
    gy_test_loop_end(&loop);
    close(run.fd);
#else
    SKIP("built without fault injection");
#endif
}

/* A ring that cannot be set up leaves a loop that begins later, or on another ring, with what was
 * submitted meanwhile. */
static void
test_begin_fails(void)
{
#if GY_FAULTS
    gy_test_need_ring();
    for (int other = 0; other < 2; other++) {
        struct gy_ring_options options = gy_test_options();
        struct gy_loop loop;
        struct watch watch;
        int fd = eventfd(1, EFD_CLOEXEC);
        options.late = true;
        for (int i = 0; i < 2; i++) {
            CHECK_EQ(gy_loop_init(&loop, &options, gy_test_create), 0);
            if (i == 0)
                gy_loop_close(&loop); /* the first one's ring is there at once */
        }
        watch_start(&loop, &watch, fd);
        gy_fault_arm(GY_FAULT_RING, 1, -EMFILE);
        CHECK_EQ(gy_loop_begin(&loop), -EMFILE);
        CHECK(!loop.running && !loop.enabled);
        CHECK_EQ(gy_loop_now_ns(&loop) > 0, 1);
        if (other) {
            gy_fault_arm(GY_FAULT_ALLOC, 1, -ENOMEM);
            CHECK_EQ(gy_loop_use_ring(&loop, gy_ring_epoll_create), -ENOMEM);
            CHECK_EQ(gy_loop_use_ring(&loop, gy_ring_epoll_create), 0);
            CHECK_EQ(strcmp(loop.ring->ops->name, "epoll"), 0);
        }
        CHECK_EQ(gy_loop_begin(&loop), 0);
        TURN_UNTIL(&loop, watch.calls == 1);
        gy_test_loop_end(&loop);
        close(fd);
    }
#else
    SKIP("built without fault injection");
#endif
}

static const struct gy_test tests[] = {
    GY_TEST(test_poll_timer_wakeup_turn),
    GY_TEST(test_waits),
    GY_TEST(test_signals_end_a_wait),
    GY_TEST(test_poll_enters_only_when_needed),
    GY_TEST(test_begin_and_close_twice),
    GY_TEST(test_close_while_running),
    GY_TEST(test_never_begun),
    GY_TEST(test_runs_in_other_threads),
    GY_TEST(test_closed_in_another_thread),
    GY_TEST(test_fork),
    GY_TEST(test_fork_in_a_callback),
    GY_TEST(test_nth_failure),
    GY_TEST(test_nth_passing_failure),
    GY_TEST(test_new_ring_fails),
    GY_TEST(test_begin_fails),
};
GY_TEST_MAIN(tests)
