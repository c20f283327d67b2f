/* stream_impl.h: what stream.c, stream_recv.c and stream_send.c share, and nobody else includes. */
#ifndef GY_STREAM_IMPL_H
#define GY_STREAM_IMPL_H

#include "loop.h"
#include "stream.h"
#include <sys/socket.h>

/* msghdr and iovec of a send in flight.  They outlive the call that submits, so they cannot be on
 * the stack; they are needed by streams with a full socket only, so they are not in the stream. */
struct gy_stream_send {
    struct gy_list link; /* in loop->send_pool */
    struct msghdr message;
    struct iovec iov[GY_SENDQ_IOV_MAX];
};

enum { GY_STREAM_DEAD_FLAGS = GY_STREAM_CLOSING | GY_STREAM_CLOSED | GY_STREAM_BROKEN };

/* Neither closing nor failed, also not about to tell the host of a failure. */
static inline bool
gy_stream_alive(const struct gy_stream *stream)
{
    return (stream->flags & GY_STREAM_DEAD_FLAGS) == 0 && stream->error == 0;
}

/* Upcalls are allowed to deliver bytes now. */
static inline bool
gy_stream_may_deliver(const struct gy_stream *stream)
{
    return gy_stream_alive(stream) && (stream->flags & GY_STREAM_READING) != 0 &&
           !stream->loop->quiet && !stream->loop->interrupted;
}

/* stream.c */
void gy_stream_queue_work(struct gy_stream *stream);
/* Records the first failure; the host hears of it at the end of the turn, when no send is in
 * flight. */
void gy_stream_fail(struct gy_stream *stream, int err);
void gy_stream_queue_error(struct gy_stream *stream);
/* stream_recv.c: a send that waited has failed.  What the peer sent before it left is told first: a
 * selector loop reads before it writes, and nobody may have heard of those bytes yet. */
void gy_stream_receive_last(struct gy_stream *stream);
/* An op of a closing stream has landed: finishes when it was the last. */
void gy_stream_settle(struct gy_stream *stream);

/* stream_recv.c */
void gy_stream_arm_recv(struct gy_stream *stream);
void gy_stream_receive(struct gy_stream *stream);
void gy_stream_drop_held(struct gy_stream *stream);

/* stream_mark.c: the stream is not in loop->short_reads yet. */
void gy_stream_note_short(struct gy_stream *stream);
void gy_stream_forget_short(struct gy_stream *stream); /* also one that is in no list */

/* stream_send.c */
void gy_stream_drop_queue(struct gy_stream *stream);
void gy_stream_free_send(struct gy_stream *stream);

#endif
