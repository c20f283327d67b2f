/* test_stream.c: streams over real sockets: receiving, sending, ends of all kinds.
 * The life cycle (close, quiesce, abandon, faults) is in test_stream_life.c. */
#include "gy_test_stream.h"

#include <pthread.h>

static const enum gy_recv_policy policies[] = {GY_RECV_POLL, GY_RECV_MULTISHOT};

static void
echo_on_data(struct peer *peer)
{
    ssize_t sent = gy_stream_try_write(&peer->stream, peer->in, peer->in_len);
    CHECK_EQ(sent, peer->in_len);
    peer->in_len = 0;
}

static void
echo(void)
{
    struct gy_loop loop;
    struct peer peer;
    char answer[64];

    gy_test_loop_begin(&loop);
    for (unsigned p = 0; p < 2; p++) {
        peer_init(&peer, &loop, policies[p]);
        peer.on_data = echo_on_data;
        gy_stream_resume(&peer.stream);
        for (unsigned i = 0; i < 200; i++) {
            unsigned calls = peer.data_calls;
            remote_send(&peer, "hello", 5);
            TURN_UNTIL(&loop, peer.data_calls > calls);
            CHECK_EQ(recv(peer.remote, answer, sizeof answer, 0), 5);
            CHECK(memcmp(answer, "hello", 5) == 0);
        }
        CHECK_EQ(peer.data_calls, 200);
        peer_end(&peer);
    }
    gy_test_loop_end(&loop);
}

/* A message costs one receive: the short read is known to have emptied the socket. */
static void
one_receive_per_message(void)
{
    struct gy_loop loop;
    struct peer peer;

    gy_test_loop_begin(&loop);
    peer_init(&peer, &loop, GY_RECV_POLL);
    gy_stream_resume(&peer.stream);
    (void)gy_test_turn(&loop, 0);
    for (unsigned i = 1; i <= 50; i++) {
        remote_send(&peer, "x", 1);
        TURN_UNTIL(&loop, peer.in_len == i);
    }
    CHECK_EQ(peer.data_calls, 50);
    CHECK_EQ(loop.counters.recv_calls, 50);
    peer_end(&peer);
    gy_test_loop_end(&loop);
}

enum fin_timing { FIN_BEFORE_ARM, FIN_WITH_DATA, FIN_IN_SEGMENT, FIN_AFTER_DATA, FIN_TIMINGS };

static void
send_and_end(struct peer *peer, enum fin_timing timing, struct gy_loop *loop)
{
    if (timing == FIN_IN_SEGMENT) {
        CHECK_EQ(send(peer->remote, "data", 4, MSG_MORE), 4);
    } else {
        remote_send(peer, "data", 4);
    }
    if (timing == FIN_AFTER_DATA)
        (void)gy_loop_poll(loop, true); /* the poll has fired, the data is not yet read */
    CHECK_EQ(shutdown(peer->remote, SHUT_WR), 0);
}

/* Whenever the FIN comes, the data comes before it and the end is seen. */
static void
data_and_fin(void)
{
    struct gy_loop loop;
    struct peer peer;

    gy_test_loop_begin(&loop);
    for (unsigned i = 0; i < 40 * FIN_TIMINGS; i++) {
        enum fin_timing timing = i % FIN_TIMINGS;
        peer_init(&peer, &loop, policies[i / FIN_TIMINGS % 2]);
        if (timing == FIN_BEFORE_ARM)
            send_and_end(&peer, timing, &loop);
        gy_stream_resume(&peer.stream);
        if (timing != FIN_BEFORE_ARM) {
            (void)gy_test_turn(&loop, 0);
            send_and_end(&peer, timing, &loop);
        }
        TURN_UNTIL(&loop, peer.eofs == 1);
        CHECK_EQ(peer.in_len, 4);
        CHECK_EQ(peer.errors, 0);
        peer_end(&peer);
    }
    gy_test_loop_end(&loop);
}

/* The receive that is short and the FIN that comes just after it, with nothing in between. */
static void
shut_remote_on_data(struct peer *peer)
{
    CHECK_EQ(shutdown(peer->remote, SHUT_WR), 0);
}

static void
fin_during_data(void)
{
    struct gy_loop loop;
    struct peer peer;

    gy_test_loop_begin(&loop);
    for (unsigned i = 0; i < 40; i++) {
        peer_init(&peer, &loop, policies[i % 2]);
        peer.on_data = shut_remote_on_data;
        gy_stream_resume(&peer.stream);
        remote_send(&peer, "x", 1);
        TURN_UNTIL(&loop, peer.eofs == 1);
        peer_end(&peer);
    }
    gy_test_loop_end(&loop);
}

static void
close_on_eof(struct peer *peer)
{
    gy_stream_close(&peer->stream);
    CHECK_EQ(peer->closes, 0);
}

/* Full-size receives and a FIN behind them: the buffer is filled exactly, nothing says "short". */
static void
fin_after_full_reads(void)
{
    struct gy_loop loop;
    struct peer peer;
    char bytes[4096];
    int fds[2];

    memset(bytes, 'b', sizeof bytes);
    gy_test_loop_begin(&loop);
    for (unsigned i = 0; i < 20; i++) {
        tcp_pair(fds);
        peer_init_fd(&peer, &loop, fds[0], fds[1], &peer_host_buffered, GY_RECV_POLL);
        peer.named = malloc(64);
        peer.named_bytes = 64;
        peer.on_eof = close_on_eof;
        gy_stream_resume(&peer.stream);
        if (i % 2 == 0)
            (void)gy_test_turn(&loop, 0);
        remote_send(&peer, bytes, sizeof bytes);
        remote_close(&peer);
        TURN_UNTIL(&loop, peer.closes == 1);
        CHECK_EQ(peer.in_len, sizeof bytes);
        CHECK_EQ(peer.eofs, 1);
        peer_free(&peer);
    }
    gy_test_loop_end(&loop);
}

static void
reset(void)
{
    struct gy_loop loop;
    struct peer peer;

    gy_test_loop_begin(&loop);
    for (unsigned i = 0; i < 20; i++) {
        peer_init(&peer, &loop, policies[i % 2]);
        gy_stream_resume(&peer.stream);
        (void)gy_test_turn(&loop, 0);
        remote_send(&peer, "last", 4);
        if (i & 2)
            TURN_UNTIL(&loop, peer.in_len == 4);
        remote_reset(&peer);
        TURN_UNTIL(&loop, peer.errors == 1);
        CHECK_EQ(peer.err, -ECONNRESET);
        CHECK_EQ(peer.eofs, 0);
        CHECK_EQ(peer_write(&peer, 0, 10), -EPIPE);
        CHECK_EQ(gy_stream_try_write(&peer.stream, "x", 1), -EPIPE);
        peer_end(&peer);
    }
    gy_test_loop_end(&loop);
}

/* Reads what is there from the other end and checks it against the pattern. */
static size_t
remote_read(struct peer *peer, size_t seen)
{
    static char bytes[1 << 16];
    ssize_t got = recv(peer->remote, bytes, sizeof bytes, MSG_DONTWAIT);
    if (got < 0) {
        CHECK_EQ(errno, EAGAIN);
        return 0;
    }
    CHECK(pattern_is(bytes, seen, (size_t)got));
    return (size_t)got;
}

/* The remote has ended its side: ours goes on, with more than the socket holds. */
static void
half_closed_by_remote(void)
{
    enum { TOTAL = 6 << 20, SEGMENT = 100 * 1000 };
    struct gy_loop loop;
    struct peer peer;
    size_t seen = 0;
    char byte;

    gy_test_loop_begin(&loop);
    peer_init(&peer, &loop, GY_RECV_POLL);
    gy_stream_resume(&peer.stream);
    CHECK_EQ(shutdown(peer.remote, SHUT_WR), 0);
    TURN_UNTIL(&loop, peer.eofs == 1);
    for (size_t start = 0; start < TOTAL; start += SEGMENT)
        CHECK_EQ(peer_write(&peer, start, TOTAL - start < SEGMENT ? TOTAL - start : SEGMENT), 0);
    (void)gy_stream_shutdown_write(&peer.stream); /* after all of it */
    CHECK_EQ(gy_stream_queued(&peer.stream), TOTAL);
    CHECK_EQ(peer_write(&peer, 0, 1), -EPIPE);
    while (seen < TOTAL) {
        size_t got = remote_read(&peer, seen);
        seen += got;
        if (got == 0)
            (void)gy_test_turn(&loop, GY_NS_PER_SECOND / 1000);
    }
    TURN_UNTIL(&loop, gy_stream_queued(&peer.stream) == 0);
    CHECK_EQ(recv(peer.remote, &byte, 1, 0), 0);
    CHECK_EQ(peer.owners, 0);
    CHECK(peer.drains > 0);
    CHECK_EQ(peer.errors, 0);
    CHECK(loop.counters.send_ops > 0);
    CHECK_EQ(loop.counters.bytes_out, TOTAL);
    peer_end(&peer);
    gy_test_loop_end(&loop);
}

/* Its socket is full and the remote, half closed, does not read: nothing to do, so nothing is done.
 */
static void
half_closed_and_full(void)
{
    enum { TOTAL = 16 << 20 };
    struct gy_loop loop;
    struct peer peer;
    int64_t end_ns;
    unsigned turns = 0;

    gy_test_loop_begin(&loop);
    if (!(loop.features & GY_FEAT_POLL_MULTISHOT)) {
        gy_test_loop_end(&loop);
        SKIP("a one-shot poll reports POLLRDHUP again and again");
    }
    peer_init(&peer, &loop, GY_RECV_POLL);
    gy_stream_resume(&peer.stream);
    CHECK_EQ(shutdown(peer.remote, SHUT_WR), 0);
    TURN_UNTIL(&loop, peer.eofs == 1);
    CHECK_EQ(peer_write(&peer, 0, TOTAL), 0);
    end_ns = gy_sys_now_ns() + GY_NS_PER_SECOND / 5;
    while (gy_sys_now_ns() < end_ns) {
        (void)gy_test_turn(&loop, GY_NS_PER_SECOND / 20);
        turns++;
    }
    CHECK(gy_stream_queued(&peer.stream) > 0);
    CHECK_LT(turns, 40);
    CHECK_LT(loop.counters.send_calls + loop.counters.send_ops, 40);
    peer_end(&peer);
    gy_test_loop_end(&loop);
}

static void
half_closed_by_us(void)
{
    struct gy_loop loop;
    struct peer peer;
    char bytes[16];

    gy_test_loop_begin(&loop);
    for (unsigned p = 0; p < 2; p++) {
        peer_init(&peer, &loop, policies[p]);
        gy_stream_resume(&peer.stream);
        CHECK_EQ(peer_write(&peer, 0, 10), 0);
        (void)gy_stream_shutdown_write(&peer.stream);
        (void)gy_stream_shutdown_write(&peer.stream);
        gy_loop_flush_dirty(&loop);
        CHECK_EQ(recv(peer.remote, bytes, sizeof bytes, MSG_WAITALL), 10);
        CHECK_EQ(recv(peer.remote, bytes, sizeof bytes, 0), 0);
        remote_send(&peer, "still here", 10);
        TURN_UNTIL(&loop, peer.in_len == 10);
        remote_close(&peer);
        TURN_UNTIL(&loop, peer.eofs == 1);
        CHECK_EQ(peer.errors, 0);
        peer_end(&peer);
    }
    gy_test_loop_end(&loop);
}

/* Pausing inside data() holds at once, whatever is in the socket or in the completion queue. */
static void
pause_inside_data(void)
{
    struct gy_loop loop;
    struct peer peer;
    char bytes[1000];

    memset(bytes, 'p', sizeof bytes);
    gy_test_loop_begin(&loop);
    for (unsigned p = 0; p < 2; p++) {
        int fds[2];
        size_t total = 0;
        tcp_pair(fds);
        peer_init_fd(&peer, &loop, fds[0], fds[1], &peer_host_buffered, policies[p]);
        peer.named = malloc(100);
        peer.named_bytes = 100;
        peer.on_data = pause_on_data;
        gy_stream_resume(&peer.stream);
        (void)gy_test_turn(&loop, 0);
        for (unsigned i = 0; i < 5; i++) {
            remote_send(&peer, bytes, sizeof bytes);
            total += sizeof bytes;
        }
        for (unsigned calls = 1; peer.in_len < total; calls++) {
            TURN_UNTIL(&loop, peer.data_calls == calls);
            for (unsigned i = 0; i < 3; i++)
                (void)gy_test_turn(&loop, 0);
            CHECK_EQ(peer.data_calls, calls);
            gy_stream_resume(&peer.stream);
            CHECK_EQ(peer.data_calls, calls); /* not from inside */
        }
        gy_stream_pause(&peer.stream);
        CHECK_EQ(peer.in_len, total);
        remote_close(&peer);
        for (unsigned i = 0; i < 5; i++)
            (void)gy_test_turn(&loop, 0);
        CHECK_EQ(peer.eofs, 0); /* the end is data, too: it waits */
        gy_stream_resume(&peer.stream);
        TURN_UNTIL(&loop, peer.eofs == 1);
        gy_stream_resume(&peer.stream); /* was not paused */
        for (unsigned i = 0; i < 5; i++)
            (void)gy_test_turn(&loop, 0);
        CHECK_EQ(peer.eofs, 1);
        peer.eofs = 0;
        gy_stream_pause(&peer.stream);
        (void)gy_test_turn(&loop, 0);
        gy_stream_resume(&peer.stream);
        CHECK_EQ(peer.eofs, 0);
        TURN_UNTIL(&loop, peer.eofs == 1); /* and not twice */
        for (unsigned i = 0; i < 5; i++)
            (void)gy_test_turn(&loop, 0);
        peer_end(&peer);
    }
    gy_test_loop_end(&loop);
}

struct writer {
    int fd;
    size_t len;
};

static void *
write_all(void *argument)
{
    struct writer *writer = argument;
    char *bytes = pattern_new(0, writer->len);
    size_t sent = 0;
    while (sent < writer->len) {
        ssize_t n = send(writer->fd, bytes + sent, writer->len - sent, MSG_NOSIGNAL);
        if (n < 0)
            break;
        sent += (size_t)n;
    }
    free(bytes);
    return NULL;
}

/* A flood from another thread arrives whole, in receives of up to 256 KiB, and does not keep a
 * quiet connection waiting. */
static void
flood(void)
{
    enum { TOTAL = 32 << 20 };
    struct gy_loop loop;
    struct peer peer;
    struct peer quiet;
    pthread_t thread;
    struct writer writer;
    unsigned served = 0;

    gy_test_loop_begin(&loop);
    for (unsigned p = 0; p < 2; p++) {
        peer_init(&peer, &loop, policies[p]);
        peer_init(&quiet, &loop, GY_RECV_POLL);
        gy_stream_resume(&peer.stream);
        gy_stream_resume(&quiet.stream);
        writer = (struct writer){.fd = peer.remote, .len = TOTAL};
        CHECK_EQ(pthread_create(&thread, NULL, write_all, &writer), 0);
        while (peer.in_len < TOTAL) {
            size_t before = quiet.in_len;
            uint64_t turn = loop.turn;
            remote_send(&quiet, "q", 1);
            TURN_UNTIL(&loop, quiet.in_len > before);
            CHECK_LE(loop.turn, turn + 3);
            served++;
        }
        pthread_join(thread, NULL);
        CHECK_EQ(peer.in_len, TOTAL);
        CHECK(pattern_is(peer.in, 0, TOTAL));
        CHECK(served > 10);
        CHECK_EQ(peer.stream.policy, GY_RECV_POLL); /* multishot gave way: full buffers */
        CHECK_EQ(peer.stream.recv_mode, GY_RECV_POLL);
        peer_end(&peer);
        peer_end(&quiet);
    }
    gy_test_loop_end(&loop);
}

static void
write_errors_come_later(void)
{
    struct gy_loop loop;
    struct peer peer;
    ssize_t sent;

    gy_test_loop_begin(&loop);
    for (unsigned i = 0; i < 2; i++) {
        peer_init(&peer, &loop, GY_RECV_POLL); /* not reading: only the write can find out */
        remote_reset(&peer);
        if (i == 0) {
            sent = gy_stream_try_write(&peer.stream, "x", 1);
            CHECK(sent == -ECONNRESET || sent == -EPIPE);
        } else {
            CHECK_EQ(peer_write(&peer, 0, 100), 0);
            CHECK_EQ(peer_write(&peer, 0, 100), 0);
            gy_stream_flush(&peer.stream);
        }
        CHECK_EQ(peer.errors, 0);
        CHECK(gy_loop_has_work(&loop));
        CHECK_EQ(peer_write(&peer, 0, 100), -EPIPE);
        (void)gy_test_turn(&loop, 0);
        CHECK_EQ(peer.errors, 1);
        CHECK(peer.err == -ECONNRESET || peer.err == -EPIPE);
        CHECK_EQ(gy_stream_queued(&peer.stream), 0);
        peer_end(&peer);
    }
    gy_test_loop_end(&loop);
}

/* A send that waits in the kernel fails when the peer goes. */
static void
reset_while_sending(void)
{
    enum { TOTAL = 8 << 20 };
    struct gy_loop loop;
    struct peer peer;

    gy_test_loop_begin(&loop);
    for (unsigned i = 0; i < 20; i++) {
        peer_init(&peer, &loop, GY_RECV_POLL);
        if (i > 0)
            gy_stream_resume(&peer.stream); /* both directions find out */
        CHECK_EQ(peer_write(&peer, 0, TOTAL), 0);
        CHECK_EQ(peer_write(&peer, TOTAL, 10), 0);
        (void)gy_test_turn(&loop, 0);
        CHECK_EQ(peer.stream.send_op.state, GY_OP_INFLIGHT);
        CHECK_EQ(gy_stream_try_write(&peer.stream, "x", 1), 0); /* must wait its turn */
        remote_reset(&peer);
        TURN_UNTIL(&loop, peer.errors == 1);
        CHECK(peer.err == -ECONNRESET || peer.err == -EPIPE);
        CHECK_EQ(peer.eofs, 0); /* the kernel tells the send alone, or the receive */
        CHECK_EQ(peer.owners, 0);
        peer_end(&peer);
    }
    gy_test_loop_end(&loop);
}

/* What is written while a send is in flight, and from drained(), keeps its place. */
static void
write_on_drained(struct peer *peer)
{
    size_t *next = (size_t *)(void *)peer->named; /* used as a counter here */
    if (*next < (4u << 20)) {
        CHECK_EQ(peer_write(peer, *next, 50 * 1000), 0);
        *next += 50 * 1000;
    }
}

static void
order_of_writes(void)
{
    struct gy_loop loop;
    struct peer peer;
    size_t seen = 0;
    size_t *next;

    gy_test_loop_begin(&loop);
    peer_init(&peer, &loop, GY_RECV_POLL);
    peer.named = calloc(1, sizeof(size_t));
    next = (size_t *)(void *)peer.named;
    peer.on_drained = write_on_drained;
    for (unsigned i = 0; i < 3000; i++) { /* many small ones: several sendmsg of 64 */
        CHECK_EQ(peer_write(&peer, *next, 1 + i % 1500), 0);
        *next += 1 + i % 1500;
        if (i % 400 == 0)
            gy_stream_flush(&peer.stream);
    }
    while (seen < *next || gy_stream_queued(&peer.stream) > 0) {
        size_t got = remote_read(&peer, seen);
        seen += got;
        if (got < 1000)
            (void)gy_test_turn(&loop, GY_NS_PER_SECOND / 1000);
    }
    CHECK(*next >= (4u << 20));
    CHECK_EQ(seen, *next);
    CHECK_EQ(peer.owners, 0);
    peer_end(&peer);
    gy_test_loop_end(&loop);
}

static void
local_init(struct peer *peer, struct gy_loop *loop, uint32_t flags)
{
    int fds[2];
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    peer_init_fd(peer, loop, fds[0], fds[1], &peer_host, GY_RECV_POLL);
    peer->stream.flags |= flags;
    gy_stream_resume(&peer->stream);
    (void)gy_test_turn(loop, 0);
}

static void
send_descriptor(const struct peer *peer)
{
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec iov = {.iov_base = "with", .iov_len = 4};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &peer->remote, sizeof(int));
    CHECK_EQ(sendmsg(peer->remote, &message, 0), 4);
}

/* UNIX sockets: a receive stops at a passed descriptor although more is there. */
static void
short_reads_are_no_end(void)
{
    struct gy_loop loop;
    struct peer peer;

    gy_test_loop_begin(&loop);
    for (unsigned i = 0; i < 20; i++) {
        local_init(&peer, &loop, GY_STREAM_READ_OUT | (i % 2 ? GY_STREAM_LOCAL : 0));
        send_descriptor(&peer);
        remote_send(&peer, "after", 5);
        send_descriptor(&peer);
        remote_send(&peer, "x", 1);
        TURN_UNTIL(&loop, peer.in_len == 14);
        CHECK(memcmp(peer.in, "withafterwithx", 14) == 0);
        peer_end(&peer);
    }
    gy_test_loop_end(&loop);
}

/* A message without a descriptor costs one receive there too. */
static void
one_receive_per_local_message(void)
{
    struct gy_loop loop;
    struct peer peer;

    gy_test_loop_begin(&loop);
    local_init(&peer, &loop, GY_STREAM_READ_OUT | GY_STREAM_LOCAL);
    for (unsigned i = 1; i <= 50; i++) {
        remote_send(&peer, "x", 1);
        TURN_UNTIL(&loop, peer.in_len == i);
    }
    CHECK_EQ(loop.counters.recv_calls, 50);
    CHECK_EQ(shutdown(peer.remote, SHUT_WR), 0);
    TURN_UNTIL(&loop, peer.eofs == 1);
    peer_end(&peer);
    gy_test_loop_end(&loop);
}

/* The host may refuse to name memory. */
static void
refused_memory(void)
{
    struct gy_loop loop;
    struct peer peer;
    int fds[2];

    gy_test_loop_begin(&loop);
    tcp_pair(fds);
    peer_init_fd(&peer, &loop, fds[0], fds[1], &peer_host_buffered, GY_RECV_POLL);
    peer.refuse = true;
    gy_stream_resume(&peer.stream);
    remote_send(&peer, "bytes", 5);
    for (unsigned i = 0; i < 5; i++)
        (void)gy_test_turn(&loop, 0);
    CHECK_EQ(peer.data_calls, 0);
    peer.refuse = false;
    gy_stream_resume(&peer.stream);
    TURN_UNTIL(&loop, peer.in_len == 5); /* no memory named: the scratch buffer */
    peer_end(&peer);
    gy_test_loop_end(&loop);
}

static const struct gy_test tests[] = {
    GY_TEST(echo),
    GY_TEST(one_receive_per_message),
    GY_TEST(data_and_fin),
    GY_TEST(fin_during_data),
    GY_TEST(fin_after_full_reads),
    GY_TEST(reset),
    GY_TEST(half_closed_by_remote),
    GY_TEST(half_closed_and_full),
    GY_TEST(half_closed_by_us),
    GY_TEST(pause_inside_data),
    GY_TEST(flood),
    GY_TEST(write_errors_come_later),
    GY_TEST(reset_while_sending),
    GY_TEST(order_of_writes),
    GY_TEST(short_reads_are_no_end),
    GY_TEST(one_receive_per_local_message),
    GY_TEST(refused_memory),
};
GY_TEST_MAIN(tests)
