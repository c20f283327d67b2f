/* fixed.h: memory that is registered with the kernel: reads and writes of it need not look its
 * pages up and hold them each time.
 *
 * It stays registered in whatever ring the loop has, until gy_fixed_remove() or the loop's end, and
 * counts against RLIMIT_MEMLOCK.  Where the ring has no such thing, or the kernel refuses, it is
 * memory like any other.  Operations in flight are no hindrance to its removal, but its pages must
 * stay until they have ended.  Owner: the embedder.  Thread: the loop's, or any while it rests; of
 * gy_fixed_remove() any that holds the embedder's lock. */
#ifndef GY_FIXED_H
#define GY_FIXED_H

#include "list.h"
#include "ring.h"

struct gy_fixed {
    struct gy_list link; /* linked: the loop will register it with its next ring, too */
    void *memory;
    size_t bytes;
    int32_t slot; /* the kernel's number of it; -1: none          */
};

void gy_fixed_init(struct gy_fixed *fixed, void *memory, size_t bytes);

/* `all` is the loop's list.  0, or -errno: not registered, which changes nothing else. */
int gy_fixed_add(struct gy_list *all, struct gy_ring *ring, struct gy_fixed *fixed);
/* ring NULL: leave the kernel alone.  Twice is once. */
void gy_fixed_remove(struct gy_ring *ring, struct gy_fixed *fixed);

/* All of them with a new ring; what it refuses is plain memory from now on. */
void gy_fixed_rebind(struct gy_list *all, struct gy_ring *ring);
/* The ring is gone. */
void gy_fixed_forget(struct gy_list *all);

/* A read or write of a part of this memory becomes one of registered memory, if it is: true. */
bool gy_fixed_prepare(const struct gy_fixed *fixed, struct io_uring_sqe *sqe);

#endif
