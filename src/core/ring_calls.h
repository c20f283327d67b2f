/* ring_calls.h: the immediate calls of gy_ring_ops as the rings on a real kernel make them. */
#ifndef GY_RING_CALLS_H
#define GY_RING_CALLS_H

#include "ring.h"

ssize_t gy_ring_plain_recv(struct gy_ring *ring, int fd, void *buf, size_t len);
ssize_t gy_ring_plain_recv_local(struct gy_ring *ring, int fd, void *buf, size_t len, bool *cut);
ssize_t gy_ring_plain_send(struct gy_ring *ring, int fd, const struct iovec *iov, unsigned count);
ssize_t gy_ring_plain_sendmsg(struct gy_ring *ring, int fd, const struct msghdr *message);
ssize_t gy_ring_plain_recvmsg(struct gy_ring *ring, int fd, struct msghdr *message);
ssize_t gy_ring_plain_read_pipe(struct gy_ring *ring, int fd, void *buf, size_t len);
ssize_t gy_ring_plain_write_pipe(struct gy_ring *ring, int fd, const struct iovec *iov,
                                 unsigned count);
ssize_t gy_ring_plain_read(struct gy_ring *ring, int fd, void *buf, size_t len);
ssize_t gy_ring_plain_write(struct gy_ring *ring, int fd, const struct iovec *iov, unsigned count);
bool gy_ring_plain_at_mark(struct gy_ring *ring, int fd);
int gy_ring_plain_udp_gro(struct gy_ring *ring, int fd);
int gy_ring_plain_accept(struct gy_ring *ring, int fd);
int gy_ring_plain_connect(struct gy_ring *ring, int fd, const struct sockaddr *addr, socklen_t len);
int gy_ring_plain_socket_error(struct gy_ring *ring, int fd);
int gy_ring_plain_shutdown(struct gy_ring *ring, int fd, int how);
int32_t gy_ring_plain_file_nowait(struct gy_ring *ring, const struct io_uring_sqe *sqe);
int64_t gy_ring_plain_now_ns(struct gy_ring *ring);

/* How a ring on a real kernel fills this part of its table. */
#define GY_RING_PLAIN_BYTES                                                                        \
    .try_recv = gy_ring_plain_recv, .try_recv_local = gy_ring_plain_recv_local,                    \
    .try_send = gy_ring_plain_send, .try_sendmsg = gy_ring_plain_sendmsg,                          \
    .try_recvmsg = gy_ring_plain_recvmsg, .try_read_pipe = gy_ring_plain_read_pipe,                \
    .try_write_pipe = gy_ring_plain_write_pipe, .try_read = gy_ring_plain_read,                    \
    .try_write = gy_ring_plain_write

#endif
