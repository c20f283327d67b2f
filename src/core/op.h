/* op.h: one operation that the kernel may hold.
 *
 *   from        by                                                  to
 *   IDLE        gy_op_submit                                        QUEUED
 *   QUEUED      the flush takes an SQE                              INFLIGHT
 *   QUEUED      gy_op_cancel                                        IDLE
 *   INFLIGHT    an event with F_MORE: the handler runs              INFLIGHT
 *   INFLIGHT    the terminal event (no F_MORE), then the handler    IDLE
 *   INFLIGHT    gy_op_cancel                                        CANCELLING
 *   CANCELLING  the terminal event and the event of the cancel,     IDLE
 *               in either order, then the handler
 *
 * An op lives inside its owner (a stream, a listener, a poll); no memory is allocated per
 * operation. user_data is its address; bit 0 set marks the event of its cancel; 0 belongs to
 * nobody. While INFLIGHT or CANCELLING the owner must neither move nor be freed.
 *
 * Submitting only queues: the SQE is taken and filled at the next flush by the `prepare` of the
 * op's kind, so that ops may be submitted from any thread-of-run, before a ring exists, or while no
 * loop runs. Owner: the embedding struct.  Thread: the loop's. */
#ifndef GY_OP_H
#define GY_OP_H

#include "list.h"

struct gy_loop;
struct gy_event;
struct io_uring_sqe;

enum gy_op_kind {
    GY_OP_WAKEUP,      /* wakeup.c: read of the eventfd                  */
    GY_OP_POLL,        /* poll.c: readiness of one descriptor            */
    GY_OP_STREAM_RECV, /* stream.c: poll or multishot receive            */
    GY_OP_STREAM_SEND, /* stream.c: sendmsg of the queue                 */
    GY_OP_ACCEPT,      /* listener.c                                     */
    GY_OP_FILE,        /* fileop.c                                       */
    GY_OP_DGRAM_RECV,  /* dgram.c: poll                                  */
    GY_OP_KINDS
};

enum gy_op_state { GY_OP_IDLE, GY_OP_QUEUED, GY_OP_INFLIGHT, GY_OP_CANCELLING, GY_OP_STATES };

struct gy_op {
    struct gy_list link; /* in loop->pending (QUEUED) or loop->cancels (cancel not yet submitted) */
    uint8_t kind;        /* enum gy_op_kind                                                       */
    uint8_t state;       /* enum gy_op_state                                                      */
    bool landed;         /* CANCELLING: the terminal event has come                               */
    bool cancel_landed;  /* CANCELLING: the cancel's event has come                               */
    int32_t res;         /* CANCELLING: the terminal event, kept until the cancel's has come     */
    uint32_t flags;
};
_Static_assert(sizeof(struct gy_op) <= 32, "an op is embedded several times per stream");

void gy_op_init(struct gy_op *op, enum gy_op_kind kind);

/* IDLE -> QUEUED.  Cannot fail. */
void gy_op_submit(struct gy_loop *loop, struct gy_op *op);

/* Asks for the end of the op.
 *   true:  the op is IDLE now and nothing more will be delivered (it was IDLE or only QUEUED);
 *   false: it was in flight: its handler will be called once more, with the terminal result
 *          (-ECANCELED, or whatever it came to first), when both events have landed.
 * Cancelling twice is allowed and does nothing more. */
bool gy_op_cancel(struct gy_loop *loop, struct gy_op *op);

static inline bool
gy_op_is_idle(const struct gy_op *op)
{
    return op->state == GY_OP_IDLE;
}

/* True while neither idle nor being cancelled: it may still deliver what it was armed for. */
static inline bool
gy_op_is_armed(const struct gy_op *op)
{
    return op->state == GY_OP_QUEUED || op->state == GY_OP_INFLIGHT;
}

/* The loop's half.  flush fills the SQE through the `prepare` of the op's kind, sets its user_data
 * and makes the edge QUEUED -> INFLIGHT; flush_cancel fills the SQE of a cancel that waits in
 * loop->cancels.  dispatch applies the edges above and then calls the handler of the kind with
 * ev->res and ev->flags; a handler learns that the op is over by gy_op_is_idle(op) and may submit
 * it again at once. */
void gy_op_flush(struct gy_loop *loop, struct gy_op *op, struct io_uring_sqe *sqe);
void gy_op_flush_cancel(struct gy_loop *loop, struct gy_op *op, struct io_uring_sqe *sqe);
void gy_op_dispatch(struct gy_loop *loop, const struct gy_event *ev);

#endif
