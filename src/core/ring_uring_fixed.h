/* ring_uring_fixed.h: the table of registered buffers of an io_uring ring; for ring_uring.c.
 *
 * The kernel's table is made when the first buffer comes, with room for all.
 * Thread: the ring's owner, once it is enabled: the kernel refuses others. */
#ifndef GY_RING_URING_FIXED_H
#define GY_RING_URING_FIXED_H

#include "ring.h"

struct io_uring;

struct gy_uring_fixed {
    uint64_t used;  /* a bit per slot                                        */
    uint64_t stale; /* of these: given back, but the kernel did not listen   */
    bool made;
};
_Static_assert(GY_FIXED_SLOTS == 64, "a bit each");

/* The slot or -errno; -ENOSPC: all are taken. */
int gy_uring_fixed_register(struct io_uring *ring, struct gy_uring_fixed *table, void *memory,
                            size_t bytes);
/* In another thread than the owner's: at the next registration. */
void gy_uring_fixed_unregister(struct io_uring *ring, struct gy_uring_fixed *table, int slot);

/* For the probe: makes a table in a ring that is not used for anything else. */
bool gy_uring_fixed_works(struct io_uring *ring);

#endif
