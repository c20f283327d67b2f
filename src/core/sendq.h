/* sendq.h: what a stream still has to send, as segments.
 *
 * A segment points into memory that its owner keeps alive (the binding: a bytes object); the owner
 * is handed back exactly once, by release, when its last byte was taken by the kernel or the queue
 * was dropped.  An empty queue has no memory of its own: the first segments lie in a block that the
 * loop's queues lend each other (gy_sendq_spare), so that a connection at rest costs nothing. */
#ifndef GY_SENDQ_H
#define GY_SENDQ_H

#include "base.h"
#include <sys/uio.h>

struct gy_segment {
    const char *data;
    size_t len;
    void *owner;
};

enum { GY_SENDQ_FIRST = 4, GY_SENDQ_SPARE_MAX = 64, GY_SENDQ_IOV_MAX = 64 };

/* Blocks of GY_SENDQ_FIRST segments that no queue uses; the loop's. */
struct gy_sendq_spare {
    struct gy_segment *first; /* the next one is the `owner` of its first segment */
    uint32_t room;            /* how many more are kept                           */
};

struct gy_sendq {
    struct gy_segment *segments; /* a ring of `capacity`; NULL exactly while count is 0 */
    uint32_t capacity;
    uint32_t head;
    uint32_t count;
    size_t bytes; /* not yet taken by the kernel */
};

typedef void (*gy_release_fn)(void *context, void *owner);

void gy_sendq_spare_init(struct gy_sendq_spare *spare);
void gy_sendq_spare_deinit(struct gy_sendq_spare *spare); /* keeps none from now on */

void gy_sendq_init(struct gy_sendq *queue);
/* Takes over the segment's owner.  0, or -ENOMEM and nothing taken.  Zero-length segments are a
 * bug. */
int gy_sendq_push(struct gy_sendq *queue, struct gy_sendq_spare *spare,
                  const struct gy_segment *segment);
/* Fills at most max entries with the front of the queue; returns how many. */
unsigned gy_sendq_iovec(const struct gy_sendq *queue, struct iovec *iov, unsigned max);
/* len bytes were sent: releases what is complete.  The queue is consistent before each release. */
void gy_sendq_advance(struct gy_sendq *queue, struct gy_sendq_spare *spare, size_t len,
                      gy_release_fn release, void *context);
void gy_sendq_drop(struct gy_sendq *queue, struct gy_sendq_spare *spare, gy_release_fn release,
                   void *context);

#endif
