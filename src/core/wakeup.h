/* wakeup.h: ends the loop's sleep from any thread or signal handler.
 *
 * The eventfd is written only when the loop may be asleep: a loop that runs costs the waker one
 * atomic exchange.  The read op is armed only before a wait that can block. */
#ifndef GY_WAKEUP_H
#define GY_WAKEUP_H

#include "op.h"
#include <stdatomic.h>

struct gy_wakeup {
    struct gy_op op;
    int fd; /* eventfd, blocking: a read op on a non-blocking one fails on older kernels */
    atomic_bool sleeping;
    uint64_t value; /* where the kernel puts the count */
    atomic_uint_fast64_t sent;
};

int gy_wakeup_init(struct gy_wakeup *wakeup); /* 0 or -errno (EMFILE) */
void gy_wakeup_deinit(struct gy_wakeup *wakeup);

/* Before a wait that can block, on the loop's thread: arms the read and declares the loop asleep.
 * The caller looks at its queues once more AFTER this and before it blocks. */
void gy_wakeup_sleep(struct gy_loop *loop, struct gy_wakeup *wakeup);
/* After the wait. */
void gy_wakeup_awake(struct gy_wakeup *wakeup);
/* Any thread, async-signal-safe.  At most one write per sleep. */
void gy_wakeup_send(struct gy_wakeup *wakeup);

/* For op.c. */
void gy_wakeup_prepare(struct gy_loop *loop, struct gy_op *op, struct io_uring_sqe *sqe);
void gy_wakeup_on_event(struct gy_loop *loop, struct gy_op *op, const struct gy_event *ev);

#endif
