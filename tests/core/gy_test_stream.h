/* gy_test_stream.h: a host that records what a stream tells it, and sockets to talk to it. */
#ifndef GY_TEST_STREAM_H
#define GY_TEST_STREAM_H

#include "gy_test.h"
#include "stream.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

struct peer {
    struct gy_stream stream;
    int remote; /* the other end, ours to use directly; -1 when closed */
    char *in;   /* what data() brought */
    size_t in_len;
    size_t in_capacity;
    unsigned data_calls;
    unsigned eofs;
    unsigned errors;
    unsigned drains;
    unsigned detaches;
    unsigned closes;
    unsigned owners; /* segments not yet released */
    int err;
    size_t named_bytes; /* what buffer() offers; 0: nothing */
    char *named;
    bool refuse; /* buffer() says no */
    /* Acts from inside the upcall; NULL: none. */
    void (*on_data)(struct peer *peer);
    void (*on_eof)(struct peer *peer);
    void (*on_error)(struct peer *peer);
    void (*on_drained)(struct peer *peer);
};

static inline struct peer *
peer_of(struct gy_stream *stream)
{
    return container_of(stream, struct peer, stream);
}

static inline bool
peer_buffer(struct gy_stream *stream, void **data, size_t *len)
{
    struct peer *peer = peer_of(stream);
    if (peer->refuse) {
        gy_stream_pause(stream);
        return false;
    }
    *data = peer->named;
    *len = peer->named_bytes;
    return true;
}

static inline void
peer_data(struct gy_stream *stream, void *data, size_t len)
{
    struct peer *peer = peer_of(stream);
    CHECK(len > 0);
    CHECK_EQ(peer->eofs + peer->errors + peer->closes, 0);
    CHECK(stream->flags & GY_STREAM_READING);
    if (peer->in_len + len > peer->in_capacity) {
        peer->in_capacity = (peer->in_len + len) * 2;
        peer->in = realloc(peer->in, peer->in_capacity);
        CHECK(peer->in != NULL);
    }
    memcpy(peer->in + peer->in_len, data, len);
    peer->in_len += len;
    peer->data_calls++;
    if (peer->on_data != NULL)
        peer->on_data(peer);
}

static inline void
peer_eof(struct gy_stream *stream)
{
    struct peer *peer = peer_of(stream);
    peer->eofs++;
    CHECK_EQ(peer->eofs, 1);
    CHECK_EQ(peer->closes + peer->errors, 0);
    if (peer->on_eof != NULL)
        peer->on_eof(peer);
}

static inline void
peer_error(struct gy_stream *stream, int err)
{
    struct peer *peer = peer_of(stream);
    peer->errors++;
    peer->err = err;
    CHECK_LT(err, 0);
    CHECK_EQ(peer->errors, 1);
    CHECK_EQ(peer->closes, 0);
    CHECK_EQ(peer->owners, 0);
    if (peer->on_error != NULL)
        peer->on_error(peer);
}

static inline void
peer_drained(struct gy_stream *stream)
{
    struct peer *peer = peer_of(stream);
    peer->drains++;
    CHECK_EQ(peer->closes + peer->errors, 0);
    if (peer->on_drained != NULL)
        peer->on_drained(peer);
}

static inline void
peer_release(struct gy_stream *stream, void *owner)
{
    struct peer *peer = peer_of(stream);
    CHECK(peer->owners > 0);
    peer->owners--;
    free(owner);
}

static inline void
peer_detach(struct gy_stream *stream)
{
    peer_of(stream)->detaches++;
}

static inline void
peer_closed(struct gy_stream *stream)
{
    struct peer *peer = peer_of(stream);
    peer->closes++;
    CHECK_EQ(peer->closes, 1);
    CHECK_EQ(peer->detaches, 1);
    CHECK_EQ(peer->owners, 0);
}

static const struct gy_stream_host peer_host = {
    .data = peer_data,
    .eof = peer_eof,
    .error = peer_error,
    .drained = peer_drained,
    .release = peer_release,
    .detach = peer_detach,
    .closed = peer_closed,
};

static const struct gy_stream_host peer_host_buffered = {
    .buffer = peer_buffer,
    .data = peer_data,
    .eof = peer_eof,
    .error = peer_error,
    .drained = peer_drained,
    .release = peer_release,
    .detach = peer_detach,
    .closed = peer_closed,
};

static inline void
set_nonblocking(int fd)
{
    CHECK_EQ(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
}

/* A connected pair over the loopback; cubic, because pacing (bbr) makes timing strange. */
static inline void
tcp_pair(int fds[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(listener >= 0);
    (void)setsockopt(listener, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
    CHECK_EQ(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    CHECK_EQ(listen(listener, 1), 0);
    CHECK_EQ(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    fds[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)setsockopt(fds[1], IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
    CHECK_EQ(connect(fds[1], (struct sockaddr *)&address, sizeof address), 0);
    fds[0] = accept(listener, NULL, NULL);
    CHECK(fds[0] >= 0);
    close(listener);
}

static inline void
peer_init_fd(struct peer *peer, struct gy_loop *loop, int fd, int remote,
             const struct gy_stream_host *host, enum gy_recv_policy policy)
{
    memset(peer, 0, sizeof *peer);
    peer->remote = remote;
    set_nonblocking(fd);
    gy_stream_init(&peer->stream, loop, fd, host, policy);
}

static inline void
peer_init(struct peer *peer, struct gy_loop *loop, enum gy_recv_policy policy)
{
    int fds[2];
    tcp_pair(fds);
    peer_init_fd(peer, loop, fds[0], fds[1], &peer_host, policy);
}

/* Several, received by POLL. */
static inline void
peers_init(struct peer *peers, unsigned count, struct gy_loop *loop)
{
    for (unsigned i = 0; i < count; i++)
        peer_init(&peers[i], loop, GY_RECV_POLL);
}

/* The same, and their receives are armed. */
static inline void
peers_begin(struct peer *peers, unsigned count, struct gy_loop *loop)
{
    peers_init(peers, count, loop);
    for (unsigned i = 0; i < count; i++)
        gy_stream_resume(&peers[i].stream);
    (void)gy_test_turn(loop, 0);
}

static inline void
pause_on_data(struct peer *peer)
{
    gy_stream_pause(&peer->stream);
}

static inline void
remote_close(struct peer *peer)
{
    CHECK_EQ(close(peer->remote), 0);
    peer->remote = -1;
}

/* Ends with RST instead of FIN. */
static inline void
remote_reset(struct peer *peer)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    CHECK_EQ(setsockopt(peer->remote, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    remote_close(peer);
}

static inline void
remote_send(struct peer *peer, const void *data, size_t len)
{
    CHECK_EQ(send(peer->remote, data, len, MSG_NOSIGNAL), len);
}

/* The content of a long transfer: byte i of it. */
static inline char
pattern(size_t i)
{
    return (char)(i * 131 + (i >> 8) * 7 + (i >> 16));
}

static inline char *
pattern_new(size_t start, size_t len)
{
    char *bytes = malloc(len);
    CHECK(bytes != NULL);
    for (size_t i = 0; i < len; i++)
        bytes[i] = pattern(start + i);
    return bytes;
}

static inline bool
pattern_is(const char *bytes, size_t start, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i] != pattern(start + i))
            return false;
    return true;
}

/* Queues len bytes of the pattern as one segment that owns its memory. */
static inline int
peer_write(struct peer *peer, size_t start, size_t len)
{
    char *bytes = pattern_new(start, len);
    struct gy_segment segment = {.data = bytes, .len = len, .owner = bytes};
    int err;
    peer->owners++;
    err = gy_stream_write(&peer->stream, &segment);
    if (err < 0) {
        peer->owners--;
        free(bytes);
    }
    return err;
}

static inline void
peer_free(struct peer *peer)
{
    CHECK_EQ(peer->owners, 0);
    if (peer->remote >= 0)
        close(peer->remote);
    free(peer->in);
    free(peer->named);
}

/* Closes and waits for closed(). */
static inline void
peer_end(struct peer *peer)
{
    struct gy_loop *loop = peer->stream.loop;
    gy_stream_close(&peer->stream);
    CHECK_EQ(peer->closes, 0);
    TURN_UNTIL(loop, peer->closes == 1);
    peer_free(peer);
}

static inline bool
peer_can_multishot(const struct gy_loop *loop)
{
    return (loop->features & GY_FEAT_RECV_MULTISHOT) != 0 &&
           (loop->features & GY_FEAT_BUF_RING) != 0;
}

#endif
