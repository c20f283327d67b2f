/* ring_epoll.c: struct gy_ring on epoll and plain system calls, for kernels and containers without
 * io_uring.
 *
 * It takes the same SQEs, executes them in user space when it is entered, and posts the same
 * events; ring_epoll_request.c and ring_epoll_watch.c do that.  Here are the queues and the wait.
 * Owner: whoever created it.  Thread: all calls from the thread that enabled it, except create and
 * destroy.  Invariant: the free slots of the event queue suffice for two events of each request and
 * of each queued SQE, so posting never fails. */
#include "ring_epoll.h"
#include "fault.h"
#include "prep.h"
#include "probe.h"
#include "ring_calls.h"
#include "sys.h"
#include "trace.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/epoll.h>

enum {
    SQ_ENTRIES_DEFAULT = 256,
    SQ_ENTRIES_MAX = 32768,
    EVENT_CAPACITY_MIN = 256,
    EVENTS_PER_WAIT = 256, /* the others are first in the next one */
    NS_PER_MS = 1000 * 1000,
    /* A loop that is kept busy by callbacks does not learn from memory whether something happened:
     * it looks when this much time has gone.  The clock is read every few questions only. */
    LOOK_PERIOD_NS = 20 * 1000,
    QUESTIONS_PER_LOOK = 4,
    EPOLL_FEATURES = GY_FEAT_POLL_MULTISHOT | GY_FEAT_ACCEPT_MULTISHOT | GY_FEAT_ACCEPT |
                     GY_FEAT_EPOLL_PWAIT2 | GY_FEAT_FTRUNCATE,
};

static inline struct gy_epoll *
epoll_of(struct gy_ring *ring)
{
    return container_of(ring, struct gy_epoll, base);
}

static inline uint32_t
sq_queued(const struct gy_epoll *epoll)
{
    return epoll->sq_tail - epoll->sq_head;
}

static inline bool
has_events(const struct gy_epoll *epoll)
{
    return epoll->event_head != epoll->event_tail;
}

/* ---- the queue of events ---- */

static GY_COLD bool
grow_events(struct gy_epoll *epoll, uint64_t capacity)
{
    struct gy_event *events = gy_alloc(capacity * sizeof *events);
    if (events == NULL)
        return false;
    for (uint64_t i = epoll->event_head; i != epoll->event_tail; i++)
        events[i & (capacity - 1)] = epoll->events[i & (epoll->event_capacity - 1)];
    gy_free(epoll->events);
    epoll->events = events;
    epoll->event_capacity = capacity;
    return true;
}

/* Room for `more` events beyond those that requests and queued SQEs may bring. */
static bool
room_for(struct gy_epoll *epoll, uint64_t more)
{
    uint64_t queued = epoll->event_tail - epoll->event_head;
    uint64_t needed = queued + 2 * ((uint64_t)epoll->live_count + sq_queued(epoll)) + more;
    uint64_t capacity = epoll->event_capacity;
    if (GY_LIKELY(needed <= capacity))
        return true;
    while (capacity < needed)
        capacity *= 2;
    return grow_events(epoll, capacity);
}

bool
gy_epoll_room(struct gy_epoll *epoll)
{
    return room_for(epoll, 1);
}

void
gy_epoll_post(struct gy_epoll *epoll, uint64_t user_data, int32_t res, uint32_t flags)
{
    struct gy_event *event = &epoll->events[epoll->event_tail & (epoll->event_capacity - 1)];
    GY_ASSERT(epoll->event_tail - epoll->event_head < epoll->event_capacity);
    event->op = (struct gy_op *)(uintptr_t)(user_data & ~UINT64_C(1));
    event->res = res;
    event->flags = flags;
    event->is_cancel = (user_data & 1) != 0;
    epoll->event_tail++;
}

static bool
epoll_next_event(struct gy_ring *ring, struct gy_event *out)
{
    struct gy_epoll *epoll = epoll_of(ring);
    if (!has_events(epoll))
        return false;
    *out = epoll->events[epoll->event_head & (epoll->event_capacity - 1)];
    epoll->event_head++;
    ring->counters.events++;
    return true;
}

/* ---- the queue of SQEs ---- */

static void
execute_queued(struct gy_epoll *epoll)
{
    while (epoll->sq_head != epoll->sq_tail) {
        /* Taken first: what was reserved for it is now its request's or event's. */
        const struct io_uring_sqe *sqe = &epoll->sqes[epoll->sq_head & (epoll->sq_entries - 1)];
        epoll->sq_head++;
        epoll->base.counters.sqes++;
        gy_epoll_start(epoll, sqe);
    }
}

static struct io_uring_sqe *
epoll_sqe(struct gy_ring *ring)
{
    struct gy_epoll *epoll = epoll_of(ring);
    struct io_uring_sqe *sqe;
    if (GY_UNLIKELY(sq_queued(epoll) == epoll->sq_entries))
        execute_queued(epoll);
    if (GY_UNLIKELY(epoll->spare_count <= sq_queued(epoll)) && !gy_epoll_requests_grow(epoll))
        return NULL;
    if (GY_UNLIKELY(!room_for(epoll, 2)))
        return NULL;
    sqe = &epoll->sqes[epoll->sq_tail & (epoll->sq_entries - 1)];
    epoll->sq_tail++;
    memset(sqe, 0, sizeof *sqe);
    return sqe;
}

static void
epoll_cancel_all(struct gy_ring *ring)
{
    struct gy_epoll *epoll = epoll_of(ring);
    struct io_uring_sqe *sqe = epoll_sqe(ring);
    if (GY_LIKELY(sqe != NULL)) {
        gy_prep_cancel_all(sqe); /* user_data 0: its event belongs to nobody */
        return;
    }
    execute_queued(epoll);
    gy_epoll_cancel_live(epoll);
}

/* ---- waiting ---- */

static int
wait_by_ms(struct gy_epoll *epoll, struct epoll_event *batch, int64_t wait_ns)
{
    int64_t wait_ms = -1;
    if (wait_ns != GY_NS_NEVER) {
        /* Rounded up: never awake before the time that was asked for. */
        wait_ms = wait_ns / NS_PER_MS + (wait_ns % NS_PER_MS != 0);
        if (wait_ms > INT_MAX)
            wait_ms = INT_MAX;
    }
    return gy_sys_epoll_wait(epoll->epoll_fd, batch, EVENTS_PER_WAIT, (int)wait_ms);
}

static int
wait_once(struct gy_epoll *epoll, struct epoll_event *batch, int64_t wait_ns)
{
    int res = GY_FAULT(RING);
    if (GY_UNLIKELY(res < 0))
        return res;
    epoll->base.counters.enters++;
    if (wait_ns == 0 || wait_ns == GY_NS_NEVER || !(epoll->base.features & GY_FEAT_EPOLL_PWAIT2))
        return wait_by_ms(epoll, batch, wait_ns);
    res = gy_sys_epoll_pwait2(epoll->epoll_fd, batch, EVENTS_PER_WAIT, wait_ns);
    /* Linux before 5.11; older seccomp filters answer EPERM to a call that they do not know. */
    if (GY_UNLIKELY(res == -ENOSYS || res == -EPERM)) {
        epoll->base.features &= ~(uint32_t)GY_FEAT_EPOLL_PWAIT2;
        return wait_by_ms(epoll, batch, wait_ns);
    }
    return res;
}

static int
wait_and_dispatch(struct gy_epoll *epoll, int64_t wait_ns)
{
    struct epoll_event batch[EVENTS_PER_WAIT];
    int count = wait_once(epoll, batch, wait_ns);
    for (int i = 0; i < count; i++) {
        if (GY_UNLIKELY(batch[i].data.u64 == GY_EPOLL_POOL_TAG))
            gy_epoll_pool_reap(epoll);
        else
            gy_epoll_watch_event(epoll, &batch[i]);
    }
    return count;
}

static int
enter_until_event(struct gy_epoll *epoll, int64_t wait_ns)
{
    int64_t end_ns = 0;
    if (wait_ns > 0 && wait_ns != GY_NS_NEVER)
        end_ns = gy_sys_now_ns() + wait_ns;
    for (;;) {
        int count = wait_and_dispatch(epoll, has_events(epoll) ? 0 : wait_ns);
        if (GY_UNLIKELY(count < 0))
            return count == -EINTR && has_events(epoll) ? 0 : count;
        if (wait_ns == 0 || has_events(epoll))
            return 0;
        if (count == 0)
            return -ETIME;
        /* What woke us concerned nobody any more. */
        if (wait_ns != GY_NS_NEVER) {
            wait_ns = end_ns - gy_sys_now_ns();
            if (wait_ns <= 0)
                return -ETIME;
        }
    }
}

static int
epoll_enter(struct gy_ring *ring, int64_t wait_ns)
{
    struct gy_epoll *epoll = epoll_of(ring);
    uint32_t queued = sq_queued(epoll);
    int res;
    GY_ASSERT(wait_ns >= 0);
    execute_queued(epoll);
    if (GY_UNLIKELY(epoll->pool != NULL) && gy_pool_has_done(epoll->pool))
        gy_epoll_pool_reap(epoll);
    res = enter_until_event(epoll, wait_ns);
    GY_TRACE(ENTER, epoll, queued, res);
    GY_UNUSED(queued);
    epoll->entered_ns = gy_sys_now_ns();
    epoll->looks = 0;
    return res;
}

static bool
epoll_needs_enter(struct gy_ring *ring)
{
    struct gy_epoll *epoll = epoll_of(ring);
    if (sq_queued(epoll) != 0 ||
        (GY_UNLIKELY(epoll->pool != NULL) && gy_pool_has_done(epoll->pool)))
        return true;
    if (has_events(epoll)) /* which go before what the kernel has */
        return false;
    if (epoll->live_count == 0 || epoll->looks++ % QUESTIONS_PER_LOOK != 0)
        return false;
    return gy_sys_now_ns() - epoll->entered_ns >= LOOK_PERIOD_NS;
}

static bool
epoll_look(struct gy_ring *ring)
{
    (void)epoll_enter(ring, 0);
    return has_events(epoll_of(ring));
}

/* ---- life ---- */

static void
epoll_close(struct gy_ring *ring, int fd)
{
    struct gy_epoll *epoll = epoll_of(ring);
    /* A child of fork() would take the descriptor out of its parent's epoll. */
    if (GY_LIKELY(!gy_forkmark_differs(&epoll->forkmark)))
        gy_epoll_watch_close(epoll, fd);
    gy_sys_close(fd);
}

static int
epoll_enable(struct gy_ring *ring)
{
    GY_UNUSED(ring);
    return GY_FAULT(RING);
}

static void
free_memory(struct gy_epoll *epoll)
{
    gy_epoll_requests_deinit(epoll);
    gy_free(epoll->watches);
    gy_free(epoll->events);
    gy_free(epoll->sqes);
    gy_free(epoll);
}

static void
epoll_destroy(struct gy_ring *ring, bool forked)
{
    struct gy_epoll *epoll = epoll_of(ring);
    gy_epoll_pool_deinit(epoll, forked);
    gy_sys_close(epoll->epoll_fd); /* the memory is this process's own copy */
    free_memory(epoll);
}

static const struct gy_ring_ops epoll_ops = {
    .name = "epoll",
    .enable = epoll_enable,
    .destroy = epoll_destroy,
    .sqe = epoll_sqe,
    .enter = epoll_enter,
    .needs_enter = epoll_needs_enter,
    .look = epoll_look,
    .next_event = epoll_next_event,
    .cancel_all = epoll_cancel_all,
    GY_RING_PLAIN_BYTES,
    .at_mark = gy_ring_plain_at_mark,
    .udp_gro = gy_ring_plain_udp_gro,
    .try_accept = gy_ring_plain_accept,
    .try_connect = gy_ring_plain_connect,
    .socket_error = gy_ring_plain_socket_error,
    .shutdown = gy_ring_plain_shutdown,
    .close = epoll_close,
    .file_nowait = gy_ring_plain_file_nowait,
    .now_ns = gy_ring_plain_now_ns,
};

static uint32_t
entries_for(uint32_t asked)
{
    uint32_t entries = 1;
    if (asked == 0)
        asked = SQ_ENTRIES_DEFAULT;
    while (entries < asked && entries < SQ_ENTRIES_MAX)
        entries *= 2;
    return entries;
}

static int
allocate(struct gy_epoll *epoll)
{
    epoll->sqes = gy_alloc(epoll->sq_entries * sizeof *epoll->sqes);
    epoll->events = gy_alloc(EVENT_CAPACITY_MIN * sizeof *epoll->events);
    if (epoll->sqes == NULL || epoll->events == NULL)
        return -ENOMEM;
    epoll->event_capacity = EVENT_CAPACITY_MIN;
    return gy_forkmark_init(&epoll->forkmark);
}

int
gy_ring_epoll_create(const struct gy_ring_options *options, struct gy_ring **out)
{
    struct gy_epoll *epoll = gy_alloc(sizeof *epoll);
    int err;
    if (epoll == NULL)
        return -ENOMEM;
    epoll->base.ops = &epoll_ops;
    epoll->base.features =
        gy_features_effective(EPOLL_FEATURES | gy_probe_sockets(), options->features_off);
    epoll->sq_entries = entries_for(options->sq_entries);
    err = gy_epoll_requests_init(epoll);
    if (err == 0)
        err = allocate(epoll);
    if (err < 0)
        goto fail;
    epoll->epoll_fd = gy_sys_epoll_create();
    if (epoll->epoll_fd >= 0) {
        *out = &epoll->base;
        return 0;
    }
    err = epoll->epoll_fd;
fail:
    free_memory(epoll);
    return err;
}
