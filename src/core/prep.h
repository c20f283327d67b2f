/* prep.h: gy_prep_*: each fills one SQE for one operation and does nothing else.
 *
 * The SQE comes zeroed (gy_ring_ops.sqe); user_data is set by op.c.  Every ring reads these fields,
 * so this file says which of them mean something. */
#ifndef GY_PREP_H
#define GY_PREP_H

#include "base.h"
#include "uring_compat.h"
#include <sys/socket.h>
#include <sys/uio.h>

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

/* The bytes stay until the terminal event. */
static inline void
gy_prep_send(struct io_uring_sqe *sqe, int fd, const struct iovec *bytes, uint32_t msg_flags)
{
    sqe->opcode = IORING_OP_SEND;
    sqe->fd = fd;
    sqe->addr = gy_prep_address(bytes->iov_base);
    sqe->len = (uint32_t)bytes->iov_len;
    sqe->msg_flags = msg_flags;
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

/* ---- files ----
 * Paths, buffers, vectors and the struct statx stay until the terminal event.  offset -1: the
 * current position. */

static inline void
gy_prep_rw(struct io_uring_sqe *sqe, uint8_t opcode, int fd, const void *address, uint32_t len)
{
    sqe->opcode = opcode;
    sqe->fd = fd;
    sqe->addr = gy_prep_address(address);
    sqe->len = len;
}

/* In a thread of the kernel's at once: the kernel's own attempt that does not wait opens a FIFO as
 * if O_NONBLOCK had been given. */
static inline void
gy_prep_openat(struct io_uring_sqe *sqe, int directory, const char *path, int flags, uint32_t mode)
{
    gy_prep_rw(sqe, IORING_OP_OPENAT, directory, path, mode);
    sqe->flags = IOSQE_ASYNC;
    sqe->open_flags = (uint32_t)flags;
}

static inline void
gy_prep_close(struct io_uring_sqe *sqe, int fd)
{
    sqe->opcode = IORING_OP_CLOSE;
    sqe->fd = fd;
}

static inline void
gy_prep_write(struct io_uring_sqe *sqe, int fd, const void *buf, uint32_t len, uint64_t offset)
{
    gy_prep_rw(sqe, IORING_OP_WRITE, fd, buf, len);
    sqe->off = offset;
}

static inline void
gy_prep_readv(struct io_uring_sqe *sqe, int fd, const struct iovec *iov, uint32_t count,
              uint64_t offset)
{
    gy_prep_rw(sqe, IORING_OP_READV, fd, iov, count);
    sqe->off = offset;
}

static inline void
gy_prep_writev(struct io_uring_sqe *sqe, int fd, const struct iovec *iov, uint32_t count,
               uint64_t offset)
{
    gy_prep_rw(sqe, IORING_OP_WRITEV, fd, iov, count);
    sqe->off = offset;
}

static inline void
gy_prep_fsync(struct io_uring_sqe *sqe, int fd, bool only_data)
{
    sqe->opcode = IORING_OP_FSYNC;
    sqe->fd = fd;
    sqe->fsync_flags = only_data ? IORING_FSYNC_DATASYNC : 0;
}

static inline void
gy_prep_fallocate(struct io_uring_sqe *sqe, int fd, int mode, uint64_t offset, uint64_t len)
{
    sqe->opcode = IORING_OP_FALLOCATE;
    sqe->fd = fd;
    sqe->len = (uint32_t)mode;
    sqe->off = offset;
    sqe->addr = len;
}

/* Kernels before 6.10 know only lengths of 32 bits, in `len`; 0 there means all of the file. */
static inline void
gy_prep_fadvise(struct io_uring_sqe *sqe, int fd, uint64_t offset, uint64_t len, uint32_t advice)
{
    sqe->opcode = IORING_OP_FADVISE;
    sqe->fd = fd;
    sqe->off = offset;
    sqe->addr = len;
    sqe->len = len < UINT32_MAX ? (uint32_t)len : 0;
    sqe->fadvise_advice = advice;
}

static inline void
gy_prep_ftruncate(struct io_uring_sqe *sqe, int fd, uint64_t len)
{
    sqe->opcode = GY_URING_OP_FTRUNCATE;
    sqe->fd = fd;
    sqe->off = len;
}

/* `out` is a struct statx. */
static inline void
gy_prep_statx(struct io_uring_sqe *sqe, int directory, const char *path, uint32_t flags, void *out)
{
    enum { ALL_THAT_STAT_HAS = 0x7ff | 0x800 };
    gy_prep_rw(sqe, IORING_OP_STATX, directory, path, ALL_THAT_STAT_HAS);
    sqe->off = gy_prep_address(out);
    sqe->statx_flags = flags;
}

static inline void
gy_prep_unlinkat(struct io_uring_sqe *sqe, int directory, const char *path, uint32_t flags)
{
    gy_prep_rw(sqe, IORING_OP_UNLINKAT, directory, path, 0);
    sqe->unlink_flags = flags;
}

/* All three with paths of the current directory: AT_FDCWD is -100. */
static inline void
gy_prep_rename(struct io_uring_sqe *sqe, const char *from, const char *to, uint32_t flags)
{
    gy_prep_rw(sqe, IORING_OP_RENAMEAT, -100, from, (uint32_t)-100);
    sqe->addr2 = gy_prep_address(to);
    sqe->rename_flags = flags;
}

static inline void
gy_prep_symlink(struct io_uring_sqe *sqe, const char *target, const char *path)
{
    gy_prep_rw(sqe, IORING_OP_SYMLINKAT, -100, target, 0);
    sqe->addr2 = gy_prep_address(path);
}

static inline void
gy_prep_link(struct io_uring_sqe *sqe, const char *from, const char *to)
{
    gy_prep_rw(sqe, IORING_OP_LINKAT, -100, from, (uint32_t)-100);
    sqe->addr2 = gy_prep_address(to);
}

static inline void
gy_prep_mkdirat(struct io_uring_sqe *sqe, int directory, const char *path, uint32_t mode)
{
    gy_prep_rw(sqe, IORING_OP_MKDIRAT, directory, path, mode);
}

/* The fields fd and off are those of the output; its input is set by the caller: splice_fd_in and
 * splice_off_in. */
static inline void
gy_prep_splice_out(struct io_uring_sqe *sqe, int fd, uint64_t offset, uint32_t len, uint32_t flags)
{
    sqe->opcode = IORING_OP_SPLICE;
    sqe->fd = fd;
    sqe->off = offset;
    sqe->len = len;
    sqe->splice_flags = flags;
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
