/* test_spin.c: when a loop looks for events before it sleeps, and what ends a look. */
#include "fake_ring.h"
#include "spin.h"

enum { LIMIT_NS = 50 * 1000, TURN_NS = 100 * 1000, TRIED = 110 /* of the first 1000 */ };

static uint64_t events; /* one per wait */

/* `count` waits of that length, each looked at as the policy says; how many were. */
static unsigned
waits(struct gy_spin *spin, unsigned count, int64_t wait_ns, int64_t *now_ns)
{
    unsigned looks = 0;
    while (count-- > 0) {
        int64_t budget_ns = gy_spin_budget(spin, *now_ns, events++);
        if (budget_ns > 0) {
            bool found = wait_ns <= budget_ns;
            gy_spin_looked(spin, found ? wait_ns : budget_ns, found);
            looks++;
        }
        gy_spin_waited(spin, wait_ns);
        *now_ns += wait_ns + TURN_NS;
    }
    return looks;
}

static void
test_never(void)
{
    struct gy_spin spin;
    int64_t now_ns = 1;
    gy_spin_init(&spin, 0, false);
    CHECK_EQ(waits(&spin, 100, 1000, &now_ns), 0);
    gy_spin_init(&spin, 0, true);
    CHECK_EQ(waits(&spin, 100, 1000, &now_ns), 0);
}

static void
test_always(void)
{
    struct gy_spin spin;
    int64_t now_ns = 1;
    gy_spin_init(&spin, LIMIT_NS, true);
    CHECK_EQ(waits(&spin, 1000, GY_NS_PER_SECOND, &now_ns), 1000);
    CHECK_EQ(spin.looks, 1000);
    CHECK_EQ(spin.found, 0);
    CHECK_EQ(spin.spent_ns, UINT64_C(1000) * LIMIT_NS);
}

static void
test_long_waits_are_slept(void)
{
    struct gy_spin spin;
    int64_t now_ns = 1;
    gy_spin_init(&spin, LIMIT_NS, false);
    CHECK_EQ(waits(&spin, 1000, 10 * LIMIT_NS, &now_ns), 0);
}

static void
test_short_waits_are_looked_at(void)
{
    struct gy_spin spin;
    int64_t now_ns = 1;
    gy_spin_init(&spin, LIMIT_NS, false);
    (void)waits(&spin, 20, 10 * 1000, &now_ns); /* it has to learn that they are short */
    CHECK_LE(1000 - TRIED, waits(&spin, 1000, 10 * 1000, &now_ns));
    /* ... and that they are not any more. */
    (void)waits(&spin, 20, 10 * LIMIT_NS, &now_ns);
    CHECK_EQ(waits(&spin, 1000, 10 * LIMIT_NS, &now_ns), 0);
}

/* A message each 50 us: a look would find it and burn the time between. */
static void
test_even_spacing_is_slept(void)
{
    struct gy_spin spin;
    int64_t now_ns = 1;
    gy_spin_init(&spin, LIMIT_NS, false);
    (void)waits(&spin, 20, 5 * 1000, &now_ns);
    (void)waits(&spin, 20, 38 * 1000, &now_ns);
    CHECK_LE(waits(&spin, 6400, 38 * 1000, &now_ns), 100); /* the trials */
}

/* Answers come after 6 us, but a sleep takes 40 until it is over. */
static void
test_slow_wakeups_are_found_out(void)
{
    struct gy_spin spin;
    int64_t now_ns = 1;
    gy_spin_init(&spin, LIMIT_NS, false);
    for (int i = 0; i < 200; i++) {
        if (gy_spin_budget(&spin, now_ns, events++) > 0) {
            gy_spin_looked(&spin, 6 * 1000, true);
            gy_spin_waited(&spin, 6 * 1000);
        } else {
            gy_spin_waited(&spin, 40 * 1000);
        }
        now_ns += TURN_NS;
    }
    CHECK_LE(1000 - TRIED, waits(&spin, 1000, 6 * 1000, &now_ns));
}

static void
test_a_long_wait_among_short_ones_changes_nothing(void)
{
    struct gy_spin spin;
    int64_t now_ns = 1;
    gy_spin_init(&spin, LIMIT_NS, false);
    (void)waits(&spin, 40, 8 * 1000, &now_ns);
    gy_spin_waited(&spin, GY_NS_PER_SECOND);
    CHECK_LE(1000 - TRIED, waits(&spin, 1000, 8 * 1000, &now_ns));
}

/* The core was somebody else's while it looked. */
static void
test_an_interrupted_look_is_not_charged(void)
{
    struct gy_spin spin;
    int64_t now_ns = 1;
    gy_spin_init(&spin, LIMIT_NS, false);
    (void)waits(&spin, 40, 8 * 1000, &now_ns);
    gy_spin_looked(&spin, GY_NS_PER_SECOND, true);
    CHECK_LE(1000 - TRIED, waits(&spin, 1000, 8 * 1000, &now_ns));
}

/* Waits that are a little longer than the longest look. */
static void
test_looks_in_vain_get_rare(void)
{
    struct gy_spin spin;
    int64_t now_ns = 1;
    unsigned looks;
    enum { SHORT_NS = 10 * 1000 };
    gy_spin_init(&spin, SHORT_NS, false);
    (void)waits(&spin, 40, SHORT_NS / 2, &now_ns);
    (void)waits(&spin, 1000, SHORT_NS + 1000, &now_ns);
    looks = waits(&spin, 10000, SHORT_NS + 1000, &now_ns);
    CHECK_LT(0, looks);
    CHECK_LE(looks, 100);
}

/* Looks that find something after more time than a sleep would have cost. */
static void
test_no_more_than_a_share_of_the_time(void)
{
    struct gy_spin spin;
    int64_t now_ns = 1;
    int64_t began_ns;
    uint64_t spent_ns;
    uint64_t found;
    enum { WAIT_NS = 24 * 1000 };
    gy_spin_init(&spin, LIMIT_NS, false);
    (void)waits(&spin, 40, 5 * 1000, &now_ns);
    (void)waits(&spin, 100, WAIT_NS, &now_ns);
    began_ns = now_ns;
    spent_ns = spin.spent_ns;
    found = spin.found;
    for (int i = 0; i < 10000; i++) { /* back to back: the loop does nothing else */
        int64_t budget_ns = gy_spin_budget(&spin, now_ns, events++);
        if (budget_ns > 0)
            gy_spin_looked(&spin, WAIT_NS, true);
        gy_spin_waited(&spin, WAIT_NS);
        now_ns += WAIT_NS;
    }
    /* 10 us of each look are what the sleep would have cost. */
    spent_ns = spin.spent_ns - spent_ns - (spin.found - found) * 10 * 1000;
    CHECK_LE(spent_ns, (uint64_t)(now_ns - began_ns) / 8 + 2 * 1000 * 1000);
    CHECK_LT(found + 500, spin.found);
}

/* ---- what a look brings ---- */

/* A peer that asks again 9 us after it was answered: a sleep takes 10 us longer.  How many of
 * `count` waits were looked at. */
static unsigned
one_peer(struct gy_spin *spin, unsigned count, int64_t *now_ns)
{
    unsigned looks = 0;
    while (count-- > 0) {
        int64_t took_ns = 19 * 1000;
        if (gy_spin_budget(spin, *now_ns, events++) > 0) {
            looks++;
            took_ns = 9 * 1000;
            gy_spin_looked(spin, took_ns, true);
        }
        gy_spin_waited(spin, took_ns);
        *now_ns += took_ns + 6 * 1000;
    }
    return looks;
}

/* A message each 17 us, whatever the loop does: asleep, it is there 3 us later and the next wait is
 * the shorter. */
static unsigned
many_peers(struct gy_spin *spin, unsigned count, int64_t *now_ns)
{
    enum { INTERVAL_NS = 17 * 1000, WORK_NS = 6 * 1000 };
    unsigned looks = 0;
    int64_t due_ns = *now_ns + INTERVAL_NS - WORK_NS;
    while (count-- > 0) {
        int64_t took_ns = due_ns - *now_ns;
        if (gy_spin_budget(spin, *now_ns, events++) > 0) {
            looks++;
            gy_spin_looked(spin, took_ns, true);
        } else {
            took_ns += 3 * 1000;
        }
        gy_spin_waited(spin, took_ns);
        *now_ns += took_ns + WORK_NS;
        due_ns += INTERVAL_NS;
    }
    return looks;
}

static void
test_a_peer_that_waits_for_the_answer_is_looked_for(void)
{
    struct gy_spin spin;
    int64_t now_ns = 1;
    gy_spin_init(&spin, LIMIT_NS, false);
    (void)one_peer(&spin, 1000, &now_ns);
    CHECK(spin.gains);
    CHECK_LE(9700, one_peer(&spin, 10000, &now_ns));
}

static void
test_what_comes_anyway_is_slept_for(void)
{
    struct gy_spin spin;
    int64_t now_ns = 1;
    gy_spin_init(&spin, LIMIT_NS, false);
    (void)many_peers(&spin, 1000, &now_ns);
    CHECK(!spin.gains);
    CHECK_LE(many_peers(&spin, 10000, &now_ns), 3000);
}

static void
test_it_learns_when_the_load_changes(void)
{
    struct gy_spin spin;
    int64_t now_ns = 1;
    gy_spin_init(&spin, LIMIT_NS, false);
    for (int i = 0; i < 3; i++) {
        (void)many_peers(&spin, 20000, &now_ns);
        CHECK(!spin.gains);
        (void)one_peer(&spin, 20000, &now_ns);
        CHECK(spin.gains);
    }
}

/* Where a sleep takes ages, a trial is short. */
static void
test_a_trial_ends_when_it_is_clear(void)
{
    struct gy_spin spin;
    int64_t now_ns = 1;
    unsigned slept = 0;
    gy_spin_init(&spin, LIMIT_NS, false);
    (void)one_peer(&spin, 100, &now_ns);
    for (int i = 0; i < 10000; i++) {
        int64_t took_ns = 9 * 1000;
        if (gy_spin_budget(&spin, now_ns, events++) > 0) {
            gy_spin_looked(&spin, took_ns, true);
        } else {
            took_ns = GY_NS_PER_SECOND;
            slept++;
        }
        gy_spin_waited(&spin, took_ns);
        now_ns += took_ns + 6 * 1000;
    }
    CHECK(spin.gains);
    CHECK_LE(slept, 12);
}

/* A loop that is woken by threads and timers alone has no events of the ring's while it looks. */
static void
test_waits_count_where_there_are_no_events(void)
{
    struct gy_spin spin;
    int64_t now_ns = 1;
    gy_spin_init(&spin, LIMIT_NS, false);
    for (int i = 0; i < 10000; i++) {
        bool looks = gy_spin_budget(&spin, now_ns, events) > 0;
        int64_t took_ns = looks ? 9 * 1000 : 19 * 1000;
        if (looks)
            gy_spin_looked(&spin, took_ns, true);
        else
            events++; /* the read of the wakeup */
        gy_spin_waited(&spin, took_ns);
        now_ns += took_ns + 6 * 1000;
    }
    CHECK(spin.gains);
}

/* ---- the looking ---- */

static unsigned looks_until_event;
static struct gy_wakeup *look_wakes;

static bool
fake_look(struct gy_ring *ring)
{
    struct fake_ring *self = fake_of(ring);
    self->now_ns += 100;
    if (look_wakes != NULL)
        gy_wakeup_send(look_wakes);
    return looks_until_event != 0 && --looks_until_event == 0;
}

static void
looking_loop_begin(struct gy_loop *loop, struct gy_ring_ops *ops)
{
    fake_loop_begin(loop);
    *ops = fake_ops;
    ops->look = fake_look;
    loop->ring->ops = ops;
    gy_spin_init(&loop->spin, LIMIT_NS, true);
    looks_until_event = 0;
    look_wakes = NULL;
}

static void
test_an_event_ends_the_look(void)
{
    struct gy_loop loop;
    struct gy_ring_ops ops;
    looking_loop_begin(&loop, &ops);
    looks_until_event = 5;
    gy_loop_prepare_wait(&loop);
    CHECK_EQ(gy_loop_wait(&loop, GY_NS_NEVER), 0);
    gy_loop_finish_wait(&loop);
    CHECK_EQ(fake.enters, 0);
    CHECK_EQ(loop.spin.found, 1);
    CHECK_EQ(loop.spin.spent_ns, 500);
    loop.inflight = 0; /* the read of the wakeup, which the fake ring does not end */
    gy_op_init(&loop.wakeup.op, GY_OP_WAKEUP);
    fake_loop_end(&loop);
}

static void
test_a_wakeup_ends_the_look_and_writes_nothing(void)
{
    struct gy_loop loop;
    struct gy_ring_ops ops;
    looking_loop_begin(&loop, &ops);
    look_wakes = &loop.wakeup;
    gy_loop_prepare_wait(&loop);
    CHECK_EQ(gy_loop_wait(&loop, GY_NS_NEVER), 0);
    gy_loop_finish_wait(&loop);
    CHECK_EQ(fake.enters, 0);
    CHECK_EQ(loop.spin.found, 1);
    CHECK_EQ(atomic_load(&loop.wakeup.sent), 0);
    loop.inflight = 0;
    gy_op_init(&loop.wakeup.op, GY_OP_WAKEUP);
    fake_loop_end(&loop);
}

static void
test_a_deadline_ends_the_look(void)
{
    struct gy_loop loop;
    struct gy_ring_ops ops;
    looking_loop_begin(&loop, &ops);
    gy_loop_prepare_wait(&loop);
    CHECK_EQ(gy_loop_wait(&loop, fake.now_ns + 10 * 1000), 0);
    gy_loop_finish_wait(&loop);
    CHECK_EQ(fake.enters, 0);
    CHECK_EQ(loop.spin.found, 1);
    loop.inflight = 0;
    gy_op_init(&loop.wakeup.op, GY_OP_WAKEUP);
    fake_loop_end(&loop);
}

static void
test_after_the_look_it_sleeps(void)
{
    struct gy_loop loop;
    struct gy_ring_ops ops;
    looking_loop_begin(&loop, &ops);
    gy_loop_prepare_wait(&loop);
    CHECK_EQ(gy_loop_wait(&loop, GY_NS_NEVER), 0);
    CHECK_EQ(fake.enters, 1);
    CHECK_EQ(fake.last_wait_ns, GY_NS_NEVER);
    CHECK_EQ(loop.spin.found, 0);
    CHECK_LE(LIMIT_NS, loop.spin.spent_ns);
    /* Now a waker has to write. */
    gy_wakeup_send(&loop.wakeup);
    CHECK_EQ(atomic_load(&loop.wakeup.sent), 1);
    gy_loop_finish_wait(&loop);
    loop.inflight = 0;
    gy_op_init(&loop.wakeup.op, GY_OP_WAKEUP);
    fake_loop_end(&loop);
}

static const struct gy_test tests[] = {
    GY_TEST(test_never),
    GY_TEST(test_always),
    GY_TEST(test_long_waits_are_slept),
    GY_TEST(test_short_waits_are_looked_at),
    GY_TEST(test_even_spacing_is_slept),
    GY_TEST(test_slow_wakeups_are_found_out),
    GY_TEST(test_a_long_wait_among_short_ones_changes_nothing),
    GY_TEST(test_an_interrupted_look_is_not_charged),
    GY_TEST(test_looks_in_vain_get_rare),
    GY_TEST(test_no_more_than_a_share_of_the_time),
    GY_TEST(test_a_peer_that_waits_for_the_answer_is_looked_for),
    GY_TEST(test_what_comes_anyway_is_slept_for),
    GY_TEST(test_it_learns_when_the_load_changes),
    GY_TEST(test_a_trial_ends_when_it_is_clear),
    GY_TEST(test_waits_count_where_there_are_no_events),
    GY_TEST(test_an_event_ends_the_look),
    GY_TEST(test_a_wakeup_ends_the_look_and_writes_nothing),
    GY_TEST(test_a_deadline_ends_the_look),
    GY_TEST(test_after_the_look_it_sleeps),
};

GY_TEST_MAIN(tests)
