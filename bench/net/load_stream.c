/* load_stream.c: echo, sink and source over N lasting connections.
 *
 * epoll is edge-triggered and each descriptor is registered once. A read that comes back short
 * means the socket is empty (epoll(7) allows to conclude that for streams), so a small echo costs
 * one epoll_wait share, one recv and one send. A connection that could go on for ever in one go
 * (bulk) stops after BURST_MAX calls and is put on the `again` list. */
#define _GNU_SOURCE
#include "load_tls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { RECV_BUFFER = 256 * 1024, EVENTS_MAX = 512, BURST_MAX = 16, SINK_REPORT_BYTES = 8 };

struct connection {
    int fd;
    struct tls *tls;      /* or NULL */
    bool again;           /* is on the again list */
    uint64_t start;       /* place of this stream in the pattern */
    uint64_t goal;        /* bytes that may have been sent: a whole number of messages */
    uint64_t sent;        /* bytes */
    uint64_t received;    /* bytes */
    uint64_t queued;      /* messages */
    uint64_t done;        /* messages */
    uint64_t done_before; /* the window began */
    uint64_t due;         /* messages that the schedule has released (rate mode) */
    uint64_t *stamp_ns;   /* [depth]: when message m was sent, or should have been, at m % depth */
};

struct engine {
    struct load *load;
    struct connection *connections;
    struct connection **again;
    unsigned again_count;
    uint64_t schedule_ns; /* rate mode: when message 0 is due */
    uint64_t scheduled;   /* messages released so far */
    unsigned char *buffer;
};

static void
connection_defer(struct engine *engine, struct connection *conn)
{
    if (conn->again)
        return;
    conn->again = true;
    engine->again[engine->again_count++] = conn;
}

static size_t
next_send_size(const struct load_options *options, const struct connection *conn)
{
    uint64_t left = conn->goal - conn->sent;
    uint64_t limit = PATTERN_CHUNK;
    if (options->split != 0) {
        uint64_t place = conn->sent % options->message_size;
        limit = place < options->split ? options->split - place : options->message_size - place;
    }
    return (size_t)(left < limit ? left : limit);
}

static void
connection_push(struct engine *engine, struct connection *conn)
{
    struct load *load = engine->load;
    for (unsigned burst = 0; conn->sent < conn->goal; burst++) {
        if (burst == BURST_MAX) {
            connection_defer(engine, conn);
            return;
        }
        size_t size = next_send_size(&load->options, conn);
        const unsigned char *data = pattern_at(conn->start + conn->sent);
        ssize_t sent = conn->tls != NULL ? tls_send(conn->tls, data, size)
                                         : send(conn->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            load_fail(LOAD_EXIT_NETWORK, "send: %s", strerror(errno));
        conn->sent += (uint64_t)sent;
        if (load_counting(load))
            load->bytes_out += (uint64_t)sent;
    }
}

static void
connection_queue(struct engine *engine, struct connection *conn, uint64_t count, uint64_t stamp_ns)
{
    const struct load_options *options = &engine->load->options;
    for (uint64_t i = 0; i < count; i++)
        conn->stamp_ns[(conn->queued + i) % options->depth] = stamp_ns;
    conn->queued += count;
    conn->goal += count * options->message_size;
    engine->load->in_flight += count;
    connection_push(engine, conn);
}

/* Rate mode: the latency of a message counts from when it was due, not from when a connection was
 * free for it; otherwise a stall of the server would hide the messages that it delayed. */
static uint64_t
due_time_ns(const struct engine *engine, uint64_t number)
{
    return engine->schedule_ns + (uint64_t)((double)number * 1e9 / engine->load->options.rate);
}

static void
connection_queue_due(struct engine *engine, struct connection *conn)
{
    const struct load_options *options = &engine->load->options;
    uint64_t index = (uint64_t)(conn - engine->connections);
    while (conn->queued < conn->due && conn->queued - conn->done < options->depth)
        connection_queue(engine, conn, 1,
                         due_time_ns(engine, conn->queued * options->connections + index));
}

static void
schedule_release(struct engine *engine)
{
    const struct load_options *options = &engine->load->options;
    while (due_time_ns(engine, engine->scheduled) <= engine->load->now_ns) {
        struct connection *conn = &engine->connections[engine->scheduled % options->connections];
        engine->scheduled++;
        conn->due++;
        connection_queue_due(engine, conn);
    }
}

static void
connection_complete(struct engine *engine, struct connection *conn)
{
    struct load *load = engine->load;
    uint64_t complete = conn->received / load->options.message_size;
    if (complete == conn->done)
        return;
    uint64_t count = complete - conn->done;
    if (complete > conn->queued)
        load_fail(LOAD_EXIT_CONTENT, "more came back than was sent");
    load->now_ns = load_now_ns();
    load->in_flight -= count;
    if (load_counting(load)) {
        load->messages += count;
        for (uint64_t m = conn->done; m < complete; m++)
            hist_add(&load->latency, load->now_ns - conn->stamp_ns[m % load->options.depth]);
    }
    conn->done = complete;
    if (!load_sending(load))
        return;
    if (load->options.rate > 0)
        connection_queue_due(engine, conn);
    else
        connection_queue(engine, conn, count, load->now_ns);
}

static void
check_bytes(const struct engine *engine, const struct connection *conn, size_t size)
{
    const struct load *load = engine->load;
    bool all = load->options.verify_all || load->phase != PHASE_MEASURE;
    bool equal = load->options.mode == LOAD_ECHO
                     ? pattern_equal(conn->start + conn->received, engine->buffer, size, all)
                     : pattern_counting(conn->received, engine->buffer, size, all);
    if (!equal)
        load_fail(LOAD_EXIT_CONTENT, "wrong bytes at %llu of connection %ld",
                  (unsigned long long)conn->received, (long)(conn - engine->connections));
}

/* TCP can drop what it received without a copy (MSG_TRUNC). A source is read so in the window, all
 * but one read of 16, or the client, and not the server, would set the pace. */
static bool
reads_to_discard(const struct load *load, unsigned burst)
{
    return load->options.mode == LOAD_SOURCE && load->phase == PHASE_MEASURE &&
           load->options.unix_path == NULL && !load->options.verify_all && burst % 16 != 0;
}

static void
connection_pull(struct engine *engine, struct connection *conn)
{
    struct load *load = engine->load;
    for (unsigned burst = 0;; burst++) {
        if (burst == BURST_MAX) {
            connection_defer(engine, conn);
            return;
        }
        bool discard = reads_to_discard(load, burst);
        ssize_t got = conn->tls != NULL ? tls_recv(conn->tls, engine->buffer, RECV_BUFFER)
                                        : recv(conn->fd, engine->buffer, RECV_BUFFER,
                                               MSG_DONTWAIT | (discard ? MSG_TRUNC : 0));
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            load_fail(LOAD_EXIT_NETWORK, "recv: %s", strerror(errno));
        if (got == 0)
            load_fail(LOAD_EXIT_NETWORK, "the server closed a connection");
        if (!discard)
            check_bytes(engine, conn, (size_t)got);
        conn->received += (uint64_t)got;
        if (load_counting(load))
            load->bytes_in += (uint64_t)got;
        if (load->options.mode == LOAD_ECHO)
            connection_complete(engine, conn);
        if (got < RECV_BUFFER)
            return;
    }
}

static void
connection_ready(struct engine *engine, struct connection *conn, uint32_t events)
{
    if (conn->tls != NULL) {
        tls_readable(conn->tls);
        if (events & EPOLLOUT)
            tls_flush(conn->tls); /* a failure shows in the next call */
    }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP))
        connection_pull(engine, conn);
    if ((events & EPOLLOUT) && conn->sent < conn->goal)
        connection_push(engine, conn);
}

static void
connections_open(struct engine *engine, const struct load_address *address)
{
    struct load *load = engine->load;
    for (unsigned i = 0; i < load->options.connections; i++) {
        struct connection *conn = &engine->connections[i];
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                    .data.ptr = conn};
        conn->start = pattern_start(i);
        conn->stamp_ns = calloc(load->options.depth, sizeof(*conn->stamp_ns));
        conn->fd = load_socket(address);
        if (conn->stamp_ns == NULL)
            load_fail(LOAD_EXIT_USAGE, "out of memory");
        if (connect(conn->fd, (const struct sockaddr *)&address->storage, address->length) != 0)
            load_fail(LOAD_EXIT_NETWORK, "connect %u: %s", i, strerror(errno));
        if (load->options.tls) {
            conn->tls = tls_new(conn->fd, true);
            tls_handshake(conn->tls);
            tls_unblock(conn->tls);
        }
        fcntl(conn->fd, F_SETFL, O_NONBLOCK);
        if (epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, conn->fd, &event) != 0)
            load_fail(LOAD_EXIT_NETWORK, "epoll_ctl: %s", strerror(errno));
    }
}

/* First sends of the warm-up, and of the window after a hold, when nothing is in flight. */
static void
connections_kick(struct engine *engine)
{
    const struct load_options *options = &engine->load->options;
    engine->load->now_ns = load_now_ns();
    if (options->rate > 0) {
        /* the next message of the schedule is due now, whether it is the first or follows a hold */
        engine->schedule_ns = 0;
        engine->schedule_ns = engine->load->now_ns - due_time_ns(engine, engine->scheduled);
        return;
    }
    for (unsigned i = 0; i < options->connections; i++) {
        struct connection *conn = &engine->connections[i];
        if (options->mode == LOAD_ECHO)
            connection_queue(engine, conn, options->depth, engine->load->now_ns);
        if (options->mode != LOAD_SINK)
            continue;
        conn->goal = UINT64_MAX - UINT64_MAX % options->message_size;
        connection_push(engine, conn);
    }
}

/* A bulk window is measured in bytes; a message is --size of them. */
static void
bulk_count_messages(struct load *load)
{
    uint64_t bytes = load->options.mode == LOAD_SINK ? load->bytes_out : load->bytes_in;
    load->messages = bytes / load->options.message_size;
}

/* The server answers the end of a sink stream with the number of bytes it received. */
static void
sink_check(const struct connection *conn)
{
    unsigned char report[SINK_REPORT_BYTES] = {0};
    size_t have = 0;
    uint64_t total = 0;
    fcntl(conn->fd, F_SETFL, 0);
    if (shutdown(conn->fd, SHUT_WR) != 0)
        load_fail(LOAD_EXIT_NETWORK, "shutdown: %s", strerror(errno));
    while (have < sizeof(report)) {
        ssize_t got = recv(conn->fd, report + have, sizeof(report) - have, 0);
        if (got <= 0)
            load_fail(LOAD_EXIT_NETWORK, "the server did not say how much it received");
        have += (size_t)got;
    }
    for (size_t i = 0; i < sizeof(report); i++)
        total = total << 8 | report[i];
    if (total != conn->sent)
        load_fail(LOAD_EXIT_CONTENT, "sent %llu bytes, the server got %llu",
                  (unsigned long long)conn->sent, (unsigned long long)total);
}

static void
engine_turn(struct engine *engine)
{
    struct load *load = engine->load;
    struct epoll_event events[EVENTS_MAX];
    bool paced = load->options.rate > 0 && load_sending(load);
    uint64_t due_ns = paced ? due_time_ns(engine, engine->scheduled) : UINT64_MAX;
    unsigned again_count = engine->again_count;
    int count = load_wait(load, events, EVENTS_MAX, again_count != 0, due_ns);

    if (count > 0)
        load->progress_ns = load->now_ns;
    for (int i = 0; i < count; i++)
        connection_ready(engine, events[i].data.ptr, events[i].events);
    for (unsigned i = 0; i < again_count; i++) {
        struct connection *conn = engine->again[i];
        conn->again = false;
        connection_pull(engine, conn);
        connection_push(engine, conn);
    }
    /* those that deferred themselves once more move to the front */
    engine->again_count -= again_count;
    memmove(engine->again, engine->again + again_count,
            engine->again_count * sizeof(*engine->again));
    if (load->options.mode != LOAD_ECHO || count == 0 || paced)
        load->now_ns = load_now_ns();
    if (paced)
        schedule_release(engine);
}

/* Has each connection in turn do one echo. A server that accepts one connection per turn of its
 * loop (libuv does) would otherwise still be accepting in the window, and serve a few hundred
 * connections where others serve a thousand. */
static void
connections_greet(struct engine *engine)
{
    struct load *load = engine->load;
    for (unsigned i = 0; i < load->options.connections; i++) {
        struct connection *conn = &engine->connections[i];
        load->now_ns = load->progress_ns = load_now_ns();
        connection_queue(engine, conn, 1, load->now_ns);
        while (conn->done == 0) {
            engine_turn(engine);
            (void)load_turn_phase(load);
        }
        conn->start += conn->sent;
        conn->sent = conn->received = conn->goal = conn->queued = conn->done = 0;
    }
}

static void
connections_mark(struct engine *engine)
{
    for (unsigned i = 0; i < engine->load->options.connections; i++)
        engine->connections[i].done_before = engine->connections[i].done;
}

/* Connections that had no answer in the window: how long they waited is in no latency. */
static uint64_t
connections_unserved(const struct engine *engine)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < engine->load->options.connections; i++)
        count += engine->connections[i].done == engine->connections[i].done_before;
    return count;
}

void
load_run_stream(struct load *load, const struct load_address *address)
{
    const struct load_options *options = &load->options;
    struct engine engine = {.load = load};
    engine.connections = calloc(options->connections, sizeof(*engine.connections));
    /* each connection can be on the list once from before a turn and once from within it */
    engine.again = calloc(2 * (size_t)options->connections, sizeof(*engine.again));
    engine.buffer = malloc(RECV_BUFFER);
    if (engine.connections == NULL || engine.again == NULL || engine.buffer == NULL)
        load_fail(LOAD_EXIT_USAGE, "out of memory");

    connections_open(&engine, address);
    if (options->mode == LOAD_ECHO)
        connections_greet(&engine);
    load_start_clock(load);
    connections_kick(&engine);
    while (load->phase != PHASE_DONE) {
        engine_turn(&engine);
        bool held = load->phase == PHASE_SETTLE_BEGIN;
        if (!load_turn_phase(load) || load->phase != PHASE_MEASURE)
            continue;
        connections_mark(&engine);
        if (held)
            connections_kick(&engine);
    }
    if (options->mode == LOAD_ECHO)
        load->unserved = connections_unserved(&engine);
    if (options->mode != LOAD_ECHO)
        bulk_count_messages(load);
    if (options->mode == LOAD_SINK)
        for (unsigned i = 0; i < options->connections; i++)
            sink_check(&engine.connections[i]);
    if (options->rest_ns != 0)
        load_rest(load, &load->resting);
    for (unsigned i = 0; i < options->connections; i++) {
        tls_free(engine.connections[i].tls);
        close(engine.connections[i].fd);
        free(engine.connections[i].stamp_ns);
    }
    if (options->rest_ns != 0)
        load_rest(load, &load->closed);
    free(engine.connections);
    free(engine.again);
    free(engine.buffer);
}
