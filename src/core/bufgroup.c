/* bufgroup.c: the loop's receive buffers, provided to the kernel.
 *
 * Owner: the loop.  Thread: the loop's.
 * Invariants: a buffer is either with the kernel or leased; the memory lives until the ring that
 * it is registered with is destroyed. */
#include "bufgroup.h"

#include "ring.h"
#include "sys.h"
#include <errno.h>

void
gy_bufgroup_init(struct gy_bufgroup *group)
{
    *group = (struct gy_bufgroup){0};
}

static int
map_memory(struct gy_bufgroup *group, uint32_t count, uint32_t buffer_bytes)
{
    group->count = count;
    group->buffer_bytes = buffer_bytes;
    group->buffers = gy_alloc(count * sizeof(*group->buffers));
    if (group->buffers == NULL)
        return -ENOMEM;
    group->memory = gy_map((size_t)count * buffer_bytes);
    if (group->memory == NULL) {
        gy_free(group->buffers);
        group->buffers = NULL;
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < count; i++)
        gy_list_init(&group->buffers[i].link);
    return 0;
}

/* Registers the memory and hands over every buffer that is not leased. */
static int
bind_ring(struct gy_bufgroup *group, struct gy_ring *ring)
{
    int err = ring->ops->buffers_register(ring, GY_BUFFER_GROUP, group->memory, group->count,
                                          group->buffer_bytes);
    if (err < 0)
        return err;
    group->ring = ring;
    for (uint32_t i = 0; i < group->count; i++)
        if (!group->buffers[i].leased)
            ring->ops->buffer_provide(ring, GY_BUFFER_GROUP, (uint16_t)i);
    return 0;
}

int
gy_bufgroup_ready(struct gy_bufgroup *group, struct gy_ring *ring, uint32_t count,
                  uint32_t buffer_bytes)
{
    GY_ASSERT(count != 0 && (count & (count - 1)) == 0);
    GY_ASSERT(count <= UINT16_MAX);
    if (group->ring == ring)
        return 0;
    if (group->memory == NULL) {
        int err = map_memory(group, count, buffer_bytes);
        if (err < 0)
            return err;
    }
    return bind_ring(group, ring);
}

int
gy_bufgroup_rebind(struct gy_bufgroup *group, struct gy_ring *ring)
{
    if (group->memory == NULL)
        return 0;
    return bind_ring(group, ring);
}

void *
gy_bufgroup_data(const struct gy_bufgroup *group, const struct gy_buffer *buffer)
{
    size_t index = (size_t)(buffer - group->buffers);
    GY_ASSERT(index < group->count);
    return group->memory + index * group->buffer_bytes;
}

struct gy_buffer *
gy_bufgroup_lease(struct gy_bufgroup *group, uint16_t id)
{
    struct gy_buffer *buffer = &group->buffers[id];

    GY_ASSERT(id < group->count);
    GY_ASSERT(!buffer->leased);
    buffer->leased = true;
    buffer->len = 0;
    group->leased++;
    return buffer;
}

void
gy_bufgroup_give_back(struct gy_bufgroup *group, struct gy_ring *ring, struct gy_buffer *buffer)
{
    GY_ASSERT(buffer->leased);
    GY_ASSERT(!gy_list_linked(&buffer->link));
    GY_ASSERT(group->leased > 0);
    buffer->leased = false;
    group->leased--;
    /* Not this ring's, if registering with a new ring failed: it is provided when that works. */
    if (ring != NULL && group->ring == ring)
        ring->ops->buffer_provide(ring, GY_BUFFER_GROUP, (uint16_t)(buffer - group->buffers));
}

void
gy_bufgroup_deinit(struct gy_bufgroup *group, bool forked)
{
    if (group->memory != NULL && !forked)
        gy_unmap(group->memory, (size_t)group->count * group->buffer_bytes);
    gy_free(group->buffers);
    gy_bufgroup_init(group);
}
