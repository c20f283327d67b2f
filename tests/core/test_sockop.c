/* test_sockop.c: one-shot socket operations: at once, after a wait, cancelled, on a socket gone. */
#include "gy_test_stream.h"
#include "sockop.h"

struct call {
    struct gy_sockop op;
    unsigned dones;
    unsigned asked;
    ssize_t result;
    bool gone;  /* the answer of valid() is no */
    bool broke; /* the answer of memory() is no */
};

static struct call *
call_of(struct gy_sockop *op)
{
    return container_of(op, struct call, op);
}

static bool
on_valid(struct gy_sockop *op)
{
    call_of(op)->asked++;
    return !call_of(op)->gone;
}

static void
on_done(struct gy_sockop *op, ssize_t result)
{
    struct call *call = call_of(op);
    CHECK(!op->loop->quiet);
    call->dones++;
    call->result = result;
}

static const struct gy_sockop_host call_host = {.valid = on_valid, .done = on_done};

static void
call_init(struct call *call, struct gy_loop *loop)
{
    memset(call, 0, sizeof *call);
    gy_sockop_init(&call->op, loop, &call_host);
}

static void
receives(void)
{
    struct gy_loop loop;
    struct call call;
    int fds[2];
    char buf[16];

    gy_test_loop_begin(&loop);
    for (unsigned blocking = 0; blocking < 2; blocking++) {
        tcp_pair(fds); /* the mode of the socket is not looked at */
        if (!blocking)
            set_nonblocking(fds[0]);
        call_init(&call, &loop);
        CHECK_EQ(send(fds[1], "now", 3, 0), 3);
        CHECK_EQ(gy_sockop_recv(&call.op, fds[0], buf, sizeof buf), 3);
        CHECK_EQ(gy_sockop_recv(&call.op, fds[0], buf, sizeof buf), -EINPROGRESS);
        (void)gy_test_turn(&loop, 0);
        CHECK_EQ(call.dones, 0);
        CHECK_EQ(send(fds[1], "later", 5, 0), 5);
        TURN_UNTIL(&loop, call.dones == 1);
        CHECK_EQ(call.result, 5);
        CHECK_EQ(call.asked, 1);
        CHECK(memcmp(buf, "later", 5) == 0);
        close(fds[1]);
        CHECK_EQ(gy_sockop_recv(&call.op, fds[0], buf, sizeof buf), 0);
        CHECK(((fcntl(fds[0], F_GETFL) & O_NONBLOCK) != 0) == !blocking);
        close(fds[0]);
    }
    CHECK_EQ(gy_sockop_recv(&call.op, fds[0], buf, sizeof buf), -EBADF);
    gy_test_loop_end(&loop);
}

static char late_memory[16];

static bool
on_memory(struct gy_sockop *op)
{
    CHECK(op->buf == NULL);
    CHECK_EQ(call_of(op)->asked, 1); /* after valid() */
    if (call_of(op)->broke)
        return false;
    op->buf = late_memory;
    return true;
}

/* The memory may be given back for the time of the wait. */
static void
memory_when_it_is_needed(void)
{
    static const struct gy_sockop_host host = {
        .valid = on_valid, .memory = on_memory, .done = on_done};
    struct gy_loop loop;
    struct call call;
    int fds[2];
    char buf[16];

    gy_test_loop_begin(&loop);
    tcp_pair(fds);
    for (unsigned broke = 0; broke < 2; broke++) {
        memset(&call, 0, sizeof call);
        call.broke = broke;
        gy_sockop_init(&call.op, &loop, &host);
        CHECK_EQ(gy_sockop_recv(&call.op, fds[0], buf, sizeof buf), -EINPROGRESS);
        call.op.buf = NULL;
        CHECK_EQ(send(fds[1], "later", 5, 0), 5);
        TURN_UNTIL(&loop, call.dones == 1);
        CHECK_EQ(call.result, broke ? -ENOMEM : 5);
        CHECK(memcmp(late_memory, "later", 5) == 0);
    }
    CHECK_EQ(recv(fds[0], buf, sizeof buf, 0), 5); /* nothing was taken */
    close(fds[0]);
    close(fds[1]);
    gy_test_loop_end(&loop);
}

/* Cancelled at each stage; what arrives is still in the socket for the next one. */
static void
cancelled_receive_loses_nothing(void)
{
    struct gy_loop loop;
    struct call call;
    int fds[2];
    char buf[16];

    gy_test_loop_begin(&loop);
    tcp_pair(fds);
    for (unsigned stage = 0; stage < 4; stage++) {
        bool at_once;
        call_init(&call, &loop);
        CHECK_EQ(gy_sockop_recv(&call.op, fds[0], buf, sizeof buf), -EINPROGRESS);
        if (stage > 0)
            (void)gy_test_turn(&loop, 0);
        if (stage > 1)
            CHECK_EQ(send(fds[1], "byte", 4, 0), 4);
        if (stage > 2)
            (void)gy_loop_poll(&loop, true); /* it is ready, the event waits to be seen */
        memset(buf, 0, sizeof buf);
        at_once = gy_sockop_cancel(&call.op);
        CHECK_EQ(at_once, stage == 0);
        if (!at_once) {
            TURN_UNTIL(&loop, call.dones == 1);
            CHECK_EQ(call.result, -ECANCELED);
        }
        CHECK_EQ(call.dones, !at_once);
        CHECK_EQ(call.asked, 0);
        CHECK_EQ(buf[0], 0);
        if (stage > 1)
            CHECK_EQ(gy_sockop_recv(&call.op, fds[0], buf, sizeof buf), 4);
    }
    close(fds[0]);
    close(fds[1]);
    gy_test_loop_end(&loop);
}

static void
sends_all(void)
{
    enum { TOTAL = 10 << 20 };
    struct gy_loop loop;
    struct call call;
    int fds[2];
    char *bytes = pattern_new(0, TOTAL);
    char *seen = malloc(TOTAL);
    size_t got = 0;
    int small = 64 * 1024;

    CHECK(seen != NULL);
    gy_test_loop_begin(&loop);
    tcp_pair(fds);
    CHECK_EQ(setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    CHECK_EQ(setsockopt(fds[1], SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
    call_init(&call, &loop);
    CHECK_EQ(gy_sockop_sendall(&call.op, fds[0], bytes, 100), 100);
    CHECK_EQ(recv(fds[1], seen, 100, MSG_WAITALL), 100);
    CHECK_EQ(gy_sockop_sendall(&call.op, fds[0], bytes, 0), 0);
    CHECK_EQ(gy_sockop_sendall(&call.op, fds[0], bytes, TOTAL), -EINPROGRESS);
    while (got < TOTAL) {
        ssize_t n = recv(fds[1], seen + got, TOTAL - got, MSG_DONTWAIT);
        if (n > 0)
            got += (size_t)n;
        else
            (void)gy_test_turn(&loop, GY_NS_PER_SECOND / 1000);
    }
    TURN_UNTIL(&loop, call.dones == 1);
    CHECK_EQ(call.result, TOTAL);
    CHECK(memcmp(bytes, seen, TOTAL) == 0);
    /* The peer goes in the middle. */
    CHECK_EQ(gy_sockop_sendall(&call.op, fds[0], bytes, TOTAL), -EINPROGRESS);
    (void)gy_test_turn(&loop, 0);
    close(fds[1]);
    TURN_UNTIL(&loop, call.dones == 2);
    CHECK(call.result == -ECONNRESET || call.result == -EPIPE);
    close(fds[0]);
    free(bytes);
    free(seen);
    gy_test_loop_end(&loop);
}

/* A wait tells readiness, and reads nothing. */
static void
waits(void)
{
    struct gy_loop loop;
    struct call call;
    int fds[2];
    char buf[16];

    gy_test_loop_begin(&loop);
    tcp_pair(fds);
    call_init(&call, &loop);
    gy_sockop_wait(&call.op, fds[0], GY_SOCK_WRITABLE);
    CHECK_EQ(call.dones, 0);
    TURN_UNTIL(&loop, call.dones == 1);
    CHECK_EQ(call.result, 0);
    gy_sockop_wait(&call.op, fds[0], GY_SOCK_READABLE);
    (void)gy_test_turn(&loop, 0);
    CHECK_EQ(call.dones, 1);
    CHECK_EQ(send(fds[1], "byte", 4, 0), 4);
    TURN_UNTIL(&loop, call.dones == 2);
    CHECK_EQ(call.result, 0);
    CHECK_EQ(recv(fds[0], buf, sizeof buf, MSG_DONTWAIT), 4);
    close(fds[0]);
    close(fds[1]);
    gy_test_loop_end(&loop);
}

static void
udp_pair(int fds[2], struct sockaddr_in addresses[2])
{
    for (unsigned i = 0; i < 2; i++) {
        socklen_t len = sizeof addresses[i];
        addresses[i] = (struct sockaddr_in){.sin_family = AF_INET};
        addresses[i].sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        fds[i] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        CHECK_EQ(bind(fds[i], (struct sockaddr *)&addresses[i], sizeof addresses[i]), 0);
        CHECK_EQ(getsockname(fds[i], (struct sockaddr *)&addresses[i], &len), 0);
    }
}

static void
datagrams(void)
{
    struct gy_loop loop;
    struct call call;
    struct gy_address address;
    struct sockaddr_in names[2];
    int fds[2];
    char buf[16];

    gy_test_loop_begin(&loop);
    udp_pair(fds, names);
    call_init(&call, &loop);
    address.len = sizeof names[1];
    memcpy(&address.storage, &names[1], sizeof names[1]);
    CHECK_EQ(gy_sockop_sendto(&call.op, fds[0], "now", 3, &address), 3);
    CHECK_EQ(gy_sockop_recvfrom(&call.op, fds[1], buf, sizeof buf, &address), 3);
    CHECK_EQ(address.len, sizeof names[0]);
    CHECK(memcmp(&address.storage, &names[0], sizeof names[0]) == 0);
    address.len = 99;
    CHECK_EQ(gy_sockop_recvfrom(&call.op, fds[1], buf, sizeof buf, &address), -EINPROGRESS);
    (void)gy_test_turn(&loop, 0);
    CHECK_EQ(address.len, 99);
    CHECK_EQ(sendto(fds[0], "", 0, 0, (struct sockaddr *)&names[1], sizeof names[1]), 0);
    TURN_UNTIL(&loop, call.dones == 1);
    CHECK_EQ(call.result, 0);
    CHECK_EQ(address.len, sizeof names[0]);
    close(fds[0]);
    close(fds[1]);
    CHECK_EQ(gy_sockop_sendto(&call.op, fds[0], "", 0, &address), -EBADF);
    gy_test_loop_end(&loop);
}

/* A UNIX receiver whose queue is full: the send waits for room. */
static void
datagram_waits_for_room(void)
{
    struct gy_loop loop;
    struct call call;
    struct gy_address address = {.storage = {.ss_family = AF_UNIX}};
    int receiver = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int sender = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    unsigned count = 0;
    char buf[16];

    CHECK_EQ(bind(receiver, (struct sockaddr *)&address.storage, sizeof(sa_family_t)), 0);
    address.len = sizeof address.storage;
    CHECK_EQ(getsockname(receiver, (struct sockaddr *)&address.storage, &address.len), 0);
    gy_test_loop_begin(&loop);
    call_init(&call, &loop);
    while (gy_sockop_sendto(&call.op, sender, "some", 4, &address) == 4)
        count++;
    (void)gy_test_turn(&loop, 0);
    CHECK_EQ(call.dones, 0);
    for (unsigned i = 0; i < count; i++)
        CHECK_EQ(recv(receiver, buf, sizeof buf, MSG_DONTWAIT), 4);
    TURN_UNTIL(&loop, call.dones == 1);
    CHECK_EQ(call.result, 4);
    close(sender);
    close(receiver);
    gy_test_loop_end(&loop);
}

static int
listen_somewhere(struct sockaddr_in *address)
{
    socklen_t len = sizeof *address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    *address = (struct sockaddr_in){.sin_family = AF_INET};
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK_EQ(bind(fd, (struct sockaddr *)address, sizeof *address), 0);
    CHECK_EQ(listen(fd, 8), 0);
    CHECK_EQ(getsockname(fd, (struct sockaddr *)address, &len), 0);
    return fd;
}

static void
accepts_and_connects(void)
{
    struct gy_loop loop;
    struct call accept_call;
    struct call connect_call;
    struct sockaddr_in address;
    int listener = listen_somewhere(&address);
    ssize_t result;

    gy_test_loop_begin(&loop);
    for (unsigned i = 0; i < 2; i++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        call_init(&accept_call, &loop);
        call_init(&connect_call, &loop);
        CHECK_EQ(gy_sockop_accept(&accept_call.op, listener), -EINPROGRESS);
        (void)gy_test_turn(&loop, 0);
        result =
            gy_sockop_connect(&connect_call.op, fd, (struct sockaddr *)&address, sizeof address);
        if (result == -EINPROGRESS) {
            TURN_UNTIL(&loop, connect_call.dones == 1);
            result = connect_call.result;
        }
        CHECK_EQ(result, 0);
        TURN_UNTIL(&loop, accept_call.dones == 1);
        CHECK(accept_call.result >= 0);
        CHECK(fcntl((int)accept_call.result, F_GETFL) & O_NONBLOCK);
        close((int)accept_call.result);
        /* Connected already: a socket tells that the connect has ended, once, and then refuses. */
        (void)gy_sockop_connect(&connect_call.op, fd, (struct sockaddr *)&address, sizeof address);
        CHECK_EQ(
            gy_sockop_connect(&connect_call.op, fd, (struct sockaddr *)&address, sizeof address),
            -EISCONN);
        close(fd);
    }
    close(listener);
    /* Nobody there any more. */
    {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        call_init(&connect_call, &loop);
        result =
            gy_sockop_connect(&connect_call.op, fd, (struct sockaddr *)&address, sizeof address);
        if (result == -EINPROGRESS) {
            TURN_UNTIL(&loop, connect_call.dones == 1);
            result = connect_call.result;
        }
        CHECK_EQ(result, -ECONNREFUSED);
        close(fd);
    }
    gy_test_loop_end(&loop);
}

/* A UNIX listener with a full backlog is an error, not a wait that never ends or a lie. */
static void
full_unix_backlog(void)
{
    struct gy_loop loop;
    struct call call;
    struct sockaddr_storage address = {.ss_family = AF_UNIX};
    socklen_t len = sizeof(sa_family_t); /* autobind: an abstract name */
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int clients[8];
    unsigned count = 0;
    ssize_t result = 0;

    CHECK_EQ(bind(listener, (struct sockaddr *)&address, len), 0);
    CHECK_EQ(listen(listener, 1), 0);
    len = sizeof address;
    CHECK_EQ(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    gy_test_loop_begin(&loop);
    while (result == 0 && count < 8) {
        clients[count] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        call_init(&call, &loop);
        result = gy_sockop_connect(&call.op, clients[count], (struct sockaddr *)&address, len);
        count++;
    }
    CHECK_EQ(result, -EAGAIN);
    while (count > 0)
        close(clients[--count]);
    close(listener);
    gy_test_loop_end(&loop);
}

/* The user closed the socket and the number may be somebody else's: it is not touched. */
static void
socket_gone(void)
{
    struct gy_loop loop;
    struct call call;
    int fds[2];
    int other[2];
    char buf[16] = "";

    gy_test_loop_begin(&loop);
    tcp_pair(fds);
    tcp_pair(other);
    call_init(&call, &loop);
    CHECK_EQ(gy_sockop_recv(&call.op, fds[0], buf, sizeof buf), -EINPROGRESS);
    (void)gy_test_turn(&loop, 0);
    CHECK_EQ(dup2(other[0], fds[0]), fds[0]);
    CHECK_EQ(send(other[1], "not yours", 9, 0), 9);
    CHECK_EQ(send(fds[1], "wake", 4, 0), 4);
    call.gone = true;
    if (gy_test_on_epoll()) { /* a file that was closed is never heard of again */
        (void)gy_test_turn(&loop, 0);
        CHECK_EQ(call.dones, 0);
        CHECK(!gy_sockop_cancel(&call.op));
    }
    TURN_UNTIL(&loop, call.dones == 1);
    CHECK_EQ(call.result, gy_test_on_epoll() ? -ECANCELED : -EBADF);
    CHECK_EQ(buf[0], 0);
    CHECK_EQ(recv(other[0], buf, sizeof buf, MSG_DONTWAIT), 9);
    for (unsigned i = 0; i < 2; i++) {
        close(fds[i]);
        close(other[i]);
    }
    gy_test_loop_end(&loop);
}

/* A run that ends does not end the operation, nor does it answer a cancel twice. */
static void
over_several_runs(void)
{
    struct gy_loop loop;
    struct call call[2];
    int fds[2][2];
    char buf[2][16];

    gy_test_loop_begin(&loop);
    for (unsigned i = 0; i < 2; i++) {
        tcp_pair(fds[i]);
        call_init(&call[i], &loop);
        CHECK_EQ(gy_sockop_recv(&call[i].op, fds[i][0], buf[i], sizeof buf[i]), -EINPROGRESS);
    }
    (void)gy_test_turn(&loop, 0);
    CHECK(!gy_sockop_cancel(&call[1].op));
    CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 0);
    CHECK_EQ(call[0].dones + call[1].dones, 0);
    CHECK_EQ(send(fds[0][1], "kept", 4, 0), 4);
    CHECK_EQ(gy_loop_begin(&loop), 0);
    TURN_UNTIL(&loop, call[0].dones == 1 && call[1].dones == 1);
    CHECK_EQ(call[0].result, 4);
    CHECK_EQ(call[1].result, -ECANCELED);
    for (unsigned i = 0; i < 2; i++) {
        close(fds[i][0]);
        close(fds[i][1]);
    }
    gy_test_loop_end(&loop);
}

/* What waits in memory for the tasks that read it is bounded, as for streams. */
static void
a_turn_takes_in_so_much(void)
{
    enum { CALLS = 6, BYTES = 100 * 1024, PER_TURN = 3 };
    static char data[CALLS][BYTES];
    struct gy_loop loop;
    struct call call[CALLS];
    int fds[CALLS][2];
    unsigned dones = 0;

    gy_test_loop_begin(&loop);
    for (unsigned i = 0; i < CALLS; i++) {
        CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds[i]), 0);
        call_init(&call[i], &loop);
        CHECK_EQ(gy_sockop_recv(&call[i].op, fds[i][0], data[i], BYTES), -EINPROGRESS);
    }
    (void)gy_test_turn(&loop, 0);
    for (unsigned i = 0; i < CALLS; i++)
        CHECK_EQ(send(fds[i][1], data[i], BYTES, 0), BYTES);
    while (dones < CALLS) {
        unsigned before = dones;
        (void)gy_test_turn(&loop, GY_NS_PER_SECOND);
        dones = 0;
        for (unsigned i = 0; i < CALLS; i++)
            dones += call[i].dones;
        CHECK(dones - before <= PER_TURN);
    }
    CHECK_EQ(loop.counters.bytes_in, CALLS * BYTES);
    for (unsigned i = 0; i < CALLS; i++) {
        CHECK_EQ(call[i].result, BYTES);
        close(fds[i][0]);
        close(fds[i][1]);
    }
    gy_test_loop_end(&loop);
}

static const struct gy_test tests[] = {
    GY_TEST(receives),
    GY_TEST(memory_when_it_is_needed),
    GY_TEST(cancelled_receive_loses_nothing),
    GY_TEST(sends_all),
    GY_TEST(accepts_and_connects),
    GY_TEST(full_unix_backlog),
    GY_TEST(socket_gone),
    GY_TEST(over_several_runs),
    GY_TEST(datagrams),
    GY_TEST(datagram_waits_for_room),
    GY_TEST(waits),
    GY_TEST(a_turn_takes_in_so_much),
};
GY_TEST_MAIN(tests)
