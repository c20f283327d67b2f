/* heap.c: see heap.h. */
#include "heap.h"

enum {
    BUSY_SHARE = 16,       /* moved in a quiet time: less than that share of what could be freed */
    CALM_GAPS = 8,         /* no trim for so many gaps: they start again from the shortest       */
    TRIM_BYTES_PER_NS = 4, /* what a trim may take for what it gives back                        */
    /* One that took 1 ms for nothing is followed by 0.1 s without, 10 ms by 10 s, 100 ms by a
     * quarter of an hour: the square, divided by that. */
    VAIN_NS = 10 * 1000,
};
#define VAIN_MAX_NS (10 * GY_NS_PER_SECOND)

void
gy_heap_init(struct gy_heap *heap, bool wanted)
{
    *heap = (struct gy_heap){
        .look_at = wanted ? 0 : UINT64_MAX,
        .due_ns = GY_NS_NEVER,
    };
}

static void
begin_quiet_time(struct gy_heap *heap, int64_t now_ns, uint64_t moved_bytes)
{
    heap->checked_ns = now_ns;
    heap->checked_bytes = moved_bytes;
    heap->due_ns = now_ns + GY_HEAP_QUIET_NS;
}

/* The end of the gap comes first. */
static void
arm(struct gy_heap *heap, int64_t now_ns, uint64_t moved_bytes)
{
    begin_quiet_time(heap, now_ns, moved_bytes);
    if (heap->gap_ns != 0 && heap->trimmed_ns + heap->gap_ns > heap->due_ns)
        heap->due_ns = heap->trimmed_ns + heap->gap_ns;
}

enum gy_heap_step
gy_heap_step(struct gy_heap *heap, int64_t now_ns, uint64_t moved_bytes)
{
    GY_ASSERT(heap->look_at != UINT64_MAX);
    if (heap->due_ns == GY_NS_NEVER) {
        if (!heap->again)
            return GY_HEAP_LOOK;
        arm(heap, now_ns, moved_bytes); /* the loop has been awake since the last trim */
        return GY_HEAP_WAIT;
    }
    if (now_ns < heap->due_ns)
        return GY_HEAP_WAIT;
    /* Was it quiet?  Of a time that was much longer than that (a gap) nobody knows. */
    if (now_ns - heap->checked_ns < 2 * GY_HEAP_QUIET_NS &&
        moved_bytes - heap->checked_bytes < heap->grown_bytes / BUSY_SHARE)
        return GY_HEAP_LOOK;
    begin_quiet_time(heap, now_ns, moved_bytes);
    return GY_HEAP_WAIT;
}

static bool
has_grown(const struct gy_heap *heap)
{
    return heap->grown_bytes >= (heap->again ? GY_HEAP_LEFT_BYTES : GY_HEAP_GROWN_BYTES);
}

static void
see(struct gy_heap *heap, uint64_t bytes)
{
    if (heap->least_bytes == 0 || bytes < heap->least_bytes)
        heap->least_bytes = bytes;
    heap->grown_bytes = bytes - heap->least_bytes;
}

bool
gy_heap_measured(struct gy_heap *heap, int64_t now_ns, uint64_t moved_bytes, uint64_t bytes)
{
    bool was_quiet = heap->due_ns != GY_NS_NEVER;
    heap->due_ns = GY_NS_NEVER;
    heap->look_at = moved_bytes + GY_HEAP_LOOK_BYTES;
    heap->grown_bytes = 0;
    if (bytes != 0)
        see(heap, bytes);
    if (!has_grown(heap)) {
        heap->again = false;
        return false;
    }
    if (!was_quiet)
        arm(heap, now_ns, moved_bytes);
    return was_quiet;
}

void
gy_heap_trimmed(struct gy_heap *heap, int64_t now_ns, int64_t took_ns, uint64_t bytes)
{
    uint64_t before = heap->least_bytes + heap->grown_bytes;
    int64_t vain_ns = took_ns;
    int64_t gap_ns = GY_HEAP_GAP_MIN_NS;
    GY_ASSERT(heap->due_ns == GY_NS_NEVER);
    if (bytes < before)
        vain_ns -= (int64_t)((before - bytes) / TRIM_BYTES_PER_NS);
    if (vain_ns > VAIN_MAX_NS)
        vain_ns = VAIN_MAX_NS;
    if (heap->gap_ns != 0 && now_ns - heap->trimmed_ns < CALM_GAPS * heap->gap_ns)
        gap_ns = 2 * heap->gap_ns < GY_HEAP_GAP_MAX_NS ? 2 * heap->gap_ns : GY_HEAP_GAP_MAX_NS;
    if (vain_ns > 0 && vain_ns / VAIN_NS * vain_ns > gap_ns)
        gap_ns = vain_ns / VAIN_NS * vain_ns;
    heap->gap_ns = gap_ns;
    heap->trimmed_ns = now_ns;
    heap->trims++;
    see(heap, bytes);
    /* What is in use now may be free the next time. */
    heap->again = heap->grown_bytes >= GY_HEAP_GROWN_BYTES ||
                  (heap->grown_bytes >= GY_HEAP_LEFT_BYTES && gap_ns < GY_HEAP_GAP_MAX_NS);
    if (heap->again)
        heap->look_at = 0;
}
