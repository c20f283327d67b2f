/* ring_epoll_pool.c: what the ring on epoll cannot do without blocking runs in threads.
 *
 * A job has a copy of the SQE and knows its request by address; what the SQE points to belongs to
 * the owner of the operation until its terminal event.  The pool is made for the first job.
 * Invariant: a request with a job is in no list of a descriptor. */
#include "ring_epoll.h"
#include "sys.h"
#include "sys_file.h"

#include <errno.h>
#include <sys/epoll.h>

struct gy_epoll_job {
    struct gy_pool_job job;
    struct gy_epoll_request *request;
    int32_t res;
    struct io_uring_sqe sqe;
};

static void
run(struct gy_pool_job *job)
{
    struct gy_epoll_job *mine = container_of(job, struct gy_epoll_job, job);
    mine->res = gy_sys_file(&mine->sqe);
}

/* Its ring is gone: a descriptor that an open brings has no owner. */
static void
drop(struct gy_pool_job *job)
{
    struct gy_epoll_job *mine = container_of(job, struct gy_epoll_job, job);
    if (mine->sqe.opcode == IORING_OP_OPENAT && mine->res >= 0)
        gy_sys_close(mine->res);
    gy_free(mine);
}

static GY_COLD int
make_pool(struct gy_epoll *epoll)
{
    struct gy_pool *pool;
    int err = gy_pool_create(&pool);
    if (err < 0)
        return err;
    err = gy_sys_epoll_set(epoll->epoll_fd, EPOLL_CTL_ADD, gy_pool_fd(pool),
                           EPOLLIN | (uint32_t)EPOLLET, GY_EPOLL_POOL_TAG);
    if (err < 0) {
        gy_pool_destroy(pool, false);
        return err;
    }
    epoll->pool = pool;
    return 0;
}

int
gy_epoll_pool_start(struct gy_epoll *epoll, struct gy_epoll_request *request,
                    const struct io_uring_sqe *sqe)
{
    struct gy_epoll_job *job;
    GY_ASSERT(request->job == NULL);
    if (GY_UNLIKELY(epoll->pool == NULL)) {
        int err = make_pool(epoll);
        if (err < 0)
            return err;
    }
    job = gy_alloc(sizeof *job);
    if (job == NULL)
        return -ENOMEM;
    job->job.run = run;
    job->job.drop = drop;
    job->res = -ECANCELED;
    job->request = request;
    job->sqe = *sqe;
    request->job = job;
    gy_pool_submit(epoll->pool, &job->job);
    return 0;
}

bool
gy_epoll_pool_cancel(struct gy_epoll *epoll, struct gy_epoll_request *request)
{
    struct gy_epoll_job *job = request->job;
    GY_ASSERT(job != NULL);
    if (!gy_pool_cancel(epoll->pool, &job->job))
        return false;
    request->job = NULL;
    gy_free(job);
    return true;
}

void
gy_epoll_pool_reap(struct gy_epoll *epoll)
{
    struct gy_pool_job *done;
    while ((done = gy_pool_take(epoll->pool)) != NULL) {
        struct gy_epoll_job *job = container_of(done, struct gy_epoll_job, job);
        struct gy_epoll_request *request = job->request;
        int32_t res = job->res;
        request->job = NULL;
        gy_free(job);
        gy_epoll_end(epoll, request, res);
    }
}

void
gy_epoll_pool_deinit(struct gy_epoll *epoll, bool forked)
{
    if (epoll->pool != NULL)
        gy_pool_destroy(epoll->pool, forked);
}
