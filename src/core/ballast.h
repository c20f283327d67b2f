/* ballast.h: keeps the C library from giving back between two messages what the next one needs.
 *
 * glibc returns the top of its heap with each large free() that leaves more than a threshold there.
 * Where large messages are made and freed near the top, this happens again and again, and each time
 * the next message pays for it: two calls of brk(2), and a fault for each page.  A block that lies
 * near the top keeps everything below it.  What is "moved" here is received.  It is put there when
 * the end of the heap has moved down GY_BALLAST_FALLS times in GY_BALLAST_LOOKS, one a turn and one
 * per GY_BALLAST_SAMPLE_BYTES, and goes when little has been moved for GY_BALLAST_QUIET_NS, and
 * with it what glibc would have returned.  Only a heap that ends at the program's break is looked
 * at: glibc's first arena. Owner: the loop.  Thread: the loop's. */
#ifndef GY_BALLAST_H
#define GY_BALLAST_H

#include "base.h"

#define GY_BALLAST_SAMPLE_BYTES (UINT64_C(128) << 10)
#define GY_BALLAST_BUSY_BYTES (UINT64_C(1) << 20)
#define GY_BALLAST_QUIET_NS (INT64_C(100) * 1000 * 1000)
enum { GY_BALLAST_LOOKS = 16, GY_BALLAST_FALLS = 4 };

struct gy_ballast {
    uint64_t look_at;  /* in bytes moved; UINT64_MAX: never    */
    uint32_t looks;    /* in this window, which has GY_BALLAST_LOOKS of them */
    uintptr_t end;     /* of the heap, when last seen          */
    uintptr_t highest; /* end in this window                   */
    uintptr_t lowest;
    uint32_t falls;         /* in this window                       */
    void *block;            /* NULL: none is held                   */
    int64_t due_ns;         /* when to ask whether it is quiet      */
    uint64_t checked_bytes; /* moved when that was last asked       */
    uint64_t placed;        /* a counter                            */
};

/* One that is not wanted never looks. */
void gy_ballast_init(struct gy_ballast *ballast, bool wanted);
/* Holds nothing any more. */
void gy_ballast_drop(struct gy_ballast *ballast);

/* A turn begins, and moved_bytes have reached look_at; the heap ends at `end` (0: it has none). */
void gy_ballast_look(struct gy_ballast *ballast, uint64_t moved_bytes, uintptr_t end);
/* A wait begins while a block is held.  Until when to wait at most; GY_NS_NEVER: it is gone. */
int64_t gy_ballast_wait(struct gy_ballast *ballast, int64_t now_ns, uint64_t moved_bytes);

#endif
