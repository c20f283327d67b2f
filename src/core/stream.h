/* stream.h: one duplex byte stream (TCP, UNIX, pipe end) over the ring.
 *
 * Receiving, two policies (gy_recv_policy).  POLL: a multishot poll (edge-triggered; one-shot where
 * the kernel has none) and recv(2) straight into memory that the host names, up to 256 KiB a call.
 * Pausing needs no kernel call: the edge is remembered in `readable` and read on resume.
 * MULTISHOT: multishot recv into the loop's shared provided buffers, for small messages.  A stream
 * whose receives fill their buffers switches itself to POLL.  What lands while paused waits in a
 * bounded hold list; only when that is full is the receive cancelled.
 *
 * Sending: gy_stream_write() queues and marks the stream dirty; gy_stream_flush() (the loop calls
 * it for every dirty stream after each callback, gy_loop_flush_dirty()) sends at once by
 * send(2)/sendmsg(2), or not before the ring's next system call (gy_loop.ring_sends); what the
 * socket does not take leaves as one sendmsg SQE with MSG_WAITALL in flight.  At most one send is
 * in flight, so bytes keep their order.
 *
 * Close machine: cancel what is in flight -> both ops idle -> host->detach -> close(fd) ->
 * host->closed. Owner: the embedder allocates it; from gy_stream_init until host->closed the kernel
 * may hold its ops. Thread: the loop's.  Any upcall may call any function here, close included; the
 * stream re-reads its state after each upcall and stays valid until closed() has returned. */
#ifndef GY_STREAM_H
#define GY_STREAM_H

#include "op.h"
#include "sendq.h"
#include "work.h"

struct gy_stream;

enum gy_recv_policy { GY_RECV_POLL, GY_RECV_MULTISHOT };

/* recv(2) takes at most this much in one call, and one stream at most this many calls per turn. */
enum { GY_RECV_BYTES_MAX = 256 * 1024, GY_RECV_CALLS_PER_TURN = 4 };

/* What lay behind urgent data already when the bytes before it were read is read before the loop
 * sleeps, or, when more streams than FEW read short since it was asked, so much later. */
#define GY_MARK_DELAY_NS (GY_NS_PER_SECOND / 20)
enum { GY_MARK_FEW = 8 };

struct gy_stream_host {
    /* POLL only: names the memory of the next recv(2).  Default (NULL pointer here, or *len left
     * 0): the loop's scratch buffer.  false: the host failed and has taken its measures (closed or
     * paused). */
    bool (*buffer)(struct gy_stream *stream, void **data, size_t *len);
    /* The memory that buffer() named got nothing: recv(2) came back empty-handed, or was not called
     * after all.  (Otherwise data or eof follows.)  May be NULL. */
    void (*unused)(struct gy_stream *stream);
    /* len > 0 bytes at data: in the memory that buffer() named, in the scratch buffer or in a
     * provided buffer; valid during the call only. */
    void (*data)(struct gy_stream *stream, void *data, size_t len);
    /* The peer will send no more.  Receiving has stopped; sending still works. */
    void (*eof)(struct gy_stream *stream);
    /* Receiving or sending failed (-errno).  Both have stopped and the queue was dropped; the host
     * is expected to close. */
    void (*error)(struct gy_stream *stream, int err);
    /* The queue got shorter (gy_stream_queued() tells); called once per event, not per segment. */
    void (*drained)(struct gy_stream *stream);
    /* A segment's owner comes back. */
    void (*release)(struct gy_stream *stream, void *owner);
    /* Just before close(fd): the host lets go of every other object that knows the descriptor.  It
     * may set stream->fd to -1: the descriptor is not ours any more, nothing is closed. */
    void (*detach)(struct gy_stream *stream);
    /* fd is closed, no op is in flight, the queue is empty: the memory may be freed. */
    void (*closed)(struct gy_stream *stream);
};

enum gy_stream_flags {
    GY_STREAM_READING = 1u << 0,     /* the host wants data                                 */
    GY_STREAM_READABLE = 1u << 1,    /* POLL: an edge came that is not used up              */
    GY_STREAM_EOF = 1u << 2,         /* the peer's end was delivered                        */
    GY_STREAM_BROKEN = 1u << 3,      /* error() was delivered                               */
    GY_STREAM_CLOSING = 1u << 4,     /* gy_stream_close() was called                        */
    GY_STREAM_CLOSED = 1u << 5,      /* host->closed was called                             */
    GY_STREAM_SHUT_WANTED = 1u << 6, /* shutdown(SHUT_WR) when the queue is empty           */
    GY_STREAM_SHUT_DONE = 1u << 7,
    GY_STREAM_HUNGUP = 1u << 8,    /* POLL: the peer's end is near: read on until 0 or an error */
    GY_STREAM_DRAIN_DUE = 1u << 9, /* host->drained has to be called from the work list      */
    /* The embedder sets this one, after gy_stream_init, for everything that is not TCP: a short
     * read does not mean that nothing is left (a UNIX socket stops at a passed descriptor, a
     * terminal at a line), so POLL reads until the socket has no more. */
    GY_STREAM_READ_OUT = 1u << 10,
    GY_STREAM_SEND_POLL = 1u << 11, /* send_op waits for room and sends nothing itself */
    /* Set by the embedder after gy_stream_init.  PIPE: fd need not be a socket, received by POLL;
     * nothing is sent by the ring, and gy_stream_shutdown_write() is not to be called.  With it, if
     * fd is not known to be in non-blocking mode: SOCKET, it is one, or NOWAIT, it takes
     * RWF_NOWAIT (sys_pipe.h).  WATCH: nothing is read; what makes fd
     * readable or breaks it (the other end of a pipe was closed) is told by eof(). */
    GY_STREAM_PIPE = 1u << 12,
    GY_STREAM_WATCH = 1u << 13,
    GY_STREAM_FULL = 1u << 14, /* PIPE: took only a part a moment ago: wait before the next try */
    /* With READ_OUT, for a UNIX socket: a short read says by itself whether it stopped at something
     * that is not bytes, so that most need no second one. */
    GY_STREAM_LOCAL = 1u << 15,
    GY_STREAM_SOCKET = 1u << 16,
    GY_STREAM_NOWAIT = 1u << 17,
};

struct gy_stream {
    struct gy_loop *loop;
    const struct gy_stream_host *host;
    int fd;
    uint32_t flags;
    uint8_t policy;            /* enum gy_recv_policy                                      */
    uint8_t recv_mode;         /* the policy that recv_op was last armed with               */
    uint8_t full_reads;        /* MULTISHOT: receives in a row that filled their buffer    */
    uint8_t read_turn;         /* the low bits of loop->turn when it was read last         */
    int32_t error;             /* -errno that host->error still has to hear, or 0 */
    struct gy_list dirty;      /* in loop->dirty: has unsent segments not yet tried        */
    struct gy_list short_read; /* in loop->short_reads: perhaps it stopped at urgent data  */
    struct gy_work work;       /* readable, to be re-armed, failed, or to finish           */
    struct gy_op recv_op;
    struct gy_op send_op;
    struct gy_sendq queue;
    struct gy_stream_send
        *send;           /* msghdr + iovec of the send in flight, from the loop's pool, or NULL */
    struct gy_list held; /* MULTISHOT: provided buffers that landed while paused     */
    uint32_t held_bytes;
    int32_t
        end; /* MULTISHOT: what comes after the held bytes: -errno, 1 for the peer's end, or 0 */
};

/* fd must be a socket, or non-blocking (but see GY_STREAM_PIPE); the stream owns it from here on
 * (it closes it, nobody else does). */
void gy_stream_init(struct gy_stream *stream, struct gy_loop *loop, int fd,
                    const struct gy_stream_host *host, enum gy_recv_policy policy);

/* The first call arms the receive.  After gy_stream_pause() the peer's end is told once more. */
void gy_stream_resume(struct gy_stream *stream);
void gy_stream_pause(struct gy_stream *stream); /* no data() after this returns until resumed */
/* As pause, for good: the kernel gives the receive back, so that a close that follows later is done
 * sooner. */
void gy_stream_stop_receive(struct gy_stream *stream);
/* Switches policy for good (BufferedProtocol: POLL).  Allowed at any time. */
void gy_stream_set_policy(struct gy_stream *stream, enum gy_recv_policy policy);

/* Queues a segment and marks the stream dirty.  Sends nothing by itself.
 * 0, or -ENOMEM (nothing taken), -EPIPE after shutdown_write, error or close (nothing taken). */
int gy_stream_write(struct gy_stream *stream, const struct gy_segment *segment);
/* Sends now what can be sent without waiting, unless a send is in flight.  Errors are reported by
 * host->error at the end of a turn, never from inside this call; host->drained is not called
 * either (the caller sees gy_stream_queued()), host->release is. */
void gy_stream_flush(struct gy_stream *stream);
/* For loop.c: flushes those of a list of dirty streams that can leave by one call, and unlinks
 * them; calls host->drained as below. */
void gy_stream_flush_many(struct gy_loop *loop, struct gy_list *streams);
/* For loop.c: flushes a dirty stream after a callback, and calls host->drained if that sent
 * anything. */
void gy_stream_flush_dirty(struct gy_stream *stream);
/* Tries to send `data` without queueing anything: bytes taken (0..len), 0 if the queue is not empty
 * or the socket is full, or -errno (reported by host->error at the end of the turn as well). */
ssize_t gy_stream_try_write(struct gy_stream *stream, const void *data, size_t len);
static inline size_t
gy_stream_queued(const struct gy_stream *stream)
{
    return stream->queue.bytes; /* includes what is in flight */
}

/* After the queue has been sent.  0, or -errno of the shutdown(2) if it was empty: -ENOTCONN after
 * a reset, of which the host hears by itself. */
int gy_stream_shutdown_write(struct gy_stream *stream);
/* Drops the queue and starts the close machine; closed() follows from a later turn, never from
 * inside.  host->release may be called from inside. */
void gy_stream_close(struct gy_stream *stream);
/* As gy_stream_close(), but when the kernel has let go already (gy_stream_stop_receive() was called
 * in an earlier turn, and nothing is being sent) fd is closed and closed() called from inside. */
void gy_stream_close_now(struct gy_stream *stream);
/* For a stream whose loop is closed (gy_loop_close) or will never turn again: drops the queue and
 * closes fd at once.  Of the host only release and detach are called; the memory may be freed when
 * this returns.  Allowed while the loop runs if nothing of it is in flight.  The struct gy_loop
 * must still be there.  Segments of a send that could not be ended stay with their owner's
 * reference, because the kernel may still read them. */
void gy_stream_abandon(struct gy_stream *stream);

/* Nothing can come to the host before it does something itself: it does not read, or has heard the
 * end, nothing is queued and no error is to be told.  A poll may be in flight all the same. */
bool gy_stream_is_at_rest(const struct gy_stream *stream);
/* For one that is at rest and that nobody refers to any more.  True: as gy_stream_abandon(); false:
 * as gy_stream_close(), since the kernel holds an op. */
bool gy_stream_drop(struct gy_stream *stream);

/* For loop.c: the deferred part (work list), the handlers and prepares of the two op kinds. */
void gy_stream_run_work(struct gy_stream *stream);
void gy_stream_prepare_recv(struct gy_loop *loop, struct gy_op *op, struct io_uring_sqe *sqe);
void gy_stream_prepare_send(struct gy_loop *loop, struct gy_op *op, struct io_uring_sqe *sqe);
void gy_stream_on_recv(struct gy_loop *loop, struct gy_op *op, const struct gy_event *ev);
void gy_stream_on_send(struct gy_loop *loop, struct gy_op *op, const struct gy_event *ev);
/* For loop.c: asks the streams that read short whether they stand at urgent data, and lets those
 * read on. */
void gy_stream_look_for_marks(struct gy_loop *loop);
/* There are some: the same, but not before GY_MARK_DELAY_NS have passed since the first time. */
void gy_stream_marks_later(struct gy_loop *loop, int64_t now_ns);
void gy_stream_pool_drain(struct gy_loop *loop); /* frees the loop's spare blocks */

#endif
