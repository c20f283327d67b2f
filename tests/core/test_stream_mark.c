/* test_stream_mark.c: urgent data, where a receive is short and the socket is not empty. */
#include "gy_test_stream.h"

static void
send_around_mark(struct peer *peer)
{
    remote_send(peer, "before", 6);
    CHECK_EQ(send(peer->remote, "!", 1, MSG_OOB), 1);
    remote_send(peer, "after", 5);
}

static void
expect_bytes(struct gy_loop *loop, struct peer *peer, const char *bytes)
{
    int64_t end_ns = gy_sys_now_ns() + 5 * GY_NS_PER_SECOND;
    size_t len = strlen(bytes);
    while (peer->in_len < len) {
        CHECK_LT(gy_sys_now_ns(), end_ns);
        (void)gy_test_turn(loop, GY_NS_PER_SECOND);
    }
    CHECK_EQ(peer->in_len, len);
    CHECK(memcmp(peer->in, bytes, len) == 0);
}

static void
begin(struct gy_loop *loop, struct peer *peer)
{
    gy_test_loop_begin(loop);
    peer_init(peer, loop, GY_RECV_POLL);
    gy_stream_resume(&peer->stream);
    (void)gy_test_turn(loop, 0);
}

static void
read_on_behind_it(void)
{
    struct gy_loop loop;
    struct peer peer;

    begin(&loop, &peer);
    send_around_mark(&peer);
    expect_bytes(&loop, &peer, "beforeafter");
    send_around_mark(&peer);
    expect_bytes(&loop, &peer, "beforeafterbeforeafter");
    peer_end(&peer);
    gy_test_loop_end(&loop);
}

/* A loop at rest stays at rest: one that sleeps has no deadline for it. */
static void
asked_before_sleep(void)
{
    struct gy_loop loop;
    struct peer peer;

    begin(&loop, &peer);
    for (unsigned i = 1; i <= 5; i++) {
        remote_send(&peer, "x", 1);
        TURN_UNTIL(&loop, peer.in_len == i);
    }
    CHECK_EQ(loop.short_count, 1);
    gy_loop_prepare_wait(&loop);
    gy_loop_finish_wait(&loop);
    CHECK_EQ(loop.short_count, 0);
    CHECK_EQ(loop.mark_due_ns, GY_NS_NEVER);
    CHECK_EQ(loop.counters.recv_calls, 5);
    peer_end(&peer);
    gy_test_loop_end(&loop);
}

/* More streams than are asked before each sleep: all of them read on, at the latest a moment later.
 */
static void
many_streams(void)
{
    enum { STREAMS = GY_MARK_FEW * 2 };
    struct gy_loop loop;
    struct peer peers[STREAMS];

    gy_test_loop_begin(&loop);
    peers_begin(peers, STREAMS, &loop);
    for (unsigned i = 0; i < STREAMS; i++)
        send_around_mark(&peers[i]);
    for (unsigned i = 0; i < STREAMS; i++)
        expect_bytes(&loop, &peers[i], "beforeafter");
    for (unsigned i = 0; i < STREAMS; i++)
        peer_end(&peers[i]);
    CHECK_EQ(loop.short_count, 0);
    CHECK_EQ(loop.mark_due_ns, GY_NS_NEVER);
    gy_test_loop_end(&loop);
}

/* The same for a loop that never sleeps. */
static void
busy_loop(void)
{
    struct gy_loop loop;
    struct peer peer;
    int64_t end_ns = gy_sys_now_ns() + 5 * GY_NS_PER_SECOND;

    begin(&loop, &peer);
    send_around_mark(&peer);
    while (peer.in_len < 11) {
        CHECK_LT(gy_sys_now_ns(), end_ns);
        (void)gy_test_turn(&loop, 0);
    }
    CHECK(memcmp(peer.in, "beforeafter", 11) == 0);
    peer_end(&peer);
    gy_test_loop_end(&loop);
}

static void
paused_at_it(void)
{
    struct gy_loop loop;
    struct peer peer;

    begin(&loop, &peer);
    peer.on_data = pause_on_data;
    send_around_mark(&peer);
    expect_bytes(&loop, &peer, "before");
    while (loop.short_count > 0)
        (void)gy_test_turn(&loop, GY_NS_PER_SECOND / 100);
    CHECK_EQ(peer.in_len, 6);
    gy_stream_resume(&peer.stream);
    expect_bytes(&loop, &peer, "beforeafter");
    peer_end(&peer);
    gy_test_loop_end(&loop);
}

static void
closed_at_it(void)
{
    struct gy_loop loop;
    struct peer peer;

    begin(&loop, &peer);
    send_around_mark(&peer);
    TURN_UNTIL(&loop, peer.in_len > 0);
    CHECK(gy_list_linked(&peer.stream.short_read));
    peer_end(&peer);
    CHECK(gy_list_empty(&loop.short_reads));
    while (loop.short_count > 0)
        (void)gy_test_turn(&loop, GY_NS_PER_SECOND / 100);
    gy_test_loop_end(&loop);
}

static const struct gy_test tests[] = {
    GY_TEST(read_on_behind_it), GY_TEST(asked_before_sleep), GY_TEST(many_streams),
    GY_TEST(busy_loop),         GY_TEST(paused_at_it),       GY_TEST(closed_at_it),
};
GY_TEST_MAIN(tests)
