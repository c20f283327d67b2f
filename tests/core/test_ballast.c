/* test_ballast.c: when a block keeps the top of the C library's heap where it is. */
#include "ballast.h"
#include "fake_ring.h"
#include "sys.h"

#include <stdlib.h>

#define MIB (UINT64_C(1) << 20)
#define MS (INT64_C(1000) * 1000)

enum { PIECE_BYTES = 100 * 1000, PIECES = 20 };

/* `count` looks at a heap whose end lies `swing` lower at every second one. */
static uint64_t
look(struct gy_ballast *ballast, uint64_t moved, unsigned count, uintptr_t swing)
{
    uintptr_t end = gy_sys_heap_end();
    for (unsigned i = 0; i < count; i++) {
        moved += GY_BALLAST_SAMPLE_BYTES;
        CHECK_LE(ballast->look_at, moved);
        gy_ballast_look(ballast, moved, i % 2 != 0 ? end - swing : end);
    }
    return moved;
}

static void
test_a_heap_that_stays_is_left_alone(void)
{
    struct gy_ballast ballast;
    uint64_t moved;
    gy_ballast_init(&ballast, true);
    moved = look(&ballast, 0, 1000, 0);
    /* now and then it falls: not often enough */
    for (unsigned i = 0; i < 100; i++) {
        moved = look(&ballast, moved, 4, PIECE_BYTES);
        moved = look(&ballast, moved, 12, 0);
    }
    CHECK_EQ(ballast.placed, 0);
    CHECK(ballast.block == NULL);
    gy_ballast_drop(&ballast);
}

/* Memory of the kind that large messages have comes and goes. */
static void
churn(void)
{
    void *pieces[PIECES];
    for (unsigned i = 0; i < PIECES; i++)
        pieces[i] = malloc(PIECE_BYTES);
    for (unsigned i = 0; i < PIECES; i++)
        free(pieces[i]);
}

static void
test_one_that_swings_is_kept(void)
{
    struct gy_ballast ballast;
    uintptr_t end, highest = gy_sys_heap_end();
    uint64_t moved;
    gy_ballast_init(&ballast, true);
    moved = look(&ballast, 0, 2 * GY_BALLAST_FALLS, 3 * MIB);
    if (highest == 0 || ballast.block == NULL)
        return; /* another allocator, whose heap ends elsewhere */
    CHECK_EQ(ballast.placed, 1);
    CHECK_LE(ballast.look_at, moved + GY_BALLAST_SAMPLE_BYTES);
    end = gy_sys_heap_end();
    for (unsigned i = 0; i < 10; i++) {
        churn();
        CHECK_EQ(gy_sys_heap_end(), end);
    }
    gy_ballast_drop(&ballast);
    CHECK(ballast.block == NULL);
    gy_ballast_drop(&ballast);
}

static void
test_it_goes_when_it_is_quiet(void)
{
    struct gy_ballast ballast;
    int64_t now_ns = GY_NS_PER_SECOND;
    uint64_t moved;
    gy_ballast_init(&ballast, true);
    moved = look(&ballast, 0, 2 * GY_BALLAST_FALLS, MIB);
    if (ballast.block == NULL)
        return;
    CHECK_EQ(gy_ballast_wait(&ballast, now_ns, moved), now_ns + GY_BALLAST_QUIET_NS);
    for (unsigned i = 0; i < 50; i++) { /* 10 MiB in each tenth of a second */
        now_ns += 10 * MS;
        moved += MIB;
        CHECK_LT(now_ns, gy_ballast_wait(&ballast, now_ns, moved));
    }
    now_ns = gy_ballast_wait(&ballast, now_ns, moved);
    moved += 2 * MIB;
    CHECK_EQ(gy_ballast_wait(&ballast, now_ns, moved), now_ns + GY_BALLAST_QUIET_NS);
    now_ns += GY_BALLAST_QUIET_NS;
    CHECK_EQ(gy_ballast_wait(&ballast, now_ns, moved + 1000), GY_NS_NEVER);
    CHECK(ballast.block == NULL);
}

static void
test_not_wanted_or_not_known(void)
{
    struct gy_ballast ballast;
    gy_ballast_init(&ballast, false);
    CHECK_EQ(ballast.look_at, UINT64_MAX);
    gy_ballast_init(&ballast, true);
    for (unsigned i = 0; i < 100; i++)
        gy_ballast_look(&ballast, ballast.look_at, 0);
    CHECK_EQ(ballast.placed, 0);
}

static const struct gy_test tests[] = {
    GY_TEST(test_a_heap_that_stays_is_left_alone),
    GY_TEST(test_one_that_swings_is_kept),
    GY_TEST(test_it_goes_when_it_is_quiet),
    GY_TEST(test_not_wanted_or_not_known),
};
GY_TEST_MAIN(tests)
