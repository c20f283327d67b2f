/* test_op.c: the edges of an operation, each order of its events, and the loop's bookkeeping, on a
 * ring whose events the test makes up.
 *
 * The functions of listener.c that op.c and loop.c call are defined here and record what they hear:
 * so an accept op stands for any op with a multishot handler, and its work item for any work. */
#include "fake_ring.h"
#include "listener.h"

struct heard {
    struct gy_op *op;
    int32_t res;
    uint32_t flags;
    uint8_t state;
};

static struct heard heard[FAKE_EVENTS];
static unsigned heard_count;
static bool submit_again;
static bool interrupt;
static uint64_t bytes_per_event;
static struct gy_listener *work_order[8];
static unsigned work_count;
static struct gy_loop *work_loop;
static unsigned work_again; /* how many items ask to run again */
static unsigned retries;

void
gy_listener_prepare(struct gy_loop *loop, struct gy_op *op, struct io_uring_sqe *sqe)
{
    GY_UNUSED(loop);
    CHECK_EQ(op->state, GY_OP_QUEUED);
    gy_prep_accept(sqe, 5, 0, true);
}

void
gy_listener_on_accept(struct gy_loop *loop, struct gy_op *op, const struct gy_event *ev)
{
    heard[heard_count++] =
        (struct heard){.op = op, .res = ev->res, .flags = ev->flags, .state = op->state};
    if (submit_again && gy_op_is_idle(op))
        gy_op_submit(loop, op);
    loop->counters.bytes_in += bytes_per_event;
    loop->interrupted = interrupt;
}

void
gy_listener_run_work(struct gy_listener *listener)
{
    work_order[work_count++ % 8] = listener;
    if (work_again > 0) {
        work_again--;
        gy_list_append(&work_loop->work, &listener->work.link);
    }
    if (interrupt)
        work_loop->interrupted = true;
}

void
gy_listener_retry_due(struct gy_listener *listener)
{
    GY_UNUSED(listener);
    retries++;
}

static void
start(struct gy_loop *loop, struct gy_op *op)
{
    fake_loop_begin(loop);
    gy_op_init(op, GY_OP_ACCEPT);
    CHECK(gy_op_is_idle(op));
    CHECK(!gy_op_is_armed(op));
}

static void
start_in_flight(struct gy_loop *loop, struct gy_op *op)
{
    start(loop, op);
    gy_op_submit(loop, op);
    CHECK_EQ(op->state, GY_OP_QUEUED);
    CHECK(gy_op_is_armed(op));
    CHECK_EQ(loop->inflight, 0);
    CHECK_EQ(gy_loop_poll(loop, false), 0);
    CHECK_EQ(op->state, GY_OP_INFLIGHT);
    CHECK(gy_op_is_armed(op));
    CHECK_EQ(loop->inflight, 1);
    CHECK_EQ(fake.enters, 1);
    CHECK_EQ(fake.sqe_count, 1);
    CHECK_EQ(fake.sqes[0].user_data, (uintptr_t)op);
    CHECK_EQ(fake.sqes[0].opcode, IORING_OP_ACCEPT);
}

static void
check_over(struct gy_loop *loop, const struct gy_op *op, int32_t res, uint32_t flags)
{
    CHECK_EQ(heard_count, 1);
    CHECK(heard[0].op == op);
    CHECK_EQ(heard[0].res, res);
    CHECK_EQ(heard[0].flags, flags);
    CHECK_EQ(heard[0].state, GY_OP_IDLE);
    CHECK(gy_op_is_idle(op));
    CHECK_EQ(loop->inflight, 0);
    CHECK_EQ(loop->counters.ops_landed, 1);
    CHECK(gy_list_empty(&loop->cancels));
    CHECK(gy_list_empty(&loop->pending));
    fake_loop_end(loop);
}

static void
test_one_shot(void)
{
    struct gy_loop loop;
    struct gy_op op;
    start_in_flight(&loop, &op);
    fake_push(&op, 17, 0, false);
    CHECK_EQ(gy_loop_reap(&loop), 1);
    check_over(&loop, &op, 17, 0);
}

static void
test_multishot_stays_until_more_is_gone(void)
{
    struct gy_loop loop;
    struct gy_op op;
    start_in_flight(&loop, &op);
    for (int i = 0; i < 3; i++)
        fake_push(&op, i, IORING_CQE_F_MORE, false);
    CHECK_EQ(gy_loop_reap(&loop), 3);
    CHECK_EQ(heard_count, 3);
    CHECK_EQ(heard[2].res, 2);
    CHECK_EQ(heard[2].state, GY_OP_INFLIGHT);
    CHECK_EQ(loop.inflight, 1);
    heard_count = 0;
    fake_push(&op, 99, 0, false); /* a result without F_MORE is a result and the end */
    CHECK_EQ(gy_loop_reap(&loop), 1);
    check_over(&loop, &op, 99, 0);
}

static void
test_handler_may_submit_again(void)
{
    struct gy_loop loop;
    struct gy_op op;
    start_in_flight(&loop, &op);
    submit_again = true;
    fake_push(&op, -ENOBUFS, 0, false);
    CHECK_EQ(gy_loop_reap(&loop), 1);
    CHECK_EQ(heard[0].state, GY_OP_IDLE);
    CHECK_EQ(op.state, GY_OP_QUEUED);
    CHECK_EQ(loop.inflight, 0);
    submit_again = false;
    CHECK(gy_op_cancel(&loop, &op));
    fake_loop_end(&loop);
}

static void
test_cancel_of_idle_and_queued_is_at_once(void)
{
    struct gy_loop loop;
    struct gy_op op;
    start(&loop, &op);
    CHECK(gy_op_cancel(&loop, &op));
    gy_op_submit(&loop, &op);
    CHECK(gy_op_cancel(&loop, &op));
    CHECK(gy_op_is_idle(&op));
    CHECK(gy_list_empty(&loop.pending));
    CHECK_EQ(gy_loop_poll(&loop, false), 0);
    CHECK_EQ(fake.sqe_count, 0);
    CHECK_EQ(fake.enters, 0);
    CHECK_EQ(heard_count, 0);
    fake_loop_end(&loop);
}

static void
start_cancelling(struct gy_loop *loop, struct gy_op *op)
{
    start_in_flight(loop, op);
    CHECK(!gy_op_cancel(loop, op));
    CHECK(!gy_op_cancel(loop, op)); /* twice is once */
    CHECK_EQ(op->state, GY_OP_CANCELLING);
    CHECK(!gy_op_is_idle(op));
    CHECK(!gy_op_is_armed(op));
    CHECK_EQ(loop->counters.cancels, 1);
}

static void
flush_cancel(struct gy_loop *loop, struct gy_op *op)
{
    CHECK_EQ(gy_loop_poll(loop, false), 0);
    CHECK_EQ(fake.sqe_count, 2);
    CHECK_EQ(fake.sqes[1].opcode, IORING_OP_ASYNC_CANCEL);
    CHECK_EQ(fake.sqes[1].addr, (uintptr_t)op);
    CHECK_EQ(fake.sqes[1].user_data, (uintptr_t)op | 1);
    CHECK(gy_list_empty(&loop->cancels));
    CHECK(!gy_op_cancel(loop, op));
    CHECK(gy_list_empty(&loop->cancels));
}

static void
test_cancel_terminal_event_first(void)
{
    struct gy_loop loop;
    struct gy_op op;
    start_cancelling(&loop, &op);
    flush_cancel(&loop, &op);
    fake_push(&op, -ECANCELED, 0, false);
    CHECK_EQ(gy_loop_reap(&loop), 1);
    CHECK_EQ(heard_count, 0);
    CHECK_EQ(op.state, GY_OP_CANCELLING);
    CHECK_EQ(loop.inflight, 1);
    fake_push(&op, 0, 0, true);
    CHECK_EQ(gy_loop_reap(&loop), 1);
    check_over(&loop, &op, -ECANCELED, 0);
}

static void
test_cancel_its_own_event_first(void)
{
    static const int results[] = {0, -ENOENT, -EALREADY, 1};
    for (unsigned i = 0; i < sizeof results / sizeof results[0]; i++) {
        struct gy_loop loop;
        struct gy_op op;
        heard_count = 0;
        start_cancelling(&loop, &op);
        flush_cancel(&loop, &op);
        fake_push(&op, results[i], 0, true);
        CHECK_EQ(gy_loop_reap(&loop), 1);
        CHECK_EQ(heard_count, 0);
        CHECK_EQ(op.state, GY_OP_CANCELLING);
        fake_push(&op, -ECANCELED, 0, false);
        CHECK_EQ(gy_loop_reap(&loop), 1);
        check_over(&loop, &op, -ECANCELED, 0);
    }
}

/* It came to something first: the result and the buffer in its flags reach the handler. */
static void
test_cancel_keeps_result_and_flags(void)
{
    struct gy_loop loop;
    struct gy_op op;
    uint32_t flags = IORING_CQE_F_BUFFER | 77u << IORING_CQE_BUFFER_SHIFT;
    start_cancelling(&loop, &op);
    flush_cancel(&loop, &op);
    fake_push(&op, 512, flags, false);
    fake_push(&op, -ENOENT, 0, true);
    CHECK_EQ(gy_loop_reap(&loop), 2);
    check_over(&loop, &op, 512, flags);
}

static void
test_cancel_events_with_more_still_arrive(void)
{
    struct gy_loop loop;
    struct gy_op op;
    start_cancelling(&loop, &op);
    flush_cancel(&loop, &op);
    fake_push(&op, 8, IORING_CQE_F_MORE, false);
    fake_push(&op, 0, 0, true);
    fake_push(&op, 9, IORING_CQE_F_MORE, false);
    CHECK_EQ(gy_loop_reap(&loop), 3);
    CHECK_EQ(heard_count, 2);
    CHECK_EQ(heard[0].state, GY_OP_CANCELLING);
    CHECK_EQ(heard[1].res, 9);
    heard_count = 0;
    fake_push(&op, -ECANCELED, 0, false);
    CHECK_EQ(gy_loop_reap(&loop), 1);
    check_over(&loop, &op, -ECANCELED, 0);
}

/* The end overtakes a cancel that has no SQE yet: none is made. */
static void
test_cancel_overtaken_before_its_flush(void)
{
    struct gy_loop loop;
    struct gy_op op;
    start_cancelling(&loop, &op);
    fake_push(&op, 4, 0, false);
    CHECK_EQ(gy_loop_reap(&loop), 1);
    CHECK_EQ(gy_loop_poll(&loop, true), 0);
    CHECK_EQ(fake.sqe_count, 1);
    check_over(&loop, &op, 4, 0);
}

static void
test_event_of_nobody(void)
{
    struct gy_loop loop;
    struct gy_op op;
    start(&loop, &op);
    fake_push(NULL, 3, 0, false);
    fake_push(NULL, 3, 0, true);
    CHECK_EQ(gy_loop_reap(&loop), 2);
    CHECK_EQ(heard_count, 0);
    fake_loop_end(&loop);
}

static void
test_shortage_of_sqes_keeps_order(void)
{
    struct gy_loop loop;
    struct gy_op op;
    struct gy_op more[3];
    start_in_flight(&loop, &op);
    for (int i = 0; i < 3; i++) {
        gy_op_init(&more[i], GY_OP_ACCEPT);
        gy_op_submit(&loop, &more[i]);
    }
    fake.sqe_limit = 2;
    CHECK_EQ(gy_loop_poll(&loop, false), 0);
    CHECK(loop.sqe_shortage);
    CHECK_EQ(more[0].state, GY_OP_INFLIGHT);
    CHECK_EQ(more[1].state, GY_OP_QUEUED);
    /* A wait must not rely on a wakeup that has no SQE. */
    gy_loop_prepare_wait(&loop);
    CHECK_EQ(gy_loop_wait(&loop, GY_NS_NEVER), 0);
    CHECK_LT(fake.last_wait_ns, GY_NS_PER_SECOND);
    gy_loop_finish_wait(&loop);
    /* Room again, and a cancel goes before what is new. */
    CHECK(!gy_op_cancel(&loop, &op));
    fake.sqe_limit = FAKE_SQES;
    CHECK_EQ(gy_loop_poll(&loop, false), 0);
    CHECK(!loop.sqe_shortage);
    CHECK_EQ(fake.sqes[2].user_data, (uintptr_t)&op | 1);
    CHECK_EQ(fake.sqes[3].user_data, (uintptr_t)&more[1]);
    CHECK_EQ(fake.sqes[4].user_data, (uintptr_t)&more[2]);
    CHECK_EQ(fake.sqes[5].user_data, (uintptr_t)&loop.wakeup.op);
    fake_push(&op, 0, 0, true);
    fake_push(&op, -ECANCELED, 0, false);
    for (int i = 0; i < 3; i++)
        fake_push(&more[i], i, 0, false);
    fake_push(&loop.wakeup.op, 8, 0, false);
    CHECK_EQ(gy_loop_reap(&loop), 6);
    CHECK_EQ(heard_count, 4);
    fake_loop_end(&loop);
}

static void
test_reap_is_bounded_and_stops_when_interrupted(void)
{
    struct gy_loop loop;
    struct gy_op op;
    start_in_flight(&loop, &op);
    for (int i = 0; i < GY_REAP_BUDGET_EVENTS + 5; i++)
        fake_push(&op, i, IORING_CQE_F_MORE, false);
    CHECK_EQ(gy_loop_reap(&loop), GY_REAP_BUDGET_EVENTS);
    CHECK(gy_loop_has_work(&loop)); /* what is left keeps it from sleeping */
    CHECK_EQ(gy_loop_reap(&loop), 5);
    CHECK(!gy_loop_has_work(&loop));
    CHECK_EQ(gy_loop_reap(&loop), 0);
    CHECK_EQ(loop.turn, 3);
    heard_count = 0;
    interrupt = true;
    for (int i = 0; i < 3; i++)
        fake_push(&op, i, IORING_CQE_F_MORE, false);
    CHECK_EQ(gy_loop_reap(&loop), 1);
    CHECK_EQ(gy_loop_reap(&loop), 0);
    interrupt = false;
    loop.interrupted = false;
    CHECK_EQ(gy_loop_reap(&loop), 2);
    heard_count = 0;
    fake_push(&op, 0, 0, false);
    CHECK_EQ(gy_loop_reap(&loop), 1);
    fake_loop_end(&loop);
}

static void
test_reap_is_bounded_by_bytes(void)
{
    struct gy_loop loop;
    struct gy_op op;
    start_in_flight(&loop, &op);
    bytes_per_event = GY_REAP_BUDGET_BYTES / 2 - 1;
    for (int i = 0; i < 5; i++)
        fake_push(&op, i, i < 4 ? IORING_CQE_F_MORE : 0, false);
    CHECK_EQ(gy_loop_reap(&loop), 3);
    CHECK(gy_loop_has_work(&loop));
    CHECK_EQ(gy_loop_reap(&loop), 2);
    CHECK(!gy_loop_has_work(&loop));
    CHECK_EQ(heard[4].res, 4); /* in order */
    bytes_per_event = 0;
    heard_count = 0;
    fake_loop_end(&loop);
}

static void
test_work_runs_once_per_turn_in_order(void)
{
    struct gy_loop loop;
    struct gy_op op;
    struct gy_listener listeners[3];
    start(&loop, &op);
    work_loop = &loop;
    for (int i = 0; i < 3; i++) {
        gy_work_init(&listeners[i].work, GY_WORK_LISTENER);
        gy_list_append(&loop.work, &listeners[i].work.link);
    }
    CHECK(gy_loop_has_work(&loop));
    work_again = 1; /* the first one comes back: in the next turn */
    CHECK_EQ(gy_loop_reap(&loop), 0);
    CHECK_EQ(work_count, 3);
    for (int i = 0; i < 3; i++)
        CHECK(work_order[i] == &listeners[i]);
    CHECK(gy_loop_has_work(&loop));
    CHECK_EQ(gy_loop_reap(&loop), 0);
    CHECK_EQ(work_count, 4);
    CHECK(work_order[3] == &listeners[0]);
    CHECK(!gy_loop_has_work(&loop));
    /* Interrupted after the first, which asks to come back: the others keep their place before it.
     */
    for (int i = 0; i < 3; i++)
        gy_list_append(&loop.work, &listeners[i].work.link);
    interrupt = true;
    work_again = 1;
    work_count = 0;
    CHECK_EQ(gy_loop_reap(&loop), 0);
    CHECK_EQ(work_count, 1);
    interrupt = false;
    loop.interrupted = false;
    CHECK_EQ(gy_loop_reap(&loop), 0);
    CHECK_EQ(work_count, 4);
    CHECK(work_order[1] == &listeners[1]);
    CHECK(work_order[2] == &listeners[2]);
    CHECK(work_order[3] == &listeners[0]);
    fake_loop_end(&loop);
}

static void
test_timers_of_the_core_are_served_on_the_way(void)
{
    struct gy_loop loop;
    struct gy_op op;
    struct gy_listener listener;
    struct gy_timer host;
    start(&loop, &op);
    gy_timer_init(&listener.retry, GY_TIMER_ACCEPT_RETRY);
    gy_timer_init(&host, GY_TIMER_HOST);
    CHECK_EQ(gy_timers_add(&loop.timers, &listener.retry, 10), 0);
    CHECK_EQ(gy_timers_add(&loop.timers, &host, 20), 0);
    CHECK(gy_loop_pop_due(&loop, 15) == NULL);
    CHECK_EQ(retries, 1);
    CHECK(gy_loop_pop_due(&loop, 20) == &host);
    CHECK(gy_loop_pop_due(&loop, 20) == NULL);
    CHECK_EQ(retries, 1);
    fake_loop_end(&loop);
}

/* Without ABS_TIMER the loop computes how long; it never waits with zero. */
static void
test_wait_times(void)
{
    struct gy_loop loop;
    struct gy_op op;
    start(&loop, &op);
    gy_loop_prepare_wait(&loop);
    CHECK_EQ(gy_loop_wait(&loop, fake.now_ns + 250), 0);
    CHECK_EQ(fake.last_wait_ns, 250);
    CHECK_EQ(gy_loop_wait(&loop, fake.now_ns), 0);
    CHECK_EQ(fake.last_wait_ns, 0);
    CHECK_EQ(gy_loop_wait(&loop, fake.now_ns - 5), 0);
    CHECK_EQ(fake.last_wait_ns, 0);
    CHECK_EQ(gy_loop_wait(&loop, GY_NS_NEVER), 0);
    CHECK_EQ(fake.last_wait_ns, GY_NS_NEVER);
    fake.enter_result = -ETIME;
    CHECK_EQ(gy_loop_wait(&loop, fake.now_ns + 1), 0);
    fake.enter_result = -EINTR;
    CHECK_EQ(gy_loop_wait(&loop, GY_NS_NEVER), -EINTR);
    fake.enter_result = -EBADF;
    CHECK_EQ(gy_loop_wait(&loop, GY_NS_NEVER), -EBADF);
    fake.enter_result = 0;
    gy_loop_finish_wait(&loop);
    CHECK_EQ(loop.counters.waits, 1);
    fake_push(&loop.wakeup.op, 8, 0, false);
    CHECK_EQ(gy_loop_reap(&loop), 1);
    fake_loop_end(&loop);
}

/* What does not end is counted after a bounded time. */
static void
test_quiesce_is_bounded(void)
{
    struct gy_loop loop;
    struct gy_op op;
    start_in_flight(&loop, &op);
    CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 1);
    CHECK_LT(1, fake.cancel_alls);
    CHECK_LE(fake.now_ns, 1000 + GY_NS_PER_SECOND);
    CHECK_EQ(op.state, GY_OP_INFLIGHT);
    CHECK(!loop.running);
    CHECK(!loop.quiet);
    CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 1);
    CHECK_EQ(gy_loop_begin(&loop), 0);
    fake_push(&op, -ECANCELED, 0, false);
    CHECK_EQ(gy_loop_reap(&loop), 1);
    check_over(&loop, &op, -ECANCELED, 0);
}

/* A ring that breaks ends the quiesce without waiting for the limit. */
static void
test_quiesce_of_a_broken_ring(void)
{
    struct gy_loop loop;
    struct gy_op op;
    start_in_flight(&loop, &op);
    fake.enter_result = -EBADF;
    CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 1);
    CHECK_LE(fake.cancel_alls, 8);
    gy_loop_close(&loop);
}

static const struct gy_test tests[] = {
    GY_TEST(test_one_shot),
    GY_TEST(test_multishot_stays_until_more_is_gone),
    GY_TEST(test_handler_may_submit_again),
    GY_TEST(test_cancel_of_idle_and_queued_is_at_once),
    GY_TEST(test_cancel_terminal_event_first),
    GY_TEST(test_cancel_its_own_event_first),
    GY_TEST(test_cancel_keeps_result_and_flags),
    GY_TEST(test_cancel_events_with_more_still_arrive),
    GY_TEST(test_cancel_overtaken_before_its_flush),
    GY_TEST(test_event_of_nobody),
    GY_TEST(test_shortage_of_sqes_keeps_order),
    GY_TEST(test_reap_is_bounded_and_stops_when_interrupted),
    GY_TEST(test_reap_is_bounded_by_bytes),
    GY_TEST(test_work_runs_once_per_turn_in_order),
    GY_TEST(test_timers_of_the_core_are_served_on_the_way),
    GY_TEST(test_wait_times),
    GY_TEST(test_quiesce_is_bounded),
    GY_TEST(test_quiesce_of_a_broken_ring),
};
GY_TEST_MAIN(tests)
