/* prep.h: gy_prep_*: each fills one SQE for one operation and does nothing else.
 *
 * The SQE comes zeroed (gy_ring_ops.sqe); user_data is set by op.c.  Every ring reads these fields,
 * so this file says which of them mean something. */
#ifndef GY_PREP_H
#define GY_PREP_H

#include "base.h"
#include "uring_compat.h"
#include <sys/socket.h>

static inline uint64_t
gy_prep_address(const void *pointer)
{
    return (uint64_t)(uintptr_t)pointer;
}

static inline void
gy_prep_nop(struct io_uring_sqe *sqe)
{
    sqe->opcode = IORING_OP_NOP;
    sqe->fd = -1;
}

/* poll32_events is little-endian by halves: big-endian machines swap them. */
static inline uint32_t
gy_prep_poll_mask(uint32_t mask)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return mask << 16 | mask >> 16;
#else
    return mask;
#endif
}

static inline void
gy_prep_poll(struct io_uring_sqe *sqe, int fd, uint32_t mask, bool multishot)
{
    sqe->opcode = IORING_OP_POLL_ADD;
    sqe->fd = fd;
    sqe->poll32_events = gy_prep_poll_mask(mask);
    sqe->len = multishot ? IORING_POLL_ADD_MULTI : 0;
}

static inline void
gy_prep_read(struct io_uring_sqe *sqe, int fd, void *buf, uint32_t len, uint64_t offset)
{
    sqe->opcode = IORING_OP_READ;
    sqe->fd = fd;
    sqe->addr = gy_prep_address(buf);
    sqe->len = len;
    sqe->off = offset;
}

static inline void
gy_prep_recv(struct io_uring_sqe *sqe, int fd, void *buf, uint32_t len)
{
    sqe->opcode = IORING_OP_RECV;
    sqe->fd = fd;
    sqe->addr = gy_prep_address(buf);
    sqe->len = len;
}

/* Into the provided buffers of `group`; each event carries a buffer id until F_MORE is gone. */
static inline void
gy_prep_recv_multishot(struct io_uring_sqe *sqe, int fd, uint16_t group)
{
    sqe->opcode = IORING_OP_RECV;
    sqe->flags = IOSQE_BUFFER_SELECT;
    sqe->fd = fd;
    sqe->ioprio = IORING_RECV_MULTISHOT;
    sqe->buf_group = group;
}

/* `message` and what it points to stay until the terminal event. */
static inline void
gy_prep_sendmsg(struct io_uring_sqe *sqe, int fd, const struct msghdr *message, uint32_t msg_flags)
{
    sqe->opcode = IORING_OP_SENDMSG;
    sqe->fd = fd;
    sqe->addr = gy_prep_address(message);
    sqe->len = 1;
    sqe->msg_flags = msg_flags;
}

static inline void
gy_prep_accept(struct io_uring_sqe *sqe, int fd, uint32_t accept_flags, bool multishot)
{
    sqe->opcode = IORING_OP_ACCEPT;
    sqe->fd = fd;
    sqe->accept_flags = accept_flags;
    sqe->ioprio = multishot ? IORING_ACCEPT_MULTISHOT : 0;
}

/* `address` stays until the terminal event. */
static inline void
gy_prep_connect(struct io_uring_sqe *sqe, int fd, const struct sockaddr *address, socklen_t len)
{
    sqe->opcode = IORING_OP_CONNECT;
    sqe->fd = fd;
    sqe->addr = gy_prep_address(address);
    sqe->off = len;
}

/* Cancels the operation whose SQE carried `target` as user_data. */
static inline void
gy_prep_cancel(struct io_uring_sqe *sqe, uint64_t target)
{
    sqe->opcode = IORING_OP_ASYNC_CANCEL;
    sqe->fd = -1;
    sqe->addr = target;
}

static inline void
gy_prep_cancel_all(struct io_uring_sqe *sqe)
{
    sqe->opcode = IORING_OP_ASYNC_CANCEL;
    sqe->fd = -1;
    sqe->cancel_flags = IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY;
}

#endif
