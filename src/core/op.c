/* op.c: the life of an operation, and the two switches over its kinds.
 * Owner of the op: the struct that embeds it.  Thread: the loop's.
 * Invariant: loop->inflight counts the ops that are INFLIGHT or CANCELLING. */
#include "op.h"
#include "dgram.h"
#include "fileop.h"
#include "listener.h"
#include "loop.h"
#include "poll.h"
#include "prep.h"
#include "stream.h"
#include "trace.h"

#include <errno.h>

#if GY_ASSERTS
static const bool edge_allowed[GY_OP_STATES][GY_OP_STATES] = {
    [GY_OP_IDLE] = {[GY_OP_QUEUED] = true},
    [GY_OP_QUEUED] = {[GY_OP_INFLIGHT] = true, [GY_OP_IDLE] = true},
    [GY_OP_INFLIGHT] = {[GY_OP_CANCELLING] = true, [GY_OP_IDLE] = true},
    [GY_OP_CANCELLING] = {[GY_OP_IDLE] = true},
};
#endif

/* The only way an op changes its state. */
static inline void
op_edge(struct gy_op *op, enum gy_op_state from, enum gy_op_state to)
{
    GY_ASSERT(op->state == from);
    GY_ASSERT(edge_allowed[from][to]);
    op->state = (uint8_t)to;
}

void
gy_op_init(struct gy_op *op, enum gy_op_kind kind)
{
    GY_ASSERT(kind < GY_OP_KINDS);
    /* Bit 0 of the address is the mark of the cancel. */
    GY_ASSERT(((uintptr_t)op & 1) == 0);
    gy_list_init(&op->link);
    op->kind = (uint8_t)kind;
    op->state = GY_OP_IDLE;
    op->landed = false;
    op->cancel_landed = false;
    op->res = 0;
    op->flags = 0;
}

void
gy_op_submit(struct gy_loop *loop, struct gy_op *op)
{
    GY_ASSERT(!loop->closed);
    op_edge(op, GY_OP_IDLE, GY_OP_QUEUED);
    gy_list_append(&loop->pending, &op->link);
    loop->counters.ops_submitted++;
    GY_TRACE(SUBMIT, op, op->kind, loop->inflight);
}

bool
gy_op_cancel(struct gy_loop *loop, struct gy_op *op)
{
    switch ((enum gy_op_state)op->state) {
    case GY_OP_IDLE:
        return true;
    case GY_OP_QUEUED:
        gy_list_remove(&op->link);
        op_edge(op, GY_OP_QUEUED, GY_OP_IDLE);
        return true;
    case GY_OP_INFLIGHT:
        op_edge(op, GY_OP_INFLIGHT, GY_OP_CANCELLING);
        op->landed = false;
        op->cancel_landed = false;
        gy_list_append(&loop->cancels, &op->link);
        loop->counters.cancels++;
        GY_TRACE(CANCEL, op, op->kind, loop->inflight);
        return false;
    case GY_OP_CANCELLING:
        return false;
    case GY_OP_STATES:
        break;
    }
    GY_UNREACHABLE();
}

/* ---- the loop's half ---- */

static void
op_prepare(struct gy_loop *loop, struct gy_op *op, struct io_uring_sqe *sqe)
{
    switch ((enum gy_op_kind)op->kind) {
    case GY_OP_WAKEUP:
        gy_wakeup_prepare(loop, op, sqe);
        return;
    case GY_OP_POLL:
        gy_poll_prepare(loop, op, sqe);
        return;
    case GY_OP_STREAM_RECV:
        gy_stream_prepare_recv(loop, op, sqe);
        return;
    case GY_OP_STREAM_SEND:
        gy_stream_prepare_send(loop, op, sqe);
        return;
    case GY_OP_ACCEPT:
        gy_listener_prepare(loop, op, sqe);
        return;
    case GY_OP_FILE:
        gy_fileop_prepare(loop, op, sqe);
        return;
    case GY_OP_DGRAM_RECV:
        gy_dgram_prepare(loop, op, sqe);
        return;
    case GY_OP_KINDS:
        break;
    }
    GY_UNREACHABLE();
}

static void
op_handle(struct gy_loop *loop, struct gy_op *op, const struct gy_event *ev)
{
    switch ((enum gy_op_kind)op->kind) {
    case GY_OP_WAKEUP:
        gy_wakeup_on_event(loop, op, ev);
        return;
    case GY_OP_POLL:
        gy_poll_on_event(loop, op, ev);
        return;
    case GY_OP_STREAM_RECV:
        gy_stream_on_recv(loop, op, ev);
        return;
    case GY_OP_STREAM_SEND:
        gy_stream_on_send(loop, op, ev);
        return;
    case GY_OP_ACCEPT:
        gy_listener_on_accept(loop, op, ev);
        return;
    case GY_OP_FILE:
        gy_fileop_on_event(loop, op, ev);
        return;
    case GY_OP_DGRAM_RECV:
        gy_dgram_on_event(loop, op, ev);
        return;
    case GY_OP_KINDS:
        break;
    }
    GY_UNREACHABLE();
}

void
gy_op_flush(struct gy_loop *loop, struct gy_op *op, struct io_uring_sqe *sqe)
{
    gy_list_remove(&op->link);
    op_prepare(loop, op, sqe);
    sqe->user_data = gy_prep_address(op);
    op_edge(op, GY_OP_QUEUED, GY_OP_INFLIGHT);
    loop->inflight++;
}

void
gy_op_flush_cancel(struct gy_loop *loop, struct gy_op *op, struct io_uring_sqe *sqe)
{
    GY_ASSERT(op->state == GY_OP_CANCELLING);
    GY_ASSERT(!op->landed);
    gy_list_remove(&op->link);
    gy_prep_cancel(sqe, gy_prep_address(op));
    sqe->user_data = gy_prep_address(op) | 1;
}

/* The kernel knows the op no more. */
static void
op_over(struct gy_loop *loop, struct gy_op *op, enum gy_op_state from)
{
    GY_ASSERT(loop->inflight > 0);
    op_edge(op, from, GY_OP_IDLE);
    loop->inflight--;
    loop->counters.ops_landed++;
}

/* Both events of a cancelled op have come: its handler hears the one that was kept. */
static void
cancelling_over(struct gy_loop *loop, struct gy_op *op)
{
    struct gy_event ev = {.op = op, .res = op->res, .flags = op->flags};
    GY_ASSERT(op->landed);
    op_over(loop, op, GY_OP_CANCELLING);
    op_handle(loop, op, &ev);
}

/* The result of the cancel says nothing that the terminal event does not: 0 and -EALREADY announce
 * it, -ENOENT means that it is on its way or here. */
static void
dispatch_cancel_event(struct gy_loop *loop, struct gy_op *op)
{
    GY_ASSERT(op->state == GY_OP_CANCELLING);
    GY_ASSERT(!op->cancel_landed);
    op->cancel_landed = true;
    if (op->landed)
        cancelling_over(loop, op);
}

static void
dispatch_terminal_of_cancelled(struct gy_loop *loop, struct gy_op *op, const struct gy_event *ev)
{
    GY_ASSERT(!op->landed);
    op->landed = true;
    op->res = ev->res;
    op->flags = ev->flags;
    /* Ended before its cancel took an SQE: there is nothing left to cancel. */
    if (gy_list_linked(&op->link)) {
        gy_list_remove(&op->link);
        op->cancel_landed = true;
    }
    if (op->cancel_landed)
        cancelling_over(loop, op);
}

void
gy_op_dispatch(struct gy_loop *loop, const struct gy_event *ev)
{
    struct gy_op *op = ev->op;
    if (op == NULL)
        return;
    GY_TRACE(LAND, op, ev->res, ev->flags | (uint32_t)ev->is_cancel << 31);
    if (GY_UNLIKELY(ev->is_cancel)) {
        dispatch_cancel_event(loop, op);
        return;
    }
    GY_ASSERT(op->state == GY_OP_INFLIGHT || op->state == GY_OP_CANCELLING);
    if (!(ev->flags & IORING_CQE_F_MORE)) {
        if (GY_UNLIKELY(op->state == GY_OP_CANCELLING)) {
            dispatch_terminal_of_cancelled(loop, op, ev);
            return;
        }
        op_over(loop, op, GY_OP_INFLIGHT);
    }
    op_handle(loop, op, ev);
}
