/* test_sim_sockop.c: socket operations over the simulated kernel: whatever is cancelled, whenever,
 * the bytes that the operations report are the bytes that were sent, each once and in order.
 * GYRE_SEED=n repeats one seed; argv[1] is the number of seeds. */
#include "loop.h"
#include "probe.h"
#include "ring_sim.h"
#include "sockop.h"
#include "sys.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEEDS_DEFAULT = 1000, STEPS = 300, SETTLE_TURNS = 5000, MESSAGE_MAX = 5000 };

struct call {
    struct gy_sockop op;
    bool pending;
    char bytes[MESSAGE_MAX];
    size_t len;
};

static struct sim_world world;
static struct sim_rng rng;
static struct gy_loop loop;
static struct sim_socket *sock;
static struct call receive;
static struct call send_all;
static uint64_t in_sent, in_seen;   /* remote -> core */
static uint64_t out_sent, out_seen; /* core -> remote; sent: reported, or in doubt */
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

static char
byte_at(uint64_t position)
{
    return (char)(position * 37 + (position >> 8));
}

static void
received(ssize_t result)
{
    EXPECT(result > 0);
    EXPECT((size_t)result <= receive.len);
    for (ssize_t i = 0; i < result; i++)
        EXPECT(receive.bytes[i] == byte_at(in_seen + (uint64_t)i));
    in_seen += (uint64_t)result;
}

static bool
on_valid(struct gy_sockop *op)
{
    GY_UNUSED(op);
    EXPECT(!quiet);
    return true;
}

static void
on_done(struct gy_sockop *op, ssize_t result)
{
    struct call *call = container_of(op, struct call, op);
    EXPECT(!quiet);
    EXPECT(call->pending);
    call->pending = false;
    if (call == &receive) {
        if (result != -ECANCELED)
            received(result);
    } else if (result == -ECANCELED) {
        out_sent += op->done_bytes; /* the next one goes on from there */
    } else {
        EXPECT(result == (ssize_t)call->len);
        out_sent += (uint64_t)result;
    }
}

static const struct gy_sockop_host host = {.valid = on_valid, .done = on_done};

static void
start(struct call *call)
{
    ssize_t result;
    if (call->pending)
        return;
    call->len = sim_size(&rng, MESSAGE_MAX);
    gy_sockop_init(&call->op, &loop, &host);
    call->pending = true;
    if (call == &receive) {
        result = gy_sockop_recv(&call->op, sock->fd, call->bytes, call->len);
        if (result != -EINPROGRESS)
            received(result);
    } else {
        for (size_t i = 0; i < call->len; i++)
            call->bytes[i] = byte_at(out_sent + i);
        result = gy_sockop_sendall(&call->op, sock->fd, call->bytes, call->len);
        if (result != -EINPROGRESS) {
            EXPECT(result == (ssize_t)call->len);
            out_sent += (uint64_t)result;
        }
    }
    call->pending = result == -EINPROGRESS;
}

static void
cancel(struct call *call)
{
    if (!call->pending || !gy_sockop_cancel(&call->op))
        return;
    call->pending = false;
    if (call == &send_all)
        out_sent += call->op.done_bytes;
}

static void
remote_acts(size_t most)
{
    char bytes[MESSAGE_MAX];
    size_t len = sim_size(&rng, MESSAGE_MAX);
    size_t got;
    if (most == 0) {
        for (size_t i = 0; i < len; i++)
            bytes[i] = byte_at(in_sent + i);
        in_sent += sim_remote_send(&world.net, sock, bytes, len);
        return;
    }
    got = sim_remote_recv(&world.net, sock, bytes, most < sizeof bytes ? most : sizeof bytes);
    for (size_t i = 0; i < got; i++)
        EXPECT(bytes[i] == byte_at(out_seen + i));
    out_seen += got;
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
    switch (sim_below(&rng, 8)) {
    case 0:
    case 1:
        start(&receive);
        break;
    case 2:
        start(&send_all);
        break;
    case 3:
        cancel(sim_chance(&rng, 50) ? &receive : &send_all);
        break;
    case 4:
        remote_acts(0);
        break;
    case 5:
        remote_acts(sim_size(&rng, MESSAGE_MAX));
        break;
    case 6:
        if (sim_chance(&rng, 10)) {
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
    world.faults = (struct sim_faults){0};
    for (unsigned turns = 0; in_seen < in_sent || out_seen < out_sent || send_all.pending;
         turns++) {
        EXPECT(turns < SETTLE_TURNS);
        if (in_seen < in_sent)
            start(&receive);
        turn();
        remote_acts(MESSAGE_MAX);
    }
    cancel(&receive);
    for (unsigned turns = 0; receive.pending; turns++) {
        EXPECT(turns < SETTLE_TURNS);
        turn();
    }
    EXPECT(in_seen == in_sent);
    EXPECT(out_seen == out_sent);
}

static void
run_seed(uint64_t seed)
{
    struct gy_ring_options options = {0};
    uint32_t features = GY_FEAT_ALL & ~(uint32_t)GY_FEAT_ABS_TIMER;

    current_seed = seed;
    rng.state = ~seed;
    in_sent = in_seen = out_sent = out_seen = 0;
    receive.pending = send_all.pending = false;
    sim_world_init(&world, seed, features);
    sim_world_use(&world);
    world.faults.late = sim_below(&rng, 60);
    world.faults.no_sqe = sim_below(&rng, 10);
    sock = sim_connection(&world.net, sim_size(&rng, 20000));
    EXPECT(gy_loop_init(&loop, &options, sim_ring_create) == 0);
    EXPECT(gy_loop_begin(&loop) == 0);
    for (unsigned i = 0; i < STEPS; i++)
        act();
    settle();
    EXPECT(gy_loop_quiesce(&loop, GY_NS_PER_SECOND) == 0);
    EXPECT(world.ops == 0);
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
