/* fileop.c: see fileop.h.
 * Invariants: done() is called exactly once for each operation that was submitted or deferred,
 * unless it was cancelled at once; never while the loop is quiet. */
#include "fileop.h"
#include "loop.h"
#include "prep.h"
#include "ring.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

static struct gy_fileop *
fileop_of(struct gy_op *op)
{
    return container_of(op, struct gy_fileop, op);
}

void
gy_fileop_init(struct gy_fileop *op, struct gy_loop *loop, const struct gy_fileop_host *host)
{
    gy_op_init(&op->op, GY_OP_FILE);
    gy_work_init(&op->work, GY_WORK_FILE);
    op->loop = loop;
    op->host = host;
    op->res = 0;
    op->cancelled = false;
    op->polling = false;
    op->again = 0;
    op->fixed = NULL;
    memset(&op->sqe, 0, sizeof op->sqe);
}

struct io_uring_sqe *
gy_fileop_sqe(struct gy_fileop *op)
{
    GY_ASSERT(!gy_fileop_busy(op));
    op->fixed = NULL;
    memset(&op->sqe, 0, sizeof op->sqe);
    return &op->sqe;
}

int32_t
gy_fileop_try(struct gy_fileop *op)
{
    struct gy_ring *ring = op->loop->ring;
    GY_ASSERT(!gy_fileop_busy(op));
    return ring->ops->file_nowait != NULL ? ring->ops->file_nowait(ring, &op->sqe) : -EAGAIN;
}

void
gy_fileop_submit(struct gy_fileop *op)
{
    GY_ASSERT(!gy_fileop_busy(op));
    op->cancelled = false;
    op->again = 0;
    gy_op_submit(op->loop, &op->op);
}

void
gy_fileop_defer(struct gy_fileop *op, int32_t res)
{
    GY_ASSERT(!gy_fileop_busy(op));
    op->cancelled = false;
    op->res = res;
    gy_list_append(&op->loop->work, &op->work.link);
}

bool
gy_fileop_busy(const struct gy_fileop *op)
{
    return !gy_op_is_idle(&op->op) || gy_list_linked(&op->work.link);
}

/* A descriptor that nobody waits for any more. */
static int32_t
drop_descriptor(struct gy_fileop *op, int32_t res)
{
    struct gy_ring *ring = op->loop->ring;
    if (op->sqe.opcode != IORING_OP_OPENAT || res < 0)
        return res;
    ring->ops->close(ring, res);
    return -ECANCELED;
}

bool
gy_fileop_cancel(struct gy_fileop *op)
{
    op->cancelled = true;
    if (gy_list_linked(&op->work.link)) {
        gy_list_remove(&op->work.link);
        (void)drop_descriptor(op, op->res);
        return true;
    }
    return gy_op_cancel(op->loop, &op->op);
}

static void
finish(struct gy_fileop *op, int32_t res)
{
    if (GY_UNLIKELY(op->cancelled))
        res = drop_descriptor(op, res);
    if (res > 0) /* bytes; the number of a descriptor does no harm */
        op->loop->heap.other_bytes += (uint64_t)res;
    op->host->done(op, res); /* may free op */
}

void
gy_fileop_run_work(struct gy_fileop *op)
{
    finish(op, op->res);
}

/* ---- for op.c ---- */

/* What a read or write waits for; 0 for all else. */
static uint32_t
poll_mask(const struct gy_fileop *op)
{
    switch (op->sqe.opcode) {
    case IORING_OP_READ:
    case IORING_OP_READV:
        return POLLIN;
    case IORING_OP_WRITE:
    case IORING_OP_WRITEV:
        return POLLOUT;
    default:
        return 0;
    }
}

void
gy_fileop_prepare(struct gy_loop *loop, struct gy_op *op, struct io_uring_sqe *sqe)
{
    const struct gy_fileop *file = fileop_of(op);
    GY_ASSERT(loop == file->loop);
    if (GY_UNLIKELY(file->polling)) {
        gy_prep_poll(sqe, file->sqe.fd, poll_mask(file), false);
        return;
    }
    *sqe = file->sqe;
    if (file->fixed != NULL && gy_fixed_prepare(file->fixed, sqe))
        loop->counters.fixed_ops++;
}

/* A driver that answers so each time must not keep the loop busy for ever: then the error is told.
 * What a quiescing loop interrupted begins anew in each run and counts for nothing. */
enum { AGAIN_MAX = 1000 };

static bool
may_go_on(struct gy_fileop *file)
{
    if (file->loop->quiet)
        file->again = 0;
    return file->again++ < AGAIN_MAX;
}

/* What the event means for the operation.  true: it is not over, and is to be submitted again. */
static bool
means_again(struct gy_fileop *file, int32_t res)
{
    if (file->cancelled)
        return false;
    /* Nobody asked for this end: a quiescing loop did, or a signal.  But a close that a signal
     * interrupted has closed, and the number may be another file's by now. */
    if (res == -EINTR && file->sqe.opcode == IORING_OP_CLOSE)
        return false;
    if (res == -ECANCELED || res == -EINTR)
        return true;
    if (file->polling) {
        file->polling = false;
        return res >= 0;
    }
    file->polling = res == -EAGAIN && poll_mask(file) != 0;
    return file->polling;
}

static bool
goes_on(struct gy_fileop *file, int32_t res)
{
    return means_again(file, res) && (res >= 0 || may_go_on(file));
}

void
gy_fileop_on_event(struct gy_loop *loop, struct gy_op *op, const struct gy_event *ev)
{
    struct gy_fileop *file = fileop_of(op);
    int32_t res = ev->res;
    GY_ASSERT(gy_op_is_idle(op));
    if (GY_UNLIKELY(res < 0 || file->polling) && goes_on(file, res)) {
        gy_op_submit(loop, op);
        return;
    }
    file->polling = false;
    if (GY_UNLIKELY(loop->quiet)) {
        file->res = res;
        gy_list_append(&loop->work, &file->work.link);
        return;
    }
    finish(file, res);
}
