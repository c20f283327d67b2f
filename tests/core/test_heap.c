/* test_heap.c: when what a burst left in the C library's heap goes back to the system. */
#include "fake_ring.h"
#include "heap.h"
#include "sys.h"

#include <sys/mman.h>

#define MIB (UINT64_C(1) << 20)
#define MS (INT64_C(1000) * 1000)

/* A process with a loop that moves `rate` bytes in each of its waits, which take a millisecond. */
struct process {
    struct gy_heap heap;
    int64_t now_ns;
    uint64_t moved;
    uint64_t bytes;      /* resident                              */
    uint64_t freed;      /* of them, what a trim would give back  */
    int64_t trim_ns;     /* what a trim takes                     */
    unsigned timed_wait; /* of the last run: ended by the policy  */
};

/* A wait begins; what loop_wait.c does. */
static void
turn(struct process *process)
{
    struct gy_heap *heap = &process->heap;
    if (!gy_heap_stirs(heap, process->moved) ||
        gy_heap_step(heap, process->now_ns, process->moved) != GY_HEAP_LOOK ||
        !gy_heap_measured(heap, process->now_ns, process->moved, process->bytes))
        return;
    process->bytes -= process->freed;
    process->freed = 0;
    process->now_ns += process->trim_ns;
    gy_heap_trimmed(heap, process->now_ns, process->trim_ns, process->bytes);
}

static void
begin(struct process *process)
{
    *process = (struct process){.now_ns = GY_NS_PER_SECOND, .bytes = 30 * MIB, .trim_ns = MS / 100};
    gy_heap_init(&process->heap, true);
    turn(process);
}

/* So much time, in which something comes each millisecond. */
static void
load(struct process *process, int64_t time_ns, uint64_t rate)
{
    for (int64_t end_ns = process->now_ns + time_ns; process->now_ns < end_ns;) {
        turn(process);
        process->now_ns += MS;
        process->moved += rate;
    }
}

/* So much time, in which nothing comes at all: only what the policy asks for ends a wait. */
static void
rest(struct process *process, int64_t time_ns)
{
    int64_t end_ns = process->now_ns + time_ns;
    process->timed_wait = 0;
    for (;;) {
        turn(process);
        if (process->heap.due_ns >= end_ns)
            break;
        process->now_ns = process->heap.due_ns;
        process->timed_wait++;
    }
    process->now_ns = end_ns;
}

/* 100 MiB of messages that nobody has any more. */
static void
burst(struct process *process)
{
    process->bytes += 50 * MIB;
    load(process, 50 * MS, MIB);
    process->bytes += 50 * MIB;
    load(process, 50 * MS, MIB);
    process->freed += 100 * MIB;
}

static void
test_a_burst_leaves_nothing(void)
{
    struct process process;
    begin(&process);
    burst(&process);
    CHECK_EQ(process.heap.trims, 0);
    CHECK_EQ(process.bytes, 130 * MIB);
    rest(&process, 250 * MS);
    CHECK_EQ(process.heap.trims, 1);
    CHECK_EQ(process.bytes, 30 * MIB);
    rest(&process, 1000 * GY_NS_PER_SECOND); /* and then it sleeps undisturbed */
    CHECK_EQ(process.timed_wait, 0);
    CHECK_EQ(process.heap.trims, 1);
}

static void
test_heartbeats_do_not_keep_it(void)
{
    struct process process;
    begin(&process);
    burst(&process);
    load(&process, 300 * MS, 1500); /* a little message each millisecond */
    CHECK_EQ(process.heap.trims, 1);
    CHECK_EQ(process.bytes, 30 * MIB);
}

static void
test_a_steady_load_is_never_trimmed(void)
{
    struct process process;
    begin(&process);
    process.freed = 100 * MIB;
    load(&process, 1, 20 * MIB);
    process.bytes += 100 * MIB;
    load(&process, 100 * GY_NS_PER_SECOND, MIB);
    CHECK_EQ(process.heap.trims, 0);
    load(&process, 300 * MS, 1500);
    CHECK_EQ(process.heap.trims, 1);
}

static void
test_without_growth_it_only_looks(void)
{
    struct process process;
    begin(&process);
    load(&process, 10 * GY_NS_PER_SECOND, MIB);
    process.bytes += 15 * MIB;
    load(&process, 10 * GY_NS_PER_SECOND, MIB);
    rest(&process, 10 * GY_NS_PER_SECOND);
    CHECK_EQ(process.heap.trims, 0);
    CHECK_EQ(process.timed_wait, 0);
}

/* The messages were in use when it became quiet: they go when the loop has been awake again. */
static void
test_what_is_freed_later(void)
{
    struct process process;
    begin(&process);
    burst(&process);
    process.freed = 0;
    rest(&process, 500 * MS);
    CHECK_EQ(process.heap.trims, 1);
    CHECK_LE(process.timed_wait, 2);
    CHECK_EQ(process.bytes, 130 * MIB);
    process.freed = 100 * MIB; /* the connections are closed */
    process.moved += 1000 * GY_HEAP_EVENT_BYTES;
    rest(&process, 500 * MS);
    CHECK_EQ(process.heap.trims, 2);
    CHECK_EQ(process.bytes, 30 * MIB);
}

static void
test_a_little_that_is_freed_later(void)
{
    struct process process;
    begin(&process);
    burst(&process);
    process.freed = 90 * MIB;
    rest(&process, 500 * MS);
    CHECK_EQ(process.bytes, 40 * MIB);
    process.freed = 10 * MIB;
    rest(&process, 500 * MS);
    CHECK_EQ(process.bytes, 30 * MIB);
    CHECK_EQ(process.heap.trims, 2);
}

static void
test_a_little_that_stays_is_left_alone(void)
{
    struct process process;
    begin(&process);
    burst(&process);
    process.freed = 90 * MIB;
    load(&process, 200 * GY_NS_PER_SECOND, 100);
    CHECK_EQ(process.bytes, 40 * MIB);
    CHECK_LE(process.heap.trims, 12);
    rest(&process, GY_NS_PER_SECOND);
    CHECK_EQ(process.timed_wait, 0);
    load(&process, 200 * GY_NS_PER_SECOND, 100);
    CHECK_LE(process.heap.trims, 12);
    burst(&process); /* it is still looked at */
    rest(&process, 66 * GY_NS_PER_SECOND);
    CHECK_EQ(process.bytes, 40 * MIB);
}

/* Memory that stays in use costs ever fewer trims. */
static void
test_in_vain_it_gets_rare(void)
{
    struct process process;
    begin(&process);
    burst(&process);
    process.freed = 0;
    load(&process, 1000 * GY_NS_PER_SECOND, 100);
    CHECK_LE(process.heap.trims, 10 + 1000 / 64);
    CHECK_LE(20, process.heap.trims);
    process.freed = 100 * MIB;
    load(&process, 65 * GY_NS_PER_SECOND, 100);
    CHECK_EQ(process.bytes, 30 * MIB);
}

static void
test_bursts_in_a_row_are_no_storm(void)
{
    struct process process;
    begin(&process);
    for (unsigned i = 0; i < 1000; i++) {
        process.freed = 0;
        process.bytes = 30 * MIB;
        burst(&process);
        rest(&process, 300 * MS);
    }
    CHECK_LE(process.heap.trims, 10 + 400 / 64);
    rest(&process, GY_HEAP_GAP_MAX_NS + GY_NS_PER_SECOND); /* the last one's goes, later */
    CHECK_EQ(process.bytes, 30 * MIB);
    rest(&process, 600 * GY_NS_PER_SECOND);
    CHECK_EQ(process.timed_wait, 0);
    burst(&process);
    rest(&process, 250 * MS); /* the calm has made the gaps short again */
    CHECK_EQ(process.bytes, 30 * MIB);
}

static void
test_a_slow_trim_is_seldom_repeated(void)
{
    struct process process;
    begin(&process);
    burst(&process);
    process.freed = 0;
    process.trim_ns = 100 * MS;
    load(&process, 900 * GY_NS_PER_SECOND, 100);
    CHECK_EQ(process.heap.trims, 1);
    load(&process, 200 * GY_NS_PER_SECOND, 100);
    CHECK_EQ(process.heap.trims, 2);
}

/* What it takes to give much back does not count. */
static void
test_a_useful_trim_may_take_its_time(void)
{
    struct process process;
    begin(&process);
    burst(&process);
    process.trim_ns = 20 * MS;
    rest(&process, 500 * MS);
    burst(&process);
    rest(&process, 500 * MS);
    CHECK_EQ(process.heap.trims, 2);
    CHECK_EQ(process.bytes, 30 * MIB);
}

static void
test_not_wanted_or_not_known(void)
{
    struct process process;
    begin(&process);
    gy_heap_init(&process.heap, false);
    burst(&process);
    rest(&process, GY_NS_PER_SECOND);
    CHECK_EQ(process.timed_wait, 0);
    CHECK_EQ(process.heap.trims, 0);
    begin(&process);
    burst(&process);
    process.bytes = 0; /* no /proc, or no descriptor to open it */
    rest(&process, GY_NS_PER_SECOND);
    CHECK_EQ(process.heap.trims, 0);
    process.bytes = 30 * MIB;
    process.freed = 0;
    burst(&process);
    rest(&process, GY_NS_PER_SECOND);
    CHECK_EQ(process.heap.trims, 1);
    CHECK_EQ(process.bytes, 30 * MIB);
}

static int64_t
wait_once(struct gy_loop *loop)
{
    gy_loop_prepare_wait(loop);
    CHECK_EQ(gy_loop_wait(loop, GY_NS_NEVER), 0);
    gy_loop_finish_wait(loop);
    return fake.last_wait_ns;
}

static void
test_a_loop_that_waits(void)
{
    enum { GROWN = 2 * GY_HEAP_GROWN_BYTES };
    struct gy_loop loop;
    void *memory;
    fake_loop_begin(&loop);
    gy_heap_init(&loop.heap, true);
    CHECK_EQ(wait_once(&loop), GY_NS_NEVER);
    memory = mmap(NULL, GROWN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    memset(memory, 1, GROWN);
    loop.counters.bytes_in += GY_HEAP_LOOK_BYTES;
    CHECK_EQ(wait_once(&loop), GY_HEAP_QUIET_NS);
    CHECK_EQ(wait_once(&loop), GY_NS_NEVER);
    CHECK_EQ(loop.heap.trims, 1);
    CHECK_EQ(munmap(memory, GROWN), 0);
    loop.inflight = 0; /* the wakeup's: this ring ends nothing */
    gy_op_init(&loop.wakeup.op, GY_OP_WAKEUP);
    fake_loop_end(&loop);
}

static void
test_resident_memory(void)
{
    uint64_t before = gy_sys_resident_bytes();
    void *memory = mmap(NULL, 64 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    CHECK_LT(0, before);
    memset(memory, 1, 64 * MIB);
    CHECK_LE(before + 60 * MIB, gy_sys_resident_bytes());
    CHECK_EQ(munmap(memory, 64 * MIB), 0);
    CHECK_LE(gy_sys_resident_bytes(), before + 10 * MIB);
}

static const struct gy_test tests[] = {
    GY_TEST(test_a_burst_leaves_nothing),
    GY_TEST(test_heartbeats_do_not_keep_it),
    GY_TEST(test_a_steady_load_is_never_trimmed),
    GY_TEST(test_without_growth_it_only_looks),
    GY_TEST(test_what_is_freed_later),
    GY_TEST(test_a_little_that_is_freed_later),
    GY_TEST(test_a_little_that_stays_is_left_alone),
    GY_TEST(test_in_vain_it_gets_rare),
    GY_TEST(test_bursts_in_a_row_are_no_storm),
    GY_TEST(test_a_slow_trim_is_seldom_repeated),
    GY_TEST(test_a_useful_trim_may_take_its_time),
    GY_TEST(test_not_wanted_or_not_known),
    GY_TEST(test_a_loop_that_waits),
    GY_TEST(test_resident_memory),
};
GY_TEST_MAIN(tests)
