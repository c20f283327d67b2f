/* ring_uring_buffers.c: see ring_uring_buffers.h. */
#include "ring_uring_buffers.h"
#include "fault.h"
#include "prep.h"
#include "sys.h"

#include <errno.h>
#include <liburing.h>

static struct gy_uring_buffer_group *
group_find(struct gy_uring_buffers *buffers, uint16_t id)
{
    for (unsigned i = 0; i < GY_URING_BUFFER_GROUPS; i++) {
        if (buffers->groups[i].entries != NULL && buffers->groups[i].id == id)
            return &buffers->groups[i];
    }
    return NULL;
}

static struct gy_uring_buffer_group *
group_free_slot(struct gy_uring_buffers *buffers)
{
    for (unsigned i = 0; i < GY_URING_BUFFER_GROUPS; i++) {
        if (buffers->groups[i].entries == NULL)
            return &buffers->groups[i];
    }
    return NULL;
}

static void
group_free(struct gy_uring_buffer_group *group)
{
    gy_unmap(group->entries, group->map_bytes);
    group->entries = NULL;
}

int
gy_uring_buffers_register(struct io_uring *ring, struct gy_uring_buffers *buffers,
                          const struct gy_uring_buffer_group *wanted)
{
    struct gy_uring_buffer_group *group = group_free_slot(buffers);
    struct io_uring_buf_reg request = {.ring_entries = wanted->count, .bgid = wanted->id};
    int err;
    GY_ASSERT(wanted->count != 0 && (wanted->count & (wanted->count - 1)) == 0);
    if (group == NULL)
        return -ENOSPC;
    if (group_find(buffers, wanted->id) != NULL)
        return -EEXIST;
    err = GY_FAULT(RING);
    if (err < 0)
        return err;
    *group = *wanted;
    group->map_bytes = wanted->count * sizeof(struct io_uring_buf);
    group->entries = gy_map(group->map_bytes);
    if (group->entries == NULL)
        return -ENOMEM;
    request.ring_addr = gy_prep_address(group->entries);
    err = io_uring_register_buf_ring(ring, &request, 0);
    if (err < 0) {
        group_free(group);
        return err;
    }
    io_uring_buf_ring_init(group->entries);
    return 0;
}

void
gy_uring_buffers_unregister(struct io_uring *ring, struct gy_uring_buffers *buffers, uint16_t id)
{
    struct gy_uring_buffer_group *group = group_find(buffers, id);
    if (group == NULL)
        return;
    (void)io_uring_unregister_buf_ring(ring, id);
    group_free(group);
}

void
gy_uring_buffers_provide(struct gy_uring_buffers *buffers, uint16_t id, uint16_t buffer_id)
{
    const struct gy_uring_buffer_group *group = group_find(buffers, id);
    GY_ASSERT(group != NULL);
    GY_ASSERT(buffer_id < group->count);
    io_uring_buf_ring_add(group->entries, group->memory + (size_t)buffer_id * group->buffer_bytes,
                          group->buffer_bytes, buffer_id, (int)group->count - 1, 0);
    io_uring_buf_ring_advance(group->entries, 1);
}

void
gy_uring_buffers_free(struct gy_uring_buffers *buffers)
{
    for (unsigned i = 0; i < GY_URING_BUFFER_GROUPS; i++) {
        if (buffers->groups[i].entries != NULL)
            group_free(&buffers->groups[i]);
    }
}
