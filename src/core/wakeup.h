/* wakeup.h: ends the loop's sleep from any thread or signal handler.
 *
 * The eventfd is written only when the loop may be asleep: a loop that runs costs the waker one
 * atomic exchange.  The read op is armed only before a wait that can block. */
#ifndef GY_WAKEUP_H
#define GY_WAKEUP_H

#include "op.h"
#include <stdatomic.h>

enum gy_wakeup_state {
    GY_WAKEUP_AWAKE,   /* nothing to do for a waker                       */
    GY_WAKEUP_LOOKING, /* the loop reads this field: to change it is enough */
    GY_WAKEUP_ASLEEP,  /* the eventfd has to be written                   */
};

struct gy_wakeup {
    struct gy_op op;
    int fd; /* eventfd, blocking: a read op on a non-blocking one fails on older kernels */
    atomic_uchar state; /* enum gy_wakeup_state */
    uint64_t value;     /* where the kernel puts the count */
    atomic_uint_fast64_t sent;
};

int gy_wakeup_init(struct gy_wakeup *wakeup); /* 0 or -errno (EMFILE) */
void gy_wakeup_deinit(struct gy_wakeup *wakeup);

/* Before a wait that can block, on the loop's thread: arms the read and declares the loop asleep,
 * or looking for events.  The caller looks at its queues once more AFTER this and before it blocks,
 * and calls gy_wakeup_fall_asleep between looking and sleeping. */
void gy_wakeup_sleep(struct gy_loop *loop, struct gy_wakeup *wakeup, bool looking);
/* LOOKING -> ASLEEP; also true when it is ASLEEP.  false: somebody woke the loop, it may not sleep.
 */
bool gy_wakeup_fall_asleep(struct gy_wakeup *wakeup);
static inline bool
gy_wakeup_is_looking(struct gy_wakeup *wakeup)
{
    return atomic_load_explicit(&wakeup->state, memory_order_acquire) == GY_WAKEUP_LOOKING;
}
/* After the wait. */
void gy_wakeup_awake(struct gy_wakeup *wakeup);
/* Any thread, async-signal-safe.  At most one write per sleep. */
void gy_wakeup_send(struct gy_wakeup *wakeup);

/* For op.c. */
void gy_wakeup_prepare(struct gy_loop *loop, struct gy_op *op, struct io_uring_sqe *sqe);
void gy_wakeup_on_event(struct gy_loop *loop, struct gy_op *op, const struct gy_event *ev);

#endif
