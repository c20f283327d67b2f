/* test_listener.c: accepting, running out of descriptors, closing. */
#include "gy_test_stream.h"
#include "listener.h"

#include <pthread.h>
#include <sys/resource.h>

enum { ACCEPTED_MAX = 512 };

struct server {
    struct gy_listener listener;
    struct sockaddr_in address;
    int accepted[ACCEPTED_MAX];
    unsigned count;
    unsigned failures;
    unsigned detaches;
    unsigned closes;
    int err;
    bool retry;
    bool close_on_accept;
    bool interrupt_on_accept;
};

static struct server *
server_of(struct gy_listener *listener)
{
    return container_of(listener, struct server, listener);
}

static void
on_accepted(struct gy_listener *listener, int fd)
{
    struct server *server = server_of(listener);
    CHECK_EQ(server->detaches, 0);
    CHECK(!listener->loop->quiet);
    CHECK_LT(server->count, ACCEPTED_MAX);
    CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    server->accepted[server->count++] = fd;
    if (server->close_on_accept)
        gy_listener_close(listener);
    if (server->interrupt_on_accept)
        listener->loop->interrupted = true;
}

static void
on_failed(struct gy_listener *listener, int err, bool retry)
{
    struct server *server = server_of(listener);
    server->failures++;
    server->err = err;
    server->retry = retry;
}

static void
on_detach(struct gy_listener *listener)
{
    server_of(listener)->detaches++;
}

static void
on_closed(struct gy_listener *listener)
{
    struct server *server = server_of(listener);
    CHECK_EQ(server->detaches, 1);
    server->closes++;
    CHECK_EQ(server->closes, 1);
}

static const struct gy_listener_host server_host = {
    .accepted = on_accepted,
    .failed = on_failed,
    .detach = on_detach,
    .closed = on_closed,
};

/* Binds without SO_REUSEADDR, so that a port that is still taken is noticed. */
static int
bind_port(struct sockaddr_in *address)
{
    socklen_t len = sizeof *address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    CHECK(fd >= 0);
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr *)address, sizeof *address) < 0 || listen(fd, 256) < 0) {
        close(fd);
        return -1;
    }
    CHECK_EQ(getsockname(fd, (struct sockaddr *)address, &len), 0);
    return fd;
}

static void
server_init(struct server *server, struct gy_loop *loop)
{
    int fd;
    memset(server, 0, sizeof *server);
    fd = bind_port(&server->address);
    CHECK(fd >= 0);
    gy_listener_init(&server->listener, loop, fd, true, &server_host);
    gy_listener_start(&server->listener);
}

static int
dial(const struct server *server)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    CHECK_EQ(connect(fd, (const struct sockaddr *)&server->address, sizeof server->address), 0);
    return fd;
}

static void
hang_up(struct server *server, const int *clients, unsigned count)
{
    for (unsigned i = 0; i < server->count; i++)
        close(server->accepted[i]);
    for (unsigned i = 0; i < count; i++)
        close(clients[i]);
    server->count = 0;
}

static void
server_end(struct server *server)
{
    gy_listener_close(&server->listener);
    CHECK_EQ(server->closes, 0);
    CHECK_EQ(server->detaches, 1);
    TURN_UNTIL(server->listener.loop, server->closes == 1);
}

static void
accepts(void)
{
    struct gy_loop loop;
    struct server server;
    int clients[200];

    gy_test_loop_begin(&loop);
    server_init(&server, &loop);
    for (unsigned i = 0; i < 5; i++) {
        clients[i] = dial(&server);
        TURN_UNTIL(&loop, server.count == i + 1);
    }
    for (unsigned i = 5; i < 200; i++) /* a crowd */
        clients[i] = dial(&server);
    TURN_UNTIL(&loop, server.count == 200);
    CHECK_EQ(loop.counters.accepted, 200);
    CHECK_EQ(server.failures, 0);
    hang_up(&server, clients, 200);
    server_end(&server);
    gy_test_loop_end(&loop);
}

/* The port is free when gy_listener_close() returns, with accepts in flight and without. */
static void
port_is_free_at_once(void)
{
    struct gy_loop loop;
    struct server server;

    gy_test_loop_begin(&loop);
    for (unsigned i = 0; i < 20; i++) {
        struct sockaddr_in address;
        int fd;
        server_init(&server, &loop);
        if (i != 3) /* 3: closed before the first flush */
            (void)gy_test_turn(&loop, 0);
        gy_listener_close(&server.listener);
        gy_listener_close(&server.listener);
        address = server.address;
        fd = bind_port(&address);
        CHECK(fd >= 0);
        close(fd);
        TURN_UNTIL(&loop, server.closes == 1);
    }
    gy_test_loop_end(&loop);
}

/* Connections that the kernel has accepted when the listener closes are closed, not leaked. */
static void
close_with_arrivals(void)
{
    struct gy_loop loop;
    struct server server;
    int clients[10];
    char byte;

    gy_test_loop_begin(&loop);
    for (unsigned i = 0; i < 2; i++) {
        server_init(&server, &loop);
        server.close_on_accept = i == 1;
        (void)gy_test_turn(&loop, 0);
        for (unsigned k = 0; k < 10; k++)
            clients[k] = dial(&server);
        (void)gy_loop_poll(&loop, true); /* accepted by the kernel, not yet delivered */
        if (i == 0)
            gy_listener_close(&server.listener);
        TURN_UNTIL(&loop, server.closes == 1);
        CHECK_EQ(server.count, i);
        for (unsigned k = i; k < 10; k++)
            CHECK_LE(recv(clients[k], &byte, 1, 0), 0);
        hang_up(&server, clients, 10);
    }
    gy_test_loop_end(&loop);
}

static void
parked_while_quiet(void)
{
    struct gy_loop loop;
    struct server server;
    int clients[30];

    gy_test_loop_begin(&loop);
    for (unsigned i = 0; i < 3; i++) {
        server_init(&server, &loop);
        (void)gy_test_turn(&loop, 0);
        for (unsigned k = 0; k < 20; k++)
            clients[k] = dial(&server);
        CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 0);
        CHECK_EQ(server.count, 0);
        for (unsigned k = 20; k < 30; k++)
            clients[k] = dial(&server);
        if (i == 1) { /* closed between two runs: the parked ones are closed */
            gy_listener_close(&server.listener);
            CHECK_EQ(server.closes, 0);
        }
        CHECK_EQ(gy_loop_begin(&loop), 0);
        if (i == 2) {
            server.interrupt_on_accept = true; /* one per turn */
            while (server.count < 30) {
                unsigned before = server.count;
                loop.interrupted = false;
                (void)gy_test_turn(&loop, GY_NS_PER_SECOND / 10);
                CHECK_LE(server.count, before + 1);
            }
            loop.interrupted = false;
        }
        TURN_UNTIL(&loop, server.count == 30 || server.closes == 1);
        CHECK_EQ(server.count, i == 1 ? 0 : 30);
        hang_up(&server, clients, 30);
        if (i != 1)
            server_end(&server);
    }
    gy_test_loop_end(&loop);
}

static void
abandoned(void)
{
    struct gy_loop loop;
    struct server server;
    int clients[4];

    for (unsigned i = 0; i < 4; i++) {
        gy_test_loop_begin(&loop);
        server_init(&server, &loop);
        (void)gy_test_turn(&loop, 0);
        for (unsigned k = 0; k < 4; k++)
            clients[k] = dial(&server);
        if (i == 3)
            gy_listener_close(&server.listener);
        if (i % 2 == 0)
            CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 0);
        else
            gy_loop_close(&loop);
        gy_listener_abandon(&server.listener);
        CHECK_EQ(server.closes, 0);
        CHECK_EQ(server.detaches, 1);
        memset(&server.listener, 0xcc, sizeof server.listener);
        gy_loop_close(&loop);
        hang_up(&server, clients, 4);
        CHECK_EQ(loop.live, 0);
    }
}

/* At the descriptor limit: one report, no spinning, and accepting goes on a second later. */
static void
out_of_descriptors(void)
{
    struct gy_loop loop;
    struct server server;
    struct rlimit limit;
    struct rlimit low;
    int clients[3];
    int64_t failed_ns;
    uint64_t turns;

    gy_test_skip_under_valgrind(VALGRIND_FAKES_LIMITS);
    gy_test_loop_begin(&loop);
    server_init(&server, &loop);
    for (unsigned i = 0; i < 3; i++) {
        clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK(clients[i] >= 0);
    }
    /* Before the accept is armed: the kernel notes the limit in the operation. */
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    low = limit;
    low.rlim_cur = (rlim_t)clients[2] + 2;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
    (void)gy_test_turn(&loop, 0);
    for (unsigned i = 0; i < 3; i++)
        CHECK_EQ(connect(clients[i], (struct sockaddr *)&server.address, sizeof server.address), 0);
    TURN_UNTIL(&loop, server.failures == 1);
    CHECK_EQ(server.count, 1);
    failed_ns = gy_loop_now_ns(&loop);
    CHECK_EQ(server.err, -EMFILE);
    CHECK(server.retry);
    CHECK(gy_op_is_idle(&server.listener.op));
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    turns = loop.turn;
    while (server.count < 3) {
        int64_t deadline_ns = gy_timers_next_ns(&loop.timers);
        int64_t now_ns = gy_loop_now_ns(&loop);
        CHECK_LT(now_ns, failed_ns + 5 * GY_NS_PER_SECOND);
        (void)gy_test_turn(&loop, deadline_ns > now_ns && deadline_ns != GY_NS_NEVER
                                      ? deadline_ns - now_ns
                                      : GY_NS_PER_SECOND / 10);
        CHECK(gy_loop_pop_due(&loop, gy_loop_now_ns(&loop)) == NULL);
    }
    CHECK_LE(failed_ns + GY_ACCEPT_RETRY_NS * 9 / 10, gy_loop_now_ns(&loop));
    CHECK_LE(loop.turn - turns, 30);
    hang_up(&server, clients, 3);
    server_end(&server);
    gy_test_loop_end(&loop);
}

/* Closed while it waits for better times: nothing is left behind. */
static void
closed_while_waiting(void)
{
#if GY_FAULTS
    struct gy_loop loop;
    struct server server;
    struct gy_ring_options options = gy_test_options();
    int client;

    gy_test_need_uring();
    options.features_off |= GY_FEAT_ACCEPT; /* accept4(2), whose failure can be ordered */
    CHECK_EQ(gy_loop_init(&loop, &options, gy_ring_uring_create), 0);
    CHECK_EQ(gy_loop_begin(&loop), 0);
    server_init(&server, &loop);
    (void)gy_test_turn(&loop, 0);
    client = dial(&server);
    gy_fault_arm(GY_FAULT_SYSCALL, 1, -ENFILE);
    TURN_UNTIL(&loop, server.failures == 1);
    gy_fault_arm(GY_FAULT_SYSCALL, 0, 0);
    CHECK_EQ(server.err, -ENFILE);
    CHECK(server.retry);
    CHECK_EQ(loop.timers.count, 1);
    for (unsigned i = 0; i < 5; i++)
        (void)gy_test_turn(&loop, 0);
    CHECK_EQ(server.count, 0);
    CHECK_EQ(server.failures, 1);
    server_end(&server);
    CHECK_EQ(loop.timers.count, 0);
    close(client);
    gy_test_loop_end(&loop);
#else
    SKIP("needs -Dfault_injection=true");
#endif
}

/* What can never accept says so once and is left alone. */
static void
not_a_listener(void)
{
    struct gy_loop loop;
    struct server server = {.count = 0};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    gy_test_loop_begin(&loop);
    gy_listener_init(&server.listener, &loop, fd, false, &server_host);
    gy_listener_start(&server.listener);
    TURN_UNTIL(&loop, server.failures == 1);
    CHECK_EQ(server.err, -EINVAL);
    CHECK(!server.retry);
    for (unsigned i = 0; i < 3; i++)
        (void)gy_test_turn(&loop, 0);
    CHECK_EQ(server.failures, 1);
    server_end(&server);
    CHECK_EQ(close(fd), 0); /* not owned: still ours */
    gy_test_loop_end(&loop);
}

/* Two loops share a socket, as forked workers do: closing one leaves the other accepting. */
static void
shared_socket(void)
{
    struct gy_loop loops[2];
    struct server servers[2] = {{.count = 0}};
    int clients[8];
    int fd;

    for (unsigned i = 0; i < 2; i++)
        gy_test_loop_begin(&loops[i]);
    fd = bind_port(&servers[0].address);
    for (unsigned i = 0; i < 2; i++) {
        int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        gy_listener_init(&servers[i].listener, &loops[i], copy, true, &server_host);
        gy_listener_start(&servers[i].listener);
        (void)gy_test_turn(&loops[i], 0);
    }
    close(fd);
    server_end(&servers[0]);
    servers[1].address = servers[0].address;
    for (unsigned i = 0; i < 8; i++)
        clients[i] = dial(&servers[1]);
    TURN_UNTIL(&loops[1], servers[1].count == 8);
    CHECK_EQ(servers[0].count, 0);
    hang_up(&servers[1], clients, 8);
    server_end(&servers[1]);
    for (unsigned i = 0; i < 2; i++)
        gy_test_loop_end(&loops[i]);
}

static void
no_memory_anywhere(void)
{
#if GY_FAULTS
    for (uint32_t nth = 1;; nth++) {
        struct gy_loop loop;
        struct server server;
        int clients[20];
        bool fired;
        unsigned arrived = 0;
        char byte;
        gy_test_loop_begin(&loop);
        server_init(&server, &loop);
        (void)gy_test_turn(&loop, 0);
        for (unsigned i = 0; i < 20; i++)
            clients[i] = dial(&server);
        gy_fault_arm(GY_FAULT_ALLOC, nth, -ENOMEM);
        CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 0);
        fired = gy_fault_fired(GY_FAULT_ALLOC);
        gy_fault_arm(GY_FAULT_ALLOC, 0, 0);
        CHECK_EQ(gy_loop_begin(&loop), 0);
        /* One that could not be parked is closed; its client sees that. */
        for (unsigned i = 0; i < 50; i++)
            (void)gy_test_turn(&loop, 0);
        for (unsigned i = 0; i < 20; i++)
            arrived += recv(clients[i], &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
        CHECK_EQ(arrived, server.count);
        CHECK(fired || arrived == 20);
        hang_up(&server, clients, 20);
        server_end(&server);
        gy_test_loop_end(&loop);
        if (!fired)
            break;
        CHECK_LT(nth, 20);
    }
#else
    SKIP("needs -Dfault_injection=true");
#endif
}

static const struct gy_test tests[] = {
    GY_TEST(accepts),
    GY_TEST(port_is_free_at_once),
    GY_TEST(close_with_arrivals),
    GY_TEST(parked_while_quiet),
    GY_TEST(abandoned),
    GY_TEST(out_of_descriptors),
    GY_TEST(closed_while_waiting),
    GY_TEST(not_a_listener),
    GY_TEST(shared_socket),
    GY_TEST(no_memory_anywhere),
};
GY_TEST_MAIN(tests)
