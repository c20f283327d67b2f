/* ring_uring_fixed.c: see ring_uring_fixed.h. */
#include "ring_uring_fixed.h"
#include "fault.h"
#include "prep.h"

#include <errno.h>
#include <liburing.h>
#include <sys/uio.h>

/* An empty table: IORING_RSRC_REGISTER_SPARSE, Linux 5.19. */
static int
make_table(struct io_uring *ring, uint32_t slots)
{
    struct io_uring_rsrc_register request = {.nr = slots, .flags = IORING_RSRC_REGISTER_SPARSE};
    return io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_BUFFERS2, &request,
                             sizeof request);
}

static int
set_slot(struct io_uring *ring, uint32_t slot, void *memory, size_t bytes)
{
    struct iovec buffer = {.iov_base = memory, .iov_len = bytes};
    struct io_uring_rsrc_update2 request = {
        .offset = slot, .data = gy_prep_address(&buffer), .nr = 1};
    int res = io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_BUFFERS_UPDATE, &request,
                                sizeof request);
    if (res == 1)
        return 0;
    return res < 0 ? res : -EIO;
}

static void
clear_stale(struct io_uring *ring, struct gy_uring_fixed *table)
{
    uint64_t stale = table->stale;
    for (; stale != 0; stale &= stale - 1)
        gy_uring_fixed_unregister(ring, table, __builtin_ctzll(stale));
}

int
gy_uring_fixed_register(struct io_uring *ring, struct gy_uring_fixed *table, void *memory,
                        size_t bytes)
{
    int slot;
    int err = GY_FAULT(RING);
    if (err == 0 && !table->made)
        err = make_table(ring, GY_FIXED_SLOTS);
    if (err < 0)
        return err;
    table->made = true;
    clear_stale(ring, table);
    if (table->used == UINT64_MAX)
        return -ENOSPC;
    slot = __builtin_ctzll(~table->used);
    err = set_slot(ring, (uint32_t)slot, memory, bytes);
    if (err < 0)
        return err;
    table->used |= UINT64_C(1) << slot;
    return slot;
}

void
gy_uring_fixed_unregister(struct io_uring *ring, struct gy_uring_fixed *table, int slot)
{
    uint64_t bit = UINT64_C(1) << slot;
    GY_ASSERT(table->used & bit);
    if (set_slot(ring, (uint32_t)slot, NULL, 0) == 0) {
        table->used &= ~bit;
        table->stale &= ~bit;
    } else {
        table->stale |= bit;
    }
}

bool
gy_uring_fixed_works(struct io_uring *ring)
{
    return make_table(ring, 1) == 0;
}
