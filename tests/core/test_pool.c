/* test_pool.c: the threads for calls that block: bounds, cancelling, their end. */
#include "gy_test.h"
#include "pool.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

static atomic_uint runs;
static atomic_uint running;
static atomic_uint most;
static atomic_bool hold;
static atomic_uint signals_open;

struct job {
    struct gy_pool_job job;
    unsigned number;
};

static void
run(struct gy_pool_job *job)
{
    sigset_t blocked;
    unsigned now = atomic_fetch_add(&running, 1) + 1;
    unsigned seen = most;
    GY_UNUSED(job);
    while (seen < now && !atomic_compare_exchange_weak(&most, &seen, now)) {
    }
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    if (!sigismember(&blocked, SIGTERM) || !sigismember(&blocked, SIGCHLD))
        signals_open++;
    while (hold)
        usleep(100);
    atomic_fetch_sub(&running, 1);
    runs++;
}

static void
drop(struct gy_pool_job *job)
{
    gy_free(container_of(job, struct job, job));
}

static struct job *
submit(struct gy_pool *pool, unsigned number)
{
    struct job *job = gy_alloc(sizeof *job);
    CHECK(job != NULL);
    job->job.run = run;
    job->job.drop = drop;
    job->number = number;
    gy_pool_submit(pool, &job->job);
    return job;
}

static unsigned
take_all(struct gy_pool *pool, unsigned count)
{
    unsigned taken = 0;
    while (taken < count) {
        struct pollfd readable = {.fd = gy_pool_fd(pool), .events = POLLIN};
        struct gy_pool_job *job;
        CHECK_EQ(poll(&readable, 1, 10000), 1);
        while ((job = gy_pool_take(pool)) != NULL) {
            gy_free(container_of(job, struct job, job));
            taken++;
        }
        CHECK(!gy_pool_has_done(pool) || taken < count);
    }
    return taken;
}

static void
bounded(void)
{
    struct gy_pool *pool;
    CHECK_EQ(gy_pool_create(&pool), 0);
    hold = true;
    for (unsigned i = 0; i < 100; i++)
        (void)submit(pool, i);
    for (unsigned i = 0; i < 10000 && running < GY_POOL_THREADS_MAX; i++)
        usleep(100);
    CHECK_EQ(running, GY_POOL_THREADS_MAX);
    hold = false;
    CHECK_EQ(take_all(pool, 100), 100);
    CHECK_EQ(runs, 100);
    CHECK_EQ(most, GY_POOL_THREADS_MAX);
    CHECK_EQ(signals_open, 0);
    gy_pool_destroy(pool, false);
}

static void
cancels_what_has_not_begun(void)
{
    struct gy_pool *pool;
    struct job *jobs[GY_POOL_THREADS_MAX + 3];
    CHECK_EQ(gy_pool_create(&pool), 0);
    hold = true;
    for (unsigned i = 0; i < GY_POOL_THREADS_MAX + 3; i++)
        jobs[i] = submit(pool, i);
    for (unsigned i = 0; i < 10000 && running < GY_POOL_THREADS_MAX; i++)
        usleep(100);
    CHECK(!gy_pool_cancel(pool, &jobs[0]->job));
    CHECK(gy_pool_cancel(pool, &jobs[GY_POOL_THREADS_MAX + 1]->job));
    gy_free(jobs[GY_POOL_THREADS_MAX + 1]);
    hold = false;
    CHECK_EQ(take_all(pool, GY_POOL_THREADS_MAX + 2), GY_POOL_THREADS_MAX + 2);
    CHECK_EQ(runs, GY_POOL_THREADS_MAX + 2);
    gy_pool_destroy(pool, false);
}

/* Destroyed in the middle of jobs: nobody waits, what runs ends by itself, the rest never runs. */
static void
destroyed_while_jobs_run(void)
{
    struct gy_pool *pool;
    CHECK_EQ(gy_pool_create(&pool), 0);
    hold = true;
    for (unsigned i = 0; i < 50; i++)
        (void)submit(pool, i);
    for (unsigned i = 0; i < 10000 && running < GY_POOL_THREADS_MAX; i++)
        usleep(100);
    gy_pool_destroy(pool, false);
    CHECK_EQ(running, GY_POOL_THREADS_MAX);
    hold = false;
    for (unsigned i = 0; i < 10000 && runs < GY_POOL_THREADS_MAX; i++)
        usleep(100);
    CHECK_EQ(runs, GY_POOL_THREADS_MAX);
    usleep(1000); /* the last one frees the pool */
}

static void
without_threads(void)
{
#if GY_FAULTS
    struct gy_pool *pool;
    CHECK_EQ(gy_pool_create(&pool), 0);
    gy_fault_arm(GY_FAULT_SYSCALL, 1, -EAGAIN);
    (void)submit(pool, 0); /* at once, here */
    CHECK(gy_fault_fired(GY_FAULT_SYSCALL));
    CHECK_EQ(runs, 1);
    CHECK_EQ(take_all(pool, 1), 1);
    (void)submit(pool, 1);
    CHECK_EQ(take_all(pool, 1), 1);
    gy_pool_destroy(pool, false);
    for (unsigned nth = 1; nth < 3; nth++) {
        gy_fault_arm(GY_FAULT_SYSCALL, nth, -EMFILE);
        if (gy_pool_create(&pool) == 0)
            gy_pool_destroy(pool, false);
        gy_fault_arm(GY_FAULT_SYSCALL, 0, 0);
    }
    gy_fault_arm(GY_FAULT_ALLOC, 1, -ENOMEM);
    CHECK_EQ(gy_pool_create(&pool), -ENOMEM);
#else
    SKIP("built without faults");
#endif
}

/* A child has the memory and none of the threads. */
static void
after_a_fork(void)
{
    struct gy_pool *pool;
    int status;
    pid_t child;
    CHECK_EQ(gy_pool_create(&pool), 0);
    (void)submit(pool, 0);
    CHECK_EQ(take_all(pool, 1), 1);
    child = fork();
    if (child == 0) {
        gy_pool_destroy(pool, true);
        _exit(0);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    (void)submit(pool, 1);
    CHECK_EQ(take_all(pool, 1), 1);
    gy_pool_destroy(pool, false);
}

static const struct gy_test tests[] = {
    GY_TEST(bounded),
    GY_TEST(cancels_what_has_not_begun),
    GY_TEST(destroyed_while_jobs_run),
    GY_TEST(without_threads),
    GY_TEST(after_a_fork),
};

GY_TEST_MAIN(tests)
