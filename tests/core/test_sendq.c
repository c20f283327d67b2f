/* test_sendq.c: order, accounting and ownership of the send queue. */
#include "gy_test.h"
#include "sendq.h"

enum { OWNERS_MAX = 4096 };

struct record {
    struct gy_sendq *queue;
    unsigned released[OWNERS_MAX]; /* how often */
    uintptr_t last;
    size_t bytes_at_release;
    unsigned pushes_left; /* each release pushes one segment, so many times */
};

static struct gy_sendq_spare spare;

static const char text[] = "abcdefghijklmnopqrstuvwxyz";

static void
push(struct gy_sendq *queue, size_t offset, size_t len, uintptr_t owner)
{
    struct gy_segment segment = {.data = text + offset, .len = len, .owner = (void *)owner};
    CHECK_EQ(gy_sendq_push(queue, &spare, &segment), 0);
}

static void
on_release(void *context, void *owner)
{
    struct record *record = context;
    uintptr_t number = (uintptr_t)owner;
    CHECK(number < OWNERS_MAX);
    record->released[number]++;
    record->last = number;
    record->bytes_at_release = record->queue->bytes;
    if (record->pushes_left > 0) {
        record->pushes_left--;
        push(record->queue, 0, 1, 1000 + record->pushes_left);
    }
}

static void
init(struct record *record, struct gy_sendq *queue)
{
    *record = (struct record){.queue = queue};
    gy_sendq_init(queue);
    gy_sendq_spare_init(&spare);
}

/* An empty queue holds no memory: what is there are the spare blocks, which the sanitizer counts.
 */
static void
the_end(const struct gy_sendq *queue)
{
    CHECK_EQ(queue->count, 0);
    CHECK(queue->segments == NULL);
    gy_sendq_spare_deinit(&spare);
}

static void
partial_segments(void)
{
    struct gy_sendq queue;
    struct record record;
    struct iovec iov[4];

    init(&record, &queue);
    push(&queue, 0, 10, 1);
    push(&queue, 10, 6, 2);
    push(&queue, 16, 4, 3);
    CHECK_EQ(queue.bytes, 20);
    gy_sendq_advance(&queue, &spare, 0, on_release, &record);
    gy_sendq_advance(&queue, &spare, 4, on_release, &record);
    CHECK_EQ(record.released[1], 0);
    CHECK_EQ(gy_sendq_iovec(&queue, iov, 4), 3);
    CHECK(iov[0].iov_base == text + 4);
    CHECK_EQ(iov[0].iov_len, 6);
    CHECK_EQ(iov[2].iov_len, 4);
    CHECK_EQ(gy_sendq_iovec(&queue, iov, 2), 2);
    gy_sendq_advance(&queue, &spare, 6, on_release, &record); /* exactly to a border */
    CHECK_EQ(record.released[1], 1);
    CHECK_EQ(record.released[2], 0);
    gy_sendq_advance(&queue, &spare, 9, on_release, &record);
    CHECK_EQ(record.released[2], 1);
    CHECK_EQ(queue.bytes, 1);
    CHECK_EQ(gy_sendq_iovec(&queue, iov, 4), 1);
    CHECK(*(char *)iov[0].iov_base == 't');
    gy_sendq_advance(&queue, &spare, 1, on_release, &record);
    CHECK_EQ(record.released[3], 1);
    CHECK_EQ(queue.count, 0);
    the_end(&queue);
}

/* The ring grows while its front is not at index 0, and gives the memory back when empty. */
static void
growth_keeps_order(void)
{
    struct gy_sendq queue;
    struct record record;
    uintptr_t in = 0;
    uintptr_t out = 0;

    init(&record, &queue);
    for (unsigned round = 0; round < 60; round++) {
        for (unsigned i = 0; i < 13; i++)
            push(&queue, in % 20, 2, in), in++;
        for (unsigned i = 0; i < 5; i++) {
            gy_sendq_advance(&queue, &spare, 2, on_release, &record);
            CHECK_EQ(record.last, out);
            out++;
        }
        CHECK_EQ(queue.bytes, 2 * (in - out));
    }
    CHECK(queue.capacity >= in - out);
    while (out < in) {
        size_t count = in - out < 7 ? in - out : 7;
        gy_sendq_advance(&queue, &spare, 2 * count, on_release, &record);
        out += count;
        CHECK_EQ(record.last, out - 1);
    }
    for (uintptr_t i = 0; i < in; i++)
        CHECK_EQ(record.released[i], 1);
    CHECK(queue.segments == NULL);
    the_end(&queue);
}

/* A release that pushes finds the queue as it will be: nothing is sent twice, nothing lost. */
static void
release_pushes(void)
{
    struct gy_sendq queue;
    struct record record;

    init(&record, &queue);
    push(&queue, 0, 5, 1);
    push(&queue, 5, 5, 2);
    push(&queue, 10, 5, 3);
    record.pushes_left = 2;
    gy_sendq_advance(&queue, &spare, 12, on_release, &record);
    CHECK_EQ(record.released[1], 1);
    CHECK_EQ(record.released[2], 1);
    CHECK_EQ(record.released[3], 0);
    CHECK_EQ(record.bytes_at_release, 4); /* 3 left of the third and the first pushed */
    CHECK_EQ(queue.bytes, 5);
    CHECK_EQ(queue.count, 3);
    gy_sendq_drop(&queue, &spare, on_release, &record);
    CHECK_EQ(record.released[3], 1);
    CHECK_EQ(record.released[1000], 1);
    CHECK_EQ(record.released[1001], 1);
    the_end(&queue);
}

static void
drop_releases_each_once(void)
{
    struct gy_sendq queue;
    struct record record;

    for (unsigned count = 0; count < 40; count++) {
        init(&record, &queue);
        for (unsigned i = 0; i < count; i++)
            push(&queue, 0, 3, i);
        record.pushes_left = count > 0 ? 1 : 0; /* what is pushed meanwhile stays */
        gy_sendq_drop(&queue, &spare, on_release, &record);
        for (unsigned i = 0; i < count; i++)
            CHECK_EQ(record.released[i], 1);
        CHECK_EQ(queue.count, count > 0 ? 1 : 0);
        gy_sendq_drop(&queue, &spare, on_release, &record);
        CHECK_EQ(queue.bytes, 0);
        the_end(&queue);
    }
}

static void
full_iovec(void)
{
    struct gy_sendq queue;
    struct record record;
    struct iovec iov[GY_SENDQ_IOV_MAX];

    init(&record, &queue);
    for (unsigned i = 0; i < 100; i++)
        push(&queue, 0, 1, i);
    CHECK_EQ(gy_sendq_iovec(&queue, iov, GY_SENDQ_IOV_MAX), GY_SENDQ_IOV_MAX);
    gy_sendq_advance(&queue, &spare, GY_SENDQ_IOV_MAX, on_release, &record);
    CHECK_EQ(gy_sendq_iovec(&queue, iov, GY_SENDQ_IOV_MAX), 100 - GY_SENDQ_IOV_MAX);
    gy_sendq_drop(&queue, &spare, on_release, &record);
    the_end(&queue);
}

static void
no_memory_takes_nothing(void)
{
#if GY_FAULTS
    struct gy_sendq queue;
    struct record record;
    struct gy_segment segment = {.data = text, .len = 1, .owner = (void *)9};

    init(&record, &queue);
    gy_fault_arm(GY_FAULT_ALLOC, 1, -ENOMEM); /* of the first block */
    CHECK_EQ(gy_sendq_push(&queue, &spare, &segment), -ENOMEM);
    CHECK(gy_fault_fired(GY_FAULT_ALLOC));
    CHECK_EQ(queue.count, 0);
    for (unsigned i = 0; i < GY_SENDQ_FIRST; i++)
        push(&queue, 0, 1, 1);
    gy_fault_arm(GY_FAULT_ALLOC, 1, -ENOMEM); /* of a larger one */
    CHECK_EQ(gy_sendq_push(&queue, &spare, &segment), -ENOMEM);
    CHECK(gy_fault_fired(GY_FAULT_ALLOC));
    CHECK_EQ(queue.bytes, GY_SENDQ_FIRST);
    CHECK_EQ(gy_sendq_push(&queue, &spare, &segment), 0);
    segment.len = SIZE_MAX - 1;
    CHECK_EQ(gy_sendq_push(&queue, &spare, &segment), -ENOMEM); /* the sum would wrap */
    gy_sendq_drop(&queue, &spare, on_release, &record);
    CHECK_EQ(record.released[9], 1);
    the_end(&queue);
#else
    SKIP("needs -Dfault_injection=true");
#endif
}

/* Queues lend each other their blocks; of many that were full at once only some are kept. */
static void
blocks_are_lent(void)
{
    enum { QUEUES = GY_SENDQ_SPARE_MAX + 10 };
    struct gy_sendq queues[QUEUES];
    struct record record;

    init(&record, &queues[0]);
    push(&queues[0], 0, 1, 1);
    const struct gy_segment *block = queues[0].segments;
    gy_sendq_advance(&queues[0], &spare, 1, on_release, &record);
    for (unsigned i = 1; i < QUEUES; i++)
        gy_sendq_init(&queues[i]);
    for (unsigned i = 0; i < QUEUES; i++)
        push(&queues[QUEUES - 1 - i], 0, 1, i);
    CHECK(queues[QUEUES - 1].segments == block);
    for (unsigned i = 0; i < QUEUES; i++)
        gy_sendq_drop(&queues[i], &spare, on_release, &record);
    CHECK_EQ(spare.room, 0);
    unsigned kept = 0;
    for (const struct gy_segment *next = spare.first; next != NULL; next = next->owner)
        kept++;
    CHECK_EQ(kept, GY_SENDQ_SPARE_MAX);
    gy_sendq_spare_deinit(&spare);
    push(&queues[0], 0, 1, 1);
    gy_sendq_drop(&queues[0], &spare, on_release, &record); /* after the end nothing is kept */
    CHECK(spare.first == NULL);
    the_end(&queues[0]);
}

static const struct gy_test tests[] = {
    GY_TEST(blocks_are_lent),         GY_TEST(partial_segments), GY_TEST(growth_keeps_order),
    GY_TEST(release_pushes),          GY_TEST(full_iovec),       GY_TEST(drop_releases_each_once),
    GY_TEST(no_memory_takes_nothing),
};
GY_TEST_MAIN(tests)
