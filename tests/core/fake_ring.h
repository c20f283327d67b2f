/* fake_ring.h: a ring that does nothing but what a test tells it: the SQEs it was given lie in an
 * array, the events it will report are pushed by the test. */
#ifndef GY_FAKE_RING_H
#define GY_FAKE_RING_H

#include "gy_test.h"
#include "prep.h"
#include "ring.h"

enum { FAKE_SQES = 64, FAKE_EVENTS = 4096 };

struct fake_ring {
    struct gy_ring base;
    struct io_uring_sqe sqes[FAKE_SQES];
    unsigned sqe_count;
    unsigned sqe_limit; /* more are refused */
    struct gy_event events[FAKE_EVENTS];
    unsigned event_head;
    unsigned event_tail;
    unsigned enters;
    int enter_result;
    int64_t last_wait_ns;
    int64_t now_ns;
    unsigned cancel_alls;
    unsigned enables;
    unsigned destroys;
};

static inline struct fake_ring *
fake_of(struct gy_ring *ring)
{
    return container_of(ring, struct fake_ring, base);
}

static inline int
fake_enable(struct gy_ring *ring)
{
    fake_of(ring)->enables++;
    return 0;
}

static inline void
fake_destroy(struct gy_ring *ring, bool forked)
{
    GY_UNUSED(forked);
    fake_of(ring)->destroys++;
}

static inline struct io_uring_sqe *
fake_sqe(struct gy_ring *ring)
{
    struct fake_ring *fake = fake_of(ring);
    struct io_uring_sqe *sqe;
    if (fake->sqe_count == fake->sqe_limit)
        return NULL;
    sqe = &fake->sqes[fake->sqe_count++];
    memset(sqe, 0, sizeof *sqe);
    return sqe;
}

static inline int
fake_enter(struct gy_ring *ring, int64_t wait_ns)
{
    struct fake_ring *fake = fake_of(ring);
    fake->enters++;
    fake->last_wait_ns = wait_ns;
    if (wait_ns > 0 && wait_ns != GY_NS_NEVER)
        fake->now_ns += wait_ns;
    return fake->enter_result;
}

static inline bool
fake_needs_enter(struct gy_ring *ring)
{
    return fake_of(ring)->sqe_count > 0;
}

static inline bool
fake_next_event(struct gy_ring *ring, struct gy_event *out)
{
    struct fake_ring *fake = fake_of(ring);
    if (fake->event_head == fake->event_tail)
        return false;
    *out = fake->events[fake->event_head++];
    return true;
}

static inline void
fake_cancel_all(struct gy_ring *ring)
{
    fake_of(ring)->cancel_alls++;
}

static inline int64_t
fake_now_ns(struct gy_ring *ring)
{
    return fake_of(ring)->now_ns;
}

static const struct gy_ring_ops fake_ops = {
    .name = "fake",
    .enable = fake_enable,
    .destroy = fake_destroy,
    .sqe = fake_sqe,
    .enter = fake_enter,
    .needs_enter = fake_needs_enter,
    .next_event = fake_next_event,
    .cancel_all = fake_cancel_all,
    .now_ns = fake_now_ns,
};

static struct fake_ring fake;

static inline int
fake_create(const struct gy_ring_options *options, struct gy_ring **out)
{
    GY_UNUSED(options);
    memset(&fake, 0, sizeof fake);
    fake.base.ops = &fake_ops;
    fake.sqe_limit = FAKE_SQES;
    fake.now_ns = 1000;
    *out = &fake.base;
    return 0;
}

static inline void
fake_push(struct gy_op *op, int32_t res, uint32_t flags, bool is_cancel)
{
    CHECK_LT(fake.event_tail, FAKE_EVENTS);
    fake.events[fake.event_tail++] =
        (struct gy_event){.op = op, .res = res, .flags = flags, .is_cancel = is_cancel};
}

static inline void
fake_loop_begin(struct gy_loop *loop)
{
    struct gy_ring_options options = {0};
    CHECK_EQ(gy_loop_init(loop, &options, fake_create), 0);
    CHECK_EQ(gy_loop_begin(loop), 0);
    CHECK_EQ(fake.enables, 1);
}

static inline void
fake_loop_end(struct gy_loop *loop)
{
    CHECK_EQ(gy_loop_quiesce(loop, 1), 0);
    gy_loop_close(loop);
    CHECK_EQ(fake.destroys, 1);
}

#endif
