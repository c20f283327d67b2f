/* test_pipe.c: streams over the ends of pipes: GY_STREAM_PIPE and GY_STREAM_WATCH. */
#include "gy_test_stream.h"

#include <signal.h>

enum {
    READ_FLAGS = GY_STREAM_PIPE | GY_STREAM_READ_OUT,
    WRITE_FLAGS = GY_STREAM_PIPE | GY_STREAM_WATCH
};

static void
pipe_init(struct peer *peer, struct gy_loop *loop, bool writes, int pipe_flags)
{
    int fds[2];
    CHECK_EQ(pipe2(fds, O_CLOEXEC | pipe_flags), 0);
    peer_init_fd(peer, loop, fds[writes], fds[!writes], &peer_host, GY_RECV_POLL);
    peer->stream.flags |= writes ? WRITE_FLAGS : READ_FLAGS;
    gy_stream_resume(&peer->stream);
}

static void
pipe_end(struct peer *peer, struct gy_loop *loop)
{
    gy_stream_close(&peer->stream);
    TURN_UNTIL(loop, peer->closes == 1);
    peer_free(peer);
}

static void
remote_write(const struct peer *peer, const char *text)
{
    CHECK_EQ(write(peer->remote, text, strlen(text)), strlen(text));
}

static void
read_to_the_end(void)
{
    struct gy_loop loop;
    struct peer peer;

    gy_test_loop_begin(&loop);
    pipe_init(&peer, &loop, false, 0);
    for (unsigned i = 1; i <= 100; i++) {
        remote_write(&peer, "hello");
        TURN_UNTIL(&loop, peer.in_len == 5 * i);
    }
    remote_write(&peer, "end");
    remote_close(&peer);
    TURN_UNTIL(&loop, peer.eofs == 1);
    CHECK_EQ(peer.in_len, 503);
    CHECK_EQ(peer.errors, 0);
    pipe_end(&peer, &loop);
    gy_test_loop_end(&loop);
}

/* One read gives one packet, however much room there is. */
static void
packets(void)
{
    struct gy_loop loop;
    struct peer peer;

    gy_test_loop_begin(&loop);
    pipe_init(&peer, &loop, false, O_DIRECT);
    (void)gy_test_turn(&loop, 0);
    for (unsigned i = 0; i < 12; i++)
        remote_write(&peer, "packet");
    TURN_UNTIL(&loop, peer.in_len == 72);
    CHECK_EQ(peer.data_calls, 12);
    pipe_end(&peer, &loop);
    gy_test_loop_end(&loop);
}

static void
pause_and_resume(void)
{
    struct gy_loop loop;
    struct peer peer;

    gy_test_loop_begin(&loop);
    pipe_init(&peer, &loop, false, 0);
    gy_stream_pause(&peer.stream);
    remote_write(&peer, "later");
    for (unsigned i = 0; i < 5; i++)
        (void)gy_test_turn(&loop, 0);
    CHECK_EQ(peer.in_len, 0);
    gy_stream_resume(&peer.stream);
    TURN_UNTIL(&loop, peer.in_len == 5);
    gy_stream_pause(&peer.stream);
    remote_close(&peer);
    for (unsigned i = 0; i < 5; i++)
        (void)gy_test_turn(&loop, 0);
    CHECK_EQ(peer.eofs, 0);
    gy_stream_resume(&peer.stream);
    TURN_UNTIL(&loop, peer.eofs == 1);
    pipe_end(&peer, &loop);
    gy_test_loop_end(&loop);
}

/* Takes what is in the pipe. */
static size_t
remote_read(const struct peer *peer, size_t start)
{
    static char bytes[1 << 17];
    ssize_t got = read(peer->remote, bytes, sizeof bytes);
    CHECK(got >= 0 || errno == EAGAIN);
    if (got <= 0)
        return 0;
    CHECK(pattern_is(bytes, start, (size_t)got));
    return (size_t)got;
}

static void
write_more_than_fits(void)
{
    enum { TOTAL = 1 << 20, PART = 100000 };
    struct gy_loop loop;
    struct peer peer;
    size_t queued = 0;
    size_t seen = 0;

    gy_test_loop_begin(&loop);
    pipe_init(&peer, &loop, true, 0);
    set_nonblocking(peer.remote);
    while (queued < TOTAL) {
        size_t part = TOTAL - queued < PART ? TOTAL - queued : PART;
        CHECK_EQ(peer_write(&peer, queued, part), 0);
        queued += part;
    }
    gy_loop_flush_dirty(&loop);
    CHECK(gy_stream_queued(&peer.stream) < TOTAL);
    CHECK_EQ(gy_stream_try_write(&peer.stream, "x", 1), 0); /* not before the others */
    TURN_UNTIL(&loop, (seen += remote_read(&peer, seen)) == TOTAL);
    TURN_UNTIL(&loop, gy_stream_queued(&peer.stream) == 0);
    CHECK_LE(1, peer.drains);
    CHECK_EQ(peer.owners, 0);
    CHECK_EQ(peer.eofs + peer.errors, 0);
    CHECK(gy_op_is_idle(&peer.stream.send_op));
    CHECK_EQ(gy_stream_try_write(&peer.stream, "x", 1), 1);
    pipe_end(&peer, &loop);
    gy_test_loop_end(&loop);
}

/* The reader goes: told at once when nothing is queued, by an error or the end when something is.
 */
static void
reader_goes(void)
{
    struct gy_loop loop;
    struct peer peer;

    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    gy_test_loop_begin(&loop);
    for (unsigned i = 0; i < 4; i++) {
        pipe_init(&peer, &loop, true, 0);
        if (i % 2 == 1)
            CHECK_EQ(peer_write(&peer, 0, 1 << 20), 0);
        gy_loop_flush_dirty(&loop);
        if (i / 2 == 1)
            (void)gy_test_turn(&loop, 0);
        remote_close(&peer);
        TURN_UNTIL(&loop, peer.eofs + peer.errors > 0);
        if (i % 2 == 0)
            CHECK_EQ(peer.eofs, 1);
        else if (peer.errors > 0)
            CHECK_EQ(peer.err, -EPIPE);
        pipe_end(&peer, &loop);
    }
    pipe_init(&peer, &loop, true, 0);
    remote_close(&peer);
    CHECK_EQ(gy_stream_try_write(&peer.stream, "x", 1), -EPIPE);
    TURN_UNTIL(&loop, peer.errors == 1);
    CHECK_EQ(peer.eofs, 0);
    pipe_end(&peer, &loop);
    gy_test_loop_end(&loop);
}

/* What goes on between two runs is seen by the next. */
static void
runs(void)
{
    struct gy_loop loop;
    struct peer in;
    struct peer out;
    size_t seen = 0;

    gy_test_loop_begin(&loop);
    pipe_init(&in, &loop, false, 0);
    pipe_init(&out, &loop, true, 0);
    set_nonblocking(out.remote);
    CHECK_EQ(peer_write(&out, 0, 300000), 0);
    gy_loop_flush_dirty(&loop);
    for (unsigned i = 1; i <= 4; i++) {
        (void)gy_test_turn(&loop, 0);
        CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 0);
        CHECK_EQ(loop.inflight, 0);
        remote_write(&in, "x");
        seen += remote_read(&out, seen);
        CHECK_EQ(in.in_len, i - 1);
        CHECK_EQ(gy_loop_begin(&loop), 0);
        TURN_UNTIL(&loop, in.in_len == i);
    }
    TURN_UNTIL(&loop, (seen += remote_read(&out, seen)) == 300000);
    CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 0);
    remote_close(&in);
    remote_close(&out);
    CHECK_EQ(gy_loop_begin(&loop), 0);
    TURN_UNTIL(&loop, in.eofs == 1 && out.eofs == 1);
    pipe_end(&in, &loop);
    pipe_end(&out, &loop);
    gy_test_loop_end(&loop);
}

static void
close_in_flight(void)
{
    struct gy_loop loop;
    struct peer peer;

    gy_test_loop_begin(&loop);
    for (unsigned i = 0; i < 4; i++) {
        pipe_init(&peer, &loop, i % 2 == 1, 0);
        if (i % 2 == 1)
            CHECK_EQ(peer_write(&peer, 0, 1 << 20), 0);
        gy_loop_flush_dirty(&loop);
        (void)gy_test_turn(&loop, 0);
        CHECK_EQ(peer.stream.recv_op.state, GY_OP_INFLIGHT);
        CHECK_EQ(peer.stream.send_op.state, i % 2 == 1 ? GY_OP_INFLIGHT : GY_OP_IDLE);
        if (i >= 2) {
            gy_stream_close(&peer.stream);
            TURN_UNTIL(&loop, peer.closes == 1);
        } else {
            CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 0);
            gy_stream_abandon(&peer.stream);
            CHECK_EQ(gy_loop_begin(&loop), 0);
        }
        CHECK_EQ(peer.owners, 0);
        CHECK_EQ(peer.detaches, 1);
        peer_free(&peer);
    }
    gy_test_loop_end(&loop);
}

static const struct gy_test tests[] = {
    GY_TEST(read_to_the_end),      GY_TEST(packets),     GY_TEST(pause_and_resume),
    GY_TEST(write_more_than_fits), GY_TEST(reader_goes), GY_TEST(runs),
    GY_TEST(close_in_flight),
};
GY_TEST_MAIN(tests)
