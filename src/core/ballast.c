/* ballast.c: see ballast.h. */
#include "ballast.h"

#include "sys.h"

enum {
    BLOCK_BYTES = 100 * 1000,     /* below what glibc maps, and no small size either      */
    BLOCKS_MAX = 512,             /* so far up at most, for a moment: 50 MB of addresses   */
    ROOM_BYTES_MIN = 1024 * 1024, /* above the highest end that was seen                   */
};

struct block {
    struct block *next;
};

void
gy_ballast_init(struct gy_ballast *ballast, bool wanted)
{
    *ballast = (struct gy_ballast){
        .look_at = wanted ? 0 : UINT64_MAX,
        .due_ns = GY_NS_NEVER,
    };
}

void
gy_ballast_drop(struct gy_ballast *ballast)
{
    gy_free(ballast->block);
    ballast->block = NULL;
    ballast->due_ns = GY_NS_NEVER;
}

/* Takes memory until some of it lies at `target`; that is kept and all below it freed. */
static void
place(struct gy_ballast *ballast, uintptr_t target)
{
    struct block *taken = NULL;
    struct block *top = NULL;
    for (unsigned i = 0; i < BLOCKS_MAX && (uintptr_t)top < target; i++) {
        struct block *block = gy_realloc(NULL, BLOCK_BYTES);
        if (block == NULL || (uintptr_t)block > gy_sys_heap_end()) { /* from elsewhere */
            gy_free(block);
            break;
        }
        block->next = taken;
        taken = block;
        if (block > top)
            top = block;
    }
    while (taken != NULL) {
        struct block *next = taken->next;
        if (taken != top)
            gy_free(taken);
        taken = next;
    }
    gy_free(ballast->block); /* what was kept until now is no longer at the top */
    ballast->block = top;
    ballast->placed += top != NULL;
}

static void
begin_window(struct gy_ballast *ballast, uintptr_t end)
{
    ballast->looks = GY_BALLAST_LOOKS;
    ballast->highest = ballast->lowest = end;
    ballast->falls = 0;
}

void
gy_ballast_look(struct gy_ballast *ballast, uint64_t moved_bytes, uintptr_t end)
{
    GY_ASSERT(moved_bytes >= ballast->look_at);
    ballast->look_at = moved_bytes + GY_BALLAST_SAMPLE_BYTES;
    if (end == 0)
        return;
    if (ballast->looks == 0)
        begin_window(ballast, end);
    ballast->looks--;
    if (end < ballast->end)
        ballast->falls++;
    ballast->end = end;
    ballast->highest = end > ballast->highest ? end : ballast->highest;
    ballast->lowest = end < ballast->lowest ? end : ballast->lowest;
    if (GY_LIKELY(ballast->falls < GY_BALLAST_FALLS))
        return;
    place(ballast, ballast->highest + (ballast->highest - ballast->lowest) + ROOM_BYTES_MIN);
    ballast->end = gy_sys_heap_end();
    begin_window(ballast, ballast->end);
}

int64_t
gy_ballast_wait(struct gy_ballast *ballast, int64_t now_ns, uint64_t moved_bytes)
{
    GY_ASSERT(ballast->block != NULL);
    if (now_ns < ballast->due_ns && ballast->due_ns != GY_NS_NEVER)
        return ballast->due_ns;
    if (ballast->due_ns != GY_NS_NEVER &&
        moved_bytes - ballast->checked_bytes < GY_BALLAST_BUSY_BYTES) {
        gy_ballast_drop(ballast);
        return GY_NS_NEVER;
    }
    ballast->due_ns = now_ns + GY_BALLAST_QUIET_NS;
    ballast->checked_bytes = moved_bytes;
    return ballast->due_ns;
}
