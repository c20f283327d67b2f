/* fileop.h: one operation on a file, done by the ring.
 *
 * The embedder fills `sqe` by one of the gy_prep_* of files, and submits.  What the kernel can
 * answer from memory is better asked first with gy_fileop_try(): no turn of the loop, no event.
 * Everything that the SQE points to (paths, buffers, vectors) stays until done(), or until a
 * gy_fileop_cancel() that returns true.
 *
 * An operation that a quiescing loop cancelled begins again in the next run; one that came to its
 * end meanwhile is reported then.  What cannot be cancelled stays in flight: the loop waits for it,
 * for a bounded time, and its memory must stay even when the loop is closed.
 * Owner: the embedder.  Thread: the loop's. */
#ifndef GY_FILEOP_H
#define GY_FILEOP_H

#include "fixed.h"
#include "op.h"
#include "uring_compat.h"
#include "work.h"

struct gy_fileop;

struct gy_fileop_host {
    /* Over, and idle: it may be submitted again or freed.  res: the result of the call or -errno.
     * A descriptor that a cancelled open brought has been closed: -ECANCELED. */
    void (*done)(struct gy_fileop *op, int32_t res);
};

struct gy_fileop {
    struct gy_op op;
    struct gy_loop *loop;
    const struct gy_fileop_host *host;
    struct io_uring_sqe sqe;      /* all but user_data                   */
    const struct gy_fixed *fixed; /* NULL, or what the buffer of `sqe` is a part of      */
    struct gy_work work;          /* linked: `res` is to be reported     */
    int32_t res;
    bool cancelled;
    uint16_t again; /* submitted anew so often, in one run */
    bool polling;   /* the kernel would not wait for a non-blocking descriptor: a poll does */
};

void gy_fileop_init(struct gy_fileop *op, struct gy_loop *loop, const struct gy_fileop_host *host);
/* Zeroes the SQE, for a gy_prep_* of the next operation. */
struct io_uring_sqe *gy_fileop_sqe(struct gy_fileop *op);

/* The result, if it needs no waiting; -EAGAIN otherwise, and nothing has happened. */
int32_t gy_fileop_try(struct gy_fileop *op);
void gy_fileop_submit(struct gy_fileop *op);
/* done(res) from the next turn: for a result that is here already. */
void gy_fileop_defer(struct gy_fileop *op, int32_t res);

/* true: idle, done() will not be called; false: it will, with whatever it came to.  Twice is once.
 */
bool gy_fileop_cancel(struct gy_fileop *op);

/* True while the memory must stay. */
bool gy_fileop_busy(const struct gy_fileop *op);

/* For op.c and loop.c. */
void gy_fileop_prepare(struct gy_loop *loop, struct gy_op *op, struct io_uring_sqe *sqe);
void gy_fileop_on_event(struct gy_loop *loop, struct gy_op *op, const struct gy_event *ev);
void gy_fileop_run_work(struct gy_fileop *op);

#endif
