/* pool.c: see pool.h.
 *
 * One mutex; the memory is shared by the owner and the threads and goes with the last of them, so
 * that nobody waits for a thread that hangs in a call. */
#include "pool.h"
#include "fault.h"
#include "sys.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

enum {
    IDLE_SECONDS = 5,
    STACK_BYTES = 256 * 1024,
};

struct gy_pool {
    pthread_mutex_t mutex;
    pthread_cond_t work;
    struct gy_list queue;
    struct gy_list done;
    uint32_t queued;
    uint32_t threads;
    uint32_t idle;
    int fd; /* eventfd */
    bool closed;
    atomic_bool has_done;
};

static struct gy_pool_job *
job_of(struct gy_list *node)
{
    return container_of(node, struct gy_pool_job, link);
}

static void
drop_jobs(struct gy_list *head)
{
    struct gy_list *node;
    while ((node = gy_list_pop(head)) != NULL)
        job_of(node)->drop(job_of(node));
}

static void
pool_free(struct gy_pool *pool)
{
    drop_jobs(&pool->queue);
    drop_jobs(&pool->done);
    (void)pthread_cond_destroy(&pool->work);
    (void)pthread_mutex_destroy(&pool->mutex);
    gy_free(pool);
}

/* With the mutex held. */
static void
finish(struct gy_pool *pool, struct gy_pool_job *job)
{
    bool first = gy_list_empty(&pool->done);
    gy_list_append(&pool->done, &job->link);
    atomic_store_explicit(&pool->has_done, true, memory_order_release);
    if (first && !pool->closed)
        gy_sys_eventfd_add(pool->fd);
}

/* With the mutex held.  The next job, or NULL when this thread is to leave. */
static struct gy_pool_job *
next_job(struct gy_pool *pool)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += IDLE_SECONDS;
    while (!pool->closed) {
        struct gy_list *node = gy_list_pop(&pool->queue);
        int err;
        if (node != NULL) {
            pool->queued--;
            job_of(node)->running = true;
            return job_of(node);
        }
        pool->idle++;
        err = pthread_cond_timedwait(&pool->work, &pool->mutex, &until);
        pool->idle--;
        if (err != 0 && gy_list_empty(&pool->queue))
            return NULL;
    }
    return NULL;
}

static void *
thread_main(void *argument)
{
    struct gy_pool *pool = argument;
    struct gy_pool_job *job;
    bool last;
    (void)pthread_mutex_lock(&pool->mutex);
    while ((job = next_job(pool)) != NULL) {
        (void)pthread_mutex_unlock(&pool->mutex);
        job->run(job);
        (void)pthread_mutex_lock(&pool->mutex);
        finish(pool, job);
    }
    last = --pool->threads == 0 && pool->closed;
    (void)pthread_mutex_unlock(&pool->mutex);
    if (last)
        pool_free(pool);
    return NULL;
}

static int
start_thread(struct gy_pool *pool)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    pthread_t thread;
    int err = -GY_FAULT(SYSCALL);
    if (err == 0)
        err = pthread_attr_init(&attributes);
    if (err != 0)
        return -err;
    (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    (void)pthread_attr_setstacksize(&attributes, STACK_BYTES);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    err = pthread_create(&thread, &attributes, thread_main, pool);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)pthread_attr_destroy(&attributes);
    return -err;
}

int
gy_pool_create(struct gy_pool **out)
{
    struct gy_pool *pool = gy_alloc(sizeof *pool);
    pthread_condattr_t attributes;
    int fd;
    if (pool == NULL)
        return -ENOMEM;
    fd = gy_sys_eventfd();
    if (fd < 0) {
        gy_free(pool);
        return fd;
    }
    pool->fd = fd;
    gy_list_init(&pool->queue);
    gy_list_init(&pool->done);
    atomic_init(&pool->has_done, false);
    (void)pthread_mutex_init(&pool->mutex, NULL);
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&pool->work, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    *out = pool;
    return 0;
}

void
gy_pool_destroy(struct gy_pool *pool, bool forked)
{
    bool last;
    if (forked) {
        /* The mutex may have been held by a thread that is not here: the memory stays. */
        gy_sys_close(pool->fd);
        return;
    }
    (void)pthread_mutex_lock(&pool->mutex);
    pool->closed = true;
    drop_jobs(&pool->queue);
    (void)pthread_cond_broadcast(&pool->work);
    last = pool->threads == 0;
    gy_sys_close(pool->fd); /* nobody writes to it any more */
    (void)pthread_mutex_unlock(&pool->mutex);
    if (last)
        pool_free(pool);
}

void
gy_pool_submit(struct gy_pool *pool, struct gy_pool_job *job)
{
    job->running = false;
    gy_list_init(&job->link);
    (void)pthread_mutex_lock(&pool->mutex);
    if (pool->idle <= pool->queued && pool->threads < GY_POOL_THREADS_MAX) {
        pool->threads++;
        if (start_thread(pool) < 0)
            pool->threads--;
    }
    if (GY_LIKELY(pool->threads > 0)) {
        gy_list_append(&pool->queue, &job->link);
        pool->queued++;
        (void)pthread_cond_signal(&pool->work);
    } else {
        job->running = true;
        job->run(job);
        finish(pool, job);
    }
    (void)pthread_mutex_unlock(&pool->mutex);
}

bool
gy_pool_cancel(struct gy_pool *pool, struct gy_pool_job *job)
{
    bool waits;
    (void)pthread_mutex_lock(&pool->mutex);
    waits = !job->running;
    if (waits) {
        gy_list_remove(&job->link);
        pool->queued--;
    }
    (void)pthread_mutex_unlock(&pool->mutex);
    return waits;
}

struct gy_pool_job *
gy_pool_take(struct gy_pool *pool)
{
    struct gy_list *node;
    (void)pthread_mutex_lock(&pool->mutex);
    node = gy_list_pop(&pool->done);
    if (gy_list_empty(&pool->done))
        atomic_store_explicit(&pool->has_done, false, memory_order_relaxed);
    (void)pthread_mutex_unlock(&pool->mutex);
    return node != NULL ? job_of(node) : NULL;
}

bool
gy_pool_has_done(const struct gy_pool *pool)
{
    return atomic_load_explicit(&pool->has_done, memory_order_acquire);
}

int
gy_pool_fd(const struct gy_pool *pool)
{
    return pool->fd;
}
