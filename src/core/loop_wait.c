/* loop_wait.c: the wait of a turn: look for a moment if the policy says so, then sleep.
 *
 * Thread: the running thread; the embedder has dropped its lock around gy_loop_wait, so that other
 * threads go on while this one looks or sleeps.  Invariant: between prepare and finish a waker
 * finds the wakeup LOOKING or ASLEEP, so what it puts into the embedder's queues is seen. */
#include "loop.h"
#include "loop_internal.h"
#include "probe.h"
#include "stream.h"
#include "sys.h"

#include <errno.h>

enum {
    SHORTAGE_WAIT_NS = 1000 * 1000,
    LOOKS_PER_CLOCK = 8, /* of a ring whose look is a read of memory; the clock costs more */
};

static inline void
relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* A loop that looks is about to get the next message: no call for each. */
static void
look_for_marks(struct gy_loop *loop)
{
    if (loop->look_ns == 0 && loop->short_count <= GY_MARK_FEW)
        gy_stream_look_for_marks(loop);
    else
        gy_stream_marks_later(loop, loop->wait_began_ns != 0 ? loop->wait_began_ns
                                                             : gy_loop_now_ns(loop));
}

void
gy_loop_prepare_wait(struct gy_loop *loop)
{
    struct gy_ring *ring = loop->ring;
    struct gy_spin *spin = &loop->spin;
    GY_ASSERT(loop->running);
    if (GY_UNLIKELY(gy_loop_forked(loop)))
        return;
    gy_loop_flush_dirty(loop);
    gy_list_splice(&loop->work, &loop->resumed);
    loop->look_ns = 0;
    if (spin->limit_ns != 0 && ring->ops->look != NULL) {
        loop->wait_began_ns = ring->ops->now_ns(ring);
        loop->look_ns = gy_spin_budget(spin, loop->wait_began_ns, ring->counters.events);
    }
    if (loop->short_count != 0)
        look_for_marks(loop);
    gy_wakeup_sleep(loop, &loop->wakeup, loop->look_ns > 0);
    gy_loop_flush_ops(loop);
    loop->counters.waits++;
}

/* True when there is something to do; false when the time for looking has gone.  A function of its
 * own, so that a profile tells waiting from work. */
static __attribute__((noinline)) bool
look_until(struct gy_loop *loop, int64_t end_ns)
{
    struct gy_ring *ring = loop->ring;
    for (;;) {
        for (unsigned i = 0; i < LOOKS_PER_CLOCK; i++) {
            if (ring->ops->look(ring) || !gy_wakeup_is_looking(&loop->wakeup))
                return true;
            relax();
        }
        if (ring->ops->now_ns(ring) >= end_ns)
            return false;
    }
}

/* True when there is no need to sleep any more. */
static bool
look(struct gy_loop *loop, int64_t deadline_ns)
{
    struct gy_ring *ring = loop->ring;
    int64_t end_ns = loop->wait_began_ns + loop->look_ns;
    bool found;
    if (deadline_ns < end_ns)
        end_ns = deadline_ns;
    found = look_until(loop, end_ns) || end_ns == deadline_ns;
    gy_spin_looked(&loop->spin, ring->ops->now_ns(ring) - loop->wait_began_ns, found);
    /* Who woke us while we looked has written no eventfd. */
    return found || !gy_wakeup_fall_asleep(&loop->wakeup);
}

static int
sleep_until(struct gy_loop *loop, int64_t deadline_ns)
{
    struct gy_ring *ring = loop->ring;
    int64_t wait_ns = GY_NS_NEVER;
    if ((ring->features & GY_FEAT_ABS_TIMER) && ring->ops->enter_until != NULL && deadline_ns > 0)
        return ring->ops->enter_until(ring, deadline_ns);
    if (deadline_ns != GY_NS_NEVER) {
        int64_t now_ns = ring->ops->now_ns(ring);
        wait_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
    }
    return ring->ops->enter(ring, wait_ns);
}

static uint64_t
moved_bytes(const struct gy_loop *loop)
{
    const struct gy_loop_counters *counters = &loop->counters;
    return counters->bytes_in + counters->bytes_out + loop->heap.other_bytes +
           loop->ring->counters.events * GY_HEAP_EVENT_BYTES;
}

static GY_COLD void
look_at_heap(struct gy_loop *loop, int64_t now_ns)
{
    struct gy_heap *heap = &loop->heap;
    uint64_t bytes = gy_sys_resident_bytes();
    uint64_t left;
    int64_t began_ns;
    if (!gy_heap_measured(heap, now_ns, moved_bytes(loop), bytes))
        return;
    began_ns = gy_sys_thread_cpu_ns();
    gy_sys_trim_heap();
    left = gy_sys_resident_bytes();
    gy_heap_trimmed(heap, gy_loop_now_ns(loop), gy_sys_thread_cpu_ns() - began_ns,
                    left != 0 ? left : bytes);
}

/* Until when to sleep at most, because of the heap. */
static __attribute__((noinline)) int64_t
heap_deadline(struct gy_loop *loop, uint64_t moved)
{
    int64_t now_ns = loop->wait_began_ns != 0 ? loop->wait_began_ns : gy_loop_now_ns(loop);
    if (gy_heap_step(&loop->heap, now_ns, moved) == GY_HEAP_LOOK)
        look_at_heap(loop, now_ns);
    return loop->heap.due_ns;
}

static __attribute__((noinline)) int64_t
ballast_deadline(struct gy_loop *loop)
{
    int64_t now_ns = loop->wait_began_ns != 0 ? loop->wait_began_ns : gy_loop_now_ns(loop);
    return gy_ballast_wait(&loop->ballast, now_ns, loop->counters.bytes_in);
}

int
gy_loop_wait(struct gy_loop *loop, int64_t deadline_ns)
{
    uint64_t moved;
    int err;
    if (GY_UNLIKELY(gy_loop_forked(loop)))
        return -ECHILD;
    if (loop->mark_due_ns < deadline_ns)
        deadline_ns = loop->mark_due_ns;
    if (GY_UNLIKELY(gy_loop_has_work(loop))) /* the preparation found some */
        deadline_ns = 0;
    moved = moved_bytes(loop);
    if (GY_UNLIKELY(gy_heap_stirs(&loop->heap, moved)) && deadline_ns > 0) {
        int64_t heap_ns = heap_deadline(loop, moved);
        deadline_ns = heap_ns < deadline_ns ? heap_ns : deadline_ns;
    }
    if (GY_UNLIKELY(loop->ballast.block != NULL)) {
        int64_t ballast_ns = ballast_deadline(loop);
        deadline_ns = ballast_ns < deadline_ns ? ballast_ns : deadline_ns;
    }
    if (GY_UNLIKELY(loop->sqe_shortage)) {
        /* Perhaps the wakeup itself is not armed: look again soon. */
        (void)gy_wakeup_fall_asleep(&loop->wakeup);
        err = loop->ring->ops->enter(loop->ring, SHORTAGE_WAIT_NS);
    } else if (loop->look_ns > 0 && look(loop, deadline_ns)) {
        return 0;
    } else {
        err = sleep_until(loop, deadline_ns);
    }
    return err == -ETIME ? 0 : err;
}

void
gy_loop_finish_wait(struct gy_loop *loop)
{
    bool measured = loop->spin.limit_ns != 0 && loop->wait_began_ns != 0;
    int64_t now_ns;
    gy_wakeup_awake(&loop->wakeup);
    if (!measured && loop->mark_due_ns == GY_NS_NEVER)
        return;
    now_ns = gy_loop_now_ns(loop);
    if (measured) {
        gy_spin_waited(&loop->spin, now_ns - loop->wait_began_ns);
        loop->wait_began_ns = 0;
    }
    if (GY_UNLIKELY(now_ns >= loop->mark_due_ns))
        gy_stream_look_for_marks(loop);
}
