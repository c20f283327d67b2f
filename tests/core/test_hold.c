/* test_hold.c: when small sends wait for those of other callbacks, and how they leave together. */
#include "gy_test_stream.h"
#include "hold.h"
#include "ring.h"

enum { PEERS = 40, LEN = 100, QUICK_NS = 2000, SLOW_NS = 1000 * 1000 };

/* A pass of `count` callbacks that each take so long and send; how many times what was held left
 * before its end. */
static unsigned
pass(struct gy_hold *hold, unsigned count, int64_t each_ns, int64_t *now_ns)
{
    unsigned flushes = 0;
    if (!gy_hold_likely(hold, count)) {
        *now_ns += count * each_ns;
        return count;
    }
    gy_hold_begin(hold, *now_ns);
    for (unsigned i = 0; i < count; i++)
        flushes += !gy_hold_keeps(hold);
    *now_ns += count * each_ns;
    gy_hold_end(hold, count, *now_ns);
    return flushes;
}

static void
quick_ones_are_held(void)
{
    struct gy_hold hold = {.wanted = true};
    int64_t now_ns = 1;
    CHECK_EQ(pass(&hold, 10, QUICK_NS, &now_ns), 0);
    CHECK_EQ(pass(&hold, 100, QUICK_NS, &now_ns), 100 / GY_HOLD_MAX);
    CHECK_EQ(pass(&hold, GY_HOLD_MIN_PASS - 1, QUICK_NS, &now_ns), GY_HOLD_MIN_PASS - 1);
}

static void
not_wanted(void)
{
    struct gy_hold hold = {.wanted = false};
    int64_t now_ns = 1;
    CHECK_EQ(pass(&hold, 100, QUICK_NS, &now_ns), 100);
}

/* The longer they take, the fewer are held at a time. */
static void
fewer_of_longer_ones(void)
{
    struct gy_hold hold = {.wanted = true};
    int64_t now_ns = 1;
    for (unsigned i = 0; i < 100; i++)
        (void)pass(&hold, 96, 10 * 1000, &now_ns);
    CHECK_EQ(pass(&hold, 96, 10 * 1000, &now_ns), 6);
}

static unsigned
passes_without(struct gy_hold *hold, int64_t *now_ns)
{
    unsigned passes = 0;
    while (pass(hold, 30, QUICK_NS, now_ns) == 30)
        passes++;
    return passes;
}

/* A slow one ends it for some passes; one after another for more and more of them. */
static void
slow_ones_are_not(void)
{
    struct gy_hold hold = {.wanted = true};
    int64_t now_ns = 1;
    unsigned rest = 0;
    (void)pass(&hold, 30, SLOW_NS, &now_ns);
    CHECK_EQ(passes_without(&hold, &now_ns), 8);
    for (unsigned i = 0; i < 1000; i++)
        rest += pass(&hold, 30, SLOW_NS, &now_ns) == 30;
    CHECK_LT(990, rest);
}

/* ---- many streams ---- */

static void
send_all(struct peer *peers, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        CHECK_EQ(peer_write(&peers[i], 0, LEN), 0);
}

static void
receive_all(struct peer *peers, unsigned count)
{
    char bytes[LEN];
    for (unsigned i = 0; i < count; i++) {
        CHECK_EQ(recv(peers[i].remote, bytes, LEN, MSG_WAITALL), LEN);
        CHECK(pattern_is(bytes, 0, LEN));
    }
}

static bool
can_send_many(const struct gy_loop *loop)
{
    return loop->ring->ops->send_many != NULL;
}

/* What one callback wrote to many streams leaves by a call for each 32 of them. */
static void
one_callback(void)
{
    struct gy_loop loop;
    static struct peer peers[PEERS];
    uint64_t enters;
    gy_test_loop_begin(&loop);
    loop.hold.wanted = true;
    peers_init(peers, PEERS, &loop);
    for (unsigned round = 0; round < 3; round++) {
        enters = loop.ring->counters.enters;
        send_all(peers, PEERS);
        CHECK_EQ(peer_write(&peers[3], LEN, 1), 0); /* two pieces */
        for (unsigned i = 1; i < 8; i++)
            CHECK_EQ(peer_write(&peers[5], LEN * i, LEN), 0); /* too many */
        gy_loop_flush_dirty(&loop);
        if (can_send_many(&loop))
            CHECK_EQ(loop.ring->counters.enters - enters, 2);
        for (unsigned i = 0; i < PEERS; i++) {
            CHECK_EQ(gy_stream_queued(&peers[i].stream), 0);
            CHECK_EQ(peers[i].owners, 0);
            CHECK_EQ(peers[i].drains, round + 1);
        }
        receive_all(peers, PEERS);
        for (unsigned i = 0; i < 7 * LEN + 1; i++) {
            char byte;
            CHECK_EQ(recv(peers[i < 7 * LEN ? 5 : 3].remote, &byte, 1, MSG_WAITALL), 1);
            CHECK_EQ(byte, i < 7 * LEN ? pattern(LEN + i) : pattern(LEN));
        }
    }
    CHECK_EQ(loop.counters.sends_held, can_send_many(&loop) ? 3 * (PEERS - 1) : 0);
    CHECK_EQ(loop.counters.send_ops, 0);
    for (unsigned i = 0; i < PEERS; i++)
        peer_end(&peers[i]);
    gy_test_loop_end(&loop);
}

/* Each of them ends as it would alone. */
static void
full_and_broken_among_others(void)
{
    enum { COUNT = 5, FULL = 1, BROKEN = 3, MUCH = 16 << 20 };
    struct gy_loop loop;
    static struct peer peers[COUNT];
    gy_test_loop_begin(&loop);
    loop.hold.wanted = true;
    peers_init(peers, COUNT, &loop);
    remote_reset(&peers[BROKEN]);
    for (unsigned i = 0; i < COUNT; i++)
        CHECK_EQ(peer_write(&peers[i], 0, i == FULL ? MUCH : LEN), 0);
    gy_loop_flush_dirty(&loop);
    CHECK(gy_stream_queued(&peers[FULL].stream) > 0);
    CHECK_EQ(peers[FULL].errors + peers[BROKEN].drains, 0);
    TURN_UNTIL(&loop, peers[BROKEN].errors == 1);
    CHECK(peers[BROKEN].err == -ECONNRESET || peers[BROKEN].err == -EPIPE);
    receive_all(peers, 1);
    receive_all(&peers[2], 1);
    receive_all(&peers[4], 1);
    for (unsigned i = 0; i < COUNT; i++)
        peer_end(&peers[i]);
    gy_test_loop_end(&loop);
}

static struct peer *others;

static void
write_and_close_others(struct peer *peer)
{
    peer->on_drained = NULL;
    CHECK_EQ(peer_write(&others[2], 0, LEN), 0); /* its drained() is still to come */
    gy_stream_close_now(&others[1].stream);
}

/* An upcall in the middle may do anything to the streams whose sends were made by the same call. */
static void
upcalls_between(void)
{
    enum { COUNT = 4 };
    struct gy_loop loop;
    static struct peer peers[COUNT];
    gy_test_loop_begin(&loop);
    loop.hold.wanted = true;
    peers_init(peers, COUNT, &loop);
    others = peers;
    peers[0].on_drained = write_and_close_others;
    send_all(peers, COUNT);
    gy_loop_flush_dirty(&loop);
    CHECK_EQ(peers[1].closes, 1);
    CHECK_EQ(gy_stream_queued(&peers[2].stream), 0);
    for (unsigned i = 0; i < COUNT; i++) {
        if (i == 1)
            continue;
        receive_all(&peers[i], 1);
        if (i == 2)
            receive_all(&peers[i], 1);
        peer_end(&peers[i]);
    }
    remote_close(&peers[1]);
    gy_test_loop_end(&loop);
}

static void
echo_it(struct peer *peer)
{
    CHECK_EQ(peer_write(peer, 0, LEN), 0);
    gy_loop_flush_dirty(peer->stream.loop); /* the embedder, after the callback */
}

/* The answers of a reap over many streams leave together, none later than its end. */
static void
answers_of_a_reap(void)
{
    struct gy_loop loop;
    static struct peer peers[PEERS];
    gy_test_loop_begin(&loop);
    loop.hold.wanted = true;
    for (unsigned i = 0; i < PEERS; i++) {
        peer_init(&peers[i], &loop, GY_RECV_POLL);
        peers[i].on_data = echo_it;
        gy_stream_resume(&peers[i].stream);
    }
    loop.reaped = PEERS;
    for (unsigned i = 0; i < PEERS; i++)
        remote_send(&peers[i], "x", 1);
    TURN_UNTIL(&loop, peers[PEERS - 1].data_calls == 1);
    receive_all(peers, PEERS);
    CHECK_EQ(loop.counters.sends_held > 0, can_send_many(&loop));
    for (unsigned i = 0; i < PEERS; i++)
        peer_end(&peers[i]);
    gy_test_loop_end(&loop);
}

static const struct gy_test tests[] = {
    GY_TEST(quick_ones_are_held), GY_TEST(not_wanted),        GY_TEST(fewer_of_longer_ones),
    GY_TEST(slow_ones_are_not),   GY_TEST(one_callback),      GY_TEST(full_and_broken_among_others),
    GY_TEST(upcalls_between),     GY_TEST(answers_of_a_reap),
};
GY_TEST_MAIN(tests)
