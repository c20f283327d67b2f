/* sim_net.c: the sockets behind ring_sim.c.  Owner: the test.  Thread: one. */
#include "sim_net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

uint64_t
sim_random(struct sim_rng *rng)
{
    uint64_t z = rng->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint32_t
sim_below(struct sim_rng *rng, uint32_t limit)
{
    return (uint32_t)(sim_random(rng) >> 32) % limit;
}

bool
sim_chance(struct sim_rng *rng, uint32_t percent)
{
    return sim_below(rng, 100) < percent;
}

uint64_t
sim_seeds(const char *text, uint64_t usual)
{
    const char *slower = getenv("GYRE_TEST_SLOWER");
    unsigned long times = slower != NULL ? strtoul(slower, NULL, 10) : 1;
    uint64_t count = text != NULL ? strtoull(text, NULL, 10) : usual;
    return times > 1 && count > times ? count / times : count;
}

uint32_t
sim_size(struct sim_rng *rng, uint32_t most)
{
    uint32_t limit = most;
    switch (sim_below(rng, 4)) {
    case 0:
        limit = 4;
        break;
    case 1:
        limit = 100;
        break;
    default:
        break;
    }
    return 1 + sim_below(rng, limit < most ? limit : most);
}

void
sim_net_init(struct sim_net *net, uint64_t seed)
{
    memset(net, 0, sizeof(*net));
    net->rng.state = seed;
}

void
sim_net_deinit(struct sim_net *net)
{
    for (uint32_t i = 0; i < net->count; i++) {
        free(net->sockets[i].in.bytes);
        free(net->sockets[i].out.bytes);
    }
}

static struct sim_socket *
new_socket(struct sim_net *net)
{
    struct sim_socket *socket;
    if (net->count == SIM_SOCKETS_MAX)
        return NULL;
    socket = &net->sockets[net->count];
    socket->fd = SIM_FD_FIRST + (int)net->count++;
    socket->used = true;
    return socket;
}

static struct sim_socket *
new_connection(struct sim_net *net, uint32_t buffer_bytes)
{
    struct sim_socket *socket = new_socket(net);
    if (socket == NULL)
        return NULL;
    socket->in.capacity = buffer_bytes;
    socket->out.capacity = buffer_bytes;
    socket->in.bytes = malloc(buffer_bytes);
    socket->out.bytes = malloc(buffer_bytes);
    if (socket->in.bytes == NULL || socket->out.bytes == NULL)
        abort();
    return socket;
}

struct sim_socket *
sim_connection(struct sim_net *net, uint32_t buffer_bytes)
{
    struct sim_socket *socket = new_connection(net, buffer_bytes);
    if (socket != NULL) {
        socket->open = true;
        net->opened++;
    }
    return socket;
}

struct sim_socket *
sim_listener(struct sim_net *net)
{
    struct sim_socket *socket = new_socket(net);
    if (socket == NULL)
        abort();
    socket->listener = true;
    socket->open = true;
    net->opened++;
    return socket;
}

struct sim_socket *
sim_socket_of(struct sim_net *net, int fd)
{
    if (fd < SIM_FD_FIRST || fd >= SIM_FD_FIRST + (int)net->count)
        return NULL;
    return &net->sockets[fd - SIM_FD_FIRST];
}

static size_t
queue_put(struct sim_queue *queue, const char *data, size_t len)
{
    size_t room = queue->capacity - queue->len;
    if (len > room)
        len = room;
    if (len > 0)
        memcpy(queue->bytes + queue->len, data, len);
    queue->len += len;
    return len;
}

static size_t
queue_take(struct sim_queue *queue, char *data, size_t len)
{
    if (len > queue->len)
        len = queue->len;
    if (len == 0)
        return 0;
    memcpy(data, queue->bytes, len);
    queue->len -= len;
    memmove(queue->bytes, queue->bytes + len, queue->len);
    return len;
}

struct sim_socket *
sim_remote_connect(struct sim_net *net, struct sim_socket *listener, uint32_t buffer_bytes)
{
    struct sim_socket *socket;
    if (!listener->open || listener->backlog_count == SIM_BACKLOG_MAX)
        return NULL;
    socket = new_connection(net, buffer_bytes);
    if (socket == NULL)
        return NULL;
    listener->backlog[listener->backlog_count++] = socket->fd;
    listener->wakes_in++;
    return socket;
}

size_t
sim_remote_send(struct sim_net *net, struct sim_socket *socket, const char *data, size_t len)
{
    size_t taken;
    GY_UNUSED(net);
    if (socket->in_fin || socket->reset)
        return 0;
    taken = queue_put(&socket->in, data, len);
    if (taken > 0)
        socket->wakes_in++;
    return taken;
}

size_t
sim_remote_recv(struct sim_net *net, struct sim_socket *socket, char *data, size_t len)
{
    size_t taken = queue_take(&socket->out, data, len);
    GY_UNUSED(net);
    if (taken > 0)
        socket->wakes_out++;
    return taken;
}

void
sim_remote_shutdown(struct sim_net *net, struct sim_socket *socket)
{
    GY_UNUSED(net);
    if (socket->in_fin || socket->reset)
        return;
    socket->in_fin = true;
    socket->wakes_in++;
}

void
sim_remote_close(struct sim_net *net, struct sim_socket *socket)
{
    bool unread = socket->out.len > 0;
    sim_remote_shutdown(net, socket);
    socket->remote_gone = true;
    socket->out.len = 0;
    socket->wakes_out++;
    if (unread) /* closing with bytes unread resets, as TCP does */
        sim_remote_reset(net, socket);
}

void
sim_remote_reset(struct sim_net *net, struct sim_socket *socket)
{
    if (socket->reset)
        return;
    socket->reset = true;
    socket->remote_gone = true;
    socket->error = -ECONNRESET;
    socket->out.len = 0;
    if (sim_chance(&net->rng, 50))
        socket->in.len = 0; /* what was not yet read is lost, or not */
    socket->wakes_in++;
    socket->wakes_out++;
}

bool
sim_remote_sees_end(const struct sim_socket *socket)
{
    return socket->reset || socket->out_fin || (!socket->open && socket->ops == 0);
}

uint32_t
sim_readiness(const struct sim_socket *socket)
{
    uint32_t mask = 0;
    if (socket->listener)
        return socket->backlog_count > 0 ? POLLIN : 0;
    if (socket->in.len > 0 || socket->in_fin || socket->reset)
        mask |= POLLIN;
    if (socket->in_fin || socket->reset)
        mask |= POLLRDHUP;
    if (socket->error != 0)
        mask |= POLLERR;
    if ((socket->in_fin && socket->out_fin) || socket->reset)
        mask |= POLLHUP;
    if (socket->out.len < (socket->datagram ? socket->out_limit : socket->out.capacity) ||
        socket->remote_gone)
        mask |= POLLOUT;
    return mask;
}

ssize_t
sim_recv(struct sim_net *net, struct sim_socket *socket, void *data, size_t len)
{
    if (!socket->used || socket->listener)
        return -EBADF;
    if (socket->in.len > 0 && len > 0) {
        if (socket->message_like && sim_chance(&net->rng, 60))
            len = 1 + sim_below(&net->rng, (uint32_t)(len < 1000 ? len : 1000));
        return (ssize_t)queue_take(&socket->in, data, len);
    }
    if (socket->error != 0) {
        int err = socket->error;
        socket->error = 0;
        return err;
    }
    if (socket->in_fin || socket->reset)
        return 0;
    return -EAGAIN;
}

ssize_t
sim_send(struct sim_net *net, struct sim_socket *socket, const struct iovec *iov, unsigned count)
{
    size_t total = 0;

    if (!socket->used || socket->listener)
        return -EBADF;
    if (socket->error != 0) {
        int err = socket->error;
        socket->error = 0;
        return err;
    }
    if (socket->reset || socket->out_fin)
        return -EPIPE;
    for (unsigned i = 0; i < count; i++) {
        size_t len = iov[i].iov_len;
        size_t taken;
        if (sim_chance(&net->rng, 5)) /* a signal, or memory pressure */
            len = len > 1 && total > 0 ? len / 2 : len;
        if (socket->remote_gone) { /* taken here, and answered by a reset */
            taken = len;
        } else {
            taken = queue_put(&socket->out, iov[i].iov_base, len);
        }
        total += taken;
        if (taken < iov[i].iov_len)
            break;
    }
    if (socket->remote_gone && total > 0)
        sim_remote_reset(net, socket);
    return total > 0 ? (ssize_t)total : -EAGAIN;
}

/* ---- datagrams ---- */

enum { DATAGRAM_BYTES_MAX = 1 << 16, HEADER_BYTES = sizeof(uint32_t) };

struct sim_socket *
sim_datagrams(struct sim_net *net, uint32_t buffer_bytes)
{
    /* A send is taken whole while there is any room. */
    struct sim_socket *socket = sim_connection(net, buffer_bytes + 2 * DATAGRAM_BYTES_MAX);
    if (socket == NULL)
        abort();
    socket->datagram = true;
    socket->out_limit = buffer_bytes;
    return socket;
}

static void
datagram_put(struct sim_queue *queue, const char *data, size_t len)
{
    uint32_t header = (uint32_t)len;
    if (queue_put(queue, (const char *)&header, HEADER_BYTES) != HEADER_BYTES ||
        queue_put(queue, data, len) != len)
        abort();
}

static uint32_t
datagram_size(const struct sim_queue *queue)
{
    uint32_t header;
    memcpy(&header, queue->bytes, HEADER_BYTES);
    return header;
}

/* Cuts what does not fit. */
static size_t
datagram_take(struct sim_queue *queue, char *data, size_t len)
{
    uint32_t size = datagram_size(queue);
    char rest[DATAGRAM_BYTES_MAX];
    size_t part = size < len ? size : len;
    (void)queue_take(queue, rest, HEADER_BYTES);
    (void)queue_take(queue, data, part);
    (void)queue_take(queue, rest, size - part);
    return part;
}

bool
sim_remote_send_datagram(struct sim_socket *socket, const char *data, size_t len)
{
    if (socket->in.len + HEADER_BYTES + len > socket->in.capacity)
        return false;
    datagram_put(&socket->in, data, len);
    socket->wakes_in++;
    return true;
}

ssize_t
sim_remote_recv_datagram(struct sim_socket *socket, char *data, size_t len)
{
    if (socket->out.len == 0)
        return -1;
    socket->wakes_out++;
    return (ssize_t)datagram_take(&socket->out, data, len);
}

/* Of equal size, the last perhaps shorter, as the kernel joins them. */
static bool
datagram_joins(struct sim_net *net, const struct sim_socket *socket, size_t size, size_t room)
{
    return socket->gro && size > 0 && socket->in.len > 0 && datagram_size(&socket->in) == size &&
           size <= room && sim_chance(&net->rng, 80);
}

ssize_t
sim_recvmsg(struct sim_net *net, struct sim_socket *socket, struct msghdr *message)
{
    const struct iovec *iov = message->msg_iov;
    struct cmsghdr *control = CMSG_FIRSTHDR(message);
    size_t total;
    int size;

    message->msg_namelen = 0;
    if (socket->error != 0) {
        int err = socket->error;
        socket->error = 0;
        return err;
    }
    if (socket->in.len == 0)
        return -EAGAIN;
    size = (int)datagram_size(&socket->in);
    total = datagram_take(&socket->in, iov->iov_base, iov->iov_len);
    while (datagram_joins(net, socket, (size_t)size, iov->iov_len - total))
        total += datagram_take(&socket->in, (char *)iov->iov_base + total, iov->iov_len - total);
    if (total == (size_t)size || control == NULL) {
        message->msg_controllen = 0;
        return (ssize_t)total;
    }
    control->cmsg_level = IPPROTO_UDP;
    control->cmsg_type = UDP_GRO;
    control->cmsg_len = CMSG_LEN(sizeof(size));
    memcpy(CMSG_DATA(control), &size, sizeof(size));
    message->msg_controllen = CMSG_SPACE(sizeof(size));
    return (ssize_t)total;
}

ssize_t
sim_sendmsg(struct sim_net *net, struct sim_socket *socket, const struct msghdr *message)
{
    char bytes[2 * DATAGRAM_BYTES_MAX];
    struct cmsghdr *control = CMSG_FIRSTHDR((struct msghdr *)(uintptr_t)message);
    uint16_t segment = 0;
    size_t total = 0;

    if (socket->error != 0) {
        int err = socket->error;
        socket->error = 0;
        return err;
    }
    if (socket->out.len >= socket->out_limit)
        return -EAGAIN;
    if (control != NULL)
        memcpy(&segment, CMSG_DATA(control), sizeof(segment));
    if (control != NULL && (segment == 0 || sim_chance(&net->rng, 10)))
        return sim_chance(&net->rng, 50) ? -EINVAL : -EIO;
    bytes[0] = '\0'; /* an empty datagram has bytes too, says gcc 16 */
    for (size_t i = 0; i < message->msg_iovlen; i++) {
        memcpy(bytes + total, message->msg_iov[i].iov_base, message->msg_iov[i].iov_len);
        total += message->msg_iov[i].iov_len;
    }
    if (segment == 0)
        datagram_put(&socket->out, bytes, total);
    for (size_t at = 0; segment != 0 && at < total; at += segment)
        datagram_put(&socket->out, bytes + at, total - at < segment ? total - at : segment);
    return (ssize_t)total;
}

int
sim_accept(struct sim_net *net, struct sim_socket *socket)
{
    int fd;
    if (!socket->listener)
        return -EINVAL;
    if (socket->backlog_count == 0)
        return -EAGAIN;
    fd = socket->backlog[0];
    socket->backlog_count--;
    memmove(socket->backlog, socket->backlog + 1, socket->backlog_count * sizeof(int));
    sim_socket_of(net, fd)->open = true;
    net->opened++;
    return fd;
}

int
sim_shutdown(struct sim_net *net, struct sim_socket *socket)
{
    GY_UNUSED(net);
    if (socket->reset)
        return -ENOTCONN;
    socket->out_fin = true;
    socket->wakes_in++; /* both sides shut: POLLHUP */
    return 0;
}

void
sim_close(struct sim_net *net, int fd)
{
    struct sim_socket *socket = sim_socket_of(net, fd);
    if (socket == NULL || !socket->open) {
        net->bad_closes++;
        return;
    }
    socket->open = false;
    net->closed++;
}
