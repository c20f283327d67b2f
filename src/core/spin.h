/* spin.h: whether to look for events for a moment before going to sleep.
 *
 * To be woken takes tens of microseconds where the processor went idle, on a virtual machine most
 * of all; a loop whose events come sooner than that is better off looking for them.  This is the
 * policy alone, arithmetic on times that the caller measured; loop_wait.c does the looking.
 *
 * Unless it is told to look always, it looks only while waits have been short, less and less often
 * when that was in vain, and it spends no more than SPIN_SHARE of the time beyond what sleeping
 * would have cost.  Now and then it tries both in turn: where a look brings no more events per
 * time, since they come when they come, it may cost much less.  Owner: the loop.  Thread: the
 * loop's. */
#ifndef GY_SPIN_H
#define GY_SPIN_H

#include "base.h"

#define GY_SPIN_DEFAULT_NS (50 * 1000)      /* about two wake-ups of a virtual machine    */
#define GY_SPIN_MAX_NS (1000 * 1000 * 1000) /* more is no moment                          */

struct gy_spin {
    int64_t limit_ns;    /* the longest look; 0: never                                 */
    bool always;         /* look before each sleep, for the whole limit                */
    uint32_t skip;       /* sleeps to go without a look                                */
    uint32_t vain;       /* looks in vain in a row                                     */
    uint32_t slept;      /* sleeps of a time for which looking does not pay            */
    int64_t usual_ns;    /* a moving average of what waits took, each capped           */
    int64_t credit_ns;   /* what may still be spent                                    */
    int64_t credited_ns; /* when the credit was last topped up                         */
    uint32_t step;       /* waits since the last trial began                           */
    uint32_t trials;     /* that have ended                                            */
    int32_t gain;        /* a moving average of what looking gains               */
    bool gains;          /* looking brings more events per time than sleeping          */
    int64_t mark_ns;     /* a phase of a trial: when it began,                         */
    uint64_t mark_count; /* how many events there had been,                            */
    int64_t looked_ns;   /* how long the first one took                                */
    uint64_t looked_count;
    uint64_t looks;    /* counters                                                   */
    uint64_t found;    /* looks that an event, a wakeup or a timer ended             */
    uint64_t spent_ns; /* time spent looking                                         */
};

/* limit_ns in 0..GY_SPIN_MAX_NS. */
void gy_spin_init(struct gy_spin *spin, int64_t limit_ns, bool always);

/* A wait begins at now_ns, after `events` events in all: how long to look before it becomes a
 * sleep; 0: not at all. */
int64_t gy_spin_budget(struct gy_spin *spin, int64_t now_ns, uint64_t events);

/* The look took that long, and something came (or did not). */
void gy_spin_looked(struct gy_spin *spin, int64_t took_ns, bool found);

/* The wait, its look included, took that long. */
void gy_spin_waited(struct gy_spin *spin, int64_t took_ns);

#endif
