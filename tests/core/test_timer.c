/* test_timer.c: the heap of timers, against a model that sorts. */
#include "gy_test.h"
#include "timer.h"

enum { TIMERS = 500, STEPS = 200000 };

static struct gy_timer timer_array[TIMERS];
static uint64_t random_state = 88172645463325252u;

static uint32_t
random_below(uint32_t limit)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 33) % limit;
}

static void
check_heap(const struct gy_timers *timers)
{
    for (uint32_t i = 0; i < timers->count; i++) {
        const struct gy_timer *timer = timers->heap[i];
        const struct gy_timer *parent = timers->heap[i == 0 ? 0 : (i - 1) / 4];
        CHECK_EQ(timer->index, i);
        CHECK_LE(parent->deadline_ns, timer->deadline_ns);
        if (parent != timer && parent->deadline_ns == timer->deadline_ns)
            CHECK_LT(parent->sequence, timer->sequence);
    }
}

/* The timer that must come next, by looking at all. */
static struct gy_timer *
model_first(void)
{
    struct gy_timer *first = NULL;
    for (int i = 0; i < TIMERS; i++) {
        struct gy_timer *timer = &timer_array[i];
        if (!gy_timer_is_set(timer))
            continue;
        if (first == NULL || timer->deadline_ns < first->deadline_ns ||
            (timer->deadline_ns == first->deadline_ns && timer->sequence < first->sequence))
            first = timer;
    }
    return first;
}

static void
timers_start(struct gy_timers *timers)
{
    gy_timers_init(timers);
    for (int i = 0; i < TIMERS; i++)
        gy_timer_init(&timer_array[i], GY_TIMER_HOST);
}

static void
test_empty(void)
{
    struct gy_timers timers;
    timers_start(&timers);
    CHECK_EQ(gy_timers_next_ns(&timers), GY_NS_NEVER);
    CHECK(gy_timers_pop_due(&timers, INT64_MAX) == NULL);
    gy_timers_remove(&timers, &timer_array[0]);
    CHECK_EQ(timers.count, 0);
    gy_timers_deinit(&timers);
}

static void
test_equal_deadlines_keep_their_order(void)
{
    struct gy_timers timers;
    timers_start(&timers);
    for (int i = 0; i < TIMERS; i++)
        CHECK_EQ(gy_timers_add(&timers, &timer_array[i], 7), 0);
    CHECK(gy_timers_pop_due(&timers, 6) == NULL);
    CHECK_EQ(gy_timers_next_ns(&timers), 7);
    for (int i = 0; i < TIMERS; i++)
        CHECK(gy_timers_pop_due(&timers, 7) == &timer_array[i]);
    gy_timers_deinit(&timers);
}

static void
test_against_a_model(void)
{
    struct gy_timers timers;
    timers_start(&timers);
    for (int step = 0; step < STEPS; step++) {
        struct gy_timer *timer = &timer_array[random_below(TIMERS)];
        if (random_below(4) == 0) {
            int64_t now_ns = random_below(1000);
            struct gy_timer *expected = step % 16 == 0 ? model_first() : NULL;
            struct gy_timer *got = gy_timers_pop_due(&timers, now_ns);
            if (expected != NULL)
                CHECK(got == (expected->deadline_ns <= now_ns ? expected : NULL));
            if (got != NULL)
                CHECK(!gy_timer_is_set(got));
        } else if (gy_timer_is_set(timer)) {
            gy_timers_remove(&timers, timer);
            CHECK(!gy_timer_is_set(timer));
        } else {
            CHECK_EQ(gy_timers_add(&timers, timer, random_below(1000)), 0);
            CHECK(gy_timer_is_set(timer));
        }
        if (step % 64 == 0)
            check_heap(&timers);
    }
    CHECK_LT(100, timers.count); /* the heap was deep enough to mean something */
    gy_timers_deinit(&timers);
    for (int i = 0; i < TIMERS; i++)
        CHECK(!gy_timer_is_set(&timer_array[i]));
}

static void
test_negative_and_extreme_deadlines(void)
{
    struct gy_timers timers;
    timers_start(&timers);
    CHECK_EQ(gy_timers_add(&timers, &timer_array[0], INT64_MAX), 0);
    CHECK_EQ(gy_timers_add(&timers, &timer_array[1], INT64_MIN), 0);
    CHECK_EQ(gy_timers_add(&timers, &timer_array[2], -1), 0);
    CHECK(gy_timers_pop_due(&timers, 0) == &timer_array[1]);
    CHECK(gy_timers_pop_due(&timers, 0) == &timer_array[2]);
    CHECK(gy_timers_pop_due(&timers, 0) == NULL);
    CHECK(gy_timers_pop_due(&timers, INT64_MAX) == &timer_array[0]);
    gy_timers_deinit(&timers);
}

static void
test_no_memory_changes_nothing(void)
{
#if GY_FAULTS
    struct gy_timers timers;
    timers_start(&timers);
    gy_fault_arm(GY_FAULT_ALLOC, 1, -ENOMEM);
    CHECK_EQ(gy_timers_add(&timers, &timer_array[0], 1), -ENOMEM);
    CHECK(!gy_timer_is_set(&timer_array[0]));
    CHECK_EQ(timers.count, 0);
    for (int i = 0; i < 16; i++)
        CHECK_EQ(gy_timers_add(&timers, &timer_array[i], 16 - i), 0);
    gy_fault_arm(GY_FAULT_ALLOC, 1, -ENOMEM);
    CHECK_EQ(gy_timers_add(&timers, &timer_array[16], 1), -ENOMEM);
    CHECK(gy_fault_fired(GY_FAULT_ALLOC));
    CHECK_EQ(timers.count, 16);
    check_heap(&timers);
    CHECK_EQ(gy_timers_add(&timers, &timer_array[16], 0), 0);
    CHECK(gy_timers_pop_due(&timers, 1) == &timer_array[16]);
    gy_timers_deinit(&timers);
#else
    SKIP("built without fault injection");
#endif
}

static const struct gy_test tests[] = {
    GY_TEST(test_empty),
    GY_TEST(test_equal_deadlines_keep_their_order),
    GY_TEST(test_against_a_model),
    GY_TEST(test_negative_and_extreme_deadlines),
    GY_TEST(test_no_memory_changes_nothing),
};
GY_TEST_MAIN(tests)
