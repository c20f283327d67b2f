/* test_ring.c: a ring without a loop around it; what both do alike, and io_uring's own. */
#include "gy_test.h"
#include "prep.h"
#include "ring.h"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/poll.h>
#include <sys/time.h>

#define MS_NS INT64_C(1000000)

/* user_data of these tests: an even address that stands for no op. */
static uint64_t
mark(unsigned number)
{
    return (uint64_t)(number + 1) * 2;
}

static unsigned
number_of(const struct gy_event *ev)
{
    return (unsigned)((uintptr_t)ev->op / 2 - 1);
}

static struct gy_ring *
ring_create(uint32_t sq_entries, uint32_t cq_entries)
{
    struct gy_ring_options options = gy_test_options();
    struct gy_ring *ring = NULL;
    if (sq_entries != 0)
        options.sq_entries = sq_entries;
    options.cq_entries = cq_entries;
    gy_test_need_ring();
    CHECK_EQ(gy_test_create(&options, &ring), 0);
    CHECK(ring != NULL);
    CHECK_EQ(strcmp(ring->ops->name, gy_test_on_epoll() ? "epoll" : "io_uring"), 0);
    return ring;
}

static struct gy_ring *
ring_enabled(uint32_t sq_entries, uint32_t cq_entries)
{
    struct gy_ring *ring = ring_create(sq_entries, cq_entries);
    CHECK_EQ(ring->ops->enable(ring), 0);
    return ring;
}

/* For what only io_uring has. */
static struct gy_ring *
uring_enabled(uint32_t sq_entries, uint32_t cq_entries)
{
    gy_test_need_uring();
    return ring_enabled(sq_entries, cq_entries);
}

static void
queue_nop(struct gy_ring *ring, unsigned number)
{
    struct io_uring_sqe *sqe = ring->ops->sqe(ring);
    CHECK(sqe != NULL);
    gy_prep_nop(sqe);
    sqe->user_data = mark(number);
}

static void
queue_poll(struct gy_ring *ring, int fd, unsigned number)
{
    struct io_uring_sqe *sqe = ring->ops->sqe(ring);
    CHECK(sqe != NULL);
    gy_prep_poll(sqe, fd, POLLIN, false);
    sqe->user_data = mark(number);
}

static struct gy_event
take_event(struct gy_ring *ring)
{
    struct gy_event ev;
    CHECK(ring->ops->next_event(ring, &ev));
    return ev;
}

static unsigned
take_number(struct gy_ring *ring)
{
    struct gy_event ev = take_event(ring);
    return number_of(&ev);
}

static void
check_no_event(struct gy_ring *ring)
{
    struct gy_event ev;
    CHECK(!ring->ops->next_event(ring, &ev));
}

static void
test_nops_wrap_the_queues(void)
{
    struct gy_ring *ring = ring_enabled(0, 32);
    unsigned seen = 0;
    for (unsigned i = 0; i < 5000; i++) {
        CHECK(!ring->ops->needs_enter(ring));
        queue_nop(ring, i);
        CHECK(ring->ops->needs_enter(ring));
        CHECK_EQ(ring->ops->enter(ring, 0), 0);
        CHECK_EQ(take_number(ring), i);
        seen++;
    }
    check_no_event(ring);
    CHECK_EQ(ring->counters.sqes, seen);
    CHECK_EQ(ring->counters.events, seen);
    CHECK_EQ(ring->counters.enters, seen);
    ring->ops->destroy(ring, false);
}

static void
test_event_fields(void)
{
    struct gy_ring *ring = ring_enabled(0, 0);
    struct io_uring_sqe *sqe = ring->ops->sqe(ring);
    struct gy_event ev;
    gy_prep_cancel(sqe, mark(9));
    sqe->user_data = mark(3) | 1;
    queue_nop(ring, 4);
    sqe = ring->ops->sqe(ring);
    gy_prep_nop(sqe); /* belongs to nobody */
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    ev = take_event(ring);
    CHECK(ev.is_cancel);
    CHECK_EQ(number_of(&ev), 3);
    CHECK_EQ(ev.res, -ENOENT);
    ev = take_event(ring);
    CHECK(!ev.is_cancel);
    CHECK_EQ(number_of(&ev), 4);
    CHECK_EQ(ev.res, 0);
    CHECK_EQ(ev.flags, 0);
    ev = take_event(ring);
    CHECK(ev.op == NULL);
    ring->ops->destroy(ring, false);
}

/* A full submission queue is submitted on the way; nothing is lost, nothing is out of order. */
static void
test_full_submission_queue(void)
{
    struct gy_ring *ring = ring_enabled(8, 4096);
    for (unsigned i = 0; i < 1000; i++)
        queue_nop(ring, i);
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    for (unsigned i = 0; i < 1000; i++)
        CHECK_EQ(take_number(ring), i);
    check_no_event(ring);
    CHECK_EQ(ring->counters.sqes, 1000);
    CHECK_LE(ring->counters.enters, 1000 / 8 + 1);
    ring->ops->destroy(ring, false);
}

/* More completions than the queue holds are kept by the kernel and come with later enters. */
static void
test_completion_queue_overflows(void)
{
    struct gy_ring *ring = uring_enabled(8, 16);
    struct gy_event ev;
    unsigned seen = 0;
    for (unsigned i = 0; i < 500; i++)
        queue_nop(ring, i);
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    CHECK_LT(0, ring->counters.overflows);
    while (seen < 500) {
        unsigned before = seen;
        while (ring->ops->next_event(ring, &ev))
            CHECK_EQ(number_of(&ev), seen++);
        CHECK_LT(before, seen);
        CHECK_EQ(ring->ops->needs_enter(ring), seen < 500);
        CHECK_EQ(ring->ops->enter(ring, 0), 0);
    }
    ring->ops->destroy(ring, false);
}

/* Deferred work would overflow a queue that nobody has reaped, which ends a multishot operation: it
 * stays with the kernel, and what is queued is submitted all the same. */
static void
test_half_full_completion_queue(void)
{
    enum { FULL = 8, MORE = 3 };
    struct gy_ring *ring = uring_enabled(16, 2 * FULL);
    int fds[FULL + MORE];
    uint64_t enters;
    for (unsigned i = 0; i < FULL + MORE; i++) {
        fds[i] = eventfd(0, EFD_CLOEXEC);
        queue_poll(ring, fds[i], i);
    }
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    for (unsigned i = 0; i < FULL; i++)
        gy_sys_eventfd_add(fds[i]);
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    for (unsigned i = FULL; i < FULL + MORE; i++)
        gy_sys_eventfd_add(fds[i]);
    enters = ring->counters.enters;
    CHECK(!ring->ops->needs_enter(ring));
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    CHECK_EQ(ring->ops->enter(ring, GY_NS_NEVER), 0); /* there are events: no sleep */
    CHECK_EQ(ring->counters.enters, enters);
    queue_nop(ring, 99);
    CHECK(ring->ops->needs_enter(ring));
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    CHECK_EQ(ring->counters.enters, enters + 1);
    for (unsigned i = 0; i < FULL; i++)
        CHECK_EQ(take_number(ring), i);
    CHECK_EQ(take_number(ring), 99);
    check_no_event(ring);
    CHECK(ring->ops->needs_enter(ring));
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    for (unsigned i = FULL; i < FULL + MORE; i++)
        CHECK_EQ(take_number(ring), i);
    CHECK_EQ(ring->counters.overflows, 0);
    ring->ops->destroy(ring, false);
    for (unsigned i = 0; i < FULL + MORE; i++)
        close(fds[i]);
}

/* With DEFER_TASKRUN a completion waits for an enter, and the flag tells that it does. */
static void
test_task_work_is_flagged(void)
{
    struct gy_ring *ring = uring_enabled(0, 0);
    int fd = eventfd(0, EFD_CLOEXEC);
    queue_poll(ring, fd, 1);
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    CHECK(!ring->ops->needs_enter(ring));
    check_no_event(ring);
    gy_sys_eventfd_add(fd);
    CHECK(ring->ops->needs_enter(ring));
    check_no_event(ring);
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    CHECK_EQ(take_event(ring).res, POLLIN);
    CHECK(!ring->ops->needs_enter(ring));
    ring->ops->destroy(ring, false);
    close(fd);
}

/* However many there are: else those that are armed again would go before those that wait. */
static void
test_all_that_is_ready_comes_at_once(void)
{
    enum { COUNT = 200 };
    struct gy_ring *ring = ring_enabled(0, 1024);
    int fds[COUNT];
    for (unsigned i = 0; i < COUNT; i++) {
        fds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        queue_poll(ring, fds[i], i);
    }
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    for (unsigned i = 0; i < COUNT; i++)
        CHECK_EQ(eventfd_write(fds[i], 1), 0);
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    for (unsigned i = 0; i < COUNT; i++)
        CHECK_EQ(take_number(ring), i);
    check_no_event(ring);
    for (unsigned i = 0; i < COUNT; i++)
        close(fds[i]);
    ring->ops->destroy(ring, false);
}

static void
test_waits_end_in_time(void)
{
    struct gy_ring *ring = ring_enabled(0, 0);
    int64_t start_ns = gy_sys_now_ns();
    CHECK_EQ(ring->ops->enter(ring, 3 * MS_NS), -ETIME);
    CHECK_LE(start_ns + 3 * MS_NS, gy_sys_now_ns());
    if (ring->features & GY_FEAT_ABS_TIMER) {
        start_ns = gy_sys_now_ns();
        CHECK_EQ(ring->ops->enter_until(ring, start_ns + 3 * MS_NS), -ETIME);
        CHECK_LE(start_ns + 3 * MS_NS, gy_sys_now_ns());
        CHECK_EQ(ring->ops->enter_until(ring, start_ns), -ETIME); /* it has passed */
    }
    /* An event that is there ends any wait at once. */
    queue_nop(ring, 1);
    CHECK_EQ(ring->ops->enter(ring, GY_NS_NEVER), 0);
    CHECK_EQ(ring->ops->enter(ring, GY_NS_NEVER), 0);
    (void)take_event(ring);
    CHECK_LT(gy_sys_now_ns(), start_ns + GY_NS_PER_SECOND);
    ring->ops->destroy(ring, false);
}

static void
ignore_signal(int signal_number)
{
    GY_UNUSED(signal_number);
}

static void
test_signals_end_a_wait(void)
{
    struct gy_ring *ring = ring_enabled(0, 0);
    struct itimerval interval = {.it_value.tv_usec = 10000};
    int fd = eventfd(0, EFD_CLOEXEC);
    gy_test_skip_under_valgrind(VALGRIND_WAITS_ALONE);
    alarm(0);
    CHECK(signal(SIGALRM, ignore_signal) != SIG_ERR);
    CHECK_EQ(setitimer(ITIMER_REAL, &interval, NULL), 0);
    CHECK_EQ(ring->ops->enter(ring, GY_NS_NEVER), -EINTR);
    /* Also when the same call has submitted something, which hides it from the plain result. */
    queue_poll(ring, fd, 1);
    CHECK_EQ(setitimer(ITIMER_REAL, &interval, NULL), 0);
    CHECK_EQ(ring->ops->enter(ring, GY_NS_NEVER), -EINTR);
    CHECK_EQ(ring->counters.sqes, 1);
    ring->ops->destroy(ring, false);
    close(fd);
}

static void
test_cancel_all(void)
{
    struct gy_ring *ring = ring_enabled(0, 0);
    int fd = eventfd(0, EFD_CLOEXEC);
    unsigned cancelled = 0;
    unsigned nobody = 0;
    struct gy_event ev;
    for (unsigned i = 0; i < 20; i++)
        queue_poll(ring, fd, i);
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    for (unsigned i = 20; i < 25; i++) /* queued, not yet submitted */
        queue_poll(ring, fd, i);
    ring->ops->cancel_all(ring);
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    while (ring->ops->next_event(ring, &ev)) {
        nobody += ev.op == NULL;
        if (ev.op != NULL) {
            CHECK_EQ(ev.res, -ECANCELED);
            cancelled++;
        }
    }
    CHECK_EQ(cancelled, 25);
    CHECK_EQ(nobody, 1);
    ring->ops->destroy(ring, false);
    close(fd);
}

static void
test_buffers(void)
{
    enum { COUNT = 8, BYTES = 64 };
    struct gy_ring *ring = ring_enabled(0, 0);
    char *memory = gy_map(COUNT * BYTES);
    struct io_uring_sqe *sqe;
    struct gy_event ev;
    int pair[2];
    unsigned id;
    if (!(ring->features & GY_FEAT_RECV_MULTISHOT))
        SKIP("no multishot receive into provided buffers in this profile");
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    CHECK_EQ(ring->ops->buffers_register(ring, 1, memory, COUNT, BYTES), 0);
    CHECK_EQ(ring->ops->buffers_register(ring, 1, memory, COUNT, BYTES), -EEXIST);
    sqe = ring->ops->sqe(ring);
    gy_prep_recv_multishot(sqe, pair[0], 1);
    sqe->user_data = mark(1);
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    CHECK_EQ(take_event(ring).res, -ENOBUFS); /* the kernel has none before they are provided */
    for (unsigned i = 0; i < COUNT; i++)
        ring->ops->buffer_provide(ring, 1, (uint16_t)i);
    sqe = ring->ops->sqe(ring);
    gy_prep_recv_multishot(sqe, pair[0], 1);
    sqe->user_data = mark(1);
    for (unsigned round = 0; round < 3 * COUNT; round++) {
        char text[BYTES];
        int len = snprintf(text, sizeof text, "message %u", round);
        CHECK_EQ(write(pair[1], text, (size_t)len), len);
        CHECK_EQ(ring->ops->enter(ring, GY_NS_PER_SECOND), 0);
        ev = take_event(ring);
        CHECK_EQ(ev.res, len);
        CHECK(ev.flags & IORING_CQE_F_MORE);
        CHECK(ev.flags & IORING_CQE_F_BUFFER);
        id = ev.flags >> IORING_CQE_BUFFER_SHIFT;
        CHECK_LT(id, COUNT);
        CHECK_EQ(memcmp(memory + id * BYTES, text, (size_t)len), 0);
        ring->ops->buffer_provide(ring, 1, (uint16_t)id);
    }
    close(pair[1]);
    CHECK_EQ(ring->ops->enter(ring, GY_NS_PER_SECOND), 0);
    ev = take_event(ring);
    CHECK_EQ(ev.res, 0);
    CHECK(!(ev.flags & IORING_CQE_F_MORE));
    ring->ops->buffers_unregister(ring, 1);
    ring->ops->buffers_unregister(ring, 1);
    CHECK_EQ(ring->ops->buffers_register(ring, 1, memory, COUNT, BYTES), 0);
    ring->ops->destroy(ring, false); /* with a group still registered */
    gy_unmap(memory, COUNT * BYTES);
    close(pair[0]);
}

/* ---- threads ---- */

static void *
create_only(void *out)
{
    *(struct gy_ring **)out = ring_create(0, 0);
    return NULL;
}

static void
enter_many(struct gy_ring *ring, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        queue_nop(ring, i);
        CHECK_EQ(ring->ops->enter(ring, 0), 0);
        CHECK_EQ(take_number(ring), i);
    }
}

static void
test_created_in_one_thread_enabled_in_another(void)
{
    struct gy_ring *ring = NULL;
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, create_only, &ring), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(ring->ops->enable(ring), 0);
    enter_many(ring, 200);
    ring->ops->destroy(ring, false);
}

struct lender {
    struct gy_ring *ring;
    pthread_barrier_t barrier;
    bool rest;
};

/* Uses a ring for long enough to register its descriptor, then lets another thread have it. */
static void *
use_and_lend(void *argument)
{
    struct lender *lender = argument;
    lender->ring = uring_enabled(0, 0);
    enter_many(lender->ring, 200);
    if (lender->rest)
        lender->ring->ops->rest(lender->ring);
    pthread_barrier_wait(&lender->barrier);
    pthread_barrier_wait(&lender->barrier);
    return NULL;
}

/* A registered descriptor is an index into a table of the thread: the end of a foreign ring must
 * not take away what has the same index here. */
static void
test_destroyed_in_another_thread(void)
{
    for (int rest = 0; rest < 2; rest++) {
        struct gy_ring *mine = uring_enabled(0, 0);
        struct lender lender = {.rest = rest != 0};
        pthread_t thread;
        enter_many(mine, 200);
        CHECK_EQ(pthread_barrier_init(&lender.barrier, NULL, 2), 0);
        CHECK_EQ(pthread_create(&thread, NULL, use_and_lend, &lender), 0);
        pthread_barrier_wait(&lender.barrier);
        lender.ring->ops->destroy(lender.ring, false);
        enter_many(mine, 200);
        pthread_barrier_wait(&lender.barrier);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        enter_many(mine, 200);
        mine->ops->rest(mine);
        enter_many(mine, 200);
        mine->ops->destroy(mine, false);
        CHECK_EQ(pthread_barrier_destroy(&lender.barrier), 0);
    }
}

/* The table of a thread has 16 places: the 17th ring does without. */
static void
test_more_rings_than_a_thread_can_register(void)
{
    struct gy_ring *rings[20];
    for (unsigned i = 0; i < 20; i++) {
        rings[i] = uring_enabled(8, 16);
        enter_many(rings[i], 100);
    }
    for (unsigned i = 0; i < 20; i++) {
        enter_many(rings[i], 2);
        rings[i]->ops->destroy(rings[i], false);
    }
}

/* ---- failures ---- */

static void
test_refused_submissions_are_kept(void)
{
#if GY_FAULTS
    static const int errors[] = {-EAGAIN, -EBUSY};
    for (unsigned i = 0; i < 2; i++) {
        struct gy_ring *ring = uring_enabled(0, 0);
        queue_nop(ring, 1);
        queue_nop(ring, 2);
        gy_fault_arm(GY_FAULT_RING, 1, errors[i]);
        CHECK_EQ(ring->ops->enter(ring, 0), 0);
        CHECK(gy_fault_fired(GY_FAULT_RING));
        check_no_event(ring);
        CHECK(ring->ops->needs_enter(ring));
        gy_fault_arm(GY_FAULT_RING, 1, errors[i]);
        CHECK_EQ(ring->ops->enter(ring, GY_NS_NEVER), 0); /* it does not wait for ever */
        CHECK_EQ(ring->ops->enter(ring, 0), 0);
        CHECK_EQ(take_number(ring), 1);
        CHECK_EQ(take_number(ring), 2);
        check_no_event(ring);
        ring->ops->destroy(ring, false);
    }
#else
    SKIP("built without fault injection");
#endif
}

static void
test_full_queue_that_the_kernel_refuses(void)
{
#if GY_FAULTS
    struct gy_ring *ring = uring_enabled(8, 64);
    int fd = eventfd(0, EFD_CLOEXEC);
    unsigned nops = 0;
    unsigned polls = 0;
    struct gy_event ev;
    queue_poll(ring, fd, 100);
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    for (unsigned i = 0; i < 8; i++)
        queue_nop(ring, i);
    gy_fault_arm(GY_FAULT_RING, 1, -EAGAIN);
    CHECK(ring->ops->sqe(ring) == NULL);
    /* Cancelling needs no SQE where the kernel has the register call. */
    gy_fault_arm(GY_FAULT_RING, 1, -EAGAIN);
    ring->ops->cancel_all(ring);
    CHECK_EQ(ring->ops->enter(ring, 0), 0);
    while (ring->ops->next_event(ring, &ev)) {
        nops += ev.res == 0;
        polls += ev.res == -ECANCELED && number_of(&ev) == 100;
    }
    CHECK_EQ(nops, 8);
    CHECK_EQ(polls, (ring->features & GY_FEAT_SYNC_CANCEL) != 0);
    CHECK(ring->ops->sqe(ring) != NULL);
    ring->ops->destroy(ring, false);
    close(fd);
#else
    SKIP("built without fault injection");
#endif
}

static void
test_creation_fails_in_each_way(void)
{
#if GY_FAULTS
    static const int errors[] = {-EMFILE, -EPERM, -EINVAL};
    struct gy_ring_options options = gy_test_options();
    struct gy_ring *ring = NULL;
    gy_test_need_uring();
    for (unsigned i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        gy_fault_arm(GY_FAULT_RING, 1, errors[i]);
        CHECK_EQ(gy_ring_uring_create(&options, &ring), errors[i]);
        CHECK(ring == NULL);
    }
    gy_fault_arm(GY_FAULT_ALLOC, 1, -ENOMEM);
    CHECK_EQ(gy_ring_uring_create(&options, &ring), -ENOMEM);
    CHECK(ring == NULL);
    /* Too little locked memory: smaller queues. */
    gy_fault_arm(GY_FAULT_RING, 1, -ENOMEM);
    options.sq_entries = 64;
    CHECK_EQ(gy_ring_uring_create(&options, &ring), 0);
    CHECK(gy_fault_fired(GY_FAULT_RING));
    gy_fault_arm(GY_FAULT_RING, 1, -EBADFD);
    CHECK_EQ(ring->ops->enable(ring), -EBADFD);
    CHECK_EQ(ring->ops->enable(ring), 0);
    enter_many(ring, 100);
    ring->ops->destroy(ring, false);
#else
    SKIP("built without fault injection");
#endif
}

/* The first ring of a process is set up when it is made, so that a refusal is known then; a later
 * one, if its maker says so, when it is enabled. */
static void
test_set_up_by_enable(void)
{
    struct gy_ring_options options = gy_test_options();
    struct gy_ring *first = NULL;
    struct gy_ring *ring = NULL;
    unsigned descriptors;
    options.late = true;
    gy_test_need_uring();
    descriptors = gy_test_open_descriptors();
    CHECK_EQ(gy_ring_uring_create(&options, &first), 0);
    CHECK_EQ(gy_test_open_descriptors(), descriptors + 1);
    first->ops->destroy(first, false);

    CHECK_EQ(gy_ring_uring_create(&options, &ring), 0);
    CHECK_EQ(gy_test_open_descriptors(), descriptors);
    ring->ops->destroy(ring, false); /* it never was */
    CHECK_EQ(gy_ring_uring_create(&options, &ring), 0);
    ring->ops->destroy(ring, true);
    CHECK_EQ(gy_ring_uring_create(&options, &ring), 0);
#if GY_FAULTS
    gy_fault_arm(GY_FAULT_RING, 1, -EMFILE);
    CHECK_EQ(ring->ops->enable(ring), -EMFILE);
    CHECK_EQ(gy_test_open_descriptors(), descriptors);
#endif
    CHECK_EQ(ring->ops->enable(ring), 0);
    CHECK_EQ(gy_test_open_descriptors(), descriptors + 1);
    enter_many(ring, 100);
    ring->ops->destroy(ring, false);
    CHECK_EQ(gy_test_open_descriptors(), descriptors);
}

/* Features that the profile takes away are gone, and so is what needs them. */
static void
test_features_off(void)
{
    struct gy_ring_options options = {.features_off = GY_FEAT_BUF_RING | GY_FEAT_ACCEPT};
    struct gy_ring *ring = NULL;
    uint32_t probed;
    enum gy_probe_stage stage;
    gy_test_need_uring();
    CHECK_EQ(gy_probe_uring(&probed, &stage), 0);
    CHECK_EQ(gy_ring_uring_create(&options, &ring), 0);
    CHECK_EQ(ring->features, probed & ~(uint32_t)(GY_FEAT_BUF_RING | GY_FEAT_RECV_MULTISHOT |
                                                  GY_FEAT_ACCEPT | GY_FEAT_ACCEPT_MULTISHOT));
    ring->ops->destroy(ring, false);
}

static const struct gy_test tests[] = {
    GY_TEST(test_nops_wrap_the_queues),
    GY_TEST(test_event_fields),
    GY_TEST(test_full_submission_queue),
    GY_TEST(test_completion_queue_overflows),
    GY_TEST(test_half_full_completion_queue),
    GY_TEST(test_task_work_is_flagged),
    GY_TEST(test_all_that_is_ready_comes_at_once),
    GY_TEST(test_waits_end_in_time),
    GY_TEST(test_signals_end_a_wait),
    GY_TEST(test_cancel_all),
    GY_TEST(test_buffers),
    GY_TEST(test_created_in_one_thread_enabled_in_another),
    GY_TEST(test_destroyed_in_another_thread),
    GY_TEST(test_more_rings_than_a_thread_can_register),
    GY_TEST(test_refused_submissions_are_kept),
    GY_TEST(test_full_queue_that_the_kernel_refuses),
    GY_TEST(test_creation_fails_in_each_way),
    GY_TEST(test_set_up_by_enable),
    GY_TEST(test_features_off),
};
GY_TEST_MAIN(tests)
