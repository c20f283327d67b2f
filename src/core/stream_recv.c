/* stream_recv.c: the receiving half of a stream, by either policy.
 *
 * POLL: an event of the poll sets READABLE; while that is set and the host reads, recv(2) is called
 * until the socket has no more, at most GY_RECV_CALLS_PER_TURN times a turn and, once callbacks
 * are ready that were scheduled before what comes next, in the turn after them.  A multishot poll
 * is edge-triggered, so READABLE may be cleared only by a receive that used everything up: one that
 * came back short on TCP (what arrives later makes a new edge; stream_mark.c has the exception), or
 * with -EAGAIN where a short read says nothing (READ_OUT) or where the edge of a FIN has been seen
 * already (HUNGUP). MULTISHOT: completions bring provided buffers, which are delivered, or held
 * while the host does not read.  What ends the receive (EOF, an error) waits behind the held bytes
 * in `end`. Owner and thread: stream.c. */
#include "stream.h"

#include "prep.h"
#include "probe.h"
#include "ring.h"
#include "stream_impl.h"
#include "sys.h"
#include "uring_compat.h"
#include <errno.h>
#include <poll.h>
#include <string.h>

enum {
    FULL_READS_TO_SWITCH = 2, /* a message that is cut into provided buffers loses up to half */
    END_IS_EOF = 1,
    POLL_HANGUP_MASK = POLLRDHUP | POLLHUP | POLLERR
};

static bool
multishot_possible(const struct gy_loop *loop)
{
    uint32_t needed = GY_FEAT_RECV_MULTISHOT | GY_FEAT_BUF_RING;
    return (loop->features & needed) == needed;
}

/* Submits the receive if it is wanted and not under way.  While READABLE is set nothing is armed:
 * the next poll looks at the socket anew, so no edge is lost. */
void
gy_stream_arm_recv(struct gy_stream *stream)
{
    if (!gy_op_is_idle(&stream->recv_op) || !gy_stream_alive(stream))
        return;
    if ((stream->flags & (GY_STREAM_READING | GY_STREAM_READABLE | GY_STREAM_EOF)) !=
        GY_STREAM_READING)
        return;
    if (stream->end != 0 || stream->held_bytes >= GY_HOLD_BYTES_MAX)
        return;
    gy_op_submit(stream->loop, &stream->recv_op);
}

void
gy_stream_prepare_recv(struct gy_loop *loop, struct gy_op *op, struct io_uring_sqe *sqe)
{
    struct gy_stream *stream = container_of(op, struct gy_stream, recv_op);

    if (stream->policy == GY_RECV_MULTISHOT &&
        gy_bufgroup_ready(&loop->buffers, loop->ring, GY_BUFFERS, GY_BUFFER_BYTES) < 0)
        stream->policy = GY_RECV_POLL; /* no memory for buffers: poll needs none */
    stream->recv_mode = stream->policy;
    if (stream->recv_mode == GY_RECV_MULTISHOT)
        gy_prep_recv_multishot(sqe, stream->fd, GY_BUFFER_GROUP);
    else
        gy_prep_poll(sqe, stream->fd, POLLIN | POLLRDHUP,
                     (loop->features & GY_FEAT_POLL_MULTISHOT) != 0);
}

void
gy_stream_set_policy(struct gy_stream *stream, enum gy_recv_policy policy)
{
    if (policy == GY_RECV_MULTISHOT &&
        (!multishot_possible(stream->loop) || (stream->flags & GY_STREAM_PIPE) != 0))
        policy = GY_RECV_POLL;
    stream->policy = (uint8_t)policy;
    stream->full_reads = 0;
    /* A queued op is prepared by the new policy anyhow; one in flight is armed again when it has
     * ended. */
    if (stream->recv_op.state == GY_OP_INFLIGHT && stream->recv_mode != policy)
        (void)gy_op_cancel(stream->loop, &stream->recv_op);
}

/* Who resumes may be somebody else, who has not heard it: TLS that starts behind the peer's end. */
static GY_COLD void
hear_end_again(struct gy_stream *stream)
{
    stream->flags &= ~(uint32_t)GY_STREAM_EOF;
    if (stream->recv_mode != GY_RECV_MULTISHOT)
        stream->flags |= GY_STREAM_READABLE; /* no edge comes any more */
}

void
gy_stream_resume(struct gy_stream *stream)
{
    if (!gy_stream_alive(stream) || (stream->flags & GY_STREAM_READING) != 0)
        return;
    stream->flags |= GY_STREAM_READING;
    if (GY_UNLIKELY((stream->flags & GY_STREAM_EOF) != 0))
        hear_end_again(stream);
    /* As if the kernel were asked anew: after the callbacks that are scheduled already. */
    if (((stream->flags & GY_STREAM_READABLE) != 0 || !gy_list_empty(&stream->held) ||
         stream->end != 0) &&
        !gy_list_linked(&stream->work.link))
        gy_list_append(&stream->loop->resumed, &stream->work.link);
    gy_stream_arm_recv(stream);
}

void
gy_stream_pause(struct gy_stream *stream)
{
    stream->flags &= ~(uint32_t)GY_STREAM_READING;
}

static void
memory_unused(struct gy_stream *stream)
{
    if (stream->host->unused != NULL)
        stream->host->unused(stream);
}

void
gy_stream_stop_receive(struct gy_stream *stream)
{
    gy_stream_pause(stream);
    if (gy_stream_alive(stream))
        (void)gy_op_cancel(stream->loop, &stream->recv_op);
}

/* Names the memory of the next recv(2); false if there is none, or the host wants no data now. */
static bool
name_memory(struct gy_stream *stream, void **data, size_t *len)
{
    struct gy_loop *loop = stream->loop;

    *data = NULL;
    *len = 0;
    if (stream->host->buffer != NULL) {
        if (!stream->host->buffer(stream, data, len))
            return false;
        if (!gy_stream_may_deliver(stream)) {
            memory_unused(stream);
            return false;
        }
    }
    if (*len > GY_RECV_BYTES_MAX)
        *len = GY_RECV_BYTES_MAX;
    if (*len > 0)
        return true;
    if (loop->scratch == NULL)
        loop->scratch = gy_alloc(GY_RECV_BYTES_MAX);
    if (loop->scratch == NULL) {
        memory_unused(stream);
        gy_stream_fail(stream, -ENOMEM);
        return false;
    }
    *data = loop->scratch;
    *len = GY_RECV_BYTES_MAX;
    return true;
}

static void
end_of_stream(struct gy_stream *stream)
{
    GY_ASSERT((stream->flags & GY_STREAM_EOF) == 0);
    stream->flags = (stream->flags | GY_STREAM_EOF) & ~(uint32_t)GY_STREAM_READABLE;
    stream->host->eof(stream);
}

/* The kernel says once that the connection was reset.  If a send that waited was told, a receive
 * finds the end, which is none: the error of the send comes next. */
static bool
send_has_news(struct gy_stream *stream)
{
    return !gy_op_is_idle(&stream->send_op) && !stream->loop->quiet &&
           gy_loop_has_event(stream->loop, &stream->send_op);
}

/* One call to the kernel.  *cut is false afterwards if a UNIX socket says that it is empty when it
 * gives less than was asked for. */
static inline ssize_t
call_recv(const struct gy_stream *stream, void *data, size_t len, bool *cut)
{
    struct gy_ring *ring = stream->loop->ring;

    if (GY_LIKELY((stream->flags & GY_STREAM_LOCAL) == 0))
        return ring->ops->try_recv(ring, stream->fd, data, len);
    return ring->ops->try_recv_local(ring, stream->fd, data, len, cut);
}

static ssize_t
call_read(const struct gy_stream *stream, void *data, size_t len)
{
    struct gy_ring *ring = stream->loop->ring;

    if (GY_LIKELY((stream->flags & GY_STREAM_NOWAIT) != 0))
        return ring->ops->try_read_pipe(ring, stream->fd, data, len);
    if ((stream->flags & GY_STREAM_SOCKET) != 0)
        return ring->ops->try_recv(ring, stream->fd, data, len);
    return ring->ops->try_read(ring, stream->fd, data, len);
}

static GY_COLD void
fail(struct gy_stream *stream, int err, unsigned calls)
{
    gy_stream_fail(stream, err);
    if (calls == 0 || !gy_list_linked(&stream->work.link))
        return;
    gy_list_remove(&stream->work.link); /* of the errors of this turn */
    gy_stream_queue_work(stream);
}

/* One recv(2), the `calls`-th of this turn.  False when there is no more to read for now.
 * The end, or an error, is told of the first call of a turn alone: data and end never come in one
 * turn, as on a selector loop.  A protocol may put off to the next turn what the end would cut
 * short (TLS wakes create_connection() by a future while the peer's last bytes and FIN are here
 * already). */
static bool
receive_once(struct gy_stream *stream, unsigned calls)
{
    struct gy_loop *loop = stream->loop;
    bool cut = (stream->flags & GY_STREAM_READ_OUT) != 0;
    void *data;
    size_t len;
    ssize_t got;

    if (GY_UNLIKELY((stream->flags & GY_STREAM_WATCH) != 0)) {
        end_of_stream(stream);
        return false;
    }
    if (!name_memory(stream, &data, &len))
        return false;
    loop->counters.recv_calls++;
    if (GY_LIKELY((stream->flags & GY_STREAM_PIPE) == 0))
        got = call_recv(stream, data, len, &cut);
    else
        got = call_read(stream, data, len);
    if (got > 0) {
        if ((size_t)got < len && (stream->flags & GY_STREAM_HUNGUP) == 0 && !cut) {
            stream->flags &= ~(uint32_t)GY_STREAM_READABLE;
            if (!gy_list_linked(&stream->short_read))
                gy_stream_note_short(stream);
        }
        loop->counters.bytes_in += (uint64_t)got;
        stream->read_turn = (uint8_t)loop->turn;
        stream->host->data(stream, data, (size_t)got);
        return true;
    }
    if (got == 0) {
        if (calls == 0 && !send_has_news(stream))
            end_of_stream(stream);
        else
            memory_unused(stream); /* READABLE stays: the next turn asks again */
        return false;
    }
    stream->flags &= ~(uint32_t)GY_STREAM_READABLE;
    memory_unused(stream);
    if (got != -EAGAIN)
        fail(stream, (int)got, calls);
    return false;
}

void
gy_stream_receive_last(struct gy_stream *stream)
{
    uint32_t others = GY_STREAM_PIPE | GY_STREAM_EOF | GY_STREAM_WATCH;

    /* MULTISHOT: the ring may hold bytes that come before those in the socket. */
    if (gy_stream_may_deliver(stream) && (stream->flags & others) == 0 &&
        stream->recv_mode != GY_RECV_MULTISHOT)
        (void)receive_once(stream, 1); /* not the end, which has its own turn */
}

static void
receive_by_poll(struct gy_stream *stream)
{
    /* Equal by chance, once in 256 turns: then the callbacks that are ready go first for nothing.
     */
    unsigned calls = stream->read_turn == (uint8_t)stream->loop->turn;

    for (; calls < GY_RECV_CALLS_PER_TURN; calls++) {
        if ((stream->flags & GY_STREAM_READABLE) == 0 || !gy_stream_may_deliver(stream))
            break;
        if (!gy_loop_may_read_on(stream->loop, calls) || !receive_once(stream, calls))
            break;
    }
}

static void
deliver_buffer(struct gy_stream *stream, struct gy_buffer *buffer)
{
    struct gy_loop *loop = stream->loop;

    GY_ASSERT(gy_stream_may_deliver(stream));
    stream->host->data(stream, gy_bufgroup_data(&loop->buffers, buffer), buffer->len);
    gy_bufgroup_give_back(&loop->buffers, loop->ring, buffer);
}

static void
deliver_held(struct gy_stream *stream)
{
    while (gy_stream_may_deliver(stream)) {
        struct gy_list *node = gy_list_pop(&stream->held);
        if (node == NULL)
            break;
        struct gy_buffer *buffer = container_of(node, struct gy_buffer, link);
        stream->held_bytes -= buffer->len;
        deliver_buffer(stream, buffer);
    }
    if (stream->end == 0 || !gy_list_empty(&stream->held) || !gy_stream_may_deliver(stream))
        return;
    int end = stream->end;
    stream->end = 0;
    if (end == END_IS_EOF)
        end_of_stream(stream);
    else
        gy_stream_fail(stream, end);
}

/* Delivers what there is: held bytes first, they are older than what is in the socket.  What must
 * wait for its turn puts the stream on the work list. */
void
gy_stream_receive(struct gy_stream *stream)
{
    deliver_held(stream);
    if (gy_list_empty(&stream->held))
        receive_by_poll(stream);
    if (!gy_stream_alive(stream) || (stream->flags & GY_STREAM_READING) == 0)
        return;
    if ((stream->flags & GY_STREAM_READABLE) != 0 || !gy_list_empty(&stream->held) ||
        stream->end != 0)
        gy_stream_queue_work(stream);
}

void
gy_stream_drop_held(struct gy_stream *stream)
{
    struct gy_loop *loop = stream->loop;
    struct gy_list *node;

    if (loop->closed) { /* the group is gone, and the nodes with it */
        gy_list_init(&stream->held);
        stream->held_bytes = 0;
    }
    while ((node = gy_list_pop(&stream->held)) != NULL) {
        struct gy_buffer *buffer = container_of(node, struct gy_buffer, link);
        gy_bufgroup_give_back(&loop->buffers, loop->ring, buffer);
    }
    stream->held_bytes = 0;
    stream->end = 0;
}

/* Keeps a buffer for later; small ones move into the last one, so that many short messages do not
 * take the whole group from everybody else. */
static void
hold(struct gy_stream *stream, struct gy_buffer *buffer)
{
    struct gy_loop *loop = stream->loop;
    struct gy_bufgroup *group = &loop->buffers;

    stream->held_bytes += buffer->len;
    if (!gy_list_empty(&stream->held)) {
        struct gy_buffer *last = container_of(stream->held.prev, struct gy_buffer, link);
        if (buffer->len <= group->buffer_bytes - last->len) {
            memcpy((char *)gy_bufgroup_data(group, last) + last->len,
                   gy_bufgroup_data(group, buffer), buffer->len);
            last->len += buffer->len;
            gy_bufgroup_give_back(group, loop->ring, buffer);
            buffer = NULL;
        }
    }
    if (buffer != NULL)
        gy_list_append(&stream->held, &buffer->link);
    if (stream->held_bytes >= GY_HOLD_BYTES_MAX && gy_op_is_armed(&stream->recv_op))
        (void)gy_op_cancel(loop, &stream->recv_op);
}

static void
take_buffer(struct gy_stream *stream, uint16_t id, int32_t res)
{
    struct gy_loop *loop = stream->loop;
    struct gy_buffer *buffer = gy_bufgroup_lease(&loop->buffers, id);

    if (res <= 0 || !gy_stream_alive(stream)) {
        gy_bufgroup_give_back(&loop->buffers, loop->ring, buffer);
        return;
    }
    buffer->len = (uint32_t)res;
    loop->counters.recv_calls++;
    loop->counters.bytes_in += (uint64_t)res;
    if (buffer->len < loop->buffers.buffer_bytes)
        stream->full_reads = 0;
    else if (++stream->full_reads >= FULL_READS_TO_SWITCH)
        gy_stream_set_policy(stream, GY_RECV_POLL);
    if (gy_list_empty(&stream->held) && gy_stream_may_deliver(stream))
        deliver_buffer(stream, buffer);
    else
        hold(stream, buffer);
}

/* The kernel found no buffer.  Those of this turn are back in the next; those that paused streams
 * hold are back nobody knows when. */
static GY_COLD void
out_of_buffers(struct gy_stream *stream)
{
    struct gy_bufgroup *group = &stream->loop->buffers;

    group->exhausted++;
    if (group->leased > group->count / 2)
        gy_stream_set_policy(stream, GY_RECV_POLL);
    gy_stream_queue_work(stream); /* which arms it again */
}

static void
on_multishot(struct gy_stream *stream, const struct gy_event *ev)
{
    bool idle = gy_op_is_idle(&stream->recv_op);

    if ((ev->flags & IORING_CQE_F_BUFFER) != 0)
        take_buffer(stream, (uint16_t)(ev->flags >> IORING_CQE_BUFFER_SHIFT), ev->res);
    if ((stream->flags & GY_STREAM_CLOSING) != 0) {
        if (idle)
            gy_stream_settle(stream);
        return;
    }
    if (!gy_stream_alive(stream))
        return;
    if (ev->res == -ENOBUFS) {
        out_of_buffers(stream);
        return;
    }
    if (ev->res == 0 && !send_has_news(stream)) /* else it is armed again */
        stream->end = END_IS_EOF;
    else if (ev->res < 0 && ev->res != -ECANCELED && ev->res != -EINTR && ev->res != -EAGAIN)
        stream->end = ev->res;
    if (stream->end == 0 && gy_list_empty(&stream->held))
        return;
    if (gy_stream_may_deliver(stream) && !gy_list_linked(&stream->work.link))
        gy_stream_receive(stream);
    else if ((stream->flags & GY_STREAM_READING) != 0)
        gy_stream_queue_work(stream);
}

static void
on_poll(struct gy_stream *stream, int32_t res)
{
    if ((stream->flags & GY_STREAM_CLOSING) != 0) {
        if (gy_op_is_idle(&stream->recv_op))
            gy_stream_settle(stream);
        return;
    }
    if (res > 0 && (stream->flags & GY_STREAM_EOF) == 0) {
        stream->flags |= GY_STREAM_READABLE;
        if ((res & POLL_HANGUP_MASK) != 0)
            stream->flags |= GY_STREAM_HUNGUP;
    } else if (res < 0 && res != -ECANCELED && res != -EINTR && res != -EAGAIN) {
        gy_stream_fail(stream, res);
    }
    /* On the work list: it has read its share of this turn, or is about to. */
    if (!gy_list_linked(&stream->work.link))
        gy_stream_receive(stream);
}

void
gy_stream_on_recv(struct gy_loop *loop, struct gy_op *op, const struct gy_event *ev)
{
    struct gy_stream *stream = container_of(op, struct gy_stream, recv_op);
    bool closing = (stream->flags & GY_STREAM_CLOSING) != 0;

    GY_ASSERT((stream->flags & GY_STREAM_CLOSED) == 0);
    GY_ASSERT(stream->loop == loop);
    if (stream->recv_mode == GY_RECV_MULTISHOT)
        on_multishot(stream, ev);
    else
        on_poll(stream, ev->res);
    if (closing)
        return; /* the stream may be gone */
    if (!gy_list_linked(&stream->work.link))
        gy_stream_arm_recv(stream);
}
