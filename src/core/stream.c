/* stream.c: life cycle and close machine of a duplex byte stream; stream_recv.c and stream_send.c
 * hold its two directions.
 *
 * Owner: the embedder allocates the stream; from gy_stream_init until host->closed the kernel may
 * hold its ops.  Thread: the loop's.
 * Invariants: at most one receive and one send are in flight; host->error, eof and closed are
 * called at most once each, and none after closed; fd is closed exactly once, when both ops are
 * idle; while the loop is quiet nothing is called but release. */
#include "stream.h"

#include "ring.h"
#include "stream_impl.h"
#include "sys.h"
#include "trace.h"
#include <errno.h>

void
gy_stream_init(struct gy_stream *stream, struct gy_loop *loop, int fd,
               const struct gy_stream_host *host, enum gy_recv_policy policy)
{
    GY_ASSERT(fd >= 0);
    GY_ASSERT(!loop->closed);
    stream->loop = loop;
    stream->host = host;
    stream->fd = fd;
    stream->flags = 0;
    stream->policy = GY_RECV_POLL;
    stream->recv_mode = GY_RECV_POLL;
    stream->full_reads = 0;
    gy_list_init(&stream->dirty);
    gy_list_init(&stream->short_read);
    stream->error = 0;
    gy_work_init(&stream->work, GY_WORK_STREAM);
    gy_op_init(&stream->recv_op, GY_OP_STREAM_RECV);
    gy_op_init(&stream->send_op, GY_OP_STREAM_SEND);
    gy_sendq_init(&stream->queue);
    stream->send = NULL;
    gy_list_init(&stream->held);
    stream->held_bytes = 0;
    stream->end = 0;
    loop->live++;
    gy_stream_set_policy(stream, policy);
}

void
gy_stream_queue_work(struct gy_stream *stream)
{
    GY_ASSERT((stream->flags & GY_STREAM_CLOSED) == 0);
    if (!gy_list_linked(&stream->work.link))
        gy_list_append(&stream->loop->work, &stream->work.link);
}

void
gy_stream_fail(struct gy_stream *stream, int err)
{
    GY_ASSERT(err < 0);
    if (!gy_stream_alive(stream))
        return;
    /* A receive took the socket's error while the host was not reading: it is the reason. */
    if (err == -EPIPE && stream->end < 0)
        err = stream->end;
    stream->error = err;
    /* The queue can be dropped only when the kernel has let go of it: otherwise on_send goes on. */
    if (gy_op_cancel(stream->loop, &stream->send_op))
        gy_stream_queue_error(stream);
}

void
gy_stream_queue_error(struct gy_stream *stream)
{
    gy_list_remove(&stream->work.link);
    gy_list_append(&stream->loop->failed, &stream->work.link);
}

static GY_COLD void
deliver_error(struct gy_stream *stream)
{
    int err = stream->error;

    if (!gy_op_is_idle(&stream->send_op))
        return; /* on_send puts the stream on the list again */
    stream->error = 0;
    stream->flags |= GY_STREAM_BROKEN;
    (void)gy_op_cancel(stream->loop, &stream->recv_op);
    gy_stream_drop_held(stream);
    gy_stream_drop_queue(stream);
    if ((stream->flags & GY_STREAM_CLOSING) == 0)
        stream->host->error(stream, err);
}

/* Takes the stream out of every list and gives back what it holds.  Ops are idle, or lost with
 * their ring. */
static void
release_everything(struct gy_stream *stream)
{
    gy_list_remove(&stream->work.link);
    gy_list_remove(&stream->dirty);
    gy_stream_forget_short(stream);
    gy_stream_drop_held(stream);
    gy_stream_drop_queue(stream);
    gy_stream_free_send(stream);
}

static void
finish(struct gy_stream *stream)
{
    struct gy_loop *loop = stream->loop;

    GY_ASSERT((stream->flags & GY_STREAM_CLOSING) != 0);
    GY_ASSERT((stream->flags & GY_STREAM_CLOSED) == 0);
    GY_ASSERT(gy_op_is_idle(&stream->recv_op));
    GY_ASSERT(gy_op_is_idle(&stream->send_op));
    GY_ASSERT(!loop->quiet);
    release_everything(stream);
    stream->host->detach(stream);
    GY_TRACE(CLOSE, stream, stream->fd, 0);
    if (stream->fd >= 0)
        loop->ring->ops->close(loop->ring, stream->fd);
    stream->fd = -1;
    stream->flags |= GY_STREAM_CLOSED;
    loop->live--;
    stream->host->closed(stream); /* may free the stream */
}

void
gy_stream_settle(struct gy_stream *stream)
{
    GY_ASSERT((stream->flags & GY_STREAM_CLOSING) != 0);
    if (!gy_op_is_idle(&stream->recv_op) || !gy_op_is_idle(&stream->send_op))
        return;
    /* On the work list already: gy_stream_close() may have been called in this very turn. */
    if (stream->loop->quiet || gy_list_linked(&stream->work.link))
        gy_stream_queue_work(stream);
    else
        finish(stream);
}

void
gy_stream_close(struct gy_stream *stream)
{
    bool recv_idle;
    bool send_idle;

    if ((stream->flags & GY_STREAM_CLOSING) != 0)
        return;
    stream->flags = (stream->flags | GY_STREAM_CLOSING) & ~(uint32_t)GY_STREAM_READING;
    gy_list_remove(&stream->dirty);
    gy_list_remove(&stream->work.link);
    recv_idle = gy_op_cancel(stream->loop, &stream->recv_op);
    send_idle = gy_op_cancel(stream->loop, &stream->send_op);
    if (recv_idle && send_idle)
        gy_stream_queue_work(stream);
    gy_stream_drop_held(stream);
    if (send_idle)
        gy_stream_drop_queue(stream);
}

void
gy_stream_close_now(struct gy_stream *stream)
{
    struct gy_loop *loop = stream->loop;

    gy_stream_close(stream);
    if (!loop->running || loop->quiet || gy_loop_forked(loop))
        return;
    /* On the work list the stream is not finished by the events, but here. */
    if (!gy_list_linked(&stream->work.link))
        gy_stream_queue_work(stream);
    gy_loop_land(loop, &stream->recv_op, &stream->send_op);
    if (!gy_op_is_idle(&stream->recv_op) || !gy_op_is_idle(&stream->send_op))
        return;
    gy_list_remove(&stream->work.link);
    finish(stream);
}

static void
keep_owner(void *context, void *owner)
{
    GY_UNUSED(context);
    GY_UNUSED(owner);
}

void
gy_stream_abandon(struct gy_stream *stream)
{
    struct gy_loop *loop = stream->loop;

    GY_ASSERT((stream->flags & GY_STREAM_CLOSED) == 0);
    stream->flags = (stream->flags | GY_STREAM_CLOSING) & ~(uint32_t)GY_STREAM_READING;
    if (!gy_op_cancel(loop, &stream->send_op)) {
        GY_ASSERT(loop->closed); /* else it would land in freed memory */
        /* The dead ring may still read the segments and the block that names them. */
        gy_list_remove(&stream->send_op.link);
        gy_sendq_drop(&stream->queue, &loop->spare_segments, keep_owner, stream);
        stream->send = NULL;
    }
    if (!gy_op_cancel(loop, &stream->recv_op)) {
        GY_ASSERT(loop->closed);
        gy_list_remove(&stream->recv_op.link);
    }
    release_everything(stream);
    stream->host->detach(stream);
    if (stream->fd >= 0 && loop->ring != NULL)
        loop->ring->ops->close(loop->ring, stream->fd);
    else if (stream->fd >= 0)
        gy_sys_close(stream->fd);
    stream->fd = -1;
    stream->flags |= GY_STREAM_CLOSED;
    loop->live--;
}

bool
gy_stream_is_at_rest(const struct gy_stream *stream)
{
    bool deaf = (stream->flags & (GY_STREAM_READING | GY_STREAM_EOF)) != GY_STREAM_READING;

    return deaf && (stream->flags & (GY_STREAM_CLOSING | GY_STREAM_DRAIN_DUE)) == 0 &&
           stream->error == 0 && stream->queue.count == 0 && gy_op_is_idle(&stream->send_op);
}

static bool
is_held_by_kernel(const struct gy_op *op)
{
    return op->state == GY_OP_INFLIGHT || op->state == GY_OP_CANCELLING;
}

bool
gy_stream_drop(struct gy_stream *stream)
{
    GY_ASSERT(gy_stream_is_at_rest(stream));
    if (is_held_by_kernel(&stream->recv_op)) {
        gy_stream_close(stream);
        return false;
    }
    gy_stream_abandon(stream);
    return true;
}

void
gy_stream_run_work(struct gy_stream *stream)
{
    GY_ASSERT(!stream->loop->quiet);
    GY_ASSERT((stream->flags & GY_STREAM_CLOSED) == 0);
    if ((stream->flags & GY_STREAM_CLOSING) != 0) {
        gy_stream_settle(stream); /* else the handler of the last op does it */
        return;
    }
    if (stream->error != 0) {
        deliver_error(stream);
        return;
    }
    if ((stream->flags & GY_STREAM_DRAIN_DUE) != 0) {
        stream->flags &= ~(uint32_t)GY_STREAM_DRAIN_DUE;
        stream->host->drained(stream);
    }
    if (!gy_list_linked(&stream->work.link))
        gy_stream_receive(stream);
    gy_stream_arm_recv(stream);
}
