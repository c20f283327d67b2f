/* fixed.c: see fixed.h. */
#include "fixed.h"
#include "probe.h"
#include "uring_compat.h"

#include <errno.h>

static struct gy_fixed *
fixed_of(struct gy_list *node)
{
    return container_of(node, struct gy_fixed, link);
}

void
gy_fixed_init(struct gy_fixed *fixed, void *memory, size_t bytes)
{
    gy_list_init(&fixed->link);
    fixed->memory = memory;
    fixed->bytes = bytes;
    fixed->slot = -1;
}

static int
ask(struct gy_ring *ring, struct gy_fixed *fixed)
{
    int slot = -EOPNOTSUPP;
    if (ring->features & GY_FEAT_FIXED_BUFFERS)
        slot = ring->ops->fixed_register(ring, fixed->memory, fixed->bytes);
    fixed->slot = slot < 0 ? -1 : slot;
    return slot < 0 ? slot : 0;
}

int
gy_fixed_add(struct gy_list *all, struct gy_ring *ring, struct gy_fixed *fixed)
{
    int err;
    GY_ASSERT(!gy_list_linked(&fixed->link));
    err = ask(ring, fixed);
    if (err == 0)
        gy_list_append(all, &fixed->link);
    return err;
}

void
gy_fixed_remove(struct gy_ring *ring, struct gy_fixed *fixed)
{
    if (ring != NULL && fixed->slot >= 0)
        ring->ops->fixed_unregister(ring, fixed->slot);
    fixed->slot = -1;
    if (gy_list_linked(&fixed->link))
        gy_list_remove(&fixed->link);
}

void
gy_fixed_rebind(struct gy_list *all, struct gy_ring *ring)
{
    for (struct gy_list *node = all->next; node != all; node = node->next)
        (void)ask(ring, fixed_of(node));
}

void
gy_fixed_forget(struct gy_list *all)
{
    struct gy_list *node;
    while ((node = gy_list_pop(all)) != NULL)
        fixed_of(node)->slot = -1;
}

bool
gy_fixed_prepare(const struct gy_fixed *fixed, struct io_uring_sqe *sqe)
{
    if (fixed->slot < 0 || (sqe->opcode != IORING_OP_READ && sqe->opcode != IORING_OP_WRITE))
        return false;
    sqe->opcode = sqe->opcode == IORING_OP_READ ? IORING_OP_READ_FIXED : IORING_OP_WRITE_FIXED;
    sqe->buf_index = (uint16_t)fixed->slot;
    return true;
}
