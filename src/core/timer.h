/* timer.h: a 4-ary heap of deadlines in nanoseconds.
 *
 * The index in the node makes removal exact: a cancelled timer leaves the heap at once.  Equal
 * deadlines run in the order in which they were added.  The embedder allocates the nodes. */
#ifndef GY_TIMER_H
#define GY_TIMER_H

#include "base.h"

enum gy_timer_kind { GY_TIMER_HOST, GY_TIMER_ACCEPT_RETRY, GY_TIMER_MARKS, GY_TIMER_KINDS };

struct gy_timer {
    int64_t deadline_ns;
    uint64_t sequence; /* order of adding, breaks ties     */
    uint32_t index;    /* place in the heap, or GY_TIMER_NONE */
    uint32_t kind;     /* enum gy_timer_kind: whose timer     */
};

#define GY_TIMER_NONE UINT32_MAX

struct gy_timers {
    struct gy_timer **heap;
    uint32_t count;
    uint32_t capacity;
    uint64_t sequence;
};

void gy_timers_init(struct gy_timers *timers);
void gy_timers_deinit(struct gy_timers *timers); /* the nodes stay the embedder's */

static inline void
gy_timer_init(struct gy_timer *timer, enum gy_timer_kind kind)
{
    timer->kind = kind;
    timer->index = GY_TIMER_NONE;
}

static inline bool
gy_timer_is_set(const struct gy_timer *timer)
{
    return timer->index != GY_TIMER_NONE;
}

/* 0 or -ENOMEM (nothing changed). */
int gy_timers_add(struct gy_timers *timers, struct gy_timer *timer, int64_t deadline_ns);
/* A timer that is not set is left alone. */
void gy_timers_remove(struct gy_timers *timers, struct gy_timer *timer);
/* The earliest timer if it is due at now_ns, removed from the heap; else NULL. */
struct gy_timer *gy_timers_pop_due(struct gy_timers *timers, int64_t now_ns);

static inline int64_t
gy_timers_next_ns(const struct gy_timers *timers)
{
    return timers->count ? timers->heap[0]->deadline_ns : GY_NS_NEVER;
}

#endif
