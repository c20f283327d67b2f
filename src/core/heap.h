/* heap.h: when to give back to the system what a burst has left in the C library's heap.
 *
 * What the messages of a burst took is free after it, but glibc returns only what lies at the top
 * of its heap: one small block above them, and all of it stays resident.  malloc_trim(3) returns
 * the rest, page by page.  It must not happen while messages come (each page would be faulted in
 * again), nor often, nor where it takes long for nothing.  This is the policy alone, arithmetic on
 * what the caller measured; loop_wait.c does the measuring and the trimming.
 *
 * After each GY_HEAP_LOOK_BYTES that were moved it looks at the memory of the process.  Has that
 * grown by GY_HEAP_GROWN_BYTES since it was least, the heap is trimmed as soon as little has been
 * moved for GY_HEAP_QUIET_NS.  What is still there may be in use and be freed later: so it is done
 * again when the loop has been awake since, after a gap that doubles from trim to trim; a little
 * that stays (less than GY_HEAP_GROWN_BYTES) is left alone when the gap is at its longest.  Owner:
 * the loop.  Thread: the loop's. */
#ifndef GY_HEAP_H
#define GY_HEAP_H

#include "base.h"

#define GY_HEAP_LOOK_BYTES (UINT64_C(8) << 20)
#define GY_HEAP_GROWN_BYTES (UINT64_C(16) << 20)
#define GY_HEAP_LEFT_BYTES (UINT64_C(2) << 20) /* less than that is nothing */
#define GY_HEAP_EVENT_BYTES UINT64_C(1024)     /* what an event counts as */
#define GY_HEAP_QUIET_NS (INT64_C(100) * 1000 * 1000)
#define GY_HEAP_GAP_MIN_NS GY_HEAP_QUIET_NS
#define GY_HEAP_GAP_MAX_NS (64 * GY_NS_PER_SECOND)

enum gy_heap_step {
    GY_HEAP_WAIT, /* until due_ns                              */
    GY_HEAP_LOOK, /* measure, and call gy_heap_measured()      */
};

struct gy_heap {
    uint64_t other_bytes;   /* moved by others than streams and datagrams               */
    uint64_t look_at;       /* in bytes moved; UINT64_MAX: never                        */
    int64_t due_ns;         /* the end of a quiet time or of a gap; GY_NS_NEVER: none   */
    int64_t checked_ns;     /* when the time before due_ns began,                       */
    uint64_t checked_bytes; /* and what had been moved by then                          */
    uint64_t least_bytes;   /* the least memory seen; 0: not yet                        */
    uint64_t grown_bytes;   /* beyond it, when last seen                                */
    int64_t trimmed_ns;     /* when the last trim ended,                                */
    int64_t gap_ns;         /* and how long there must be none; 0: there was none       */
    bool again;             /* the last trim left something: when awake, another        */
    uint64_t trims;         /* a counter                                                */
};

/* A heap that is not wanted is never looked at. */
void gy_heap_init(struct gy_heap *heap, bool wanted);

/* True when gy_heap_step() has something to do; the first test of each wait. */
static inline bool
gy_heap_stirs(const struct gy_heap *heap, uint64_t moved_bytes)
{
    return heap->due_ns != GY_NS_NEVER || moved_bytes >= heap->look_at;
}

/* A wait begins. */
enum gy_heap_step gy_heap_step(struct gy_heap *heap, int64_t now_ns, uint64_t moved_bytes);

/* What the process holds; 0: not to be known now.  True: to be trimmed now. */
bool gy_heap_measured(struct gy_heap *heap, int64_t now_ns, uint64_t moved_bytes, uint64_t bytes);

/* Trimmed, in took_ns of the thread's CPU time; now_ns is after it, and so is what the process
 * holds (not 0). */
void gy_heap_trimmed(struct gy_heap *heap, int64_t now_ns, int64_t took_ns, uint64_t bytes);

#endif
