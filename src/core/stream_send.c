/* stream_send.c: the sending half of a stream.
 *
 * A flush sends by sendmsg(2) as long as the socket takes everything; what it does not take leaves
 * as one sendmsg SQE with MSG_WAITALL, after which the flush goes on.  Owner and thread: stream.c.
 * Invariants: while send_op is not idle only its handler touches the front of the queue, so bytes
 * keep their order; segments are accounted before any of their owners is released, because a
 * release may write and flush again. */
#include "stream.h"

#include "prep.h"
#include "probe.h"
#include "ring.h"
#include "stream_impl.h"
#include "sys.h"
#include <errno.h>
#include <sys/poll.h> /* <poll.h> would be ours */
#include <sys/socket.h>

enum {
    SEND_CALLS_PER_FLUSH = 16, /* a reader on another CPU could keep a flush going for ever */
    SEND_POOL_MAX = 64,
    POLL_SEND_MASK = POLLOUT | POLLERR | POLLHUP
};

static void
release_owner(void *context, void *owner)
{
    struct gy_stream *stream = context;
    stream->host->release(stream, owner);
}

/* One call to the kernel took len bytes. */
static void
account(struct gy_stream *stream, size_t len)
{
    stream->loop->counters.bytes_out += len;
    gy_sendq_advance(&stream->queue, &stream->loop->spare_segments, len, release_owner, stream);
}

void
gy_stream_drop_queue(struct gy_stream *stream)
{
    GY_ASSERT(gy_op_is_idle(&stream->send_op) || stream->queue.count == 0);
    gy_list_remove(&stream->dirty);
    gy_sendq_drop(&stream->queue, &stream->loop->spare_segments, release_owner, stream);
}

void
gy_stream_free_send(struct gy_stream *stream)
{
    struct gy_loop *loop = stream->loop;
    struct gy_stream_send *send = stream->send;

    if (send == NULL)
        return;
    stream->send = NULL;
    if (loop->closed || loop->send_pool_count >= SEND_POOL_MAX) {
        gy_free(send);
        return;
    }
    gy_list_append(&loop->send_pool, &send->link);
    loop->send_pool_count++;
}

void
gy_stream_pool_drain(struct gy_loop *loop)
{
    struct gy_list *node;

    while ((node = gy_list_pop(&loop->send_pool)) != NULL)
        gy_free(container_of(node, struct gy_stream_send, link));
    loop->send_pool_count = 0;
    gy_sendq_spare_deinit(&loop->spare_segments);
}

/* One call to the kernel, which takes what it takes without waiting. */
static inline ssize_t
call_send(struct gy_stream *stream, const struct iovec *iov, unsigned count)
{
    struct gy_ring *ring = stream->loop->ring;

    stream->loop->counters.send_calls++;
    if (GY_LIKELY((stream->flags & (GY_STREAM_PIPE | GY_STREAM_SOCKET)) != GY_STREAM_PIPE))
        return ring->ops->try_send(ring, stream->fd, iov, count);
    if (GY_LIKELY((stream->flags & GY_STREAM_NOWAIT) != 0))
        return ring->ops->try_write_pipe(ring, stream->fd, iov, count);
    return ring->ops->try_write(ring, stream->fd, iov, count);
}

/* What is left of the queue goes to the kernel, which waits for the socket. */
static void
start_send_op(struct gy_stream *stream)
{
    struct gy_loop *loop = stream->loop;

    GY_ASSERT(stream->queue.count > 0);
    GY_ASSERT(gy_op_is_idle(&stream->send_op));
    if (stream->send == NULL && (stream->flags & GY_STREAM_PIPE) == 0) {
        struct gy_list *node = gy_list_pop(&loop->send_pool);
        if (node != NULL) {
            stream->send = container_of(node, struct gy_stream_send, link);
            loop->send_pool_count--;
        } else {
            stream->send = gy_alloc(sizeof(*stream->send));
            if (stream->send == NULL) {
                gy_stream_fail(stream, -ENOMEM);
                return;
            }
            gy_list_init(&stream->send->link);
        }
    }
    loop->counters.send_ops++;
    gy_op_submit(loop, &stream->send_op);
}

void
gy_stream_prepare_send(struct gy_loop *loop, struct gy_op *op, struct io_uring_sqe *sqe)
{
    struct gy_stream *stream = container_of(op, struct gy_stream, send_op);
    struct gy_stream_send *send = stream->send;

    GY_ASSERT(stream->queue.count > 0);
    if ((stream->flags & GY_STREAM_PIPE) != 0) {
        stream->flags |= GY_STREAM_SEND_POLL;
        gy_prep_poll(sqe, stream->fd, POLLOUT, false);
        return;
    }
    GY_ASSERT(send != NULL);
    if (GY_UNLIKELY((stream->flags & GY_STREAM_SEND_POLL) != 0)) {
        gy_prep_poll(sqe, stream->fd, POLLOUT, (loop->features & GY_FEAT_POLL_MULTISHOT) != 0);
        return;
    }
    send->message = (struct msghdr){.msg_iov = send->iov};
    send->message.msg_iovlen = gy_sendq_iovec(&stream->queue, send->iov, GY_SENDQ_IOV_MAX);
    gy_prep_sendmsg(sqe, stream->fd, &send->message, MSG_WAITALL | MSG_NOSIGNAL);
}

static int
shutdown_now(struct gy_stream *stream)
{
    struct gy_ring *ring = stream->loop->ring;

    GY_ASSERT(stream->queue.count == 0);
    GY_ASSERT((stream->flags & GY_STREAM_SHUT_DONE) == 0);
    stream->flags |= GY_STREAM_SHUT_DONE;
    return ring->ops->shutdown(ring, stream->fd, SHUT_WR);
}

/* The queue is empty at last. */
static void
shutdown_late(struct gy_stream *stream)
{
    int err = shutdown_now(stream);

    if (err < 0 && err != -ENOTCONN) /* the peer was faster: nothing is left to shut down */
        gy_stream_fail(stream, err);
}

static size_t
iov_bytes(const struct iovec *iov, unsigned count)
{
    size_t bytes = 0;
    for (unsigned i = 0; i < count; i++)
        bytes += iov[i].iov_len;
    return bytes;
}

/* Whether what is written waits for the next system call of the ring (gy_loop.ring_sends). */
static inline bool
by_ring(const struct gy_stream *stream)
{
    return GY_UNLIKELY(stream->loop->ring_sends) && (stream->flags & GY_STREAM_PIPE) == 0;
}

/* Sends until the queue is empty or the socket full; then shuts down or leaves the rest to an op.
 */
static void
send_now(struct gy_stream *stream)
{
    struct iovec iov[GY_SENDQ_IOV_MAX];

    if ((stream->flags & GY_STREAM_FULL) != 0) {
        stream->flags &= ~(uint32_t)GY_STREAM_FULL;
        start_send_op(stream);
        return;
    }
    if (stream->queue.count > 0 && by_ring(stream)) {
        start_send_op(stream);
        return;
    }
    for (unsigned calls = 0; stream->queue.count > 0 && calls < SEND_CALLS_PER_FLUSH; calls++) {
        unsigned count = gy_sendq_iovec(&stream->queue, iov, GY_SENDQ_IOV_MAX);
        size_t wanted = iov_bytes(iov, count);
        ssize_t sent = call_send(stream, iov, count);

        if (sent == -EAGAIN)
            break;
        if (sent < 0) {
            gy_stream_fail(stream, (int)sent);
            return;
        }
        account(stream, (size_t)sent); /* may call anything */
        if (!gy_stream_alive(stream) || !gy_op_is_idle(&stream->send_op))
            return;
        if ((size_t)sent < wanted)
            break;
    }
    if (stream->queue.count > 0) {
        start_send_op(stream);
        return;
    }
    stream->flags &= ~(uint32_t)GY_STREAM_SEND_POLL;
    gy_stream_free_send(stream);
    if ((stream->flags & (GY_STREAM_SHUT_WANTED | GY_STREAM_SHUT_DONE)) == GY_STREAM_SHUT_WANTED)
        shutdown_late(stream);
}

int
gy_stream_write(struct gy_stream *stream, const struct gy_segment *segment)
{
    int err;

    if (!gy_stream_alive(stream) || (stream->flags & GY_STREAM_SHUT_WANTED) != 0)
        return -EPIPE;
    err = gy_sendq_push(&stream->queue, &stream->loop->spare_segments, segment);
    if (err < 0)
        return err;
    if (GY_UNLIKELY((stream->flags & GY_STREAM_PIPE) != 0))
        stream->loop->hold.left = 0; /* only sends to sockets wait for those of other callbacks */
    /* While a send is in flight its handler sends the rest. */
    if (gy_op_is_idle(&stream->send_op) && !gy_list_linked(&stream->dirty))
        gy_list_append(&stream->loop->dirty, &stream->dirty);
    return 0;
}

void
gy_stream_flush(struct gy_stream *stream)
{
    gy_list_remove(&stream->dirty);
    if (stream->queue.count == 0 || !gy_stream_alive(stream) || !gy_op_is_idle(&stream->send_op))
        return;
    send_now(stream);
}

void
gy_stream_flush_dirty(struct gy_stream *stream)
{
    size_t before = stream->queue.bytes;

    GY_ASSERT(!stream->loop->quiet);
    gy_stream_flush(stream);
    if (stream->queue.bytes < before && gy_stream_alive(stream))
        stream->host->drained(stream);
}

/* ---- many at once ---- */

struct owners {
    unsigned count;
    struct {
        struct gy_stream *stream;
        void *owner;
    } each[GY_SENDS_MAX * GY_SEND_PIECES_MAX];
};

/* Nothing but its bytes is to be thought of. */
static bool
is_plain(struct gy_stream *stream)
{
    enum { OTHER = GY_STREAM_PIPE | GY_STREAM_FULL | GY_STREAM_SEND_POLL | GY_STREAM_SHUT_WANTED };
    return (stream->flags & OTHER) == 0 && gy_stream_alive(stream) &&
           gy_op_is_idle(&stream->send_op) && stream->queue.count > 0 &&
           stream->queue.count <= GY_SEND_PIECES_MAX && !by_ring(stream);
}

/* Fills items with the first plain streams of the list; how many. */
static unsigned
collect(struct gy_list *list, struct gy_send *items, struct gy_stream **streams)
{
    unsigned count = 0;
    for (struct gy_list *node = list->next; node != list && count < GY_SENDS_MAX;
         node = node->next) {
        struct gy_stream *stream = container_of(node, struct gy_stream, dirty);
        struct gy_send *item = &items[count];

        if (!is_plain(stream))
            continue;
        item->fd = stream->fd;
        item->message = (struct msghdr){.msg_iov = item->iov};
        item->message.msg_iovlen = gy_sendq_iovec(&stream->queue, item->iov, GY_SEND_PIECES_MAX);
        streams[count++] = stream;
    }
    return count;
}

struct later {
    struct gy_stream *stream;
    struct owners *owners;
};

static void
release_later(void *context, void *owner)
{
    struct later *later = context;
    struct owners *owners = later->owners;

    GY_ASSERT(owners->count < GY_SENDS_MAX * GY_SEND_PIECES_MAX);
    owners->each[owners->count].stream = later->stream;
    owners->each[owners->count++].owner = owner;
}

/* What a send came to, without an upcall: true if it has taken something. */
static bool
take_result(struct gy_stream *stream, ssize_t sent, struct owners *owners)
{
    struct gy_loop *loop = stream->loop;
    struct later later = {stream, owners};

    loop->counters.send_calls++;
    loop->counters.sends_held++;
    if (GY_UNLIKELY(sent < 0 && sent != -EAGAIN && sent != -EINTR)) {
        gy_stream_fail(stream, (int)sent);
        return false;
    }
    if (GY_LIKELY(sent > 0)) {
        loop->counters.bytes_out += (uint64_t)sent;
        gy_sendq_advance(&stream->queue, &loop->spare_segments, (size_t)sent, release_later,
                         &later);
    }
    if (GY_UNLIKELY(stream->queue.count > 0))
        start_send_op(stream);
    return sent > 0;
}

/* All results are taken before the first owner is released or host told: both may do anything to
 * any stream, which then is as if it had been sent to by a call of its own. */
static void
finish_many(struct gy_list *done, struct owners *owners)
{
    struct gy_list *node;

    for (unsigned i = 0; i < owners->count; i++)
        release_owner(owners->each[i].stream, owners->each[i].owner);
    while ((node = gy_list_pop(done)) != NULL) {
        struct gy_stream *stream = container_of(node, struct gy_stream, dirty);
        gy_stream_flush(stream); /* what was written meanwhile */
        if (gy_stream_alive(stream))
            stream->host->drained(stream);
    }
}

void
gy_stream_flush_many(struct gy_loop *loop, struct gy_list *list)
{
    struct gy_stream *streams[GY_SENDS_MAX];
    struct gy_send items[GY_SENDS_MAX];
    struct owners owners;
    struct gy_list done;

    GY_ASSERT(!loop->quiet);
    gy_list_init(&done);
    while (list->next != list->prev) { /* more than one */
        unsigned count = collect(list, items, streams);
        unsigned tried = count > 1 ? loop->ring->ops->send_many(loop->ring, items, count) : 0;

        if (count > 1 && tried == 0)
            loop->hold.wanted = false; /* it cannot be done here */
        if (tried == 0)
            return;
        owners.count = 0;
        for (unsigned i = 0; i < tried; i++) {
            gy_list_remove(&streams[i]->dirty);
            if (take_result(streams[i], items[i].res, &owners))
                gy_list_append(&done, &streams[i]->dirty);
        }
        finish_many(&done, &owners);
    }
}

ssize_t
gy_stream_try_write(struct gy_stream *stream, const void *data, size_t len)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
    ssize_t sent;

    if (!gy_stream_alive(stream) || (stream->flags & GY_STREAM_SHUT_WANTED) != 0)
        return -EPIPE;
    if (stream->queue.count > 0 || len == 0 || by_ring(stream))
        return 0;
    GY_ASSERT(gy_op_is_idle(&stream->send_op));
    sent = call_send(stream, &iov, 1);
    if ((stream->flags & GY_STREAM_PIPE) != 0 && (sent == -EAGAIN || (size_t)sent < len))
        stream->flags |= GY_STREAM_FULL;
    if (sent == -EAGAIN)
        return 0;
    if (sent < 0)
        gy_stream_fail(stream, (int)sent);
    else
        stream->loop->counters.bytes_out += (uint64_t)sent;
    return sent;
}

int
gy_stream_shutdown_write(struct gy_stream *stream)
{
    GY_ASSERT((stream->flags & GY_STREAM_PIPE) == 0);
    if (!gy_stream_alive(stream) || (stream->flags & GY_STREAM_SHUT_WANTED) != 0)
        return 0;
    stream->flags |= GY_STREAM_SHUT_WANTED;
    return stream->queue.count == 0 ? shutdown_now(stream) : 0;
}

/* What happened while the loop is quiet is told to the host in the next run. */
static GY_COLD void
continue_quietly(struct gy_stream *stream, int res)
{
    if (stream->queue.count > 0)
        gy_op_submit(stream->loop, &stream->send_op);
    else if ((stream->flags & GY_STREAM_SHUT_WANTED) != 0)
        shutdown_late(stream);
    if (res > 0 && gy_stream_alive(stream)) {
        stream->flags |= GY_STREAM_DRAIN_DUE;
        gy_stream_queue_work(stream);
    }
}

/* The kernel does not wait for room in a socket whose peer has shut down its sending half: its
 * polls always report POLLRDHUP, so a sendmsg SQE ends with EAGAIN after a few hundred microseconds
 * of burnt CPU (seen on 6.18).  A multishot poll says so once and then reports the room.  Returns
 * what counts as the result of a send of nothing. */
static GY_COLD int
on_send_poll(struct gy_stream *stream, const struct gy_event *ev)
{
    if (gy_op_is_idle(&stream->send_op)) {
        stream->flags &= ~(uint32_t)GY_STREAM_SEND_POLL;
        return ev->res < 0 ? ev->res : 0;
    }
    if (ev->res < 0 || (ev->res & POLL_SEND_MASK) != 0)
        (void)gy_op_cancel(stream->loop, &stream->send_op);
    return 0;
}

/* WATCH: that nobody reads any more is told before a write finds it out, since a selector loop
 * looks first at what can be read.  Which of the two polls ends first is the kernel's choice. */
static GY_COLD void
watch_first(struct gy_stream *stream, int32_t res)
{
    bool left = res > 0 && (res & (POLLERR | POLLHUP)) != 0;

    if (!gy_stream_may_deliver(stream) || (stream->flags & GY_STREAM_EOF) != 0)
        return;
    if (!left && !gy_loop_has_event(stream->loop, &stream->recv_op))
        return;
    stream->flags |= GY_STREAM_READABLE;
    gy_stream_receive(stream);
}

void
gy_stream_on_send(struct gy_loop *loop, struct gy_op *op, const struct gy_event *ev)
{
    struct gy_stream *stream = container_of(op, struct gy_stream, send_op);
    size_t before = stream->queue.bytes;
    int res = ev->res;

    GY_ASSERT((stream->flags & GY_STREAM_CLOSED) == 0);
    if (GY_UNLIKELY((stream->flags & GY_STREAM_SEND_POLL) != 0))
        res = on_send_poll(stream, ev);
    else if (GY_UNLIKELY(res == -EAGAIN))
        stream->flags |= GY_STREAM_SEND_POLL; /* until the queue is empty or the poll lands */
    if (!gy_op_is_idle(op))
        return; /* the poll goes on */
    if (GY_UNLIKELY((stream->flags & GY_STREAM_WATCH) != 0))
        watch_first(stream, ev->res);
    if (res > 0)
        account(stream, (size_t)res);
    else if (res < 0 && res != -ECANCELED && res != -EINTR && res != -EAGAIN) {
        gy_stream_receive_last(stream);
        gy_stream_fail(stream, res);
    }
    if ((stream->flags & GY_STREAM_CLOSING) != 0) {
        gy_stream_drop_queue(stream);
        gy_stream_settle(stream);
        return;
    }
    if (stream->error != 0) {
        gy_stream_queue_error(stream); /* it waited for this op */
        return;
    }
    if (!gy_op_is_idle(op))
        return; /* a release has written and flushed */
    if (loop->quiet) {
        continue_quietly(stream, res);
        return;
    }
    send_now(stream);
    /* Not `res > 0`: the op may end with EAGAIN, and send_now() alone empty the queue. */
    if (stream->queue.bytes < before && gy_stream_alive(stream))
        stream->host->drained(stream);
}
