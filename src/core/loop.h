/* loop.h: one event loop: ring, timers, wakeup, and the lists of what is to be done.
 *
 * The embedder drives the turn; the core supplies its pieces, in this order:
 *
 *     gy_loop_begin()                        once per run, on the running thread
 *     each turn:
 *         gy_loop_poll() or gy_loop_wait()   flush queued ops, enter the kernel (wait: may block;
 * the embedder has called gy_loop_prepare_wait() and drops its lock around wait)
 *         ... the embedder runs what was ready; after each callback gy_loop_flush_dirty()
 *         gy_loop_reap()                     dispatches completions: upcalls through host.h vtables
 *     gy_loop_quiesce()                      when the run ends: nothing is in flight afterwards
 *     gy_loop_close()                        once
 *
 * Outside begin..quiesce ops only wait in `pending`; no thread owns the ring.  A begin on another
 * thread than before makes a new ring. Errors: -errno; in a forked child begin, poll and wait
 * return -ECHILD, and everything that would touch the ring does nothing.  Thread: the running
 * thread; wakeup.h says what others may do. */
#ifndef GY_LOOP_H
#define GY_LOOP_H

#include "ballast.h"
#include "bufgroup.h"
#include "forkmark.h"
#include "heap.h"
#include "hold.h"
#include "op.h"
#include "ring.h"
#include "sendq.h"
#include "spin.h"
#include "timer.h"
#include "wakeup.h"
#include "work.h"

struct gy_stream;
struct gy_stream_send;
struct gy_listener;

enum {
    GY_REAP_BUDGET_EVENTS = 1024,
    /* What was received waits for the tasks that read it: more than fits into the cache of a core
     * is fetched from memory again, and a heap that holds it grows and shrinks. */
    GY_REAP_BUDGET_BYTES = 256 * 1024,
    GY_WORK_BUDGET = 1024,
    GY_AHEAD_EVENTS = 32,
};

struct gy_loop_counters {
    uint64_t ops_submitted;
    uint64_t ops_landed;
    uint64_t cancels;
    uint64_t recv_calls; /* recv(2) and recv events that carried data */
    uint64_t send_calls; /* send(2)/sendmsg(2) tried                  */
    uint64_t send_ops;   /* sendmsg SQEs                              */
    uint64_t sends_held; /* of send_calls: by a call for many streams */
    uint64_t fixed_ops;  /* reads and writes of registered memory     */
    uint64_t bytes_in;
    uint64_t bytes_out;
    uint64_t accepted;
    uint64_t waits; /* waits that could block */
};

struct gy_loop {
    struct gy_ring *ring; /* NULL only before init and after close                 */
    uint32_t features;    /* copy of ring->features                                */
    bool running;         /* between begin and quiesce                             */
    bool quiet;           /* no upcalls: quiescing or closing                      */
    bool interrupted;     /* set by the embedder in an upcall: reap stops after it */
    bool enabled;         /* the ring is bound to `thread`                         */
    bool closed;
    bool sqe_shortage; /* the last flush left ops behind: wait shortly, try again  */
    struct gy_forkmark forkmark;
    uint64_t thread_id; /* gy_sys_thread_id() of the thread that enabled the ring   */
    struct gy_ring_options ring_options;
    int (*ring_create)(const struct gy_ring_options *options, struct gy_ring **out);
    struct gy_list pending;     /* QUEUED ops                                            */
    struct gy_list cancels;     /* CANCELLING ops whose cancel SQE is not yet taken      */
    struct gy_list dirty;       /* streams with unsent segments (gy_stream.dirty)        */
    struct gy_list short_reads; /* streams that may stand at urgent data (stream_mark.c)   */
    uint32_t short_count;
    int64_t mark_due_ns;      /* when to ask them at the latest; GY_NS_NEVER: there are none */
    struct gy_list bursts;    /* datagram sockets that sent in this callback (gy_dgram.burst) */
    struct gy_list work;      /* gy_work items: deferred work                          */
    struct gy_list failed;    /* the same, of streams that have an error to tell: at its end */
    struct gy_list resumed;   /* the same, from the next poll or wait on: what the callbacks that
                                 were scheduled before it go before                      */
    bool ring_sends;          /* the embedder's: streams send by ops of the ring alone */
    struct gy_hold hold;      /* small sends that wait for those of other callbacks     */
    struct gy_list send_pool; /* spare gy_stream_send blocks                           */
    uint32_t send_pool_count;
    struct gy_sendq_spare spare_segments;
    uint32_t inflight;       /* ops INFLIGHT or CANCELLING                            */
    uint32_t live;           /* streams and listeners not yet closed                  */
    struct gy_timers timers; /* the embedder's (call_later) and the core's own        */
    struct gy_wakeup wakeup;
    struct gy_spin spin;       /* the embedder sets it: gy_spin_init(); at first it never looks */
    int64_t look_ns;           /* how long this wait looks before it sleeps                    */
    int64_t wait_began_ns;     /* 0: not measured                                              */
    struct gy_ballast ballast; /* the embedder's, as heap */
    struct gy_heap heap;       /* the embedder sets it: gy_heap_init(); at first not wanted    */
    struct gy_bufgroup buffers;
    struct gy_list fixed; /* struct gy_fixed: memory registered with the ring          */
    void *scratch;        /* GY_RECV_BYTES_MAX bytes, allocated at first use       */
    unsigned reaped;      /* the most that one of the last gy_loop_reap() dispatched */
    uint64_t turn;        /* counts gy_loop_reap()                                 */
    struct gy_event ahead[GY_AHEAD_EVENTS]; /* taken too soon, by gy_loop_land() or a full reap */
    unsigned ahead_count;
    struct gy_loop_counters counters;
    /* Optional, the embedder's: called before upcalls may begin, in a reap that has something to
     * do or a flush of dirty streams. */
    void (*before_upcalls)(struct gy_loop *loop);
    /* Optional, the embedder's: true while callbacks are ready.  A socket that has been read in
     * this turn is then read again in the next, after them, as on a selector loop. */
    bool (*callbacks_wait)(const struct gy_loop *loop);
};

/* Whether a socket that was read `calls` times in this turn may be read once more. */
static inline bool
gy_loop_may_read_on(const struct gy_loop *loop, unsigned calls)
{
    return calls == 0 || loop->callbacks_wait == NULL || !loop->callbacks_wait(loop);
}

/* In place.  Creates the ring (disabled) through `create` and the wakeup.  0 or -errno, nothing
 * kept. */
int gy_loop_init(struct gy_loop *loop, const struct gy_ring_options *options,
                 int (*create)(const struct gy_ring_options *options, struct gy_ring **out));
/* 0 or -errno: the ring is bound to this thread and may be entered.  -EBUSY: already running, or an
 * op that would not end in the last quiesce is still held by the ring of another thread.  After any
 * other error the loop is as it was, and may begin later. */
int gy_loop_begin(struct gy_loop *loop);
/* Of a loop that has never begun: another ring, for one that could not be set up.  0 or -errno, and
 * nothing has changed. */
int gy_loop_use_ring(struct gy_loop *loop,
                     int (*create)(const struct gy_ring_options *options, struct gy_ring **out));
/* Cancels everything in flight and reaps, without upcalls, until nothing is; what is still wanted
 * goes back to `pending`.  Bounded by `limit_ns`; returns the number of ops that would not end
 * (they stay in flight). */
uint32_t gy_loop_quiesce(struct gy_loop *loop, int64_t limit_ns);
/* The embedder has closed its streams and listeners, or accepts that they are dropped without
 * upcalls. Frees buffers, ring, wakeup.  In a forked child only this process's copies. Idempotent.
 */
void gy_loop_close(struct gy_loop *loop);

/* True in a child of fork() that inherited the loop.  One word read. */
static inline bool
gy_loop_forked(const struct gy_loop *loop)
{
    return gy_forkmark_differs(&loop->forkmark);
}

/* The clock of the ring; also after gy_loop_close. */
int64_t gy_loop_now_ns(const struct gy_loop *loop);

/* Work that must run in the next turn whatever the kernel says (so: do not block). */
static inline bool
gy_loop_has_work(const struct gy_loop *loop)
{
    return !gy_list_empty(&loop->work) || !gy_list_empty(&loop->failed) ||
           !gy_list_empty(&loop->resumed) || loop->ahead_count != 0;
}

/* Submits what is queued and runs the kernel's deferred work, without waiting.  Does nothing when
 * there is nothing to do; `force` enters all the same.  0 or -errno. */
int gy_loop_poll(struct gy_loop *loop, bool force);

/* Step one of a wait: flushes queued ops into the ring and declares the loop asleep.  After it the
 * embedder checks its queues once more, and then calls gy_loop_wait without its lock, or
 * gy_loop_cancel_wait. */
void gy_loop_prepare_wait(struct gy_loop *loop);
/* Looks (spin.h), then enters until an event, a wakeup, a signal or the deadline (absolute
 * CLOCK_MONOTONIC ns, GY_NS_NEVER). Touches nothing but the ring: safe without the embedder's lock.
 * 0; -EINTR after a signal, or when the kernel's answer hides whether there was one (time may also
 * have run out); or another -errno. */
int gy_loop_wait(struct gy_loop *loop, int64_t deadline_ns);
/* Step three (also instead of the wait): awake again. */
void gy_loop_finish_wait(struct gy_loop *loop);

/* Dispatches, now and out of turn, the events of these two ops that have come already; events of
 * others that stand before them are kept, in order, for the next reap (at most GY_AHEAD_EVENTS).
 * The caller knows that the two make no upcall but those that it asks for. */
void gy_loop_land(struct gy_loop *loop, const struct gy_op *first, const struct gy_op *second);

/* Whether an event of this op has come already, as far as GY_AHEAD_EVENTS tell. */
bool gy_loop_has_event(struct gy_loop *loop, const struct gy_op *op);

/* The next event for dispatch; those in `ahead` come first. */
bool gy_loop_next_event(struct gy_loop *loop, struct gy_event *ev);

/* Runs the work list and dispatches at most GY_REAP_BUDGET_EVENTS events; stops early when they
 * have brought GY_REAP_BUDGET_BYTES or `interrupted` is set.  Returns how many were dispatched. */
unsigned gy_loop_reap(struct gy_loop *loop);

/* A pass over about `count` callbacks begins, after each of which comes gy_loop_flush_dirty():
 * their sends may be held and leave together (hold.h).  At its end everything leaves. */
void gy_loop_pass_begin_slow(struct gy_loop *loop);
static inline void
gy_loop_pass_begin(struct gy_loop *loop, size_t count)
{
    if (GY_UNLIKELY(gy_hold_likely(&loop->hold, count)))
        gy_loop_pass_begin_slow(loop);
}
void gy_loop_pass_end_slow(struct gy_loop *loop, size_t done);
static inline void
gy_loop_pass_end(struct gy_loop *loop, size_t done)
{
    if (GY_UNLIKELY(loop->hold.room != 0))
        gy_loop_pass_end_slow(loop, done);
}

/* Flushes every dirty stream and every burst of datagrams; the embedder calls it after each
 * callback.  Inline test first. */
void gy_loop_flush_dirty_slow(struct gy_loop *loop);
static inline void
gy_loop_flush_dirty(struct gy_loop *loop)
{
    if (GY_UNLIKELY(!gy_list_empty(&loop->dirty) || !gy_list_empty(&loop->bursts)))
        gy_loop_flush_dirty_slow(loop);
}

/* The embedder's earliest timer that is due at now_ns, taken out of the heap, or NULL.  Due timers
 * of the core's own are served on the way. */
struct gy_timer *gy_loop_pop_due(struct gy_loop *loop, int64_t now_ns);

#endif
