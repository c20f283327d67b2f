/* ring_calls.c: the immediate calls of a ring on a real kernel: plain system calls.
 * Thread: any; no state. */
#include "ring_calls.h"
#include "sys.h"
#include "sys_file.h"
#include "sys_pipe.h"

ssize_t
gy_ring_plain_recv(struct gy_ring *ring, int fd, void *buf, size_t len)
{
    GY_UNUSED(ring);
    return gy_sys_recv(fd, buf, len);
}

ssize_t
gy_ring_plain_recv_local(struct gy_ring *ring, int fd, void *buf, size_t len, bool *cut)
{
    GY_UNUSED(ring);
    return gy_sys_recv_local(fd, buf, len, cut);
}

ssize_t
gy_ring_plain_send(struct gy_ring *ring, int fd, const struct iovec *iov, unsigned count)
{
    GY_UNUSED(ring);
    return gy_sys_send(fd, iov, count);
}

ssize_t
gy_ring_plain_sendmsg(struct gy_ring *ring, int fd, const struct msghdr *message)
{
    GY_UNUSED(ring);
    return gy_sys_sendmsg(fd, message, 0);
}

ssize_t
gy_ring_plain_recvmsg(struct gy_ring *ring, int fd, struct msghdr *message)
{
    GY_UNUSED(ring);
    return gy_sys_recvmsg(fd, message);
}

ssize_t
gy_ring_plain_read_pipe(struct gy_ring *ring, int fd, void *buf, size_t len)
{
    GY_UNUSED(ring);
    return gy_sys_read_nowait(fd, buf, len);
}

ssize_t
gy_ring_plain_write_pipe(struct gy_ring *ring, int fd, const struct iovec *iov, unsigned count)
{
    GY_UNUSED(ring);
    return gy_sys_write_nowait(fd, iov, count);
}

ssize_t
gy_ring_plain_read(struct gy_ring *ring, int fd, void *buf, size_t len)
{
    GY_UNUSED(ring);
    return gy_sys_read_ready(fd, buf, len);
}

ssize_t
gy_ring_plain_write(struct gy_ring *ring, int fd, const struct iovec *iov, unsigned count)
{
    GY_UNUSED(ring);
    return gy_sys_write(fd, iov, count);
}

bool
gy_ring_plain_at_mark(struct gy_ring *ring, int fd)
{
    GY_UNUSED(ring);
    return gy_sys_at_mark(fd);
}

int
gy_ring_plain_udp_gro(struct gy_ring *ring, int fd)
{
    GY_UNUSED(ring);
    return gy_sys_udp_gro(fd);
}

int
gy_ring_plain_accept(struct gy_ring *ring, int fd)
{
    GY_UNUSED(ring);
    return gy_sys_accept(fd);
}

int
gy_ring_plain_connect(struct gy_ring *ring, int fd, const struct sockaddr *addr, socklen_t len)
{
    GY_UNUSED(ring);
    return gy_sys_connect(fd, addr, len);
}

int
gy_ring_plain_socket_error(struct gy_ring *ring, int fd)
{
    GY_UNUSED(ring);
    return gy_sys_socket_error(fd);
}

int
gy_ring_plain_shutdown(struct gy_ring *ring, int fd, int how)
{
    GY_UNUSED(ring);
    return gy_sys_shutdown(fd, how);
}

int32_t
gy_ring_plain_file_nowait(struct gy_ring *ring, const struct io_uring_sqe *sqe)
{
    GY_UNUSED(ring);
    return gy_sys_file_nowait(sqe);
}

int64_t
gy_ring_plain_now_ns(struct gy_ring *ring)
{
    GY_UNUSED(ring);
    return gy_sys_now_ns();
}
