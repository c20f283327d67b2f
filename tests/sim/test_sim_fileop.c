/* test_sim_fileop.c: file operations over the simulated kernel: short, late, failing, cancelled at
 * any time, with runs that end in between.  What the operations report is what the file holds, a
 * buffer is left alone once its operation is over, and no descriptor of an open is lost.
 * GYRE_SEED=n repeats one seed; argv[1] is the number of seeds. */
#include "fileop.h"
#include "loop.h"
#include "prep.h"
#include "probe.h"
#include "ring_sim.h"
#include "sys.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SEEDS_DEFAULT = 1000,
    STEPS = 300,
    SETTLE_TURNS = 5000,
    CALLS = 8,
    REGION_BYTES = SIM_FILE_BYTES / CALLS,
};

/* Each call has a part of the file to itself. */
struct call {
    struct gy_fileop op;
    bool pending;
    char buf[REGION_BYTES];
    char after[REGION_BYTES]; /* buf as it was when the operation ended */
    char seen[REGION_BYTES];  /* what the file must hold                */
    uint32_t len;
};

static struct sim_world world;
static struct sim_rng rng;
static struct gy_loop loop;
static struct call calls[CALLS];
static uint64_t current_seed;
static bool quiet;

static void
failed(const char *what, int line)
{
    fprintf(stderr, "FAILED: %s (line %d); repeat with GYRE_SEED=%" PRIu64 "\n", what, line,
            current_seed);
    abort();
}
#define EXPECT(x)                                                                                  \
    do {                                                                                           \
        if (!(x))                                                                                  \
            failed(#x, __LINE__);                                                                  \
    } while (0)

/* The operation is over with `res`. */
static void
over(struct call *call, int32_t res)
{
    uint8_t opcode = call->op.sqe.opcode;
    call->pending = false;
    memcpy(call->after, call->buf, sizeof call->buf);
    if (opcode == IORING_OP_OPENAT) {
        if (res >= 0)
            loop.ring->ops->close(loop.ring, res);
        else
            EXPECT(res == -ECANCELED || res == -EINTR);
        return;
    }
    if (res < 0) {
        EXPECT(res == -EIO || (call->op.cancelled && (res == -ECANCELED || res == -EINTR)));
        return;
    }
    EXPECT((uint32_t)res <= call->len);
    if (opcode == IORING_OP_WRITE)
        memcpy(call->seen, call->buf, (size_t)res);
    else
        EXPECT(memcmp(call->seen, call->buf, (size_t)res) == 0);
}

static void
on_done(struct gy_fileop *op, int32_t res)
{
    struct call *call = container_of(op, struct call, op);
    EXPECT(!quiet);
    EXPECT(call->pending);
    EXPECT(!gy_fileop_busy(op));
    over(call, res);
}

static const struct gy_fileop_host host = {.done = on_done};

static void
prepare(struct call *call, struct io_uring_sqe *sqe)
{
    uint64_t offset = (uint64_t)(call - calls) * REGION_BYTES;
    call->len = sim_size(&rng, REGION_BYTES);
    switch (sim_below(&rng, 3)) {
    case 0:
        gy_prep_openat(sqe, -100, "path", 0, 0);
        break;
    case 1:
        for (uint32_t i = 0; i < call->len; i++)
            call->buf[i] = (char)sim_random(&rng);
        gy_prep_write(sqe, SIM_FILE_FD, call->buf, call->len, offset);
        break;
    default:
        memset(call->buf, 0, sizeof call->buf);
        gy_prep_read(sqe, SIM_FILE_FD, call->buf, call->len, offset);
        break;
    }
}

static void
start(struct call *call)
{
    int32_t res;
    if (call->pending)
        return;
    EXPECT(memcmp(call->buf, call->after, sizeof call->buf) == 0);
    prepare(call, gy_fileop_sqe(&call->op));
    call->pending = true;
    call->op.cancelled = false;
    res = sim_chance(&rng, 50) ? gy_fileop_try(&call->op) : -EAGAIN;
    if (res == -EAGAIN)
        gy_fileop_submit(&call->op);
    else if (sim_chance(&rng, 50))
        over(call, res);
    else
        gy_fileop_defer(&call->op, res);
}

static void
cancel(struct call *call)
{
    bool deferred = gy_op_is_idle(&call->op.op);
    int32_t res = call->op.res;
    if (!call->pending || !gy_fileop_cancel(&call->op))
        return;
    /* A result that was here already counts for the file; a descriptor has been closed. */
    over(call, deferred && call->op.sqe.opcode != IORING_OP_OPENAT ? res : -ECANCELED);
}

static void
turn(void)
{
    EXPECT(gy_loop_poll(&loop, true) == 0);
    (void)gy_loop_reap(&loop);
    EXPECT(world.violations == 0);
}

static void
act(void)
{
    struct call *call = &calls[sim_below(&rng, CALLS)];
    switch (sim_below(&rng, 8)) {
    case 0:
    case 1:
    case 2:
        start(call);
        break;
    case 3:
        cancel(call);
        break;
    case 4:
        if (sim_chance(&rng, 20)) {
            quiet = true;
            EXPECT(gy_loop_quiesce(&loop, GY_NS_PER_SECOND) == 0);
            quiet = false;
            EXPECT(gy_loop_begin(&loop) == 0);
        }
        break;
    default:
        turn();
        break;
    }
}

static void
settle(void)
{
    bool pending = true;
    world.faults = (struct sim_faults){0};
    for (unsigned turns = 0; pending; turns++) {
        EXPECT(turns < SETTLE_TURNS);
        turn();
        pending = false;
        for (unsigned i = 0; i < CALLS; i++)
            pending |= calls[i].pending;
    }
    for (unsigned i = 0; i < CALLS; i++) {
        EXPECT(memcmp(calls[i].seen, world.file + i * REGION_BYTES, REGION_BYTES) == 0);
        EXPECT(memcmp(calls[i].buf, calls[i].after, REGION_BYTES) == 0);
    }
}

static void
run_seed(uint64_t seed)
{
    struct gy_ring_options options = {0};
    uint32_t features = GY_FEAT_ALL & ~(uint32_t)GY_FEAT_ABS_TIMER;

    current_seed = seed;
    rng.state = ~seed;
    sim_world_init(&world, seed, features);
    sim_world_use(&world);
    memset(world.file, 0, sizeof world.file);
    world.faults.late = sim_below(&rng, 60);
    world.faults.no_sqe = sim_below(&rng, 10);
    world.faults.file_fails = sim_below(&rng, 10);
    EXPECT(gy_loop_init(&loop, &options, sim_ring_create) == 0);
    EXPECT(gy_loop_begin(&loop) == 0);
    memset(calls, 0, sizeof calls);
    for (unsigned i = 0; i < CALLS; i++)
        gy_fileop_init(&calls[i].op, &loop, &host);
    for (unsigned i = 0; i < STEPS; i++)
        act();
    settle();
    EXPECT(gy_loop_quiesce(&loop, GY_NS_PER_SECOND) == 0);
    EXPECT(world.ops == 0);
    EXPECT(world.net.bad_closes == 0);
    EXPECT(world.net.opened == world.net.closed);
    gy_loop_close(&loop);
    sim_world_deinit(&world);
}

int
main(int argc, char **argv)
{
    const char *one = getenv("GYRE_SEED");
    uint64_t count = sim_seeds(argc > 1 ? argv[1] : NULL, SEEDS_DEFAULT);
    uint64_t fresh = (uint64_t)gy_sys_now_ns();

    if (one != NULL) {
        run_seed(strtoull(one, NULL, 10));
        return 0;
    }
    for (uint64_t i = 0; i < count; i++)
        run_seed(i % 2 == 0 ? i : fresh + i);
    printf("%" PRIu64 " seeds, half of them from %" PRIu64 "\n", count, fresh);
    return 0;
}
