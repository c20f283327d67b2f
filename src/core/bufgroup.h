/* bufgroup.h: the loop's shared receive buffers, provided to the kernel as one ring.
 *
 * One group per loop: GY_BUFFERS of GY_BUFFER_BYTES (256 x 16 KiB stay in the cache; more lost
 * speed).  A buffer is leased while a stream looks at what landed in it and given back after the
 * upcall; a paused stream may hold some.  A multishot receive that ended with -ENOBUFS is armed
 * again in the next turn, when the buffers of this turn are back (arming with an empty group fails
 * at once and would spin); while paused streams hold most of the group it reads by poll instead,
 * since nothing says when those come back.
 * Owner: the loop.  Thread: the loop's. */
#ifndef GY_BUFGROUP_H
#define GY_BUFGROUP_H

#include "list.h"

enum {
    GY_BUFFERS = 256,
    GY_BUFFER_BYTES = 16 * 1024,
    GY_BUFFER_GROUP = 1,
    GY_HOLD_BYTES_MAX = 512 * 1024
};

struct gy_ring;

/* One per buffer, beside the memory: links a held buffer into its stream's list. */
struct gy_buffer {
    struct gy_list link;
    uint32_t len; /* bytes in it that are not yet delivered */
    bool leased;
};

struct gy_bufgroup {
    char *memory; /* count * buffer_bytes, mapped, MADV_DONTFORK; NULL until first used */
    struct gy_buffer *buffers;
    uint32_t count;
    uint32_t buffer_bytes;
    struct gy_ring *ring; /* that the memory is registered with, or NULL */
    uint32_t leased;      /* held by streams or in an upcall */
    uint64_t exhausted;   /* times the kernel found none     */
};

void gy_bufgroup_init(struct gy_bufgroup *group);
/* Maps and registers with the ring if that has not happened for this ring.  0 or -errno. */
int gy_bufgroup_ready(struct gy_bufgroup *group, struct gy_ring *ring, uint32_t count,
                      uint32_t buffer_bytes);
/* The ring was replaced: register the memory again (held buffers stay leased). */
int gy_bufgroup_rebind(struct gy_bufgroup *group, struct gy_ring *ring);
/* The buffer that a completion named; its bytes are at gy_bufgroup_data(). */
struct gy_buffer *gy_bufgroup_lease(struct gy_bufgroup *group, uint16_t id);
void *gy_bufgroup_data(const struct gy_bufgroup *group, const struct gy_buffer *buffer);
/* ring may be NULL: the loop is closed, only the count goes down. */
void gy_bufgroup_give_back(struct gy_bufgroup *group, struct gy_ring *ring,
                           struct gy_buffer *buffer);
/* The ring is gone (destroying it ended the registration).  Buffers that are still leased must not
 * be touched afterwards.  forked: in a child of fork(), which did not inherit the memory. */
void gy_bufgroup_deinit(struct gy_bufgroup *group, bool forked);

#endif
