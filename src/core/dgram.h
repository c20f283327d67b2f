/* dgram.h: one datagram socket (UDP, UNIX, or of a family that only the embedder knows).
 *
 * Receiving: a poll (`readable` is remembered: where it is multishot, it is edge-triggered) and
 * recvmsg(2) until the socket has no more, at most GY_DGRAM_CALLS_PER_TURN times a turn.  With
 * UDP_GRO one call may bring many datagrams of a sender; they are split before the host sees them,
 * and what the host does not take because it paused waits in `parked`.
 *
 * Sending: gy_dgram_try_send()
 * sends at once when nothing is queued.  With UDP_SEGMENT the followers of a datagram, of its size
 * and to its destination, are queued instead (a burst): the loop flushes them after the running
 * callback (gy_loop_flush_dirty()), up to GY_DGRAM_SEGMENTS_MAX in one sendmsg(2).  When the socket
 * is full, the queue waits for a poll.  Each datagram keeps its place.
 *
 * Close machine: cancel the polls -> both idle -> host->detach -> close(fd) -> host->closed.
 * Owner: the embedder allocates it; from gy_dgram_init until host->closed the kernel may hold its
 * ops.  Thread: the loop's.  Any upcall may call any function here, close included; the datagram
 * socket re-reads its state after each upcall and stays valid until closed() has returned. */
#ifndef GY_DGRAM_H
#define GY_DGRAM_H

#include "poll.h"
#include "ring.h"
#include "work.h"

enum {
    GY_DGRAM_BYTES_MAX = 256 * 1024, /* a longer datagram is cut */
    GY_DGRAM_CALLS_PER_TURN = 32,
    GY_DGRAM_SEGMENTS_MAX = 64, /* what the kernel takes in one send, and in bytes: */
    GY_DGRAM_BURST_BYTES_MAX = 65000
};

struct gy_dgram;
struct gy_dgram_parked;
struct gy_dgram_target;

/* One datagram to be sent; data lies in memory that the owner keeps alive. */
struct gy_datagram {
    const char *data;
    size_t len;
    void *owner;
    struct gy_dgram_target *to; /* the core's; NULL: where the socket is connected to */
};

struct gy_dgram_host {
    /* A datagram of len bytes, 0 included; *from has len 0 if the sender has no name.  Valid during
     * the call. */
    void (*datagram)(struct gy_dgram *dgram, const void *data, size_t len,
                     const struct gy_address *from);
    /* GY_DGRAM_FOREIGN only: receives one and delivers it.  0, or -EAGAIN, or another -errno that
     * error() is to hear of. */
    int (*receive)(struct gy_dgram *dgram);
    /* Sends a datagram that was pushed with a foreign target.  As sendmsg(2): >= 0 or -errno. */
    ssize_t (*send)(struct gy_dgram *dgram, void *owner);
    /* A datagram could not be sent, or the socket had an error to report (-errno).  All goes on. */
    void (*error)(struct gy_dgram *dgram, int err);
    /* The socket cannot be waited for (-errno).  The host is expected to close. */
    void (*broken)(struct gy_dgram *dgram, int err);
    /* The queue got shorter by itself. */
    void (*drained)(struct gy_dgram *dgram);
    /* A datagram's owner comes back. */
    void (*release)(struct gy_dgram *dgram, void *owner);
    /* Just before close(fd), as in stream.h: may set dgram->fd to -1. */
    void (*detach)(struct gy_dgram *dgram);
    /* fd is closed, no op is in flight, the queue is empty: the memory may be freed. */
    void (*closed)(struct gy_dgram *dgram);
};

enum gy_dgram_flags {
    GY_DGRAM_READING = 1u << 0,  /* the host wants datagrams                       */
    GY_DGRAM_READABLE = 1u << 1, /* an edge came that is not used up               */
    GY_DGRAM_FULL = 1u << 2,     /* the socket took no more: the queue waits       */
    GY_DGRAM_FLUSHING = 1u << 3, /* the queue is being sent: an upcall does not    */
    GY_DGRAM_CLOSING = 1u << 4,  /* gy_dgram_close() was called                    */
    GY_DGRAM_CLOSED = 1u << 5,   /* host->closed was called                        */
    GY_DGRAM_GRO = 1u << 6,      /* one receive may bring several                  */
    GY_DGRAM_GSO = 1u << 7,      /* bursts are sent together                       */
    /* The embedder sets these, as gy_dgram_init's argument. */
    GY_DGRAM_FOREIGN = 1u << 8,    /* received by host->receive: addresses of a family of its own */
    GY_DGRAM_OFFLOAD = 1u << 9,    /* UDP, and segmentation offload is wanted */
    GY_DGRAM_DRAIN_DUE = 1u << 10, /* a flush inside of a flush: drained() follows */
    GY_DGRAM_BACKLOG = 1u << 11,   /* what is in the queue had to wait for room */
    GY_DGRAM_RECEIVING = 1u << 12, /* upcalls are made, after which it is looked at again */
};

struct gy_dgram {
    struct gy_loop *loop;
    const struct gy_dgram_host *host;
    int fd;
    uint32_t flags;
    int32_t failure;      /* -errno that host->broken still has to hear, or 0 */
    uint32_t told_turn;   /* the low bits of loop->turn at the last datagram() */
    struct gy_work work;  /* readable, drained, broken, or to finish          */
    struct gy_list burst; /* in loop->bursts: a datagram was sent in this callback */
    struct gy_op recv_op;
    struct gy_poll room; /* waits for the socket to take more */
    struct gy_dgram_parked *parked;
    struct gy_datagram *queue; /* a ring of `capacity`, a power of two or 0 */
    uint32_t capacity;
    uint32_t head;
    uint32_t count;
    size_t queued_bytes;
    size_t burst_size;      /* of the first datagram of the burst                         */
    size_t segment_max;     /* longer ones do not leave together: the route refused       */
    size_t refused;         /* those of this size were refused together, but not yet one by one */
    uint32_t singles;       /* so many at the front leave one by one                      */
    struct gy_address last; /* where the last datagram went, if it began a burst          */
};

/* fd must be non-blocking or not be waited for by others; the dgram owns it from here on. */
void gy_dgram_init(struct gy_dgram *dgram, struct gy_loop *loop, int fd,
                   const struct gy_dgram_host *host, uint32_t flags);

void gy_dgram_resume(struct gy_dgram *dgram);
void gy_dgram_pause(struct gy_dgram *dgram); /* no datagram() after this returns until resumed */

/* Sends at once: >= 0, or -errno of this datagram (the caller reports it).  -EAGAIN: it has to be
 * pushed, because the socket is full, others wait before it or (may_wait: a callback is running) it
 * belongs to a burst.  `to` of len 0: the socket is connected.  host->error may be called for those
 * before it. */
ssize_t gy_dgram_try_send(struct gy_dgram *dgram, const void *data, size_t len,
                          const struct gy_address *to, bool may_wait);
/* Queues a datagram; takes over its owner.  `to` NULL: foreign, host->send sends it.  0, or -ENOMEM
 * or -EPIPE (closing), and nothing taken. */
int gy_dgram_push(struct gy_dgram *dgram, const struct gy_datagram *datagram,
                  const struct gy_address *to);
/* As try_send that returned -EAGAIN, for a datagram with a foreign target that the embedder tried
 * to send itself: what is pushed next waits for room. */
void gy_dgram_wait_for_room(struct gy_dgram *dgram);
/* Sends what is only held back; host->error and release may be called, drained is not.  Inside of
 * an upcall of a flush it sends nothing, and drained follows from the work list. */
void gy_dgram_flush(struct gy_dgram *dgram);

/* Drops the queue and starts the close machine; closed() follows from a later turn. */
void gy_dgram_close(struct gy_dgram *dgram);
/* As gy_dgram_close(), but when the kernel has let go already (gy_dgram_pause() was called in an
 * earlier turn, and nothing waits for room) fd is closed and closed() called from inside, unless
 * that is in an upcall. */
void gy_dgram_close_now(struct gy_dgram *dgram);
/* As gy_stream_abandon(): the loop is closed or nothing is in flight; closes fd at once. */
void gy_dgram_abandon(struct gy_dgram *dgram);

/* For loop.c and op.c. */
void gy_dgram_run_work(struct gy_dgram *dgram);
void gy_dgram_end_burst(struct gy_dgram *dgram); /* the callback is over */
void gy_dgram_prepare(struct gy_loop *loop, struct gy_op *op, struct io_uring_sqe *sqe);
void gy_dgram_on_event(struct gy_loop *loop, struct gy_op *op, const struct gy_event *ev);

#endif
