/* ring_uring_buffers.h: the groups of provided buffers of an io_uring ring; for ring_uring.c.
 *
 * The memory of the buffers is the caller's, the ring of entries ours.
 * Thread: the ring's owner. */
#ifndef GY_RING_URING_BUFFERS_H
#define GY_RING_URING_BUFFERS_H

#include "ring.h"

enum { GY_URING_BUFFER_GROUPS = 4 };

struct io_uring;
struct io_uring_buf_ring;

struct gy_uring_buffer_group {
    struct io_uring_buf_ring *entries; /* NULL: free slot */
    char *memory;
    uint32_t count; /* a power of two */
    uint32_t buffer_bytes;
    size_t map_bytes;
    uint16_t id;
};

struct gy_uring_buffers {
    struct gy_uring_buffer_group groups[GY_URING_BUFFER_GROUPS];
};

/* wanted: memory, count, buffer_bytes and id.  -ENOSPC: no slot; -EEXIST: the id is taken. */
int gy_uring_buffers_register(struct io_uring *ring, struct gy_uring_buffers *buffers,
                              const struct gy_uring_buffer_group *wanted);
void gy_uring_buffers_unregister(struct io_uring *ring, struct gy_uring_buffers *buffers,
                                 uint16_t id);
void gy_uring_buffers_provide(struct gy_uring_buffers *buffers, uint16_t id, uint16_t buffer_id);
/* The ring is gone. */
void gy_uring_buffers_free(struct gy_uring_buffers *buffers);

#endif
