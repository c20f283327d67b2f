/* sendq.c: the queue of segments behind a stream.
 *
 * Purpose: a growable ring of segments whose first two need no allocation, since most writes leave
 * at once and a queue is short when there is one.  Owner: the stream.  Thread: the loop's.
 * Invariants: bytes is the sum of all lengths; no segment is empty; release is called only when the
 * queue already is what it will be after the call, because a release may run the embedder's code,
 * which may push, flush or drop. */
#include "sendq.h"

#include "sys.h"
#include <errno.h>

enum { SENDQ_FIRST_CAPACITY = 16, SENDQ_KEPT_CAPACITY = 64 };

static struct gy_segment *
segment_at(const struct gy_sendq *queue, uint32_t position)
{
    GY_ASSERT(position < queue->capacity);
    /* capacity is a power of two */
    return &queue->segments[(queue->head + position) & (queue->capacity - 1)];
}

static void
reset(struct gy_sendq *queue)
{
    queue->segments = queue->inline_segments;
    queue->capacity = GY_SENDQ_INLINE;
    queue->head = 0;
    queue->count = 0;
    queue->bytes = 0;
}

void
gy_sendq_init(struct gy_sendq *queue)
{
    _Static_assert((GY_SENDQ_INLINE & (GY_SENDQ_INLINE - 1)) == 0, "positions are masked");
    _Static_assert((SENDQ_FIRST_CAPACITY & (SENDQ_FIRST_CAPACITY - 1)) == 0,
                   "positions are masked");
    reset(queue);
}

static void
free_segments(struct gy_sendq *queue)
{
    GY_ASSERT(queue->count == 0);
    GY_ASSERT(queue->bytes == 0);
    if (queue->segments != queue->inline_segments)
        gy_free(queue->segments);
    reset(queue);
}

void
gy_sendq_deinit(struct gy_sendq *queue)
{
    free_segments(queue);
}

static GY_COLD int
grow(struct gy_sendq *queue)
{
    uint32_t capacity = queue->capacity;
    struct gy_segment *segments;

    if (capacity > UINT32_MAX / 2)
        return -ENOMEM;
    capacity = capacity < SENDQ_FIRST_CAPACITY ? SENDQ_FIRST_CAPACITY : capacity * 2;
    segments = gy_alloc(capacity * sizeof(*segments));
    if (segments == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < queue->count; i++)
        segments[i] = *segment_at(queue, i);
    if (queue->segments != queue->inline_segments)
        gy_free(queue->segments);
    queue->segments = segments;
    queue->capacity = capacity;
    queue->head = 0;
    return 0;
}

int
gy_sendq_push(struct gy_sendq *queue, const struct gy_segment *segment)
{
    GY_ASSERT(segment->len > 0);
    if (segment->len > SIZE_MAX - queue->bytes)
        return -ENOMEM;
    if (queue->count == queue->capacity) {
        int err = grow(queue);
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
gy_sendq_advance(struct gy_sendq *queue, size_t len, gy_release_fn release, void *context)
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
    /* What one burst needed is not kept for the life of the connection. */
    if (queue->count == 0 && queue->capacity > SENDQ_KEPT_CAPACITY)
        free_segments(queue);
    for (unsigned i = 0; i < released; i++)
        release(context, owners[i]);
}

void
gy_sendq_drop(struct gy_sendq *queue, gy_release_fn release, void *context)
{
    struct gy_sendq taken = *queue;

    if (queue->segments == queue->inline_segments)
        taken.segments = taken.inline_segments;
    reset(queue);
    for (uint32_t i = 0; i < taken.count; i++)
        release(context, segment_at(&taken, i)->owner);
    if (taken.segments != taken.inline_segments)
        gy_free(taken.segments);
}
