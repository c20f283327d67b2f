/* test_bufgroup.c: leases, and what happens to them when the ring is replaced. */
#include "bufgroup.h"
#include "gy_test.h"

enum { COUNT = 8, BYTES = 64 };

/* A ring that only keeps count of its buffers. */
struct counting_ring {
    struct gy_ring base;
    bool registered;
    int refuse; /* -errno of the next registration */
    unsigned provided[COUNT];
    unsigned total;
};

static int
ring_register(struct gy_ring *ring, uint16_t group, void *memory, uint32_t count,
              uint32_t buffer_bytes)
{
    struct counting_ring *counting = container_of(ring, struct counting_ring, base);
    int err = counting->refuse;
    CHECK_EQ(group, GY_BUFFER_GROUP);
    CHECK(memory != NULL);
    CHECK_EQ(count, COUNT);
    CHECK_EQ(buffer_bytes, BYTES);
    CHECK(!counting->registered);
    counting->refuse = 0;
    counting->registered = err == 0;
    return err;
}

static void
ring_provide(struct gy_ring *ring, uint16_t group, uint16_t id)
{
    struct counting_ring *counting = container_of(ring, struct counting_ring, base);
    CHECK(counting->registered);
    CHECK_EQ(group, GY_BUFFER_GROUP);
    CHECK_LT(id, COUNT);
    counting->provided[id]++;
    counting->total++;
}

static const struct gy_ring_ops ring_ops = {
    .name = "counting",
    .buffers_register = ring_register,
    .buffer_provide = ring_provide,
};

static void
lease_and_give_back(void)
{
    struct counting_ring ring = {.base.ops = &ring_ops};
    struct gy_bufgroup group;
    struct gy_buffer *first;
    struct gy_buffer *last;

    gy_bufgroup_init(&group);
    CHECK_EQ(gy_bufgroup_ready(&group, &ring.base, COUNT, BYTES), 0);
    CHECK_EQ(gy_bufgroup_ready(&group, &ring.base, COUNT, BYTES), 0); /* only once */
    CHECK_EQ(ring.total, COUNT);
    first = gy_bufgroup_lease(&group, 0);
    last = gy_bufgroup_lease(&group, COUNT - 1);
    CHECK_EQ(group.leased, 2);
    CHECK(gy_bufgroup_data(&group, first) == group.memory);
    CHECK(gy_bufgroup_data(&group, last) == group.memory + (COUNT - 1) * BYTES);
    memset(gy_bufgroup_data(&group, last), 1, BYTES);
    gy_bufgroup_give_back(&group, &ring.base, last);
    CHECK_EQ(ring.provided[COUNT - 1], 2);
    CHECK_EQ(ring.provided[0], 1);
    gy_bufgroup_give_back(&group, NULL, first); /* the loop is closed */
    CHECK_EQ(group.leased, 0);
    CHECK_EQ(ring.total, COUNT + 1);
    gy_bufgroup_deinit(&group, false);
}

static void
another_ring(void)
{
    struct counting_ring old = {.base.ops = &ring_ops};
    struct counting_ring new = {.base.ops = &ring_ops, .refuse = -ENOMEM};
    struct gy_bufgroup group;
    struct gy_buffer *held;

    gy_bufgroup_init(&group);
    CHECK_EQ(gy_bufgroup_rebind(&group, &old.base), 0); /* never used: nothing to do */
    CHECK(!old.registered);
    CHECK_EQ(gy_bufgroup_ready(&group, &old.base, COUNT, BYTES), 0);
    held = gy_bufgroup_lease(&group, 3);
    memset(gy_bufgroup_data(&group, held), 7, BYTES);
    CHECK_EQ(gy_bufgroup_rebind(&group, &new.base), -ENOMEM);
    CHECK(group.ring == &old.base); /* as if nothing had happened */
    CHECK_EQ(gy_bufgroup_rebind(&group, &new.base), 0);
    CHECK_EQ(new.total, COUNT - 1);
    CHECK_EQ(new.provided[3], 0);
    CHECK_EQ(((char *)gy_bufgroup_data(&group, held))[BYTES - 1], 7);
    gy_bufgroup_give_back(&group, &new.base, held);
    CHECK_EQ(new.provided[3], 1);
    CHECK_EQ(old.total, COUNT);
    gy_bufgroup_deinit(&group, false);
}

static void
refusals_keep_nothing(void)
{
    struct counting_ring ring = {.base.ops = &ring_ops, .refuse = -ENOMEM};
    struct gy_bufgroup group;

    gy_bufgroup_init(&group);
    CHECK_EQ(gy_bufgroup_ready(&group, &ring.base, COUNT, BYTES), -ENOMEM);
    CHECK(group.ring == NULL);
#if GY_FAULTS
    gy_bufgroup_deinit(&group, false);
    for (uint32_t nth = 1; nth <= 2; nth++) {
        gy_fault_arm(GY_FAULT_ALLOC, nth, -ENOMEM);
        CHECK_EQ(gy_bufgroup_ready(&group, &ring.base, COUNT, BYTES), -ENOMEM);
        CHECK(gy_fault_fired(GY_FAULT_ALLOC));
        CHECK(group.memory == NULL);
        CHECK(group.buffers == NULL);
    }
#endif
    CHECK_EQ(gy_bufgroup_ready(&group, &ring.base, COUNT, BYTES), 0);
    CHECK_EQ(ring.total, COUNT);
    gy_bufgroup_deinit(&group, false);
}

static const struct gy_test tests[] = {
    GY_TEST(lease_and_give_back),
    GY_TEST(another_ring),
    GY_TEST(refusals_keep_nothing),
};
GY_TEST_MAIN(tests)
