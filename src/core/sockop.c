/* sockop.c: try, wait for readiness, try again.
 *
 * Owner: the embedder.  Thread: the loop's.
 * Invariants: done() is called exactly once for each operation that returned -EINPROGRESS, unless
 * gy_sockop_cancel() returned true; bytes are taken from a socket only in the step that also
 * reports them, so a cancelled operation has lost none. */
#include "sockop.h"

#include "loop.h"
#include "ring.h"
#include <errno.h>
#include <poll.h>

enum { SENDS_PER_STEP = 16 }; /* the poll that follows fires at once if the socket takes more */

static uint32_t
poll_mask(const struct gy_sockop *op)
{
    switch ((enum gy_sockop_kind)op->kind) {
    case GY_SOCK_RECV:
    case GY_SOCK_RECVFROM:
    case GY_SOCK_ACCEPT:
    case GY_SOCK_READABLE:
        return POLLIN;
    case GY_SOCK_SENDALL:
    case GY_SOCK_SENDTO:
    case GY_SOCK_CONNECT:
    case GY_SOCK_WRITABLE:
        return POLLOUT;
    }
    GY_UNREACHABLE();
    return 0;
}

static ssize_t
step_sendall(struct gy_sockop *op)
{
    struct gy_ring *ring = op->loop->ring;
    unsigned sends = 0;

    do { /* of nothing, too: it may be an empty datagram, or an error */
        struct iovec iov = {.iov_base = op->buf + op->done_bytes,
                            .iov_len = op->len - op->done_bytes};
        ssize_t sent = ring->ops->try_send(ring, op->fd, &iov, 1);
        if (sent < 0)
            return sent;
        op->done_bytes += (size_t)sent;
    } while (++sends < SENDS_PER_STEP && op->done_bytes < op->len);
    return op->done_bytes == op->len ? (ssize_t)op->len : -EAGAIN;
}

static ssize_t
step_datagram(struct gy_sockop *op)
{
    struct gy_ring *ring = op->loop->ring;
    struct iovec iov = {.iov_base = op->buf, .iov_len = op->len};
    struct msghdr message = {.msg_name = &op->address->storage, .msg_iov = &iov, .msg_iovlen = 1};
    ssize_t result;

    if (op->kind == GY_SOCK_SENDTO) {
        message.msg_namelen = op->address->len;
        return ring->ops->try_sendmsg(ring, op->fd, &message);
    }
    message.msg_namelen = sizeof(op->address->storage);
    result = ring->ops->try_recvmsg(ring, op->fd, &message);
    if (result >= 0)
        op->address->len = message.msg_namelen;
    return result;
}

/* The call itself: its result, or -EAGAIN. */
static ssize_t
step(struct gy_sockop *op)
{
    struct gy_ring *ring = op->loop->ring;

    switch ((enum gy_sockop_kind)op->kind) {
    case GY_SOCK_RECV:
        return ring->ops->try_recv(ring, op->fd, op->buf, op->len);
    case GY_SOCK_RECVFROM:
    case GY_SOCK_SENDTO:
        return step_datagram(op);
    case GY_SOCK_SENDALL:
        return step_sendall(op);
    case GY_SOCK_ACCEPT:
        return ring->ops->try_accept(ring, op->fd);
    case GY_SOCK_CONNECT: /* the first step was in gy_sockop_connect() */
        return ring->ops->socket_error(ring, op->fd);
    case GY_SOCK_READABLE:
    case GY_SOCK_WRITABLE:
        return 0;
    }
    GY_UNREACHABLE();
    return -EINVAL;
}

/* What was received counts for the turn (GY_REAP_BUDGET_BYTES), what was sent for the heap. */
static ssize_t
counted_step(struct gy_sockop *op)
{
    ssize_t result = step(op);
    if (result <= 0)
        return result;
    if (op->kind == GY_SOCK_RECV || op->kind == GY_SOCK_RECVFROM)
        op->loop->counters.bytes_in += (uint64_t)result;
    else if (op->kind != GY_SOCK_ACCEPT)
        op->loop->heap.other_bytes += (uint64_t)result;
    return result;
}

static void
wait_ready(struct gy_sockop *op)
{
    gy_poll_start(op->loop, &op->poll, op->fd, poll_mask(op));
}

static void
on_ready(struct gy_poll *poll, int res)
{
    struct gy_sockop *op = container_of(poll, struct gy_sockop, poll);
    ssize_t result;

    if (op->cancelled)
        result = -ECANCELED;
    else if (res < 0 && res != -ECANCELED && res != -EINTR && res != -EAGAIN)
        result = res;
    else if (!op->host->valid(op))
        result = -EBADF;
    else if (res < 0)
        result = -EAGAIN; /* the wait ended early, not the operation */
    else if (op->host->memory != NULL && !op->host->memory(op))
        result = -ENOMEM;
    else
        result = counted_step(op);
    if (result == -EAGAIN)
        wait_ready(op);
    else
        op->host->done(op, result); /* may free op */
}

static const struct gy_poll_host poll_host = {.ready = on_ready};

void
gy_sockop_init(struct gy_sockop *op, struct gy_loop *loop, const struct gy_sockop_host *host)
{
    *op = (struct gy_sockop){.loop = loop, .host = host, .fd = -1};
    gy_poll_init(&op->poll, &poll_host);
}

static void
begin(struct gy_sockop *op, enum gy_sockop_kind kind, int fd, void *buf, size_t len)
{
    GY_ASSERT(gy_op_is_idle(&op->poll.op));
    op->kind = (uint8_t)kind;
    op->cancelled = false;
    op->fd = fd;
    op->buf = buf;
    op->len = len;
    op->done_bytes = 0;
}

static ssize_t
try_or_wait(struct gy_sockop *op)
{
    ssize_t result = counted_step(op);

    if (result != -EAGAIN)
        return result;
    wait_ready(op);
    return -EINPROGRESS;
}

ssize_t
gy_sockop_recv(struct gy_sockop *op, int fd, void *buf, size_t len)
{
    begin(op, GY_SOCK_RECV, fd, buf, len);
    return try_or_wait(op);
}

ssize_t
gy_sockop_sendall(struct gy_sockop *op, int fd, const void *buf, size_t len)
{
    begin(op, GY_SOCK_SENDALL, fd, (void *)(uintptr_t)buf, len);
    return try_or_wait(op);
}

ssize_t
gy_sockop_recvfrom(struct gy_sockop *op, int fd, void *buf, size_t len, struct gy_address *address)
{
    begin(op, GY_SOCK_RECVFROM, fd, buf, len);
    op->address = address;
    return try_or_wait(op);
}

ssize_t
gy_sockop_sendto(struct gy_sockop *op, int fd, const void *buf, size_t len,
                 struct gy_address *address)
{
    begin(op, GY_SOCK_SENDTO, fd, (void *)(uintptr_t)buf, len);
    op->address = address;
    return try_or_wait(op);
}

ssize_t
gy_sockop_accept(struct gy_sockop *op, int fd)
{
    begin(op, GY_SOCK_ACCEPT, fd, NULL, 0);
    return try_or_wait(op);
}

ssize_t
gy_sockop_connect(struct gy_sockop *op, int fd, const struct sockaddr *addr, socklen_t len)
{
    struct gy_ring *ring = op->loop->ring;
    int err;

    begin(op, GY_SOCK_CONNECT, fd, NULL, 0);
    err = ring->ops->try_connect(ring, fd, addr, len);
    /* -EALREADY: an earlier connect of this socket goes on; so do we wait for it.  -EAGAIN is a
     * failure (a UNIX listener whose backlog is full): nothing would ever make it ready. */
    if (err != -EINPROGRESS && err != -EALREADY)
        return err;
    wait_ready(op);
    return -EINPROGRESS;
}

void
gy_sockop_wait(struct gy_sockop *op, int fd, enum gy_sockop_kind kind)
{
    GY_ASSERT(kind == GY_SOCK_READABLE || kind == GY_SOCK_WRITABLE);
    begin(op, kind, fd, NULL, 0);
    wait_ready(op);
}

bool
gy_sockop_cancel(struct gy_sockop *op)
{
    op->cancelled = true;
    return gy_poll_cancel(op->loop, &op->poll);
}
