/* pool.h: a few threads for calls that block and that the kernel cannot do for us.
 *
 * Threads are started when there is work and none idles, at most GY_POOL_THREADS_MAX; they leave
 * after they had nothing to do for a while, and when the pool is destroyed.  They block all
 * signals.  The end of jobs is told through an eventfd, once until the owner has taken them all.
 * Owner: a ring.  Thread: the owner's for all calls; `run` is called in a thread of the pool. */
#ifndef GY_POOL_H
#define GY_POOL_H

#include "list.h"

enum { GY_POOL_THREADS_MAX = 8 };

struct gy_pool;

/* The pool owns it from gy_pool_submit() until gy_pool_take() or a gy_pool_cancel() that succeeded;
 * what is left in a pool that is destroyed, it drops. */
struct gy_pool_job {
    struct gy_list link;
    void (*run)(struct gy_pool_job *job);
    void (*drop)(struct gy_pool_job *job); /* frees it, run or not; any thread */
    bool running;                          /* or done: too late to cancel */
};

/* 0 or -errno.  Starts no thread. */
int gy_pool_create(struct gy_pool **out);
/* Waits for nobody: a job that runs goes on, and its memory is freed at its end.  `forked`: in a
 * child, which has none of the threads. */
void gy_pool_destroy(struct gy_pool *pool, bool forked);

/* Never fails: where no thread can be started, the job is run at once. */
void gy_pool_submit(struct gy_pool *pool, struct gy_pool_job *job);
/* true: it has not begun and never will; it is the caller's again. */
bool gy_pool_cancel(struct gy_pool *pool, struct gy_pool_job *job);
/* One that is done, oldest first, or NULL. */
struct gy_pool_job *gy_pool_take(struct gy_pool *pool);
/* One read of memory: would gy_pool_take() give something? */
bool gy_pool_has_done(const struct gy_pool *pool);

/* An eventfd that is never read: to be watched for edges (EPOLLET), of which there is one when jobs
 * are done that were not when the owner last took them all. */
int gy_pool_fd(const struct gy_pool *pool);

#endif
