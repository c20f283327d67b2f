/* test_wakeup.c: no wakeup is lost, few are sent. */
#include "gy_test.h"
#include "wakeup.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/time.h>

enum { PRODUCERS = 3, MESSAGES = 30000 };

struct inbox {
    struct gy_loop *loop;
    atomic_uint_fast64_t put;
    atomic_uint_fast64_t calls;
};

static void *
produce(void *argument)
{
    struct inbox *inbox = argument;
    unsigned seed = (unsigned)(uintptr_t)&seed;
    for (int i = 0; i < MESSAGES; i++) {
        atomic_fetch_add_explicit(&inbox->put, 1, memory_order_relaxed);
        gy_wakeup_send(&inbox->loop->wakeup);
        atomic_fetch_add_explicit(&inbox->calls, 1, memory_order_relaxed);
        if (rand_r(&seed) % 16 == 0)
            sched_yield();
        if (rand_r(&seed) % 512 == 0)
            usleep(100);
    }
    return NULL;
}

/* The consumer waits without a limit: a lost wakeup is a hang, which the runner's alarm ends. */
static void
hammer(int64_t spin_ns)
{
    struct gy_loop loop;
    struct inbox inbox = {.loop = &loop};
    pthread_t threads[PRODUCERS];
    uint64_t taken = 0;
    uint64_t sleeps = 0;
    uint64_t sent;
    gy_test_skip_under_valgrind(VALGRIND_WAITS_ALONE);
    gy_test_loop_begin(&loop);
    gy_spin_init(&loop.spin, spin_ns, true);
    for (int i = 0; i < PRODUCERS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, produce, &inbox), 0);
    while (taken < PRODUCERS * MESSAGES) {
        gy_loop_prepare_wait(&loop);
        if (atomic_load_explicit(&inbox.put, memory_order_relaxed) == taken) {
            int err = gy_loop_wait(&loop, GY_NS_NEVER);
            CHECK(err == 0 || err == -EINTR);
            sleeps++;
        }
        gy_loop_finish_wait(&loop);
        CHECK_LE(loop.inflight, 1);
        (void)gy_loop_reap(&loop);
        taken = atomic_load_explicit(&inbox.put, memory_order_relaxed);
    }
    for (int i = 0; i < PRODUCERS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    sent = atomic_load(&loop.wakeup.sent);
    CHECK_LT(0, sleeps);
    CHECK_LE(sent, loop.counters.waits); /* at most one write per sleep */
    CHECK_EQ(atomic_load(&inbox.calls), PRODUCERS * MESSAGES);
    fprintf(stderr, "%d messages, %" PRIu64 " sleeps, %" PRIu64 " writes\n", PRODUCERS * MESSAGES,
            sleeps, sent);
    gy_test_loop_end(&loop);
}

static void
test_threads_hammering(void)
{
    hammer(0);
}

/* Short looks, so that wakers also meet the step from looking to sleeping. */
static void
test_threads_hammering_a_looking_loop(void)
{
    hammer(2000);
}

static void
test_awake_loop_costs_no_write(void)
{
    struct gy_loop loop;
    gy_test_loop_begin(&loop);
    for (int i = 0; i < 1000; i++)
        gy_wakeup_send(&loop.wakeup);
    CHECK_EQ(atomic_load(&loop.wakeup.sent), 0);
    CHECK_EQ(gy_test_turn(&loop, 0), 0);
    gy_loop_prepare_wait(&loop);
    for (int i = 0; i < 1000; i++)
        gy_wakeup_send(&loop.wakeup);
    CHECK_EQ(atomic_load(&loop.wakeup.sent), 1);
    gy_loop_finish_wait(&loop); /* instead of the wait */
    TURN_UNTIL(&loop, gy_op_is_idle(&loop.wakeup.op));
    gy_test_loop_end(&loop);
}

static void
test_read_stays_armed_between_waits(void)
{
    struct gy_loop loop;
    uint64_t submitted;
    gy_test_loop_begin(&loop);
    (void)gy_test_turn(&loop, 1000);
    submitted = loop.counters.ops_submitted;
    CHECK_EQ(submitted, 1);
    for (int i = 0; i < 5; i++)
        (void)gy_test_turn(&loop, 1000);
    CHECK_EQ(loop.counters.ops_submitted, submitted);
    CHECK_EQ(loop.inflight, 1);
    gy_test_loop_end(&loop);
}

static struct gy_wakeup *signal_wakeup;

static void
on_signal(int signal_number)
{
    GY_UNUSED(signal_number);
    gy_wakeup_send(signal_wakeup);
}

/* A handler that wakes the loop keeps errno, and the wait ends: by -EINTR or by the event. */
static void
test_from_a_signal_handler(void)
{
    struct gy_loop loop;
    struct itimerval interval = {.it_value.tv_usec = 20000};
    int err;
    gy_test_skip_under_valgrind(VALGRIND_WAITS_ALONE);
    gy_test_loop_begin(&loop);
    signal_wakeup = &loop.wakeup;
    CHECK(signal(SIGVTALRM, on_signal) != SIG_ERR);
    gy_loop_prepare_wait(&loop);
    errno = 1234;
    CHECK_EQ(raise(SIGVTALRM), 0);
    CHECK_EQ(errno, 1234);
    CHECK_EQ(atomic_load(&loop.wakeup.sent), 1);
    err = gy_loop_wait(&loop, GY_NS_NEVER);
    CHECK(err == 0 || err == -EINTR);
    gy_loop_finish_wait(&loop);
    TURN_UNTIL(&loop, gy_op_is_idle(&loop.wakeup.op));
    alarm(0);
    CHECK(signal(SIGALRM, on_signal) != SIG_ERR);
    CHECK_EQ(setitimer(ITIMER_REAL, &interval, NULL), 0);
    gy_loop_prepare_wait(&loop);
    err = gy_loop_wait(&loop, GY_NS_NEVER);
    gy_loop_finish_wait(&loop);
    CHECK(err == 0 || err == -EINTR);
    CHECK_EQ(atomic_load(&loop.wakeup.sent), 2);
    gy_test_loop_end(&loop);
}

static const struct gy_test tests[] = {
    GY_TEST(test_threads_hammering),         GY_TEST(test_threads_hammering_a_looking_loop),
    GY_TEST(test_awake_loop_costs_no_write), GY_TEST(test_read_stays_armed_between_waits),
    GY_TEST(test_from_a_signal_handler),
};
GY_TEST_MAIN(tests)
