/* test_sim_stream.c: streams and a listener over the simulated kernel, from many seeds.
 *
 * Each seed chooses features, faults, sizes and what everybody does.  Then everybody calms down and
 * everything that was sent must arrive, everything that was closed must be closed, and all counters
 * must balance.  GYRE_SEED=n repeats one seed; GYRE_SIM_SEEDS is not needed: argv[1] is the number
 * of seeds. */
#include "probe.h"
#include "sim_host.h"
#include "sys.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEEDS_DEFAULT = 3000, STEPS_MAX = 400, CALM_TURNS_MAX = 2000 }; /* without progress */

static struct scene scene; /* large: not on the stack */

static void
end_of_turn(void)
{
    scene.loop.interrupted = false;
    gy_loop_flush_dirty(&scene.loop);
    while (gy_loop_pop_due(&scene.loop, gy_loop_now_ns(&scene.loop)) != NULL) {
    }
    scene_check(&scene);
}

static void
turn(void)
{
    struct gy_loop *loop = &scene.loop;
    if (gy_loop_has_work(loop) || sim_chance(&scene.rng, 70)) {
        EXPECT(&scene, gy_loop_poll(loop, sim_chance(&scene.rng, 50)) == 0);
    } else {
        gy_loop_prepare_wait(loop);
        if (!gy_loop_has_work(loop))
            (void)gy_loop_wait(loop, scene.world.now_ns + 1 +
                                         (int64_t)sim_below(&scene.rng, 10 * 1000 * 1000));
        gy_loop_finish_wait(loop);
    }
    (void)gy_loop_reap(loop);
    end_of_turn();
}

/* During a wait only the remotes act. */
static void
tick(struct sim_world *world)
{
    GY_UNUSED(world);
    if (!scene.calm)
        scene_remotes_act(&scene);
    else
        scene_drain_remotes(&scene);
}

static void
rest_a_while(void)
{
    scene.quiet = true;
    EXPECT(&scene, gy_loop_quiesce(&scene.loop, GY_NS_PER_SECOND) == 0);
    scene.quiet = false;
    EXPECT(&scene, scene.loop.inflight == 0);
    EXPECT(&scene, scene.world.ops == 0);
    /* Outside of a run the host may call everything. */
    for (uint32_t i = sim_below(&scene.rng, 4); i > 0; i--) {
        scene_act(&scene);
        scene_remotes_act(&scene);
    }
    EXPECT(&scene, gy_loop_begin(&scene.loop) == 0);
}

static void
choose_faults(void)
{
    struct sim_faults *faults = &scene.world.faults;
    if (sim_chance(&scene.rng, 20))
        return; /* a fine day */
    faults->late = sim_below(&scene.rng, 60);
    faults->end_multishot = sim_below(&scene.rng, 20);
    faults->no_sqe = sim_below(&scene.rng, 10);
    faults->interrupt = sim_below(&scene.rng, 5);
    faults->poll_fails = sim_chance(&scene.rng, 20) ? 2 : 0;
    faults->no_buffers = sim_below(&scene.rng, 15);
    faults->accept_fails = sim_below(&scene.rng, 20);
}

/* Everybody stops doing new things; what is open reads and is read.  `ending`: the remotes also end
 * their side.  Before that no FIN wakes what a lost edge would have left asleep. */
static void
calm_down(bool ending)
{
    scene.calm = true;
    memset(&scene.world.faults, 0, sizeof(scene.world.faults));
    for (uint32_t i = 0; i < scene.count; i++) {
        struct connection *connection = &scene.connections[i];
        if (ending)
            sim_remote_shutdown(&scene.world.net, connection->socket);
        if (connection->close_called || connection->error)
            continue;
        scene_read(connection);
    }
}

static bool
is_settled(const struct connection *connection)
{
    const struct sim_socket *socket = connection->socket;
    if (connection->closed || (connection->error && !connection->close_called))
        return true;
    if (connection->close_called)
        return false;
    /* A reset may be told by eof() as well, when a send took the error. */
    if (!connection->eof && (socket->in_fin || socket->reset))
        return false;
    if (connection->lossy)
        return connection->owners == 0 || socket->reset;
    return connection->in_seen == connection->in_sent &&
           connection->out_seen == connection->out_written && connection->owners == 0 &&
           !connection->awaits_drain && socket->out_fin == connection->shut_called;
}

static bool
all_settled(void)
{
    for (uint32_t i = 0; i < scene.count; i++)
        if (!is_settled(&scene.connections[i]))
            return false;
    if (scene.listener_socket == NULL)
        return true;
    return scene.listener_open ? scene.listener_socket->backlog_count == 0 : scene.listener_closed;
}

/* Bytes and connections that got where they belong. */
static uint64_t
progress(void)
{
    uint64_t sum = scene.count;
    for (uint32_t i = 0; i < scene.count; i++)
        sum += scene.connections[i].in_seen + scene.connections[i].out_seen +
               scene.connections[i].closed;
    return sum;
}

static void
settle(bool ending)
{
    uint32_t turns = 0;
    uint32_t known = scene.count;
    uint64_t before;

    calm_down(ending);
    while (!all_settled()) {
        EXPECT(&scene, turns++ < CALM_TURNS_MAX);
        before = progress();
        scene_drain_remotes(&scene);
        turn();
        if (progress() != before)
            turns = 0;
        if (scene.count > known) { /* accepted meanwhile: it calms down as well */
            known = scene.count;
            calm_down(ending);
        }
    }
}

static void
close_listener(void)
{
    if (!scene.listener_open)
        return;
    scene.listener_open = false;
    gy_listener_close(&scene.listener);
    EXPECT(&scene, !scene.listener_socket->open);
}

/* Three ways to go: by the close machine, or dropped before or after the end of the loop. */
static void
end_by_closing(void)
{
    close_listener();
    for (uint32_t i = 0; i < scene.count; i++)
        scene_close(&scene.connections[i]);
    for (uint32_t turns = 0; scene.loop.live > 0; turns++) {
        EXPECT(&scene, turns < CALM_TURNS_MAX);
        turn();
    }
    EXPECT(&scene, scene.loop.buffers.leased == 0);
    scene.quiet = true;
    (void)gy_loop_quiesce(&scene.loop, GY_NS_PER_SECOND);
    gy_loop_close(&scene.loop);
    for (uint32_t i = 0; i < scene.count; i++)
        EXPECT(&scene, scene.connections[i].closed);
    EXPECT(&scene, scene.world.net.opened == scene.world.net.closed);
}

static void
abandon_all(void)
{
    for (uint32_t i = 0; i < scene.count; i++) {
        struct connection *connection = &scene.connections[i];
        if (connection->closed)
            continue;
        connection->close_called = true;
        gy_stream_abandon(&connection->stream);
        EXPECT(&scene, connection->owners == 0);
        memset(&connection->stream, 0xcc, sizeof(connection->stream));
    }
    if (scene.listener_socket != NULL && !scene.listener_closed) {
        scene.listener_open = false;
        gy_listener_abandon(&scene.listener);
        memset(&scene.listener, 0xcc, sizeof(scene.listener));
    }
}

static void
end_by_abandoning(bool close_first)
{
    scene.calm = true;
    scene.quiet = true;
    if (!close_first)
        EXPECT(&scene, gy_loop_quiesce(&scene.loop, GY_NS_PER_SECOND) == 0);
    else
        gy_loop_close(&scene.loop);
    scene.quiet = false;
    abandon_all();
    gy_loop_close(&scene.loop);
    EXPECT(&scene, scene.loop.buffers.leased == 0);
    if (!close_first)
        EXPECT(&scene, scene.world.net.opened == scene.world.net.closed);
}

static void
run_seed(uint64_t seed)
{
    struct sim_rng rng = {.state = seed};
    uint32_t features = GY_FEAT_ALL & ~(uint32_t)GY_FEAT_ABS_TIMER;
    uint32_t steps;
    uint32_t way;

    for (uint32_t bit = 1; bit <= GY_FEAT_ALL; bit <<= 1)
        if (sim_chance(&rng, 20))
            features &= ~bit;
    scene_init(&scene, seed, features);
    choose_faults();
    scene.world.tick = tick;
    EXPECT(&scene, gy_loop_begin(&scene.loop) == 0);
    if (sim_chance(&scene.rng, 40))
        scene_listen(&scene);
    for (uint32_t i = 1 + sim_below(&scene.rng, 5); i > 0; i--)
        scene_connect(&scene);
    steps = sim_size(&scene.rng, STEPS_MAX);
    for (uint32_t i = 0; i < steps; i++) {
        scene_act(&scene);
        scene_remotes_act(&scene);
        if (sim_chance(&scene.rng, 40))
            turn();
        if (sim_chance(&scene.rng, 2))
            rest_a_while();
    }
    way = sim_below(&scene.rng, 4);
    if (way < 2) {
        settle(false);
        settle(true);
        end_by_closing();
    } else {
        end_by_abandoning(way == 3);
    }
    scene_deinit(&scene);
}

int
main(int argc, char **argv)
{
    const char *one = getenv("GYRE_SEED");
    uint64_t count = sim_seeds(argc > 1 ? argv[1] : NULL, SEEDS_DEFAULT);
    uint64_t fresh = (uint64_t)gy_sys_now_ns();
    uint64_t upcalls = 0;

    if (one != NULL) {
        run_seed(strtoull(one, NULL, 10));
        return 0;
    }
    for (uint64_t i = 0; i < count; i++) {
        run_seed(i % 2 == 0 ? i : fresh + i);
        upcalls += scene.data_calls;
    }
    printf("%" PRIu64 " seeds, half of them from %" PRIu64 ", %" PRIu64 " data upcalls\n", count,
           fresh, upcalls);
    return 0;
}
