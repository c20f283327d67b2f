/* timer.c: the 4-ary heap of timer.h.
 * Thread: the loop's.  Invariants: heap[i]->index == i; a parent is never after its children, where
 * "before" is (deadline, order of adding).  Four children per node make the tree half as deep as a
 * binary heap and keep the children of a node in one or two cache lines. */
#include "timer.h"
#include "sys.h"

#include <errno.h>
#include <string.h>

enum { ARITY = 4, CAPACITY_FIRST = 16 };

static inline bool
timer_before(const struct gy_timer *left, const struct gy_timer *right)
{
    if (left->deadline_ns != right->deadline_ns)
        return left->deadline_ns < right->deadline_ns;
    return left->sequence < right->sequence;
}

static inline void
place(struct gy_timers *timers, uint32_t index, struct gy_timer *timer)
{
    timers->heap[index] = timer;
    timer->index = index;
}

static void
sift_up(struct gy_timers *timers, uint32_t index, struct gy_timer *timer)
{
    while (index > 0) {
        uint32_t parent = (index - 1) / ARITY;
        if (!timer_before(timer, timers->heap[parent]))
            break;
        place(timers, index, timers->heap[parent]);
        index = parent;
    }
    place(timers, index, timer);
}

static void
sift_down(struct gy_timers *timers, uint32_t index, struct gy_timer *timer)
{
    for (;;) {
        uint32_t first = index * ARITY + 1;
        uint32_t end = first + ARITY < timers->count ? first + ARITY : timers->count;
        uint32_t best = first;
        if (first >= timers->count)
            break;
        for (uint32_t child = first + 1; child < end; child++) {
            if (timer_before(timers->heap[child], timers->heap[best]))
                best = child;
        }
        if (!timer_before(timers->heap[best], timer))
            break;
        place(timers, index, timers->heap[best]);
        index = best;
    }
    place(timers, index, timer);
}

void
gy_timers_init(struct gy_timers *timers)
{
    memset(timers, 0, sizeof *timers);
}

void
gy_timers_deinit(struct gy_timers *timers)
{
    for (uint32_t i = 0; i < timers->count; i++)
        timers->heap[i]->index = GY_TIMER_NONE;
    gy_free(timers->heap);
    gy_timers_init(timers);
}

static GY_COLD int
timers_grow(struct gy_timers *timers)
{
    uint32_t capacity = timers->capacity ? timers->capacity * 2 : CAPACITY_FIRST;
    struct gy_timer **heap;
    /* index * ARITY + ARITY must stay within uint32_t, and no index may equal GY_TIMER_NONE. */
    if (timers->capacity >= UINT32_MAX / (4 * ARITY))
        return -ENOMEM;
    heap = gy_realloc(timers->heap, capacity * sizeof *heap);
    if (heap == NULL)
        return -ENOMEM;
    timers->heap = heap;
    timers->capacity = capacity;
    return 0;
}

int
gy_timers_add(struct gy_timers *timers, struct gy_timer *timer, int64_t deadline_ns)
{
    GY_ASSERT(!gy_timer_is_set(timer));
    GY_ASSERT(timer->kind < GY_TIMER_KINDS);
    if (GY_UNLIKELY(timers->count == timers->capacity)) {
        int err = timers_grow(timers);
        if (err < 0)
            return err;
    }
    timer->deadline_ns = deadline_ns;
    timer->sequence = timers->sequence++;
    sift_up(timers, timers->count++, timer);
    return 0;
}

void
gy_timers_remove(struct gy_timers *timers, struct gy_timer *timer)
{
    uint32_t index = timer->index;
    struct gy_timer *last;
    if (index == GY_TIMER_NONE)
        return;
    GY_ASSERT(index < timers->count);
    GY_ASSERT(timers->heap[index] == timer);
    timer->index = GY_TIMER_NONE;
    last = timers->heap[--timers->count];
    if (last == timer)
        return;
    /* The last node may belong above or below the hole. */
    if (index > 0 && timer_before(last, timers->heap[(index - 1) / ARITY]))
        sift_up(timers, index, last);
    else
        sift_down(timers, index, last);
}

struct gy_timer *
gy_timers_pop_due(struct gy_timers *timers, int64_t now_ns)
{
    struct gy_timer *first;
    if (timers->count == 0 || timers->heap[0]->deadline_ns > now_ns)
        return NULL;
    first = timers->heap[0];
    gy_timers_remove(timers, first);
    return first;
}
