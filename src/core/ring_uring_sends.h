/* ring_uring_sends.h: sends to many sockets by one system call; for ring_uring.c.
 *
 * They go through a small ring of their own, in which nothing is ever in flight: each send ends at
 * once, as send(2) with MSG_DONTWAIT does, and its event is there when the call returns.  Made at
 * first use.  Thread: the ring's owner. */
#ifndef GY_RING_URING_SENDS_H
#define GY_RING_URING_SENDS_H

#include "ring.h"

struct gy_uring_sends;

/* The memory alone, or NULL.  To be called early: taken in the middle of a burst, it would keep the
 * heap from shrinking after it. */
struct gy_uring_sends *gy_uring_sends_new(void);
/* gy_ring_ops.send_many. */
unsigned gy_uring_sends_run(struct gy_uring_sends *sends, struct gy_send *items, unsigned count);
/* NULL does nothing.  forked: in a child of fork(), which did not inherit the memory. */
void gy_uring_sends_free(struct gy_uring_sends *sends, bool forked);

#endif
