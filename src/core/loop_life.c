/* loop_life.c: how a loop begins, runs in a thread, comes to rest and ends.
 * Thread: init and close any, begin and quiesce the running one.
 * Invariants: the ring is enabled for the thread that began last; outside begin..quiesce nothing is
 * in flight (but what would not end in time, which quiesce reports). */
#include "fixed.h"
#include "loop.h"
#include "loop_internal.h"
#include "stream.h"
#include "sys.h"
#include "trace.h"

#include <errno.h>
#include <string.h>

enum {
    QUIESCE_STEP_NS = 10 * 1000 * 1000, /* one wait within a quiesce                  */
    QUIESCE_ERRORS_MAX = 3,             /* in a row; then the ring is taken for broken */
};
#define CLOSE_LIMIT_NS GY_NS_PER_SECOND

int
gy_loop_init(struct gy_loop *loop, const struct gy_ring_options *options,
             int (*create)(const struct gy_ring_options *options, struct gy_ring **out))
{
    int err;
    memset(loop, 0, sizeof *loop);
    gy_list_init(&loop->pending);
    gy_list_init(&loop->cancels);
    gy_list_init(&loop->dirty);
    gy_list_init(&loop->bursts);
    gy_list_init(&loop->short_reads);
    loop->mark_due_ns = GY_NS_NEVER;
    gy_heap_init(&loop->heap, false);
    gy_ballast_init(&loop->ballast, false);
    gy_list_init(&loop->work);
    gy_list_init(&loop->failed);
    gy_list_init(&loop->resumed);
    gy_list_init(&loop->send_pool);
    gy_sendq_spare_init(&loop->spare_segments);
    gy_list_init(&loop->fixed);
    gy_timers_init(&loop->timers);
    gy_bufgroup_init(&loop->buffers);
    loop->ring_options = *options;
    loop->ring_create = create;
    err = gy_forkmark_init(&loop->forkmark);
    if (err < 0)
        goto fail;
    err = gy_wakeup_init(&loop->wakeup);
    if (err < 0)
        goto fail;
    err = create(options, &loop->ring);
    if (err < 0)
        goto fail_wakeup;
    loop->features = loop->ring->features;
    return 0;

fail_wakeup:
    gy_wakeup_deinit(&loop->wakeup);
fail:
    gy_forkmark_clear(&loop->forkmark);
    loop->closed = true;
    return err;
}

/* ---- one run ---- */

/* A ring answers only to the thread that enabled it.  The new one is made before the old one goes,
 * so that a failure leaves the loop as it was. */
static GY_COLD int
replace_ring(struct gy_loop *loop)
{
    struct gy_ring *old = loop->ring;
    struct gy_ring *ring;
    int err;
    if (loop->inflight > 0)
        return -EBUSY;
    err = loop->ring_create(&loop->ring_options, &ring);
    if (err < 0)
        return err;
    err = ring->ops->enable(ring);
    if (err == 0)
        err = gy_bufgroup_rebind(&loop->buffers, ring);
    if (err < 0) {
        ring->ops->destroy(ring, false);
        return err;
    }
    ring->counters = old->counters;
    old->ops->destroy(old, false);
    gy_fixed_rebind(&loop->fixed, ring); /* what both had would count twice as locked memory */
    loop->ring = ring;
    loop->features = ring->features;
    return 0;
}

/* Makes sure that this thread may enter the ring. */
static int
bind_ring(struct gy_loop *loop, uint64_t thread_id)
{
    int err;
    if (loop->enabled && loop->thread_id == thread_id)
        return 0;
    err = loop->enabled ? replace_ring(loop) : loop->ring->ops->enable(loop->ring);
    if (err < 0)
        return err;
    loop->enabled = true;
    loop->thread_id = thread_id;
    return 0;
}

int
gy_loop_use_ring(struct gy_loop *loop,
                 int (*create)(const struct gy_ring_options *options, struct gy_ring **out))
{
    struct gy_ring *ring;
    int err;
    GY_ASSERT(!loop->enabled && !loop->closed);
    GY_ASSERT(loop->inflight == 0);
    err = create(&loop->ring_options, &ring);
    if (err < 0)
        return err;
    loop->ring->ops->destroy(loop->ring, gy_loop_forked(loop));
    loop->ring_create = create;
    loop->ring = ring;
    loop->features = ring->features;
    return 0;
}

int
gy_loop_begin(struct gy_loop *loop)
{
    int err;
    GY_ASSERT(!loop->closed);
    if (gy_loop_forked(loop))
        return -ECHILD;
    if (loop->running)
        return -EBUSY;
    err = bind_ring(loop, gy_sys_thread_id());
    if (err < 0)
        return err;
    loop->running = true;
    loop->quiet = false;
    loop->interrupted = false;
    return 0;
}

static void
drain_quietly(struct gy_loop *loop)
{
    struct gy_event ev;
    while (gy_loop_next_event(loop, &ev))
        gy_op_dispatch(loop, &ev);
}

/* Each step cancels everything that is left once more: an operation that was on its way between two
 * states of the kernel may have escaped the step before. */
static void
cancel_until_quiet(struct gy_loop *loop, int64_t limit_ns)
{
    struct gy_ring *ring = loop->ring;
    int64_t end_ns = ring->ops->now_ns(ring) + limit_ns;
    int64_t left_ns = limit_ns;
    unsigned errors = 0;
    drain_quietly(loop);
    while (loop->inflight > 0 && left_ns > 0 && errors < QUIESCE_ERRORS_MAX) {
        int err;
        gy_loop_flush_cancels(loop);
        ring->ops->cancel_all(ring);
        err = ring->ops->enter(ring, left_ns < QUIESCE_STEP_NS ? left_ns : QUIESCE_STEP_NS);
        drain_quietly(loop);
        errors = err == 0 || err == -ETIME || err == -EINTR ? 0 : errors + 1;
        left_ns = end_ns - ring->ops->now_ns(ring);
    }
}

uint32_t
gy_loop_quiesce(struct gy_loop *loop, int64_t limit_ns)
{
    struct gy_ring *ring = loop->ring;
    if (!loop->running)
        return loop->inflight;
    GY_ASSERT(loop->thread_id == gy_sys_thread_id());
    gy_wakeup_awake(&loop->wakeup);
    if (!gy_loop_forked(loop)) {
        loop->quiet = true;
        if (loop->inflight > 0)
            cancel_until_quiet(loop, limit_ns);
        loop->quiet = false;
        if (ring->ops->rest != NULL)
            ring->ops->rest(ring);
    }
    gy_ballast_drop(&loop->ballast);
    loop->running = false;
    GY_TRACE(QUIESCE, loop, loop->inflight, limit_ns);
    return loop->inflight;
}

/* ---- the end ---- */

/* The nodes belong to the embedder: leave them so that it can drop them in any order. */
static void
unlink_all(struct gy_list *head)
{
    while (gy_list_pop(head) != NULL) {
    }
}

static void
unlink_everything(struct gy_loop *loop)
{
    while (!gy_list_empty(&loop->pending))
        (void)gy_op_cancel(loop, container_of(loop->pending.next, struct gy_op, link));
    unlink_all(&loop->cancels);
    unlink_all(&loop->dirty);
    unlink_all(&loop->bursts);
    unlink_all(&loop->short_reads);
    loop->short_count = 0;
    unlink_all(&loop->work);
    unlink_all(&loop->failed);
    unlink_all(&loop->resumed);
    gy_timers_deinit(&loop->timers);
}

void
gy_loop_close(struct gy_loop *loop)
{
    bool forked;
    if (loop->closed)
        return;
    forked = gy_loop_forked(loop);
    GY_TRACE(CLOSE, loop, forked, loop->inflight);
    if (loop->running)
        (void)gy_loop_quiesce(loop, CLOSE_LIMIT_NS);
    loop->quiet = true;
    loop->closed = true;
    /* The ring goes first: the kernel must have let go before what it writes to is freed. */
    loop->ring->ops->destroy(loop->ring, forked);
    loop->ring = NULL;
    loop->enabled = false;
    gy_fixed_forget(&loop->fixed);
    unlink_everything(loop);
    gy_stream_pool_drain(loop);
    gy_bufgroup_deinit(&loop->buffers, forked);
    gy_free(loop->scratch);
    loop->scratch = NULL;
    gy_wakeup_deinit(&loop->wakeup);
    gy_forkmark_clear(&loop->forkmark);
}
