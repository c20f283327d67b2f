/* test_dgram.c: datagram sockets: order, bursts that leave together, receives that bring many,
 * a full socket, errors, pauses, ends. */
#include "dgram.h"
#include "gy_test.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { SEEN_MAX = 4096, TEXT_MAX = 32 };

struct end {
    struct gy_dgram dgram;
    unsigned seen;
    size_t sizes[SEEN_MAX];
    char first[SEEN_MAX]; /* the first byte of each */
    struct gy_address from;
    unsigned errors;
    int err;
    unsigned broken;
    unsigned drains;
    unsigned detaches;
    unsigned closes;
    unsigned owners; /* of datagrams that were not yet released */
    unsigned pause_after;
    bool closes_in_upcall;
    void (*on_error)(struct end *end);
};

static struct end *
end_of(struct gy_dgram *dgram)
{
    return container_of(dgram, struct end, dgram);
}

static void
on_datagram(struct gy_dgram *dgram, const void *data, size_t len, const struct gy_address *from)
{
    struct end *end = end_of(dgram);

    CHECK(!dgram->loop->quiet);
    CHECK(dgram->flags & GY_DGRAM_READING);
    CHECK(end->seen < SEEN_MAX);
    end->first[end->seen] = len > 0 ? *(const char *)data : 0;
    end->sizes[end->seen++] = len;
    end->from = *from;
    if (end->pause_after > 0 && end->seen == end->pause_after)
        gy_dgram_pause(dgram);
    if (end->closes_in_upcall) {
        gy_dgram_close_now(dgram);
        CHECK_EQ(end->closes, 0);
    }
}

static void
on_error(struct gy_dgram *dgram, int err)
{
    struct end *end = end_of(dgram);

    CHECK(err < 0);
    end->errors++;
    end->err = err;
    if (end->on_error != NULL)
        end->on_error(end);
}

static void
on_broken(struct gy_dgram *dgram, int err)
{
    end_of(dgram)->broken++;
    end_of(dgram)->err = err;
}

static void
on_drained(struct gy_dgram *dgram)
{
    end_of(dgram)->drains++;
}

static void
on_release(struct gy_dgram *dgram, void *owner)
{
    CHECK(owner == dgram);
    CHECK(end_of(dgram)->owners > 0);
    end_of(dgram)->owners--;
}

static void
on_detach(struct gy_dgram *dgram)
{
    CHECK(dgram->fd >= 0);
    end_of(dgram)->detaches++;
}

static void
on_closed(struct gy_dgram *dgram)
{
    end_of(dgram)->closes++;
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

static int
udp_socket(struct gy_address *address)
{
    struct sockaddr_in name = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK_EQ(bind(fd, (struct sockaddr *)&name, sizeof name), 0);
    address->len = sizeof address->storage;
    CHECK_EQ(getsockname(fd, (struct sockaddr *)&address->storage, &address->len), 0);
    return fd;
}

static void
end_init(struct end *end, struct gy_loop *loop, int fd, uint32_t flags)
{
    memset(end, 0, sizeof *end);
    gy_dgram_init(&end->dgram, loop, fd, &host, flags);
}

static void
end_close(struct end *end)
{
    struct gy_loop *loop = end->dgram.loop;

    gy_dgram_close(&end->dgram);
    TURN_UNTIL(loop, end->closes == 1);
    CHECK_EQ(end->detaches, 1);
    CHECK_EQ(end->owners, 0);
}

/* As an embedder: tries, then queues.  The result of the try. */
static ssize_t
send_to(struct end *end, const char *data, size_t len, const struct gy_address *to,
        bool in_callback)
{
    struct gy_datagram datagram = {.data = data, .len = len, .owner = &end->dgram};
    ssize_t res = gy_dgram_try_send(&end->dgram, data, len, to, in_callback);

    if (res == -EAGAIN) {
        end->owners++;
        CHECK_EQ(gy_dgram_push(&end->dgram, &datagram, to), 0);
    }
    return res;
}

static const struct gy_address nowhere = {.len = 0};
static char bytes[70000];

static void
sends_and_receives(void)
{
    static const size_t sizes[] = {3, 0, 1200, 65507, 1};
    struct gy_loop loop;
    struct end left;
    struct end right;
    struct gy_address names[2];

    gy_test_loop_begin(&loop);
    for (unsigned offload = 0; offload < 2; offload++) {
        uint32_t flags = offload ? GY_DGRAM_OFFLOAD : 0;
        end_init(&left, &loop, udp_socket(&names[0]), flags);
        end_init(&right, &loop, udp_socket(&names[1]), flags);
        gy_dgram_resume(&right.dgram);
        for (unsigned i = 0; i < 5; i++) {
            bytes[0] = (char)('a' + i);
            CHECK_EQ(send_to(&left, bytes, sizes[i], &names[1], false), sizes[i]);
        }
        TURN_UNTIL(&loop, right.seen == 5);
        for (unsigned i = 0; i < 5; i++) {
            CHECK_EQ(right.sizes[i], sizes[i]);
            CHECK_EQ(right.first[i], sizes[i] ? 'a' + (int)i : 0);
        }
        CHECK_EQ(right.from.len, names[0].len);
        CHECK(memcmp(&right.from.storage, &names[0].storage, names[0].len) == 0);
        CHECK_EQ(left.errors + right.errors, 0);
        end_close(&left);
        end_close(&right);
    }
    gy_test_loop_end(&loop);
}

/* A datagram that is received by the way makes no event of its own on a ring that arms polls at no
 * price. */
static void
no_event_for_what_was_received(void)
{
    struct gy_loop loop;
    struct end left;
    struct end right;
    struct gy_address names[2];
    uint64_t events;

    gy_test_loop_begin(&loop);
    CHECK_EQ(loop.ring->cheap_polls, !gy_test_on_epoll());
    end_init(&left, &loop, udp_socket(&names[0]), 0);
    end_init(&right, &loop, udp_socket(&names[1]), 0);
    gy_dgram_resume(&right.dgram);
    for (unsigned i = 0; i < 4; i++) {
        CHECK_EQ(gy_loop_poll(&loop, true), 0); /* it waits */
        CHECK_EQ(send_to(&left, bytes, 10, &names[1], false), 10);
        CHECK_EQ(gy_loop_poll(&loop, true), 0); /* the event is there */
        for (unsigned k = 0; k < 3; k++)
            CHECK_EQ(send_to(&left, bytes, 10, &names[1], false), 10);
        TURN_UNTIL(&loop, right.seen == 4 * (i + 1));
    }
    events = loop.ring->counters.events;
    for (unsigned i = 0; i < 3; i++)
        (void)gy_test_turn(&loop, 0);
    CHECK_EQ(loop.ring->counters.events - events, 0);
    if (!gy_test_on_epoll())
        CHECK_EQ(events, 4);
    end_close(&left);
    end_close(&right);
    gy_test_loop_end(&loop);
}

/* One send at once and one for its followers; nobody sees a difference. */
static void
burst(void)
{
    struct gy_loop loop;
    struct end left;
    struct end right;
    struct gy_address names[2];
    bool offload;
    uint64_t before;

    gy_test_loop_begin(&loop);
    offload = (loop.features & GY_FEAT_UDP_GSO) != 0;
    end_init(&left, &loop, udp_socket(&names[0]), GY_DGRAM_OFFLOAD);
    end_init(&right, &loop, udp_socket(&names[1]), GY_DGRAM_OFFLOAD);
    gy_dgram_resume(&right.dgram);
    before = loop.counters.send_calls;
    for (unsigned i = 0; i < 20; i++) {
        static char texts[20][100];
        texts[i][0] = (char)('a' + i);
        (void)send_to(&left, texts[i], i == 19 ? 50 : 100, &names[1], true);
    }
    CHECK_EQ(left.dgram.count, 0); /* the shorter one ended it */
    CHECK_EQ(loop.counters.send_calls - before, offload ? 2 : 20);
    gy_loop_flush_dirty(&loop);
    TURN_UNTIL(&loop, right.seen == 20);
    for (unsigned i = 0; i < 20; i++) {
        CHECK_EQ(right.sizes[i], i == 19 ? 50 : 100);
        CHECK_EQ(right.first[i], 'a' + (int)i);
    }
    if (offload && (loop.features & GY_FEAT_UDP_GRO) != 0)
        CHECK_LE(loop.counters.recv_calls, 2);
    CHECK_EQ(left.owners, 0);
    end_close(&left);
    end_close(&right);
    gy_test_loop_end(&loop);
}

/* What must not wait: the first, another size, another destination, the end of the callback. */
static void
ends_of_a_burst(void)
{
    struct gy_loop loop;
    struct end left;
    struct end right;
    struct gy_address names[3];
    int third;

    gy_test_loop_begin(&loop);
    if ((loop.features & GY_FEAT_UDP_GSO) == 0)
        SKIP("needs UDP_SEGMENT");
    end_init(&left, &loop, udp_socket(&names[0]), GY_DGRAM_OFFLOAD);
    end_init(&right, &loop, udp_socket(&names[1]), 0);
    third = udp_socket(&names[2]);
    gy_dgram_resume(&right.dgram);
    CHECK_EQ(send_to(&left, bytes, 10, &names[1], true), 10);
    CHECK_EQ(send_to(&left, bytes, 20, &names[1], true), 20); /* longer */
    CHECK_EQ(send_to(&left, bytes, 20, &names[1], true), -EAGAIN);
    CHECK_EQ(send_to(&left, bytes, 20, &names[2], true), 20); /* elsewhere */
    CHECK_EQ(left.dgram.count, 0);
    CHECK_EQ(send_to(&left, bytes, 20, &names[2], true), -EAGAIN);
    CHECK_EQ(send_to(&left, bytes, 0, &names[2], true), 0); /* an empty one */
    CHECK_EQ(left.dgram.count, 0);
    CHECK_EQ(send_to(&left, bytes, 20, &names[1], true), 20);
    CHECK_EQ(send_to(&left, bytes, 20, &names[1], true), -EAGAIN);
    CHECK_EQ(left.drains, 0);
    gy_loop_flush_dirty(&loop);
    CHECK_EQ(left.drains, 1);
    CHECK_EQ(left.dgram.count, 0);
    CHECK_EQ(send_to(&left, bytes, 20, &names[1], true), 20);  /* a new callback */
    CHECK_EQ(send_to(&left, bytes, 20, &names[1], false), 20); /* outside of one */
    TURN_UNTIL(&loop, right.seen == 7);
    /* At most so many and so much at once. */
    gy_loop_flush_dirty(&loop);
    for (unsigned i = 0; i < 1 + GY_DGRAM_SEGMENTS_MAX; i++)
        (void)send_to(&left, bytes, 100, &names[1], true);
    CHECK_EQ(left.dgram.count, 0);
    gy_loop_flush_dirty(&loop);
    for (unsigned i = 0; i < 1 + GY_DGRAM_BURST_BYTES_MAX / 10000; i++)
        (void)send_to(&left, bytes, 10000, &names[1], true);
    CHECK_EQ(left.dgram.count, 0);
    gy_loop_flush_dirty(&loop);
    TURN_UNTIL(&loop, right.seen == 7 + 65 + 7);
    CHECK_EQ(left.errors, 0);
    close(third);
    end_close(&left);
    end_close(&right);
    gy_test_loop_end(&loop);
}

/* Sockets that refuse segmentation send one by one, and are not asked again for this size. */
static void
refused_offload(void)
{
    struct gy_loop loop;
    struct end left;
    struct end right;
    struct gy_address names[2];
    int on = 1;
    uint64_t before;

    gy_test_loop_begin(&loop);
    end_init(&left, &loop, udp_socket(&names[0]), GY_DGRAM_OFFLOAD);
    end_init(&right, &loop, udp_socket(&names[1]), GY_DGRAM_OFFLOAD);
    /* Without checksums there is no segmentation: EINVAL. */
    CHECK_EQ(setsockopt(left.dgram.fd, SOL_SOCKET, SO_NO_CHECK, &on, sizeof on), 0);
    gy_dgram_resume(&right.dgram);
    for (unsigned round = 1; round <= 2; round++) {
        before = loop.counters.send_calls;
        for (unsigned i = 0; i < 10; i++)
            (void)send_to(&left, bytes, 100, &names[1], true);
        gy_loop_flush_dirty(&loop);
        TURN_UNTIL(&loop, right.seen == 10 * round);
        CHECK_LE(loop.counters.send_calls - before, round == 1 ? 11 : 10);
    }
    CHECK_EQ(left.errors, 0);
    /* A datagram that is itself at fault is reported, one by one, and changes nothing. */
    CHECK_EQ(((struct sockaddr_in *)&names[1].storage)->sin_family, AF_INET);
    ((struct sockaddr_in *)&names[1].storage)->sin_port = 0;
    CHECK_EQ(send_to(&left, bytes, 10, &names[1], true), -EINVAL);
    for (unsigned i = 0; i < 2; i++)
        (void)send_to(&left, bytes, 10, &names[1], true);
    gy_loop_flush_dirty(&loop);
    end_close(&left);
    end_close(&right);
    gy_test_loop_end(&loop);
}

/* The answer "nobody is there" costs one datagram of a burst, and is told. */
static void
error_within_a_burst(void)
{
    struct gy_loop loop;
    struct end left;
    struct gy_address names[2];
    int gone;
    uint64_t before;

    gy_test_loop_begin(&loop);
    gone = udp_socket(&names[1]);
    end_init(&left, &loop, udp_socket(&names[0]), GY_DGRAM_OFFLOAD);
    CHECK_EQ(connect(left.dgram.fd, (struct sockaddr *)&names[1].storage, names[1].len), 0);
    close(gone);
    before = loop.counters.bytes_out;
    CHECK_EQ(send_to(&left, bytes, 10, &nowhere, true), 10);
    /* An odd number in all: where each leaves alone, every second one meets the answer to the one
     * before, and the answer to the last is left. */
    for (unsigned i = 0; i < 6; i++) {
        ssize_t res = send_to(&left, bytes, 10, &nowhere, true);
        if (res < 0 && res != -EAGAIN)
            on_error(&left.dgram, (int)res);
    }
    gy_loop_flush_dirty(&loop);
    CHECK_LE(1, left.errors);
    CHECK_EQ(left.err, -ECONNREFUSED);
    CHECK_EQ(left.dgram.count, 0);
    CHECK_EQ(loop.counters.bytes_out - before, 10 * (7 - left.errors)); /* each error took one */
    /* What the others met is there to be received. */
    gy_dgram_resume(&left.dgram);
    before = left.errors;
    TURN_UNTIL(&loop, left.errors == before + 1);
    end_close(&left);
    gy_test_loop_end(&loop);
}

static void
sends_more(struct end *end)
{
    for (unsigned i = 0; i < 3; i++)
        (void)send_to(end, bytes, 10, &nowhere, true);
    gy_loop_flush_dirty(end->dgram.loop);
}

/* A host that answers each error with new datagrams: each flush ends all the same. */
static void
errors_that_send(void)
{
    struct gy_loop loop;
    struct end left;
    struct gy_address names[2];
    int gone;

    gy_test_loop_begin(&loop);
    gone = udp_socket(&names[1]);
    end_init(&left, &loop, udp_socket(&names[0]), GY_DGRAM_OFFLOAD);
    CHECK_EQ(connect(left.dgram.fd, (struct sockaddr *)&names[1].storage, names[1].len), 0);
    close(gone);
    gy_dgram_resume(&left.dgram);
    if ((loop.features & GY_FEAT_UDP_GSO) != 0) { /* else each error is the try's own */
        left.on_error = sends_more;
        sends_more(&left);
        TURN_UNTIL(&loop, left.errors > 1000);
        left.on_error = NULL;
    }
    end_close(&left);
    gy_test_loop_end(&loop);
}

/* A UNIX receiver takes so many: the rest waits, in order, and the host hears when it has left. */
static void
full_socket(void)
{
    struct gy_loop loop;
    struct end left;
    struct gy_address name = {.storage = {.ss_family = AF_UNIX}};
    int receiver = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    static char texts[1000][4];
    unsigned sent = 0;
    unsigned got = 0;
    char text[16];

    CHECK_EQ(bind(receiver, (struct sockaddr *)&name.storage, sizeof(sa_family_t)), 0);
    name.len = sizeof name.storage;
    CHECK_EQ(getsockname(receiver, (struct sockaddr *)&name.storage, &name.len), 0);
    gy_test_loop_begin(&loop);
    end_init(&left, &loop, socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), 0);
    for (; sent < 1000; sent++) {
        memcpy(texts[sent], &sent, sizeof sent);
        (void)send_to(&left, texts[sent], 4, &name, sent % 2 == 0);
    }
    CHECK_EQ(left.dgram.queued_bytes, 4 * left.dgram.count);
    CHECK_LT(0, left.dgram.count);
    (void)gy_test_turn(&loop, 0);
    CHECK_EQ(left.drains, 0);
    while (got < sent) {
        while (recv(receiver, text, sizeof text, 0) == 4) {
            CHECK(memcmp(text, &got, sizeof got) == 0);
            got++;
        }
        (void)gy_test_turn(&loop, GY_NS_PER_SECOND / 100);
    }
    CHECK_LT(0, left.drains);
    CHECK_EQ(left.dgram.count, 0);
    CHECK_EQ(left.owners, 0);
    /* Dropped when it closes. */
    for (unsigned i = 0; i < 1000; i++)
        (void)send_to(&left, texts[i], 4, &name, false);
    CHECK_LT(0, left.owners);
    end_close(&left);
    close(receiver);
    gy_test_loop_end(&loop);
}

/* A pause in the middle of what one receive brought: the rest comes after it. */
static void
pause_within_a_receive(void)
{
    struct gy_loop loop;
    struct end left;
    struct end right;
    struct gy_address names[2];

    gy_test_loop_begin(&loop);
    end_init(&left, &loop, udp_socket(&names[0]), GY_DGRAM_OFFLOAD);
    end_init(&right, &loop, udp_socket(&names[1]), GY_DGRAM_OFFLOAD);
    right.pause_after = 3;
    gy_dgram_resume(&right.dgram);
    for (unsigned i = 0; i < 11; i++) {
        static char texts[11][100];
        texts[i][0] = (char)i;
        (void)send_to(&left, texts[i], 100, &names[1], true);
    }
    gy_loop_flush_dirty(&loop);
    TURN_UNTIL(&loop, right.seen == 3);
    (void)gy_test_turn(&loop, 0);
    (void)gy_test_turn(&loop, 0);
    CHECK_EQ(right.seen, 3);
    /* A run that ends in between. */
    CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 0);
    gy_dgram_resume(&right.dgram);
    right.pause_after = 5;
    CHECK_EQ(gy_loop_begin(&loop), 0);
    TURN_UNTIL(&loop, right.seen == 5);
    right.pause_after = 0;
    gy_dgram_resume(&right.dgram);
    TURN_UNTIL(&loop, right.seen == 11);
    for (unsigned i = 0; i < 11; i++)
        CHECK_EQ(right.first[i], (int)i);
    /* Closed with datagrams parked. */
    right.pause_after = 12;
    for (unsigned i = 0; i < 5; i++)
        (void)send_to(&left, bytes, 100, &names[1], true);
    gy_loop_flush_dirty(&loop);
    TURN_UNTIL(&loop, right.seen == 12);
    end_close(&right);
    end_close(&left);
    gy_test_loop_end(&loop);
}

/* Closed from inside once the kernel has let go; from an upcall, which looks at it again, later. */
static void
closed_at_once(void)
{
    struct gy_loop loop;
    struct end left;
    struct end right;
    struct end busy;
    struct gy_address names[3];

    gy_test_loop_begin(&loop);
    end_init(&left, &loop, udp_socket(&names[0]), 0);
    end_init(&right, &loop, udp_socket(&names[1]), 0);
    end_init(&busy, &loop, udp_socket(&names[2]), 0);
    gy_dgram_resume(&left.dgram);
    gy_dgram_resume(&right.dgram);
    gy_dgram_resume(&busy.dgram);
    (void)gy_test_turn(&loop, 0);
    gy_dgram_close_now(&left.dgram); /* still in flight: as gy_dgram_close() */
    CHECK_EQ(left.closes, 0);
    gy_dgram_pause(&right.dgram);
    CHECK_EQ(gy_loop_poll(&loop, true), 0);
    gy_dgram_close_now(&right.dgram);
    CHECK_EQ(right.closes, 1);
    CHECK_EQ(right.detaches, 1);
    CHECK_EQ(right.dgram.fd, -1);
    gy_dgram_pause(&busy.dgram);
    (void)gy_test_turn(&loop, 0);
    busy.closes_in_upcall = true;
    CHECK_EQ(send_to(&busy, bytes, 10, &names[2], false), 10);
    gy_dgram_resume(&busy.dgram);
    TURN_UNTIL(&loop, busy.closes == 1 && left.closes == 1);
    CHECK_EQ(busy.seen, 1);
    gy_test_loop_end(&loop);
}

/* What came while the loop did not run is received by the next run; abandoned outside of one. */
static void
over_several_runs(void)
{
    struct gy_loop loop;
    struct end left;
    struct end right;
    struct gy_address names[2];

    gy_test_loop_begin(&loop);
    end_init(&left, &loop, udp_socket(&names[0]), GY_DGRAM_OFFLOAD);
    end_init(&right, &loop, udp_socket(&names[1]), GY_DGRAM_OFFLOAD);
    gy_dgram_resume(&right.dgram);
    (void)gy_test_turn(&loop, 0);
    for (unsigned run = 0; run < 3; run++) {
        CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 0);
        CHECK_EQ(send_to(&left, bytes, 10, &names[1], false), 10);
        CHECK_EQ(right.seen, run);
        CHECK_EQ(gy_loop_begin(&loop), 0);
        TURN_UNTIL(&loop, right.seen == run + 1);
    }
    CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 0);
    gy_dgram_abandon(&left.dgram);
    gy_loop_close(&loop);
    gy_dgram_abandon(&right.dgram);
    CHECK_EQ(left.closes + right.closes, 0);
    CHECK_EQ(left.detaches + right.detaches, 2);
    CHECK_EQ(loop.live, 0);
}

/* Each allocation fails once: datagrams may be lost, nothing else is. */
static void
without_memory(void)
{
#if GY_FAULTS
    for (unsigned n = 1; n < 12; n++) {
        struct gy_loop loop;
        struct end left;
        struct end right;
        struct gy_address names[2];

        gy_test_loop_begin(&loop);
        end_init(&left, &loop, udp_socket(&names[0]), GY_DGRAM_OFFLOAD);
        end_init(&right, &loop, udp_socket(&names[1]), GY_DGRAM_OFFLOAD);
        right.pause_after = 2;
        gy_dgram_resume(&right.dgram);
        gy_fault_arm(GY_FAULT_ALLOC, n, -ENOMEM);
        for (unsigned i = 0; i < 5; i++) {
            struct gy_datagram datagram = {.data = bytes, .len = 100, .owner = &left.dgram};
            if (gy_dgram_try_send(&left.dgram, bytes, 100, &names[1], true) != -EAGAIN)
                continue;
            left.owners++;
            if (gy_dgram_push(&left.dgram, &datagram, &names[1]) < 0)
                left.owners--;
        }
        gy_loop_flush_dirty(&loop);
        TURN_UNTIL(&loop, right.seen == 2 || right.broken == 1);
        gy_dgram_resume(&right.dgram);
        (void)gy_test_turn(&loop, 0);
        gy_fault_arm(GY_FAULT_ALLOC, 1000000, -ENOMEM);
        end_close(&left);
        end_close(&right);
        gy_test_loop_end(&loop);
    }
#else
    SKIP("built without fault injection");
#endif
}

static const struct gy_test tests[] = {
    GY_TEST(sends_and_receives),
    GY_TEST(no_event_for_what_was_received),
    GY_TEST(burst),
    GY_TEST(ends_of_a_burst),
    GY_TEST(refused_offload),
    GY_TEST(error_within_a_burst),
    GY_TEST(errors_that_send),
    GY_TEST(full_socket),
    GY_TEST(pause_within_a_receive),
    GY_TEST(closed_at_once),
    GY_TEST(over_several_runs),
    GY_TEST(without_memory),
};
GY_TEST_MAIN(tests)
