/* loop.c: the pieces of a turn; loop_wait.c has the wait, loop_life.c the beginning and the end.
 * Thread: the running thread.  Invariant: in a forked child nothing here touches the ring, whose
 * memory the child does not have. */
#include "loop.h"
#include "loop_internal.h"
#include "dgram.h"
#include "fileop.h"
#include "listener.h"
#include "stream.h"
#include "sys.h"
#include "trace.h"

#include <errno.h>
#include <string.h>

int64_t
gy_loop_now_ns(const struct gy_loop *loop)
{
    struct gy_ring *ring = loop->ring;
    return GY_LIKELY(ring != NULL) ? ring->ops->now_ns(ring) : gy_sys_now_ns();
}

/* ---- into the ring ---- */

static struct gy_op *
first_op(struct gy_list *head)
{
    return container_of(head->next, struct gy_op, link);
}

void
gy_loop_flush_cancels(struct gy_loop *loop)
{
    while (!gy_list_empty(&loop->cancels)) {
        struct io_uring_sqe *sqe = loop->ring->ops->sqe(loop->ring);
        if (GY_UNLIKELY(sqe == NULL)) {
            loop->sqe_shortage = true;
            return;
        }
        gy_op_flush_cancel(loop, first_op(&loop->cancels), sqe);
    }
}

/* Bounded: what is pending when it begins, since preparing an SQE submits nothing new. */
void
gy_loop_flush_ops(struct gy_loop *loop)
{
    loop->sqe_shortage = false;
    gy_loop_flush_cancels(loop);
    while (!gy_list_empty(&loop->pending)) {
        struct io_uring_sqe *sqe = loop->ring->ops->sqe(loop->ring);
        if (GY_UNLIKELY(sqe == NULL)) {
            loop->sqe_shortage = true;
            return;
        }
        gy_op_flush(loop, first_op(&loop->pending), sqe);
    }
}

int
gy_loop_poll(struct gy_loop *loop, bool force)
{
    struct gy_ring *ring = loop->ring;
    GY_ASSERT(loop->running);
    if (GY_UNLIKELY(gy_loop_forked(loop)))
        return -ECHILD;
    gy_loop_flush_dirty(loop);
    gy_list_splice(&loop->work, &loop->resumed);
    if (!gy_list_empty(&loop->pending) || !gy_list_empty(&loop->cancels) || loop->sqe_shortage)
        gy_loop_flush_ops(loop);
    if (force && loop->short_count != 0)
        gy_stream_marks_later(loop, gy_loop_now_ns(loop));
    if (!force && !ring->ops->needs_enter(ring))
        return 0;
    return ring->ops->enter(ring, 0);
}

/* ---- out of the ring ---- */

static void
run_work_item(struct gy_work *work)
{
    switch ((enum gy_work_kind)work->kind) {
    case GY_WORK_STREAM:
        gy_stream_run_work(container_of(work, struct gy_stream, work));
        return;
    case GY_WORK_LISTENER:
        gy_listener_run_work(container_of(work, struct gy_listener, work));
        return;
    case GY_WORK_FILE:
        gy_fileop_run_work(container_of(work, struct gy_fileop, work));
        return;
    case GY_WORK_DGRAM:
        gy_dgram_run_work(container_of(work, struct gy_dgram, work));
        return;
    case GY_WORK_POLLSET:
        gy_pollset_run_work(container_of(work, struct gy_pollset, work));
        return;
    case GY_WORK_KINDS:
        break;
    }
    GY_UNREACHABLE();
}

/* True while upcalls may go on. */
static inline bool
may_go_on(const struct gy_loop *loop)
{
    return !loop->interrupted && !gy_loop_forked(loop);
}

static void
before_upcalls(struct gy_loop *loop)
{
    if (loop->before_upcalls != NULL)
        loop->before_upcalls(loop);
}

/* Runs what was on the list when it began, so that work that asks for more work cannot keep the
 * kernel waiting. */
static __attribute__((noinline)) void
run_work(struct gy_loop *loop, struct gy_list *work)
{
    struct gy_list now;
    unsigned done = 0;
    before_upcalls(loop);
    gy_list_init(&now);
    gy_list_splice(&now, work);
    while (done < GY_WORK_BUDGET && may_go_on(loop)) {
        struct gy_list *node = gy_list_pop(&now);
        if (node == NULL)
            return;
        run_work_item(container_of(node, struct gy_work, link));
        gy_loop_flush_dirty(loop);
        done++;
    }
    /* What was left goes before what came meanwhile. */
    gy_list_splice(&now, work);
    gy_list_splice(work, &now);
}

bool
gy_loop_next_event(struct gy_loop *loop, struct gy_event *ev)
{
    if (GY_LIKELY(loop->ahead_count == 0))
        return loop->ring->ops->next_event(loop->ring, ev);
    *ev = loop->ahead[0];
    loop->ahead_count--;
    memmove(loop->ahead, loop->ahead + 1, loop->ahead_count * sizeof *ev);
    return true;
}

/* Whether there is an event number i, counted from the next one; it is in `ahead` then. */
static bool
has_ahead(struct gy_loop *loop, unsigned i)
{
    GY_ASSERT(i <= loop->ahead_count && i < GY_AHEAD_EVENTS);
    if (i == loop->ahead_count && loop->ring->ops->next_event(loop->ring, &loop->ahead[i]))
        loop->ahead_count++;
    return i < loop->ahead_count;
}

void
gy_loop_land(struct gy_loop *loop, const struct gy_op *first, const struct gy_op *second)
{
    struct gy_event ev;
    unsigned i = 0;
    GY_ASSERT(loop->running && !loop->quiet);
    while (i < GY_AHEAD_EVENTS && (!gy_op_is_idle(first) || !gy_op_is_idle(second))) {
        if (!has_ahead(loop, i))
            return;
        ev = loop->ahead[i];
        if (ev.op == NULL || (ev.op != first && ev.op != second)) {
            i++;
            continue;
        }
        loop->ahead_count--;
        memmove(loop->ahead + i, loop->ahead + i + 1, (loop->ahead_count - i) * sizeof ev);
        gy_op_dispatch(loop, &ev);
    }
}

bool
gy_loop_has_event(struct gy_loop *loop, const struct gy_op *op)
{
    for (unsigned i = 0; i < GY_AHEAD_EVENTS && has_ahead(loop, i); i++) {
        if (loop->ahead[i].op == op)
            return true;
    }
    return false;
}

/* The first of the events that must wait for the next turn is taken now: so there is work, and the
 * loop neither sleeps, looks nor asks the kernel for more while it has some. */
static __attribute__((noinline)) void
look_ahead(struct gy_loop *loop)
{
    if (!gy_loop_forked(loop))
        (void)has_ahead(loop, 0);
}

unsigned
gy_loop_reap(struct gy_loop *loop)
{
    const uint64_t *bytes_in = &loop->counters.bytes_in;
    uint64_t begin;
    struct gy_event ev;
    unsigned done = 0;
    GY_ASSERT(loop->running);
    GY_ASSERT(!loop->quiet);
    loop->turn++;
    if (!gy_list_empty(&loop->work))
        run_work(loop, &loop->work);
    begin = *bytes_in;
    if (GY_UNLIKELY(begin >= loop->ballast.look_at))
        gy_ballast_look(&loop->ballast, begin, gy_sys_heap_end());
    gy_loop_pass_begin(loop, loop->reaped);
    while (done < GY_REAP_BUDGET_EVENTS && *bytes_in - begin < GY_REAP_BUDGET_BYTES &&
           may_go_on(loop) && gy_loop_next_event(loop, &ev)) {
        if (done++ == 0)
            before_upcalls(loop);
        gy_op_dispatch(loop, &ev);
    }
    if (GY_UNLIKELY(*bytes_in - begin >= GY_REAP_BUDGET_BYTES || done >= GY_REAP_BUDGET_EVENTS))
        look_ahead(loop);
    if (GY_UNLIKELY(done >= GY_HOLD_MIN_PASS || loop->reaped != 0))
        loop->reaped = done > loop->reaped ? done : loop->reaped - (loop->reaped + 7) / 8;
    gy_loop_pass_end(loop, done);
    if (GY_UNLIKELY(!gy_list_empty(&loop->failed))) /* before what comes in the next turn */
        run_work(loop, &loop->failed);
    return done;
}

/* ---- sending what callbacks have written ---- */

void
gy_loop_pass_begin_slow(struct gy_loop *loop)
{
    if (loop->ring->ops->send_many != NULL)
        gy_hold_begin(&loop->hold, gy_loop_now_ns(loop));
}

void
gy_loop_pass_end_slow(struct gy_loop *loop, size_t done)
{
    gy_hold_end(&loop->hold, done, gy_loop_now_ns(loop));
    if (!gy_loop_forked(loop)) /* else the parent sends it */
        gy_loop_flush_dirty(loop);
}

/* True when the streams stay dirty for now. */
static inline bool
keep_dirty(struct gy_loop *loop)
{
    if (GY_LIKELY(loop->hold.room == 0) || gy_list_empty(&loop->dirty))
        return false;
    return gy_hold_keeps(&loop->hold) || gy_loop_forked(loop);
}

void
gy_loop_flush_dirty_slow(struct gy_loop *loop)
{
    bool keep = keep_dirty(loop);
    struct gy_list now;
    struct gy_list *node;
    if (keep && gy_list_empty(&loop->bursts))
        return;
    before_upcalls(loop);
    gy_list_init(&now);
    if (!keep)
        gy_list_splice(&now, &loop->dirty);
    if (GY_UNLIKELY(now.next != now.prev) && loop->hold.wanted &&
        loop->ring->ops->send_many != NULL) /* more than one */
        gy_stream_flush_many(loop, &now);
    while ((node = gy_list_pop(&now)) != NULL)
        gy_stream_flush_dirty(container_of(node, struct gy_stream, dirty));
    gy_list_splice(&now, &loop->bursts);
    while ((node = gy_list_pop(&now)) != NULL)
        gy_dgram_end_burst(container_of(node, struct gy_dgram, burst));
}

struct gy_timer *
gy_loop_pop_due(struct gy_loop *loop, int64_t now_ns)
{
    for (;;) {
        struct gy_timer *timer = gy_timers_pop_due(&loop->timers, now_ns);
        if (timer == NULL)
            return NULL;
        switch ((enum gy_timer_kind)timer->kind) {
        case GY_TIMER_HOST:
            return timer;
        case GY_TIMER_ACCEPT_RETRY:
            gy_listener_retry_due(container_of(timer, struct gy_listener, retry));
            continue;
        case GY_TIMER_MARKS:
            gy_stream_look_for_marks(loop);
            continue;
        case GY_TIMER_KINDS:
            break;
        }
        GY_UNREACHABLE();
    }
}
