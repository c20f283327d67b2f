/* sendq.c: the queue of segments behind a stream.
 *
 * Purpose: a growable ring of segments.  Most writes leave at once and a queue is short when there
 * is one, so its first block is borrowed from the loop's spare ones and given back when the queue
 * is empty.  Owner: the stream.  Thread: the loop's.
 * Invariants: bytes is the sum of all lengths; no segment is empty; an empty queue holds no memory;
 * release is called only when the queue already is what it will be after the call, because a
 * release may run the embedder's code, which may push, flush or drop. */
#include "sendq.h"

#include "sys.h"
#include <errno.h>

enum { SENDQ_SECOND = 16 };

void
gy_sendq_spare_init(struct gy_sendq_spare *spare)
{
    spare->first = NULL;
    spare->room = GY_SENDQ_SPARE_MAX;
}

void
gy_sendq_spare_deinit(struct gy_sendq_spare *spare)
{
    while (spare->first != NULL) {
        struct gy_segment *block = spare->first;
        spare->first = block->owner;
        gy_free(block);
    }
    spare->room = 0;
}

static inline struct gy_segment *
borrow(struct gy_sendq_spare *spare)
{
    struct gy_segment *block = spare->first;
    if (GY_UNLIKELY(block == NULL))
        return gy_alloc(GY_SENDQ_FIRST * sizeof(*block));
    spare->first = block->owner;
    spare->room++;
    return block;
}

static inline void
give_back(struct gy_sendq_spare *spare, struct gy_segment *block, uint32_t capacity)
{
    if (GY_UNLIKELY(capacity != GY_SENDQ_FIRST || spare->room == 0)) {
        gy_free(block);
        return;
    }
    block->owner = spare->first;
    spare->first = block;
    spare->room--;
}

static struct gy_segment *
segment_at(const struct gy_sendq *queue, uint32_t position)
{
    GY_ASSERT(position < queue->capacity);
    /* capacity is a power of two */
    return &queue->segments[(queue->head + position) & (queue->capacity - 1)];
}

void
gy_sendq_init(struct gy_sendq *queue)
{
    _Static_assert((GY_SENDQ_FIRST & (GY_SENDQ_FIRST - 1)) == 0, "positions are masked");
    _Static_assert((SENDQ_SECOND & (SENDQ_SECOND - 1)) == 0, "positions are masked");
    *queue = (struct gy_sendq){.segments = NULL};
}

static GY_COLD int
grow(struct gy_sendq *queue, struct gy_sendq_spare *spare)
{
    uint32_t capacity = queue->capacity;
    struct gy_segment *segments;

    if (capacity > UINT32_MAX / 2)
        return -ENOMEM;
    capacity = capacity < SENDQ_SECOND ? SENDQ_SECOND : capacity * 2;
    segments = gy_alloc(capacity * sizeof(*segments));
    if (segments == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < queue->count; i++)
        segments[i] = *segment_at(queue, i);
    give_back(spare, queue->segments, queue->capacity);
    queue->segments = segments;
    queue->capacity = capacity;
    queue->head = 0;
    return 0;
}

int
gy_sendq_push(struct gy_sendq *queue, struct gy_sendq_spare *spare,
              const struct gy_segment *segment)
{
    GY_ASSERT(segment->len > 0);
    if (segment->len > SIZE_MAX - queue->bytes)
        return -ENOMEM;
    if (queue->segments == NULL) {
        queue->segments = borrow(spare);
        if (queue->segments == NULL)
            return -ENOMEM;
        queue->capacity = GY_SENDQ_FIRST;
        queue->head = 0;
    } else if (queue->count == queue->capacity) {
        int err = grow(queue, spare);
        if (err < 0)
            return err;
    }
    queue->count++;
    *segment_at(queue, queue->count - 1) = *segment;
    queue->bytes += segment->len;
    return 0;
}

unsigned
gy_sendq_iovec(const struct gy_sendq *queue, struct iovec *iov, unsigned max)
{
    unsigned filled = queue->count < max ? queue->count : max;

    for (unsigned i = 0; i < filled; i++) {
        const struct gy_segment *segment = segment_at(queue, i);
        iov[i].iov_base = (void *)(uintptr_t)segment->data;
        iov[i].iov_len = segment->len;
    }
    return filled;
}

void
gy_sendq_advance(struct gy_sendq *queue, struct gy_sendq_spare *spare, size_t len,
                 gy_release_fn release, void *context)
{
    void *owners[GY_SENDQ_IOV_MAX];
    unsigned released = 0;

    GY_ASSERT(len <= queue->bytes);
    queue->bytes -= len;
    while (len > 0) {
        struct gy_segment *segment = segment_at(queue, 0);
        GY_ASSERT(queue->count > 0);
        if (segment->len > len) {
            segment->data += len;
            segment->len -= len;
            break;
        }
        len -= segment->len;
        GY_ASSERT(released < GY_SENDQ_IOV_MAX); /* one call to the kernel took no more */
        owners[released++] = segment->owner;
        queue->head = (queue->head + 1) & (queue->capacity - 1);
        queue->count--;
    }
    if (queue->count == 0 && queue->segments != NULL) {
        give_back(spare, queue->segments, queue->capacity);
        queue->segments = NULL;
    }
    for (unsigned i = 0; i < released; i++)
        release(context, owners[i]);
}

void
gy_sendq_drop(struct gy_sendq *queue, struct gy_sendq_spare *spare, gy_release_fn release,
              void *context)
{
    struct gy_sendq taken = *queue;

    gy_sendq_init(queue);
    for (uint32_t i = 0; i < taken.count; i++)
        release(context, segment_at(&taken, i)->owner);
    if (taken.segments != NULL)
        give_back(spare, taken.segments, taken.capacity);
}
