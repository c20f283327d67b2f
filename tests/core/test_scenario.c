/* test_scenario.c: the same scenario, from a seed, on each ring and by each receive policy; what
 * the host and the remote ends see must be the same: bytes, ends, errors, life cycle.
 *
 * A step changes what one connection wants; then the loop turns until everything that must follow
 * has come, and one line is written down.  When bytes come, and in how many pieces, may differ.
 * GYRE_SEED chooses one seed. */
#include "gy_test.h"
#include "listener.h"
#include "stream.h"

#include <netinet/in.h>
#include <sys/socket.h>

#define MS_NS INT64_C(1000000)

enum {
    CONNECTIONS = 4,
    STEPS = 60,
    SEEDS = 60,
    BYTES_MAX = 300000,
    PERIOD = 65521, /* of the bytes that are sent: a prime, so that no buffer size hides a loss */
    TRANSCRIPT_BYTES = 64 * 1024,
};

static char pattern[PERIOD + BYTES_MAX];

struct connection {
    struct gy_stream stream;
    int remote;
    bool open;
    /* what is wanted */
    bool reading;
    bool remote_shut;
    bool host_shut;
    bool aborted;
    bool closing;
    size_t to_send; /* by the remote end, not yet in its socket */
    size_t budget;  /* how much the remote end will read        */
    size_t written; /* by the host                              */
    /* what came */
    size_t sent;     /* by the remote end */
    size_t received; /* by the host       */
    size_t remote_received;
    bool remote_eof;
    bool remote_shut_done;
    unsigned eofs;
    unsigned errors;
    unsigned closes;
    unsigned owners; /* segments that the stream holds */
};

struct play {
    struct gy_loop loop;
    struct gy_listener listener;
    struct sockaddr_in address;
    enum gy_recv_policy policy;
    struct connection connections[CONNECTIONS];
    int accepted;
    bool listener_closed;
    uint64_t random;
    char *transcript;
    size_t len;
};

static uint64_t
random_next(struct play *play)
{
    play->random ^= play->random << 13;
    play->random ^= play->random >> 7;
    play->random ^= play->random << 17;
    return play->random;
}

static unsigned
random_below(struct play *play, unsigned limit)
{
    return (unsigned)(random_next(play) >> 20) % limit;
}

/* ---- the host ---- */

static struct connection *
connection_of(struct gy_stream *stream)
{
    return container_of(stream, struct connection, stream);
}

static void
on_data(struct gy_stream *stream, void *data, size_t len)
{
    struct connection *it = connection_of(stream);
    const char *bytes = data;
    CHECK(it->reading);
    CHECK(!it->closing);
    CHECK_EQ(it->eofs, 0);
    for (size_t done = 0; done < len;) {
        size_t at = (it->received + done) % PERIOD;
        size_t part = len - done < BYTES_MAX ? len - done : BYTES_MAX;
        CHECK(memcmp(bytes + done, pattern + at, part) == 0);
        done += part;
    }
    it->received += len;
}

static void
on_eof(struct gy_stream *stream)
{
    struct connection *it = connection_of(stream);
    CHECK(it->reading);
    it->eofs++;
}

static void
on_error(struct gy_stream *stream, int err)
{
    struct connection *it = connection_of(stream);
    CHECK(it->aborted);
    CHECK(err == -ECONNRESET || err == -EPIPE);
    it->errors++;
}

static void
on_drained(struct gy_stream *stream)
{
    CHECK(!connection_of(stream)->closing);
}

static void
on_release(struct gy_stream *stream, void *owner)
{
    CHECK(owner == stream);
    CHECK_LT(0, connection_of(stream)->owners);
    connection_of(stream)->owners--;
}

static void
on_detach(struct gy_stream *stream)
{
    CHECK_EQ(connection_of(stream)->closes, 0);
}

static void
on_closed(struct gy_stream *stream)
{
    connection_of(stream)->closes++;
}

static const struct gy_stream_host stream_host = {
    .data = on_data,
    .eof = on_eof,
    .error = on_error,
    .drained = on_drained,
    .release = on_release,
    .detach = on_detach,
    .closed = on_closed,
};

static void
on_accepted(struct gy_listener *listener, int fd)
{
    struct play *play = container_of(listener, struct play, listener);
    CHECK_EQ(play->accepted, -1);
    play->accepted = fd;
}

static void
on_failed(struct gy_listener *listener, int err, bool retry)
{
    GY_UNUSED(listener);
    GY_UNUSED(retry);
    CHECK_EQ(err, 0);
}

static void
on_listener_detach(struct gy_listener *listener)
{
    GY_UNUSED(listener);
}

static void
on_listener_closed(struct gy_listener *listener)
{
    container_of(listener, struct play, listener)->listener_closed = true;
}

static const struct gy_listener_host listener_host = {
    .accepted = on_accepted,
    .failed = on_failed,
    .detach = on_listener_detach,
    .closed = on_listener_closed,
};

/* ---- the remote ends ---- */

static bool
remote_sends(struct connection *it)
{
    size_t before = it->to_send;
    while (it->to_send > 0) {
        size_t part = it->to_send < BYTES_MAX ? it->to_send : BYTES_MAX;
        ssize_t sent =
            send(it->remote, pattern + it->sent % PERIOD, part, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent <= 0)
            break;
        it->sent += (size_t)sent;
        it->to_send -= (size_t)sent;
    }
    if (it->to_send == 0 && it->remote_shut && !it->remote_shut_done) {
        CHECK_EQ(shutdown(it->remote, SHUT_WR), 0);
        it->remote_shut_done = true;
        return true;
    }
    return it->to_send < before;
}

static bool
remote_receives(struct connection *it)
{
    static char buf[BYTES_MAX];
    size_t before = it->remote_received;
    while (it->remote_received < it->budget && !it->remote_eof) {
        size_t room = it->budget - it->remote_received;
        ssize_t got = recv(it->remote, buf, room < sizeof buf ? room : sizeof buf, MSG_DONTWAIT);
        if (got < 0)
            break;
        if (got == 0) {
            it->remote_eof = true;
            return true;
        }
        CHECK(memcmp(buf, pattern + it->remote_received % PERIOD, (size_t)got) == 0);
        it->remote_received += (size_t)got;
    }
    return it->remote_received > before;
}

/* ---- what must follow ---- */

static bool
satisfied(const struct connection *it)
{
    size_t wanted = it->written < it->budget ? it->written : it->budget;
    if (!it->open)
        return true;
    if (it->closing)
        return it->closes == 1;
    if (it->aborted)
        return it->errors == 1;
    if (it->reading && it->eofs == 0 &&
        (it->to_send > 0 || it->received < it->sent || it->remote_shut))
        return false;
    if (it->remote_received < wanted)
        return false;
    return !it->host_shut || it->budget <= it->written || it->remote_eof;
}

static void
settle(struct play *play)
{
    int64_t end_ns = gy_sys_now_ns() + 10 * GY_NS_PER_SECOND;
    for (;;) {
        bool done = true;
        bool progress = false;
        for (unsigned i = 0; i < CONNECTIONS; i++) {
            struct connection *it = &play->connections[i];
            if (it->open && !it->closing && !it->aborted) {
                progress |= remote_sends(it);
                progress |= remote_receives(it);
            }
            done &= satisfied(it);
        }
        if (done && !progress)
            return;
        CHECK_LT(gy_sys_now_ns(), end_ns);
        (void)gy_test_turn(&play->loop, progress ? 0 : MS_NS);
        gy_loop_flush_dirty(&play->loop);
    }
}

static void
note(struct play *play, const char *action, unsigned index)
{
    int len = snprintf(play->transcript + play->len, TRANSCRIPT_BYTES - play->len, "%s %u:", action,
                       index);
    play->len += (size_t)len;
    for (unsigned i = 0; i < CONNECTIONS; i++) {
        const struct connection *it = &play->connections[i];
        /* How much went before a close or a reset is not the loop's to say. */
        bool loose = it->closing || it->aborted;
        len = snprintf(play->transcript + play->len, TRANSCRIPT_BYTES - play->len,
                       " [%zu %u %u %u %u %zu %d]", loose || !it->reading ? 0 : it->received,
                       it->eofs, it->errors, it->closes, it->closes ? it->owners : 0,
                       loose ? 0 : it->remote_received, !loose && it->remote_eof);
        play->len += (size_t)len;
    }
    CHECK_LT(play->len + 1, TRANSCRIPT_BYTES);
    play->transcript[play->len++] = '\n';
    play->transcript[play->len] = '\0';
}

/* ---- steps ---- */

static void
step_open(struct play *play, struct connection *it)
{
    memset(it, 0, sizeof *it);
    it->remote = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_EQ(connect(it->remote, (struct sockaddr *)&play->address, sizeof play->address), 0);
    TURN_UNTIL(&play->loop, play->accepted >= 0);
    gy_stream_init(&it->stream, &play->loop, play->accepted, &stream_host, play->policy);
    play->accepted = -1;
    it->open = true;
    it->reading = true;
    gy_stream_resume(&it->stream);
}

static void
step_close(struct play *play, struct connection *it)
{
    it->closing = true;
    gy_stream_close(&it->stream);
    settle(play);
    CHECK_EQ(it->owners, 0);
    if (!it->aborted)
        close(it->remote);
    it->open = false;
}

static void
step_read(struct connection *it, bool reading)
{
    it->reading = reading;
    if (reading)
        gy_stream_resume(&it->stream);
    else
        gy_stream_pause(&it->stream);
}

static void
step_abort(struct play *play, struct connection *it)
{
    struct linger linger = {.l_onoff = 1};
    if (it->remote_shut)
        return; /* after the end of the stream nobody listens for a reset */
    step_read(it, true);
    settle(play);
    it->aborted = true;
    CHECK_EQ(setsockopt(it->remote, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    close(it->remote);
    settle(play);
    step_close(play, it);
}

static void
step_write(struct play *play, struct connection *it)
{
    struct gy_segment segment = {.data = pattern + it->written % PERIOD, .owner = &it->stream};
    segment.len = 1 + random_below(play, BYTES_MAX);
    if (it->host_shut)
        return;
    CHECK_EQ(gy_stream_write(&it->stream, &segment), 0);
    it->owners++;
    it->written += segment.len;
}

/* A run ends and another one begins: everything goes on where it was. */
static void
step_rest(struct play *play)
{
    CHECK_EQ(gy_loop_quiesce(&play->loop, GY_NS_PER_SECOND), 0);
    CHECK_EQ(gy_loop_begin(&play->loop), 0);
}

static const char *
step(struct play *play, struct connection *it)
{
    if (!it->open) {
        step_open(play, it);
        return "open";
    }
    switch (random_below(play, 16)) {
    case 0:
        step_close(play, it);
        return "close";
    case 1:
        step_abort(play, it);
        return "abort";
    case 2:
        it->remote_shut = true;
        return "remote shut";
    case 3:
        it->host_shut = true;
        (void)gy_stream_shutdown_write(&it->stream);
        return "shut";
    case 4:
        step_rest(play);
        return "rest";
    case 5:
    case 6:
    case 7:
        step_read(it, !it->reading);
        return it->reading ? "resume" : "pause";
    case 8:
    case 9:
    case 10:
        step_write(play, it);
        return "write";
    case 11:
    case 12:
        it->budget += 1 + random_below(play, 2 * BYTES_MAX);
        return "remote reads";
    default:
        if (!it->remote_shut)
            it->to_send += 1 + random_below(play, BYTES_MAX);
        return "remote writes";
    }
}

/* ---- plays ---- */

typedef int (*ring_create)(const struct gy_ring_options *options, struct gy_ring **out);

static void
play_begin(struct play *play, ring_create create, uint32_t features_off)
{
    struct gy_ring_options options = {.features_off = features_off};
    socklen_t len = sizeof play->address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    CHECK_EQ(gy_loop_init(&play->loop, &options, create), 0);
    CHECK_EQ(gy_loop_begin(&play->loop), 0);
    play->address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    CHECK_EQ(bind(fd, (struct sockaddr *)&play->address, len), 0);
    CHECK_EQ(listen(fd, 8), 0);
    CHECK_EQ(getsockname(fd, (struct sockaddr *)&play->address, &len), 0);
    play->accepted = -1;
    gy_listener_init(&play->listener, &play->loop, fd, true, &listener_host);
    gy_listener_start(&play->listener);
}

static char *
play_scenario(uint64_t seed, ring_create create, uint32_t features_off, enum gy_recv_policy policy)
{
    struct play *play = calloc(1, sizeof *play);
    char *transcript = calloc(1, TRANSCRIPT_BYTES);
    play->transcript = transcript;
    play->random = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15);
    play->policy = policy;
    play_begin(play, create, features_off);
    for (unsigned i = 0; i < STEPS; i++) {
        unsigned index = random_below(play, CONNECTIONS);
        const char *action = step(play, &play->connections[index]);
        gy_loop_flush_dirty(&play->loop);
        settle(play);
        note(play, action, index);
    }
    for (unsigned i = 0; i < CONNECTIONS; i++) {
        if (play->connections[i].open)
            step_close(play, &play->connections[i]);
    }
    note(play, "end", 0);
    gy_listener_close(&play->listener);
    TURN_UNTIL(&play->loop, play->listener_closed);
    gy_test_loop_end(&play->loop);
    free(play);
    return transcript;
}

static void
compare(uint64_t seed, const char *name, char *one, char *other)
{
    if (strcmp(one, other) != 0) {
        fprintf(stderr, "GYRE_SEED=%" PRIu64 ": %s\n--- one\n%s--- the other\n%s", seed, name, one,
                other);
        exit(GY_TEST_FAIL);
    }
    free(other);
}

static void
play_everywhere(uint64_t seed, bool uring)
{
    uint32_t old = GY_FEAT_POLL_MULTISHOT | GY_FEAT_ACCEPT | GY_FEAT_EPOLL_PWAIT2;
    char *one = play_scenario(seed, gy_ring_epoll_create, 0, GY_RECV_POLL);
    compare(seed, "epoll and epoll without features", one,
            play_scenario(seed, gy_ring_epoll_create, old, GY_RECV_POLL));
    if (uring) {
        compare(seed, "epoll and io_uring", one,
                play_scenario(seed, gy_ring_uring_create, 0, GY_RECV_POLL));
        compare(seed, "epoll and io_uring without multishot", one,
                play_scenario(seed, gy_ring_uring_create, old, GY_RECV_POLL));
        compare(seed, "epoll and io_uring with provided buffers", one,
                play_scenario(seed, gy_ring_uring_create, 0, GY_RECV_MULTISHOT));
    }
    free(one);
}

static void
test_the_same_everywhere(void)
{
    const char *text = getenv("GYRE_SEED");
    uint32_t features;
    enum gy_probe_stage stage;
    bool uring = !gy_test_on_epoll() && gy_probe_uring(&features, &stage) == 0;
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (char)(i % PERIOD * 2654435761u >> 13);
    if (text != NULL) {
        play_everywhere(strtoull(text, NULL, 10), uring);
        return;
    }
    for (uint64_t seed = 0; seed < SEEDS; seed++)
        play_everywhere(seed, uring);
}

static const struct gy_test tests[] = {
    GY_TEST(test_the_same_everywhere),
};
GY_TEST_MAIN(tests)
