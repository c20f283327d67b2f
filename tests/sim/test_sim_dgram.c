/* test_sim_dgram.c: a datagram socket over the simulated kernel: whatever is joined, split,
 * refused, paused or quiesced, each datagram arrives once, whole and in order; an error costs at
 * most one. GYRE_SEED=n repeats one seed; argv[1] is the number of seeds. */
#include "dgram.h"
#include "loop.h"
#include "probe.h"
#include "ring_sim.h"
#include "sys.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEEDS_DEFAULT = 1000, STEPS = 400, SETTLE_TURNS = 20000, DATAGRAM_MAX = 3000 };

static struct sim_world world;
static struct sim_rng rng;
static struct gy_loop loop;
static struct sim_socket *sock;
static struct gy_dgram dgram;
static uint64_t in_sent, in_seen;   /* remote -> core */
static uint64_t out_sent, out_next; /* core -> remote: numbers given, the next that may come */
static uint64_t out_seen, errors;
static uint64_t owners, closes;
static uint64_t current_seed;
static size_t usual; /* sizes repeat, else there would be no bursts */
static bool quiet;
static bool paused;

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

/* A datagram is its number, eight bytes, and then bytes that follow from it. */
static size_t
fill(char *bytes, uint64_t number)
{
    size_t len;
    if (sim_chance(&rng, 10))
        usual = sizeof number + sim_size(&rng, DATAGRAM_MAX - sizeof number);
    len = sim_chance(&rng, 90) ? usual : sizeof number + sim_below(&rng, 100);
    memset(bytes, (int)(number & 0x7f), len);
    memcpy(bytes, &number, sizeof number);
    return len;
}

static uint64_t
check(const char *bytes, size_t len)
{
    uint64_t number;
    EXPECT(len >= sizeof number);
    memcpy(&number, bytes, sizeof number);
    for (size_t i = sizeof number; i < len; i++)
        EXPECT(bytes[i] == (char)(number & 0x7f));
    return number;
}

static void
on_datagram(struct gy_dgram *self, const void *data, size_t len, const struct gy_address *from)
{
    EXPECT(!quiet && !paused);
    EXPECT(from->len == 0);
    EXPECT(check(data, len) == in_seen);
    in_seen++;
    if (sim_chance(&rng, 5)) {
        paused = true;
        gy_dgram_pause(self);
    }
}

static void
on_error(struct gy_dgram *self, int err)
{
    GY_UNUSED(self);
    EXPECT(!quiet);
    EXPECT(err == -ECONNREFUSED);
    errors++;
}

static void
on_broken(struct gy_dgram *self, int err)
{
    GY_UNUSED(self);
    GY_UNUSED(err);
    failed("the socket broke", __LINE__);
}

static void
on_drained(struct gy_dgram *self)
{
    GY_UNUSED(self);
    EXPECT(!quiet);
}

static void
on_release(struct gy_dgram *self, void *owner)
{
    GY_UNUSED(self);
    EXPECT(owners > 0);
    owners--;
    free(owner);
}

static void
on_detach(struct gy_dgram *self)
{
    EXPECT(self->fd == sock->fd);
}

static void
on_closed(struct gy_dgram *self)
{
    GY_UNUSED(self);
    EXPECT(!quiet);
    closes++;
}

static const struct gy_dgram_host host = {
    .datagram = on_datagram,
    .error = on_error,
    .broken = on_broken,
    .drained = on_drained,
    .release = on_release,
    .detach = on_detach,
    .closed = on_closed,
};

static void
send_some(void)
{
    static const struct gy_address nowhere = {.len = 0};
    unsigned count = sim_chance(&rng, 50) ? 1 : 1 + sim_below(&rng, 100);
    bool in_callback = sim_chance(&rng, 80);

    for (unsigned i = 0; i < count; i++) {
        char *bytes = malloc(DATAGRAM_MAX + 200);
        size_t len;
        ssize_t res;
        if (bytes == NULL)
            abort();
        len = fill(bytes, out_sent++);
        res = gy_dgram_try_send(&dgram, bytes, len, &nowhere, in_callback);
        if (res == -EAGAIN) {
            struct gy_datagram datagram = {.data = bytes, .len = len, .owner = bytes};
            owners++;
            EXPECT(gy_dgram_push(&dgram, &datagram, &nowhere) == 0);
            continue;
        }
        if (res < 0)
            on_error(&dgram, (int)res);
        free(bytes);
    }
    if (in_callback)
        gy_loop_flush_dirty(&loop);
}

static void
remote_sends(void)
{
    char bytes[DATAGRAM_MAX + 200];
    unsigned count = 1 + sim_below(&rng, 40);
    for (unsigned i = 0; i < count; i++) {
        size_t len = fill(bytes, in_sent);
        if (sim_remote_send_datagram(sock, bytes, len))
            in_sent++;
    }
}

static void
remote_receives(unsigned most)
{
    char bytes[DATAGRAM_MAX + 200];
    for (unsigned i = 0; i < most; i++) {
        ssize_t len = sim_remote_recv_datagram(sock, bytes, sizeof bytes);
        uint64_t number;
        if (len < 0)
            return;
        number = check(bytes, (size_t)len);
        EXPECT(number >= out_next);
        out_next = number + 1;
        out_seen++;
    }
}

static void
turn(void)
{
    EXPECT(gy_loop_poll(&loop, true) == 0);
    (void)gy_loop_reap(&loop);
    EXPECT(world.violations == 0);
}

static void
run_ends(void)
{
    quiet = true;
    EXPECT(gy_loop_quiesce(&loop, GY_NS_PER_SECOND) == 0);
    quiet = false;
    EXPECT(gy_loop_begin(&loop) == 0);
}

static void
resume(void)
{
    paused = false;
    gy_dgram_resume(&dgram);
}

static void
act(void)
{
    switch (sim_below(&rng, 10)) {
    case 0:
    case 1:
        send_some();
        break;
    case 2:
    case 3:
        remote_sends();
        break;
    case 4:
        remote_receives(1 + sim_below(&rng, 60));
        break;
    case 5:
        if (paused)
            resume();
        break;
    case 6:
        if (sim_chance(&rng, 10))
            run_ends();
        break;
    case 7:
        if (sim_chance(&rng, 10)) {
            sock->error = -ECONNREFUSED;
            sock->wakes_in++;
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
    for (unsigned turns = 0; in_seen < in_sent || dgram.count > 0 || sock->out.len > 0; turns++) {
        EXPECT(turns < SETTLE_TURNS);
        if (paused)
            resume();
        turn();
        remote_receives(100);
    }
    EXPECT(in_seen == in_sent);
    EXPECT(owners == 0);
    EXPECT(out_sent - out_seen <= errors);
}

static void
close_it(void)
{
    send_some();
    gy_dgram_close(&dgram);
    for (unsigned turns = 0; closes == 0; turns++) {
        EXPECT(turns < SETTLE_TURNS);
        turn();
    }
    EXPECT(closes == 1);
    EXPECT(owners == 0);
    EXPECT(!sock->open);
}

static void
run_seed(uint64_t seed)
{
    struct gy_ring_options options = {0};
    uint32_t features = GY_FEAT_ALL & ~(uint32_t)GY_FEAT_ABS_TIMER;

    current_seed = seed;
    rng.state = ~seed;
    in_sent = in_seen = out_sent = out_next = out_seen = errors = owners = closes = 0;
    usual = 100;
    paused = false;
    if (sim_chance(&rng, 20))
        features &= ~(uint32_t)GY_FEAT_UDP_GSO;
    if (sim_chance(&rng, 20))
        features &= ~(uint32_t)GY_FEAT_UDP_GRO;
    if (sim_chance(&rng, 20))
        features &= ~(uint32_t)GY_FEAT_POLL_MULTISHOT;
    sim_world_init(&world, seed, features);
    sim_world_use(&world);
    world.faults.late = sim_below(&rng, 60);
    world.faults.no_sqe = sim_below(&rng, 10);
    world.faults.end_multishot = sim_below(&rng, 30);
    sock = sim_datagrams(&world.net, 1 + sim_below(&rng, 50000));
    EXPECT(gy_loop_init(&loop, &options, sim_ring_create) == 0);
    EXPECT(gy_loop_begin(&loop) == 0);
    gy_dgram_init(&dgram, &loop, sock->fd, &host, GY_DGRAM_OFFLOAD);
    gy_dgram_resume(&dgram);
    for (unsigned i = 0; i < STEPS; i++)
        act();
    settle();
    close_it();
    EXPECT(gy_loop_quiesce(&loop, GY_NS_PER_SECOND) == 0);
    EXPECT(world.ops == 0);
    EXPECT(world.net.bad_closes == 0);
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
