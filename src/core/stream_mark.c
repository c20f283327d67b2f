/* stream_mark.c: streams that read short because of urgent data, and not because they are empty.
 *
 * A receive that ends before the byte sent with MSG_OOB comes back short, as if the socket were
 * empty, and no edge says that more lies behind it (tcp(7), sockatmark(3)).  To ask after each
 * short read would be a system call per message.  So streams that read short are noted, and asked
 * before the loop sleeps if they are few, else after GY_MARK_DELAY_NS: on a busy loop that is one
 * call for many messages. Owner and thread: stream.c.  Invariant: while the loop sleeps or looks,
 * mark_due_ns is a time if the list is not empty. */
#include "stream.h"

#include "ring.h"
#include "stream_impl.h"

void
gy_stream_note_short(struct gy_stream *stream)
{
    stream->loop->short_count++;
    gy_list_append(&stream->loop->short_reads, &stream->short_read);
}

void
gy_stream_forget_short(struct gy_stream *stream)
{
    struct gy_loop *loop = stream->loop;

    if (!gy_list_linked(&stream->short_read))
        return;
    gy_list_remove(&stream->short_read);
    if (--loop->short_count == 0)
        loop->mark_due_ns = GY_NS_NEVER;
}

/* A multishot receive reads on by itself. */
static bool
may_stand_at_mark(const struct gy_stream *stream)
{
    return gy_stream_alive(stream) && (stream->flags & (GY_STREAM_READABLE | GY_STREAM_EOF)) == 0 &&
           stream->policy == GY_RECV_POLL && stream->recv_mode == GY_RECV_POLL;
}

static GY_COLD void
read_on(struct gy_stream *stream)
{
    stream->flags |= GY_STREAM_READABLE;
    if ((stream->flags & GY_STREAM_READING) != 0)
        gy_stream_queue_work(stream);
}

void
gy_stream_marks_later(struct gy_loop *loop, int64_t now_ns)
{
    if (loop->mark_due_ns == GY_NS_NEVER)
        loop->mark_due_ns = now_ns + GY_MARK_DELAY_NS;
    else if (now_ns >= loop->mark_due_ns)
        gy_stream_look_for_marks(loop);
}

void
gy_stream_look_for_marks(struct gy_loop *loop)
{
    struct gy_ring *ring = loop->ring;
    struct gy_list *node;

    loop->mark_due_ns = GY_NS_NEVER;
    loop->short_count = 0;
    while ((node = gy_list_pop(&loop->short_reads)) != NULL) {
        struct gy_stream *stream = container_of(node, struct gy_stream, short_read);
        if (may_stand_at_mark(stream) && ring->ops->at_mark(ring, stream->fd))
            read_on(stream);
    }
}
