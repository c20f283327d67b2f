/* sim_host.c: see sim_host.h.  Owner: the test.  Thread: one. */
#include "sim_host.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEGMENT_MAX = 6000, REMOTE_CHUNK = 3000, READ_CHUNK = 4000 };

/* A segment of the send queue. */
struct owner {
    struct connection *connection;
    size_t len;
    char bytes[];
};

void
scene_failed(const struct scene *scene, const char *what, int line)
{
    fprintf(stderr, "FAILED: %s (line %d); repeat with GYRE_SEED=%" PRIu64 "\n", what, line,
            scene->seed);
    abort();
}

static char
byte_at(uint32_t connection, bool outwards, uint64_t position)
{
    return (char)(position * 131 + (position >> 8) * 7 + connection * 17 + (outwards ? 91 : 0));
}

static void
fill(char *bytes, size_t len, uint32_t connection, bool outwards, uint64_t position)
{
    for (size_t i = 0; i < len; i++)
        bytes[i] = byte_at(connection, outwards, position + i);
}

static bool
bytes_are(const char *bytes, size_t len, uint32_t connection, bool outwards, uint64_t position)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i] != byte_at(connection, outwards, position + i))
            return false;
    return true;
}

static struct connection *
connection_of(struct gy_stream *stream)
{
    return container_of(stream, struct connection, stream);
}

static bool
is_usable(const struct connection *connection)
{
    return connection->in_use && !connection->close_called;
}

/* ---- upcalls ---- */

/* Called on entry of every upcall but release. */
static void
enter_upcall(struct connection *connection)
{
    struct scene *scene = connection->scene;
    EXPECT(scene, !scene->quiet);
    EXPECT(scene, !connection->closed);
    EXPECT(scene, connection->in_use);
    EXPECT(scene, scene->upcall_depth < 8);
    scene->upcall_depth++;
}

static void
leave_upcall(struct connection *connection)
{
    struct scene *scene = connection->scene;
    if (!scene->calm && sim_chance(&scene->rng, 20))
        scene_act(scene);
    if (!scene->calm && sim_chance(&scene->rng, 3))
        scene->loop.interrupted = true;
    scene->upcall_depth--;
}

static bool
host_buffer(struct gy_stream *stream, void **data, size_t *len)
{
    struct connection *connection = connection_of(stream);
    struct scene *scene = connection->scene;
    enter_upcall(connection);
    EXPECT(scene, connection->reading);
    EXPECT(scene, !connection->named_open);
    connection->named_len = 0;
    if (!scene->calm && sim_chance(&scene->rng, 3)) {
        gy_stream_pause(stream);
        connection->reading = false;
        scene->upcall_depth--;
        return false;
    }
    if (sim_chance(&scene->rng, 70)) {
        connection->named_len = sim_size(&scene->rng, NAMED_MAX);
        *data = connection->named;
        *len = connection->named_len;
    }
    connection->named_open = true;
    leave_upcall(connection);
    return true;
}

static void
host_unused(struct gy_stream *stream)
{
    struct connection *connection = connection_of(stream);
    enter_upcall(connection);
    EXPECT(connection->scene, connection->named_open);
    connection->named_open = false;
    connection->scene->upcall_depth--;
}

static void
host_data(struct gy_stream *stream, void *data, size_t len)
{
    struct connection *connection = connection_of(stream);
    struct scene *scene = connection->scene;
    enter_upcall(connection);
    EXPECT(scene, connection->reading);
    EXPECT(scene, !connection->eof);
    EXPECT(scene, !connection->error);
    EXPECT(scene, !connection->close_called);
    EXPECT(scene, len > 0);
    EXPECT(scene, data != connection->named || len <= connection->named_len);
    if (data == connection->named || connection->stream.recv_mode == GY_RECV_POLL)
        connection->named_open = false;
    EXPECT(scene, connection->in_seen + len <= connection->in_sent);
    EXPECT(scene, bytes_are(data, len, connection->number, false, connection->in_seen));
    connection->in_seen += len;
    scene->data_calls++;
    leave_upcall(connection);
}

void
scene_read(struct connection *connection)
{
    if (!connection->reading)
        connection->eof = false;
    connection->reading = true;
    gy_stream_resume(&connection->stream);
}

static void
host_eof(struct gy_stream *stream)
{
    struct connection *connection = connection_of(stream);
    struct scene *scene = connection->scene;
    enter_upcall(connection);
    EXPECT(scene, connection->reading);
    EXPECT(scene, !connection->eof);
    EXPECT(scene, !connection->error);
    EXPECT(scene, !connection->close_called);
    EXPECT(scene, connection->socket->in_fin || connection->socket->reset);
    if (!connection->lossy)
        EXPECT(scene, connection->in_seen == connection->in_sent);
    connection->eof = true;
    connection->named_open = false;
    leave_upcall(connection);
}

static void
host_error(struct gy_stream *stream, int err)
{
    struct connection *connection = connection_of(stream);
    struct scene *scene = connection->scene;
    enter_upcall(connection);
    EXPECT(scene, err < 0);
    EXPECT(scene, !connection->error);
    EXPECT(scene, !connection->close_called);
    EXPECT(scene, connection->socket->reset || err == -ENOMEM);
    EXPECT(scene, connection->owners == 0);
    EXPECT(scene, gy_stream_queued(stream) == 0);
    EXPECT(scene, !connection->named_open);
    connection->error = true;
    if (sim_chance(&scene->rng, 80))
        scene_close(connection);
    leave_upcall(connection);
}

static void
host_drained(struct gy_stream *stream)
{
    struct connection *connection = connection_of(stream);
    enter_upcall(connection);
    EXPECT(connection->scene, !connection->close_called);
    EXPECT(connection->scene, !connection->error);
    if (gy_stream_queued(stream) == 0)
        connection->awaits_drain = false;
    leave_upcall(connection);
}

static void
host_release(struct gy_stream *stream, void *memory)
{
    struct connection *connection = connection_of(stream);
    struct scene *scene = connection->scene;
    struct owner *owner = memory;
    EXPECT(scene, !connection->closed);
    EXPECT(scene, owner->connection == connection);
    EXPECT(scene, connection->owners > 0);
    connection->owners--;
    memset(owner->bytes, 0xee, owner->len);
    free(owner);
    if (!scene->calm && !scene->quiet && scene->upcall_depth < 4 && sim_chance(&scene->rng, 5)) {
        scene->upcall_depth++;
        scene_act(scene);
        scene->upcall_depth--;
    }
}

static void
host_detach(struct gy_stream *stream)
{
    struct connection *connection = connection_of(stream);
    struct scene *scene = connection->scene;
    EXPECT(scene, !scene->quiet);
    EXPECT(scene, connection->close_called);
    EXPECT(scene, !connection->detached);
    EXPECT(scene, !connection->named_open);
    EXPECT(scene, connection->owners == 0 || scene->loop.closed);
    EXPECT(scene, connection->socket->open);
    EXPECT(scene, connection->socket->ops == 0);
    connection->detached = true;
}

static void
host_closed(struct gy_stream *stream)
{
    struct connection *connection = connection_of(stream);
    struct scene *scene = connection->scene;
    enter_upcall(connection);
    EXPECT(scene, connection->detached);
    EXPECT(scene, !connection->socket->open);
    connection->closed = true;
    memset(stream, 0xcc, sizeof(*stream)); /* the memory is ours again */
    leave_upcall(connection);
}

static const struct gy_stream_host host_plain = {
    .data = host_data,
    .eof = host_eof,
    .error = host_error,
    .drained = host_drained,
    .release = host_release,
    .detach = host_detach,
    .closed = host_closed,
};

static const struct gy_stream_host host_buffered = {
    .buffer = host_buffer,
    .unused = host_unused,
    .data = host_data,
    .eof = host_eof,
    .error = host_error,
    .drained = host_drained,
    .release = host_release,
    .detach = host_detach,
    .closed = host_closed,
};

/* ---- listener ---- */

static struct connection *
adopt(struct scene *scene, struct sim_socket *socket)
{
    struct connection *connection = &scene->connections[scene->count];
    bool buffered = sim_chance(&scene->rng, 30);
    EXPECT(scene, scene->count < CONNECTIONS_MAX);
    memset(connection, 0, sizeof(*connection));
    connection->scene = scene;
    connection->socket = socket;
    connection->number = (uint32_t)(socket->fd - SIM_FD_FIRST);
    connection->in_use = true;
    scene->count++;
    gy_stream_init(&connection->stream, &scene->loop, socket->fd,
                   buffered ? &host_buffered : &host_plain,
                   sim_chance(&scene->rng, 50) ? GY_RECV_POLL : GY_RECV_MULTISHOT);
    if (socket->message_like)
        connection->stream.flags |=
            GY_STREAM_READ_OUT | (sim_chance(&scene->rng, 50) ? (uint32_t)GY_STREAM_LOCAL : 0);
    if (sim_chance(&scene->rng, 20)) {
        gy_stream_set_policy(&connection->stream, GY_RECV_POLL);
        connection->stream.flags |= GY_STREAM_PIPE;
    }
    if (sim_chance(&scene->rng, 80)) {
        gy_stream_resume(&connection->stream);
        connection->reading = true;
    }
    return connection;
}

static void
host_accepted(struct gy_listener *listener, int fd)
{
    struct scene *scene = container_of(listener, struct scene, listener);
    struct sim_socket *socket = sim_socket_of(&scene->world.net, fd);
    EXPECT(scene, !scene->quiet);
    EXPECT(scene, scene->listener_open);
    EXPECT(scene, socket != NULL && socket->open);
    scene->accepted++;
    if (scene->count < CONNECTIONS_MAX)
        adopt(scene, socket);
    else
        scene->loop.ring->ops->close(scene->loop.ring, fd);
    if (!scene->calm && sim_chance(&scene->rng, 5)) {
        scene->listener_open = false;
        gy_listener_close(listener);
        EXPECT(scene, !scene->listener_socket->open);
    }
}

static void
host_failed(struct gy_listener *listener, int err, bool retry)
{
    struct scene *scene = container_of(listener, struct scene, listener);
    EXPECT(scene, !scene->quiet);
    EXPECT(scene, scene->listener_open);
    EXPECT(scene, err == -EMFILE);
    EXPECT(scene, retry);
}

static void
host_listener_detach(struct gy_listener *listener)
{
    struct scene *scene = container_of(listener, struct scene, listener);
    EXPECT(scene, !scene->listener_open);
    EXPECT(scene, scene->listener_socket->open);
}

static void
host_listener_closed(struct gy_listener *listener)
{
    struct scene *scene = container_of(listener, struct scene, listener);
    EXPECT(scene, !scene->quiet);
    EXPECT(scene, !scene->listener_open);
    EXPECT(scene, !scene->listener_closed);
    scene->listener_closed = true;
    memset(listener, 0xcc, sizeof(*listener));
}

static const struct gy_listener_host listener_host = {
    .accepted = host_accepted,
    .failed = host_failed,
    .detach = host_listener_detach,
    .closed = host_listener_closed,
};

void
scene_listen(struct scene *scene)
{
    scene->listener_socket = sim_listener(&scene->world.net);
    scene->listener_open = true;
    gy_listener_init(&scene->listener, &scene->loop, scene->listener_socket->fd, true,
                     &listener_host);
    gy_listener_start(&scene->listener);
}

/* ---- what the host does ---- */

struct connection *
scene_connect(struct scene *scene)
{
    struct sim_socket *socket = sim_connection(&scene->world.net, scene->buffer_bytes);
    if (socket == NULL)
        return NULL;
    socket->message_like = sim_chance(&scene->rng, 20);
    return adopt(scene, socket);
}

/* A write may be refused: the host ended it, or a failure is about to be told. */
static bool
may_refuse(const struct connection *connection)
{
    return connection->shut_called || connection->stream.error != 0 ||
           (connection->stream.flags & GY_STREAM_BROKEN) != 0;
}

/* Not out of proportion to what the socket takes at once. */
static size_t
segment_size(struct scene *scene)
{
    uint32_t most = scene->buffer_bytes * 2;
    return sim_size(&scene->rng, most < SEGMENT_MAX ? most : SEGMENT_MAX);
}

static void
write_segment(struct connection *connection)
{
    struct scene *scene = connection->scene;
    size_t len = segment_size(scene);
    struct owner *owner = malloc(sizeof(*owner) + len);
    struct gy_segment segment;
    int err;

    EXPECT(scene, owner != NULL);
    owner->connection = connection;
    owner->len = len;
    fill(owner->bytes, len, connection->number, true, connection->out_written);
    segment = (struct gy_segment){.data = owner->bytes, .len = len, .owner = owner};
    connection->owners++;
    err = gy_stream_write(&connection->stream, &segment);
    if (err == 0) {
        connection->out_written += len;
        connection->awaits_drain = true;
        return;
    }
    EXPECT(scene, err == -EPIPE);
    EXPECT(scene, may_refuse(connection));
    connection->owners--;
    free(owner);
}

/* A host that flushes looks at the queue itself. */
static void
flush(struct connection *connection)
{
    gy_stream_flush(&connection->stream);
    if (is_usable(connection) && gy_stream_queued(&connection->stream) == 0)
        connection->awaits_drain = false;
}

static void
try_write(struct connection *connection)
{
    struct scene *scene = connection->scene;
    char bytes[SEGMENT_MAX];
    size_t len = segment_size(scene);
    ssize_t taken;
    fill(bytes, len, connection->number, true, connection->out_written);
    taken = gy_stream_try_write(&connection->stream, bytes, len);
    memset(bytes, 0xee, sizeof(bytes));
    EXPECT(scene, taken <= (ssize_t)len);
    if (taken > 0)
        connection->out_written += (uint64_t)taken;
    else if (taken < 0)
        EXPECT(scene, may_refuse(connection));
}

void
scene_close(struct connection *connection)
{
    if (connection->close_called)
        return;
    connection->close_called = true;
    connection->reading = false;
    gy_stream_close(&connection->stream);
    EXPECT(connection->scene, !connection->closed); /* never from inside */
}

static void
act_on(struct connection *connection)
{
    struct scene *scene = connection->scene;
    struct gy_stream *stream = &connection->stream;

    switch (sim_below(&scene->rng, 16)) {
    case 0:
    case 1:
    case 2:
        for (uint32_t i = sim_size(&scene->rng, 80); i > 0 && is_usable(connection); i--)
            write_segment(connection);
        if (is_usable(connection) && sim_chance(&scene->rng, 50))
            flush(connection);
        break;
    case 3:
    case 4:
    case 5:
        write_segment(connection);
        break;
    case 6:
        flush(connection);
        break;
    case 7:
        try_write(connection);
        break;
    case 8:
        connection->reading = false;
        gy_stream_pause(stream);
        break;
    case 9:
        connection->reading = false;
        gy_stream_stop_receive(stream);
        break;
    case 10:
    case 11:
    case 12:
        if (!connection->error)
            scene_read(connection);
        break;
    case 13:
        gy_stream_set_policy(stream,
                             sim_chance(&scene->rng, 50) ? GY_RECV_POLL : GY_RECV_MULTISHOT);
        break;
    case 14:
        if (sim_chance(&scene->rng, 10) && (stream->flags & GY_STREAM_PIPE) == 0) {
            connection->shut_called = true;
            (void)gy_stream_shutdown_write(stream);
        }
        break;
    default:
        if (sim_chance(&scene->rng, 15))
            scene_close(connection);
        break;
    }
}

void
scene_act(struct scene *scene)
{
    struct connection *connection;
    if (scene->count == 0)
        return;
    connection = &scene->connections[sim_below(&scene->rng, scene->count)];
    if (is_usable(connection))
        act_on(connection);
}

/* ---- what the remotes do ---- */

static void
remote_reads(struct connection *connection, size_t most)
{
    struct scene *scene = connection->scene;
    char bytes[READ_CHUNK];
    size_t got;
    do {
        size_t len = most < sizeof(bytes) ? most : sizeof(bytes);
        got = sim_remote_recv(&scene->world.net, connection->socket, bytes, len);
        EXPECT(scene, connection->out_seen + got <= connection->out_written);
        EXPECT(scene, bytes_are(bytes, got, connection->number, true, connection->out_seen));
        connection->out_seen += got;
        most -= got;
    } while (got > 0 && most > 0);
}

static void
remote_sends(struct connection *connection)
{
    struct scene *scene = connection->scene;
    char bytes[REMOTE_CHUNK];
    size_t len = sim_size(&scene->rng, REMOTE_CHUNK);
    fill(bytes, len, connection->number, false, connection->in_sent);
    connection->in_sent += sim_remote_send(&scene->world.net, connection->socket, bytes, len);
}

void
scene_remotes_act(struct scene *scene)
{
    struct connection *connection;
    if (scene->listener_open && sim_chance(&scene->rng, 20) &&
        scene->world.net.count < CONNECTIONS_MAX * 2)
        (void)sim_remote_connect(&scene->world.net, scene->listener_socket, scene->buffer_bytes);
    if (scene->count == 0)
        return;
    connection = &scene->connections[sim_below(&scene->rng, scene->count)];
    switch (sim_below(&scene->rng, 8)) {
    case 0:
    case 1:
    case 2:
        remote_sends(connection);
        break;
    case 3:
    case 4:
        remote_reads(connection, sim_size(&scene->rng, 20000));
        break;
    case 5:
        remote_sends(connection);
        if (sim_chance(&scene->rng, 10)) /* data and FIN in one segment */
            sim_remote_shutdown(&scene->world.net, connection->socket);
        break;
    case 6:
        if (sim_chance(&scene->rng, 4)) {
            connection->lossy = true;
            sim_remote_close(&scene->world.net, connection->socket);
        }
        break;
    default:
        if (sim_chance(&scene->rng, 4)) {
            connection->lossy = true;
            sim_remote_reset(&scene->world.net, connection->socket);
        }
        break;
    }
}

void
scene_drain_remotes(struct scene *scene)
{
    for (uint32_t i = 0; i < scene->count; i++)
        remote_reads(&scene->connections[i], SIZE_MAX);
}

/* ---- checks ---- */

void
scene_check(struct scene *scene)
{
    EXPECT(scene, scene->world.net.bad_closes == 0);
    if (scene->world.violations > 0)
        scene_failed(scene, scene->world.violation, __LINE__);
    EXPECT(scene, !scene->world.stalled);
    for (uint32_t i = 0; i < scene->count; i++) {
        struct connection *connection = &scene->connections[i];
        /* The end may be seen only after everything that was written, unless we closed. */
        if (connection->socket->out_fin && !connection->socket->reset && !connection->lossy &&
            !connection->close_called && !connection->error)
            EXPECT(scene,
                   connection->out_seen + connection->socket->out.len == connection->out_written);
        EXPECT(scene, !connection->closed || connection->owners == 0);
    }
}

void
scene_init(struct scene *scene, uint64_t seed, uint32_t features)
{
    struct gy_ring_options options = {0};
    memset(scene, 0, sizeof(*scene));
    scene->seed = seed;
    scene->rng.state = seed ^ UINT64_C(0x5eed5eed5eed5eed);
    sim_world_init(&scene->world, seed, features);
    scene->world.context = scene;
    sim_world_use(&scene->world);
    scene->buffer_bytes = sim_chance(&scene->rng, 50) ? 70000 : 1 + sim_size(&scene->rng, 5000);
    EXPECT(scene, gy_loop_init(&scene->loop, &options, sim_ring_create) == 0);
    scene->loop.hold.wanted = sim_chance(&scene->rng, 50);
}

void
scene_deinit(struct scene *scene)
{
    scene_check(scene);
    for (uint32_t i = 0; i < scene->count; i++) {
        struct connection *connection = &scene->connections[i];
        EXPECT(scene, connection->owners == 0);
        EXPECT(scene, connection->detached);
    }
    EXPECT(scene, scene->loop.live == 0);
    EXPECT(scene, scene->world.ops == 0);
    sim_world_deinit(&scene->world);
}
