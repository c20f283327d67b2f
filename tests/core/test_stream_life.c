/* test_stream_life.c: closing, quiescing, abandoning, provided buffers, and failures on the way. */
#include "gy_test_stream.h"

#include <poll.h>
#include <pthread.h>

static const enum gy_recv_policy policies[] = {GY_RECV_POLL, GY_RECV_MULTISHOT};

static bool
remote_sees_end(const struct peer *peer)
{
    char byte;
    ssize_t got = recv(peer->remote, &byte, 1, MSG_DONTWAIT);
    return got == 0 || (got < 0 && errno == ECONNRESET);
}

static void
close_before_start(void)
{
    struct gy_loop loop;
    struct peer peer;

    gy_test_loop_begin(&loop);
    peer_init(&peer, &loop, GY_RECV_POLL);
    gy_stream_resume(&peer.stream); /* only queued */
    gy_stream_close(&peer.stream);
    gy_stream_close(&peer.stream);
    CHECK_EQ(peer.closes, 0);
    CHECK(!remote_sees_end(&peer));
    (void)gy_test_turn(&loop, 0);
    CHECK_EQ(peer.closes, 1);
    CHECK_EQ(loop.counters.cancels, 0);
    CHECK(remote_sees_end(&peer));
    peer_free(&peer);
    gy_test_loop_end(&loop);
}

/* Closed from inside once the kernel has let go; what has come for others is kept, in order. */
static void
closed_at_once(void)
{
    enum { PEERS = 4 };
    struct gy_loop loop;
    struct peer peers[PEERS];

    gy_test_loop_begin(&loop);
    peers_begin(peers, PEERS, &loop);
    for (unsigned i = 0; i < PEERS; i++)
        CHECK_EQ(peers[i].stream.recv_op.state, GY_OP_INFLIGHT);
    remote_send(&peers[0], "first", 5);
    gy_stream_close_now(&peers[3].stream); /* still in flight: as gy_stream_close() */
    CHECK_EQ(peers[3].closes, 0);
    gy_stream_stop_receive(&peers[1].stream);
    gy_stream_stop_receive(&peers[2].stream);
    CHECK_EQ(gy_loop_poll(&loop, true), 0);
    gy_stream_close_now(&peers[2].stream);
    CHECK_EQ(peers[2].closes, 1);
    CHECK(remote_sees_end(&peers[2]));
    gy_stream_close_now(&peers[1].stream);
    CHECK_EQ(peers[1].closes, 1);
    CHECK(loop.ahead_count > 0 && gy_loop_has_work(&loop));
    CHECK_EQ(peers[0].in_len, 0);
    TURN_UNTIL(&loop, peers[0].in_len == 5 && peers[3].closes == 1);
    CHECK_EQ(loop.ahead_count, 0);
    gy_stream_close(&peers[0].stream);
    TURN_UNTIL(&loop, peers[0].closes == 1);
    for (unsigned i = 0; i < PEERS; i++)
        peer_free(&peers[i]);
    gy_test_loop_end(&loop);
}

/* Receive and send in flight: the FIN goes out when both have ended, without another event. */
static void
close_in_flight(void)
{
    enum { TOTAL = 8 << 20 };
    struct gy_loop loop;
    struct peer peer;
    static char bytes[1 << 16];
    ssize_t got;
    unsigned drains;

    gy_test_loop_begin(&loop);
    for (unsigned i = 0; i < 6; i++) {
        peer_init(&peer, &loop, policies[i % 2]);
        gy_stream_resume(&peer.stream);
        if (i % 3 > 0)
            CHECK_EQ(peer_write(&peer, 0, TOTAL), 0);
        (void)gy_test_turn(&loop, 0);
        CHECK_EQ(peer.stream.recv_op.state, GY_OP_INFLIGHT);
        CHECK_EQ(peer.stream.send_op.state, i % 3 > 0 ? GY_OP_INFLIGHT : GY_OP_IDLE);
        if (i % 3 == 2)
            remote_send(&peer, "late", 4); /* closing with bytes unread resets */
        drains = peer.drains;
        gy_stream_close(&peer.stream);
        CHECK_EQ(peer_write(&peer, 0, 1), -EPIPE);
        gy_stream_resume(&peer.stream); /* too late, no effect */
        TURN_UNTIL(&loop, peer.closes == 1);
        CHECK_EQ(peer.data_calls, 0);
        CHECK_EQ(peer.drains, drains);
        do
            got = recv(peer.remote, bytes, sizeof bytes, 0);
        while (got > 0);
        CHECK(got == 0 || errno == ECONNRESET);
        peer_free(&peer);
    }
    CHECK_EQ(loop.inflight - !gy_op_is_idle(&loop.wakeup.op), 0);
    gy_test_loop_end(&loop);
}

static void
close_now(struct peer *peer)
{
    gy_stream_close(&peer->stream);
    CHECK_EQ(peer->closes, 0);
    CHECK_EQ(peer->detaches, 0);
}

static void
close_inside_upcalls(void)
{
    struct gy_loop loop;
    struct peer peer;

    gy_test_loop_begin(&loop);
    for (unsigned i = 0; i < 8; i++) {
        peer_init(&peer, &loop, policies[i % 2]);
        gy_stream_resume(&peer.stream);
        switch (i / 2) {
        case 0:
            peer.on_data = close_now;
            remote_send(&peer, "x", 1);
            break;
        case 1:
            peer.on_eof = close_now;
            CHECK_EQ(shutdown(peer.remote, SHUT_WR), 0);
            break;
        case 2:
            peer.on_error = close_now;
            remote_reset(&peer);
            break;
        default:
            peer.on_drained = close_now;
            CHECK_EQ(peer_write(&peer, 0, 100), 0);
            break;
        }
        TURN_UNTIL(&loop, peer.closes == 1);
        CHECK_EQ(peer.data_calls, i / 2 == 0 ? 1 : 0);
        peer_free(&peer);
    }
    gy_test_loop_end(&loop);
}

/* A run ends and another begins, in this thread and in another: no byte is lost either way. */
struct round_trip {
    struct gy_loop *loop;
    struct peer *peer;
    size_t written;
    size_t seen;
    size_t sent;
};

static void *
one_run(void *argument)
{
    struct round_trip *trip = argument;
    static char bytes[1 << 16];
    char *pattern_bytes = pattern_new(trip->sent, 3000);

    CHECK_EQ(gy_loop_begin(trip->loop), 0);
    for (unsigned i = 0; i < 4; i++) {
        ssize_t got;
        CHECK_EQ(peer_write(trip->peer, trip->written, 1 << 20), 0);
        trip->written += 1 << 20;
        (void)gy_test_turn(trip->loop, 0);
        got = recv(trip->peer->remote, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got > 0) {
            CHECK(pattern_is(bytes, trip->seen, (size_t)got));
            trip->seen += (size_t)got;
        }
    }
    remote_send(trip->peer, pattern_bytes, 3000); /* may be in any state when the run ends */
    trip->sent += 3000;
    free(pattern_bytes);
    (void)gy_loop_poll(trip->loop, true);
    CHECK_EQ(gy_loop_quiesce(trip->loop, GY_NS_PER_SECOND), 0);
    CHECK_EQ(trip->loop->inflight, 0);
    return NULL;
}

static void
runs_and_threads(void)
{
    struct gy_loop loop;
    struct peer peer;
    struct round_trip trip = {.loop = &loop, .peer = &peer};

    gy_test_loop_begin(&loop);
    CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 0);
    for (unsigned p = 0; p < 2; p++) {
        peer_init(&peer, &loop, policies[p]);
        gy_stream_resume(&peer.stream);
        trip.written = trip.seen = trip.sent = 0;
        for (unsigned run = 0; run < 6; run++) {
            pthread_t thread;
            unsigned drains = peer.drains;
            if (run % 2 == 0) {
                (void)one_run(&trip);
            } else {
                CHECK_EQ(pthread_create(&thread, NULL, one_run, &trip), 0);
                pthread_join(thread, NULL);
            }
            CHECK(peer.drains >= drains);
        }
        CHECK_EQ(gy_loop_begin(&loop), 0);
        while (trip.seen < trip.written || peer.in_len < trip.sent) {
            static char bytes[1 << 16];
            ssize_t got = recv(peer.remote, bytes, sizeof bytes, MSG_DONTWAIT);
            if (got > 0) {
                CHECK(pattern_is(bytes, trip.seen, (size_t)got));
                trip.seen += (size_t)got;
            } else {
                (void)gy_test_turn(&loop, GY_NS_PER_SECOND / 1000);
            }
        }
        CHECK(pattern_is(peer.in, 0, trip.sent));
        TURN_UNTIL(&loop, gy_stream_queued(&peer.stream) == 0);
        CHECK(peer.drains > 0);
        peer_end(&peer);
        CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 0);
    }
    CHECK_EQ(loop.live, 0);
    gy_loop_close(&loop);
}

/* Closed outside of a run: finishes in the next one; or the loop ends before that. */
static void
abandoned(void)
{
    enum { TOTAL = 8 << 20 };
    struct gy_loop loop;
    struct peer peer[4];

    for (unsigned i = 0; i < 6; i++) {
        gy_test_loop_begin(&loop);
        for (unsigned k = 0; k < 4; k++) {
            peer_init(&peer[k], &loop, policies[k % 2]);
            gy_stream_resume(&peer[k].stream);
            if (k >= 2)
                CHECK_EQ(peer_write(&peer[k], 0, TOTAL), 0);
        }
        if (i % 3 != 0)
            (void)gy_test_turn(&loop, 0);
        gy_stream_close(&peer[1].stream);
        if (i % 2 == 0) {
            CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 0);
            gy_stream_close(&peer[2].stream);
            CHECK_EQ(peer[2].closes, 0);
        } else {
            gy_loop_close(&loop);
        }
        for (unsigned k = 0; k < 4; k++) {
            gy_stream_abandon(&peer[k].stream);
            CHECK_EQ(peer[k].closes, 0);
            CHECK_EQ(peer[k].detaches, 1);
            CHECK_EQ(peer[k].owners, 0);
            memset(&peer[k].stream, 0xcc, sizeof peer[k].stream);
        }
        gy_loop_close(&loop);
        for (unsigned k = 0; k < 4; k++) {
            static char bytes[1 << 16];
            while (recv(peer[k].remote, bytes, sizeof bytes, 0) > 0)
                ;
            peer_free(&peer[k]);
        }
        CHECK_EQ(loop.live, 0);
    }
}

static void
closed_between_runs(void)
{
    struct gy_loop loop;
    struct peer peer;

    gy_test_loop_begin(&loop);
    for (unsigned p = 0; p < 2; p++) {
        peer_init(&peer, &loop, policies[p]);
        gy_stream_resume(&peer.stream);
        (void)gy_test_turn(&loop, 0);
        if (p == 1)
            gy_stream_close(&peer.stream); /* the cancel lands while quiet */
        CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 0);
        gy_stream_close(&peer.stream);
        CHECK_EQ(peer.closes, 0);
        CHECK_EQ(gy_loop_begin(&loop), 0);
        (void)gy_test_turn(&loop, 0);
        CHECK_EQ(peer.closes, 1);
        peer_free(&peer);
    }
    gy_test_loop_end(&loop);
}

static void
interrupt_on_data(struct peer *peer)
{
    peer->stream.loop->interrupted = true;
}

/* An interrupted turn ends after the upcall; what was not delivered comes later. */
static void
interrupted(void)
{
    struct gy_loop loop;
    struct peer peer[2];
    char bytes[300];

    memset(bytes, 'i', sizeof bytes);
    gy_test_loop_begin(&loop);
    for (unsigned p = 0; p < 2; p++) {
        for (unsigned i = 0; i < 2; i++) {
            int fds[2];
            tcp_pair(fds);
            peer_init_fd(&peer[i], &loop, fds[0], fds[1], &peer_host_buffered, policies[p]);
            peer[i].named = malloc(100);
            peer[i].named_bytes = 100;
            peer[i].on_data = interrupt_on_data;
            gy_stream_resume(&peer[i].stream);
            remote_send(&peer[i], bytes, sizeof bytes);
        }
        while (peer[0].in_len + peer[1].in_len < 2 * sizeof bytes) {
            unsigned calls = peer[0].data_calls + peer[1].data_calls;
            loop.interrupted = false;
            (void)gy_test_turn(&loop, GY_NS_PER_SECOND);
            CHECK_LE(peer[0].data_calls + peer[1].data_calls, calls + 1);
        }
        loop.interrupted = false;
        peer_end(&peer[0]);
        peer_end(&peer[1]);
    }
    gy_test_loop_end(&loop);
}

/* ---- provided buffers ---- */

static void
need_multishot(const struct gy_loop *loop)
{
    if (!peer_can_multishot(loop))
        exit(GY_TEST_SKIP);
}

/* What lands while paused is held; when that is too much the receive ends; all arrives later. */
static void
held_while_paused(void)
{
    enum { SMALL = 700, ROUNDS = 2000 };
    struct gy_loop loop;
    struct peer peer;
    char *bytes = pattern_new(0, SMALL * ROUNDS);

    gy_test_loop_begin(&loop);
    need_multishot(&loop);
    peer_init(&peer, &loop, GY_RECV_MULTISHOT);
    gy_stream_resume(&peer.stream);
    remote_send(&peer, bytes, SMALL);
    TURN_UNTIL(&loop, peer.in_len == SMALL);
    gy_stream_pause(&peer.stream);
    for (unsigned i = 1; i < ROUNDS; i++) {
        remote_send(&peer, bytes + (size_t)i * SMALL, SMALL);
        (void)gy_test_turn(&loop, 0);
    }
    CHECK_EQ(peer.in_len, SMALL);
    CHECK(peer.stream.held_bytes >= GY_HOLD_BYTES_MAX);
    CHECK_LE(peer.stream.held_bytes, GY_HOLD_BYTES_MAX + 33 * GY_BUFFER_BYTES);
    CHECK(gy_op_is_idle(&peer.stream.recv_op));
    /* Short messages share buffers. */
    CHECK_LE(loop.buffers.leased, peer.stream.held_bytes / (GY_BUFFER_BYTES / 2) + 1);
    gy_stream_resume(&peer.stream);
    CHECK_EQ(peer.in_len, SMALL);
    TURN_UNTIL(&loop, peer.in_len == SMALL * ROUNDS);
    CHECK(memcmp(peer.in, bytes, peer.in_len) == 0);
    CHECK_EQ(loop.buffers.leased, 0);
    peer_end(&peer);
    free(bytes);
    gy_test_loop_end(&loop);
}

static void
end_waits_behind_held(void)
{
    struct gy_loop loop;
    struct peer peer;

    gy_test_loop_begin(&loop);
    need_multishot(&loop);
    for (unsigned i = 0; i < 3; i++) {
        peer_init(&peer, &loop, GY_RECV_MULTISHOT);
        gy_stream_resume(&peer.stream);
        (void)gy_test_turn(&loop, 0);
        gy_stream_pause(&peer.stream);
        remote_send(&peer, "held", 4);
        if (i == 2)
            TURN_UNTIL(&loop, peer.stream.held_bytes == 4); /* a reset drops what is unread */
        if (i < 2)
            remote_close(&peer);
        else
            remote_reset(&peer);
        TURN_UNTIL(&loop, peer.stream.end != 0);
        CHECK_EQ(peer.data_calls + peer.eofs + peer.errors, 0);
        if (i == 1) { /* closed with bytes held */
            gy_stream_close(&peer.stream);
            CHECK_EQ(loop.buffers.leased, 0);
            TURN_UNTIL(&loop, peer.closes == 1);
            CHECK_EQ(peer.data_calls, 0);
            peer_free(&peer);
            continue;
        }
        gy_stream_resume(&peer.stream);
        TURN_UNTIL(&loop, peer.eofs + peer.errors == 1);
        CHECK_EQ(peer.in_len, 4);
        CHECK_EQ(peer.errors, i == 2);
        peer_end(&peer);
    }
    gy_test_loop_end(&loop);
}

/* Paused streams hold most of the group: the others read on, by poll if need be. */
static void
starvation(void)
{
    enum { PAUSED = 14, CHUNK = 60 * 1000 };
    struct gy_loop loop;
    struct peer paused[PAUSED];
    struct peer busy;
    char *bytes = pattern_new(0, CHUNK);
    size_t sent = 0;

    gy_test_loop_begin(&loop);
    need_multishot(&loop);
    for (unsigned i = 0; i < PAUSED; i++) {
        peer_init(&paused[i], &loop, GY_RECV_MULTISHOT);
        gy_stream_resume(&paused[i].stream);
    }
    peer_init(&busy, &loop, GY_RECV_MULTISHOT);
    gy_stream_resume(&busy.stream);
    (void)gy_test_turn(&loop, 0);
    for (unsigned i = 0; i < PAUSED; i++) {
        gy_stream_pause(&paused[i].stream);
        /* Full buffers in a row would switch it to poll: a short one now and then keeps it. */
        for (unsigned k = 0; k < 20; k++) {
            (void)send(paused[i].remote, bytes, GY_BUFFER_BYTES + 1000, MSG_DONTWAIT);
            (void)gy_test_turn(&loop, 0);
        }
    }
    CHECK(loop.buffers.exhausted > 0);
    CHECK(loop.buffers.leased > GY_BUFFERS / 2);
    for (unsigned i = 0; i < 20; i++) {
        remote_send(&busy, bytes, 1000);
        sent += 1000;
        TURN_UNTIL(&loop, busy.in_len == sent);
    }
    peer_end(&busy);
    for (unsigned i = 0; i < PAUSED; i++) {
        size_t before = paused[i].in_len;
        gy_stream_resume(&paused[i].stream);
        TURN_UNTIL(&loop, paused[i].in_len > before);
        peer_end(&paused[i]);
    }
    CHECK_EQ(loop.buffers.leased, 0);
    free(bytes);
    gy_test_loop_end(&loop);
}

static void
switch_on_data(struct peer *peer)
{
    enum gy_recv_policy other =
        peer->stream.policy == GY_RECV_POLL ? GY_RECV_MULTISHOT : GY_RECV_POLL;
    gy_stream_set_policy(&peer->stream, other);
}

/* Changing the policy all the time loses and reorders nothing. */
static void
policies_change(void)
{
    enum { TOTAL = 200 * 1000 };
    struct gy_loop loop;
    struct peer peer;
    char *bytes = pattern_new(0, TOTAL);
    size_t sent = 0;

    gy_test_loop_begin(&loop);
    peer_init(&peer, &loop, GY_RECV_MULTISHOT);
    peer.on_data = switch_on_data;
    gy_stream_resume(&peer.stream);
    while (sent < TOTAL) {
        size_t len = 1 + sent % 997;
        if (len > TOTAL - sent)
            len = TOTAL - sent;
        remote_send(&peer, bytes + sent, len);
        sent += len;
        if (sent % 3 != 0)
            (void)gy_test_turn(&loop, 0);
    }
    remote_close(&peer);
    TURN_UNTIL(&loop, peer.eofs == 1);
    CHECK_EQ(peer.in_len, TOTAL);
    CHECK(memcmp(peer.in, bytes, TOTAL) == 0);
    peer_end(&peer);
    free(bytes);
    gy_test_loop_end(&loop);
}

/* ---- failures ---- */

#if GY_FAULTS
/* One connection with everything in it.  What fails must be told once, and balance. */
static void
scenario(struct gy_loop *loop, enum gy_recv_policy policy, bool *failed)
{
    enum { TOTAL = 3 << 20 };
    struct peer peer;
    static char bytes[1 << 16];
    size_t seen = 0;

    peer_init(&peer, loop, policy);
    gy_stream_resume(&peer.stream);
    remote_send(&peer, "hello", 5);
    for (unsigned i = 0; i < 40; i++) /* more segments than fit in the stream */
        if (peer_write(&peer, seen, TOTAL / 40) == 0)
            seen += TOTAL / 40;
        else
            *failed = true;
    gy_loop_flush_dirty(loop);
    TURN_UNTIL(loop, peer.in_len == 5 || peer.errors == 1);
    if (peer.errors == 0)
        CHECK(memcmp(peer.in, "hello", 5) == 0);
    while (peer.errors == 0 && gy_stream_queued(&peer.stream) > 0) {
        ssize_t got = recv(peer.remote, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got < 0)
            (void)gy_test_turn(loop, GY_NS_PER_SECOND / 1000);
    }
    if (peer.errors > 0) {
        *failed = true;
        CHECK_EQ(peer_write(&peer, 0, 1), -EPIPE);
    }
    peer_end(&peer);
}
#endif

#if GY_FAULTS
/* Lets the 1st, 2nd, ... question of a kind fail until there are no more. */
static void
fail_each(enum gy_fault_kind kind, int err, enum gy_recv_policy policy, unsigned failures_least)
{
    unsigned failures = 0;
    for (uint32_t nth = 1;; nth++) {
        struct gy_loop loop;
        bool failed = false;
        bool fired;
        gy_test_loop_begin(&loop);
        gy_fault_arm(kind, nth, err);
        scenario(&loop, policy, &failed);
        fired = gy_fault_fired(kind);
        gy_fault_arm(kind, 0, 0);
        failures += failed;
        gy_test_loop_end(&loop);
        if (!fired)
            break;
        CHECK_LT(nth, 3000);
    }
    CHECK_LE(failures_least, failures);
}
#endif

static void
failures_anywhere(void)
{
#if GY_FAULTS
    for (unsigned p = 0; p < 2; p++) {
        fail_each(GY_FAULT_ALLOC, -ENOMEM, policies[p], 2); /* the queue, the send block */
        /* At least the first send.  On epoll the waits of the ring are such calls, too, and one
         * that fails is a broken ring. */
        if (!gy_test_on_epoll())
            fail_each(GY_FAULT_SYSCALL, -EIO, policies[p], 1);
        /* An interrupted enter is no failure; a refused registration of buffers neither. */
        fail_each(GY_FAULT_RING, -EINTR, policies[p], 0);
    }
#else
    SKIP("needs -Dfault_injection=true");
#endif
}

/* At rest: paused, or at the end, with nothing to send; dropped at once, or with the poll. */
static void
dropped(void)
{
    struct gy_loop loop;
    struct peer peers[4];
    struct peer *fresh = &peers[0], *paused = &peers[1], *ended = &peers[2], *sends = &peers[3];

    gy_test_loop_begin(&loop);
    peers_init(peers, 4, &loop);
    CHECK(gy_stream_is_at_rest(&fresh->stream));
    for (unsigned i = 1; i < 4; i++) {
        gy_stream_resume(&peers[i].stream);
        CHECK(!gy_stream_is_at_rest(&peers[i].stream));
    }
    (void)gy_test_turn(&loop, 0);
    gy_stream_pause(&paused->stream);
    CHECK(gy_stream_is_at_rest(&paused->stream));
    CHECK_EQ(paused->stream.recv_op.state, GY_OP_INFLIGHT);
    (void)shutdown(ended->remote, SHUT_WR);
    TURN_UNTIL(&loop, ended->eofs == 1);
    CHECK(gy_stream_is_at_rest(&ended->stream));
    gy_stream_pause(&sends->stream);
    CHECK_EQ(peer_write(sends, 0, 8 << 20), 0);
    CHECK(!gy_stream_is_at_rest(&sends->stream));
    (void)gy_test_turn(&loop, 0);
    CHECK(!gy_stream_is_at_rest(&sends->stream));

    CHECK(gy_stream_drop(&fresh->stream));
    CHECK(remote_sees_end(fresh));
    CHECK(!gy_stream_drop(&paused->stream));
    CHECK(!gy_stream_is_at_rest(&paused->stream)); /* its memory is the kernel's until closed() */
    CHECK_EQ(paused->closes, 0);
    TURN_UNTIL(&loop, paused->closes == 1);
    CHECK(remote_sees_end(paused));
    if (gy_stream_drop(&ended->stream))
        CHECK_EQ(ended->closes, 0); /* as gy_stream_abandon() */
    else
        TURN_UNTIL(&loop, ended->closes == 1);
    CHECK(remote_sees_end(ended));
    gy_stream_close(&sends->stream);
    TURN_UNTIL(&loop, sends->closes == 1);
    CHECK(gy_list_empty(&loop.dirty) && loop.live == 0);
    for (unsigned i = 0; i < 4; i++)
        peer_free(&peers[i]);
    gy_test_loop_end(&loop);
}

static const struct gy_test tests[] = {
    GY_TEST(close_before_start),    GY_TEST(closed_at_once),   GY_TEST(close_in_flight),
    GY_TEST(close_inside_upcalls),  GY_TEST(runs_and_threads), GY_TEST(abandoned),
    GY_TEST(closed_between_runs),   GY_TEST(interrupted),      GY_TEST(held_while_paused),
    GY_TEST(end_waits_behind_held), GY_TEST(starvation),       GY_TEST(policies_change),
    GY_TEST(failures_anywhere),     GY_TEST(dropped),
};
GY_TEST_MAIN(tests)
