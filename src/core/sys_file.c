/* sys_file.c: see sys_file.h.  Thread: any; no state but what the kernel was found to lack. */
#include "sys_file.h"
#include "fault.h"
#include "sys.h"
#include "sys_mount.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_openat2 /* headers of Linux before 5.6 */
#define SYS_openat2 437
#endif
#ifndef RESOLVE_CACHED /* of Linux before 5.12 */
#define RESOLVE_CACHED 0x20
#endif

static atomic_bool lacks_cached_lookup;

static inline void *
pointer_of(uint64_t address)
{
    return (void *)(uintptr_t)address;
}

/* The way of libc's functions to that of the kernel. */
static inline int32_t
result_of(ssize_t res)
{
    return res < 0 ? -errno : (int32_t)res;
}

/* ---- calls that may block ---- */

static ssize_t
call_rw(const struct io_uring_sqe *sqe)
{
    void *address = pointer_of(sqe->addr);
    int64_t offset = (int64_t)sqe->off;
    bool here = offset == -1;
    switch (sqe->opcode) {
    case IORING_OP_READ:
        return here ? read(sqe->fd, address, sqe->len) : pread(sqe->fd, address, sqe->len, offset);
    case IORING_OP_WRITE:
        return here ? write(sqe->fd, address, sqe->len)
                    : pwrite(sqe->fd, address, sqe->len, offset);
    case IORING_OP_READV:
        return preadv2(sqe->fd, address, (int)sqe->len, offset, 0);
    case IORING_OP_WRITEV:
        return pwritev2(sqe->fd, address, (int)sqe->len, offset, 0);
    default:
        break;
    }
    GY_UNREACHABLE();
    return -1;
}

static ssize_t
call_splice(const struct io_uring_sqe *sqe)
{
    int64_t from = (int64_t)sqe->splice_off_in;
    int64_t to = (int64_t)sqe->off;
    return splice(sqe->splice_fd_in, from == -1 ? NULL : &from, sqe->fd, to == -1 ? NULL : &to,
                  sqe->len, sqe->splice_flags);
}

/* What works on an open descriptor. */
static ssize_t
call_fd(const struct io_uring_sqe *sqe)
{
    switch (sqe->opcode) {
    case IORING_OP_CLOSE:
        return close(sqe->fd);
    case IORING_OP_FSYNC:
        return sqe->fsync_flags & IORING_FSYNC_DATASYNC ? fdatasync(sqe->fd) : fsync(sqe->fd);
    case IORING_OP_FALLOCATE:
        return fallocate(sqe->fd, (int)sqe->len, (off_t)sqe->off, (off_t)sqe->addr);
    case IORING_OP_FADVISE:
        /* It returns the error. */
        errno = posix_fadvise(sqe->fd, (off_t)sqe->off, (off_t)(sqe->addr ? sqe->addr : sqe->len),
                              (int)sqe->fadvise_advice);
        return errno == 0 ? 0 : -1;
    case GY_URING_OP_FTRUNCATE:
        return ftruncate(sqe->fd, (off_t)sqe->off);
    case IORING_OP_SPLICE:
        return call_splice(sqe);
    default:
        return call_rw(sqe);
    }
}

static ssize_t
call_path(const struct io_uring_sqe *sqe)
{
    const char *path = pointer_of(sqe->addr);
    const char *second = pointer_of(sqe->addr2);
    switch (sqe->opcode) {
    case IORING_OP_OPENAT:
        return openat(sqe->fd, path, (int)sqe->open_flags, (mode_t)sqe->len);
    case IORING_OP_STATX:
        return statx(sqe->fd, path, (int)sqe->statx_flags, sqe->len, pointer_of(sqe->off));
    case IORING_OP_UNLINKAT:
        return unlinkat(sqe->fd, path, (int)sqe->unlink_flags);
    case IORING_OP_RENAMEAT:
        return renameat2(sqe->fd, path, (int)sqe->len, second, sqe->rename_flags);
    case IORING_OP_MKDIRAT:
        return mkdirat(sqe->fd, path, (mode_t)sqe->len);
    case IORING_OP_SYMLINKAT:
        return symlinkat(path, sqe->fd, second);
    case IORING_OP_LINKAT:
        return linkat(sqe->fd, path, (int)sqe->len, second, (int)sqe->hardlink_flags);
    default:
        return call_fd(sqe);
    }
}

bool
gy_sys_file_knows(uint8_t opcode)
{
    switch (opcode) {
    case IORING_OP_OPENAT:
    case IORING_OP_CLOSE:
    case IORING_OP_READ:
    case IORING_OP_WRITE:
    case IORING_OP_READV:
    case IORING_OP_WRITEV:
    case IORING_OP_FSYNC:
    case IORING_OP_FALLOCATE:
    case IORING_OP_FADVISE:
    case GY_URING_OP_FTRUNCATE:
    case IORING_OP_STATX:
    case IORING_OP_UNLINKAT:
    case IORING_OP_RENAMEAT:
    case IORING_OP_MKDIRAT:
    case IORING_OP_SYMLINKAT:
    case IORING_OP_LINKAT:
    case IORING_OP_SPLICE:
        return true;
    default:
        return false;
    }
}

int32_t
gy_sys_file(const struct io_uring_sqe *sqe)
{
    int32_t res = GY_FAULT(SYSCALL);
    if (GY_UNLIKELY(res < 0))
        return res;
    if (!gy_sys_file_knows(sqe->opcode))
        return -EINVAL;
    /* A close that was interrupted has closed. */
    do
        res = result_of(call_path(sqe));
    while (res == -EINTR && sqe->opcode != IORING_OP_CLOSE);
    return res;
}

/* ---- calls that do not ---- */

ssize_t
gy_sys_rw_nowait(int fd, const struct iovec *iov, int count, int64_t offset, bool write)
{
    ssize_t res = GY_FAULT(SYSCALL);
    if (GY_UNLIKELY(res < 0))
        return res;
    do
        res = write ? pwritev2(fd, iov, count, offset, RWF_NOWAIT)
                    : preadv2(fd, iov, count, offset, RWF_NOWAIT);
    while (res < 0 && errno == EINTR);
    return res < 0 ? -errno : res;
}

static int32_t
rw_nowait(const struct io_uring_sqe *sqe)
{
    bool write = sqe->opcode == IORING_OP_WRITE || sqe->opcode == IORING_OP_WRITEV;
    bool vector = sqe->opcode == IORING_OP_READV || sqe->opcode == IORING_OP_WRITEV;
    struct iovec one = {.iov_base = pointer_of(sqe->addr), .iov_len = sqe->len};
    ssize_t res = gy_sys_rw_nowait(sqe->fd, vector ? pointer_of(sqe->addr) : &one,
                                   vector ? (int)sqe->len : 1, (int64_t)sqe->off, write);
    return res == -EOPNOTSUPP || res == -ENOSYS ? -EAGAIN : (int32_t)res;
}

/* A path whose every part is in the kernel's cache.  -EAGAIN: some part is not, or it cannot be
 * told. */
static int32_t
open_cached(int directory, const char *path, uint64_t flags)
{
    struct open_how how = {.flags = flags, .resolve = RESOLVE_CACHED};
    long res;
    if (atomic_load_explicit(&lacks_cached_lookup, memory_order_relaxed))
        return -EAGAIN;
    res = syscall(SYS_openat2, directory, path, &how, sizeof how);
    if (GY_LIKELY(res >= 0))
        return (int32_t)res;
    if (errno == ENOSYS || errno == EPERM || errno == EINVAL) {
        /* Too old, or a filter that knows the call no better; the plain way has the last word. */
        if (errno == ENOSYS)
            atomic_store_explicit(&lacks_cached_lookup, true, memory_order_relaxed);
        return -EAGAIN;
    }
    return -errno;
}

/* What is known of an open file without asking a server.  true: it lies on a local file system, so
 * that this is all that is to be known. */
static bool
describe(int fd, uint32_t mask, struct statx *out)
{
    return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, mask | GY_STATX_MNT_ID, out) == 0 &&
           gy_sys_is_local(out);
}

static bool
is_plain(const struct statx *status)
{
    return S_ISREG(status->stx_mode) || S_ISDIR(status->stx_mode);
}

/* Opening a pipe waits for its other end, and a device for whatever it likes: looked at first. */
static bool
opens_at_once(int directory, const char *path, uint32_t flags)
{
    struct statx status;
    bool at_once;
    int fd = open_cached(directory, path, O_PATH | O_CLOEXEC | (flags & O_NOFOLLOW));
    if (fd < 0)
        return fd != -EAGAIN; /* the open will fail in the same way */
    at_once = describe(fd, STATX_TYPE, &status) && is_plain(&status);
    gy_sys_close(fd);
    return at_once;
}

static int32_t
open_nowait(const struct io_uring_sqe *sqe)
{
    const char *path = pointer_of(sqe->addr);
    uint32_t flags = sqe->open_flags;
    if (flags & (O_CREAT | O_TRUNC) || !opens_at_once(sqe->fd, path, flags))
        return -EAGAIN;
    return open_cached(sqe->fd, path, flags | O_LARGEFILE);
}

/* What the kernel knows of a file that is open, or whose path is cached. */
static int32_t
statx_nowait(const struct io_uring_sqe *sqe)
{
    const char *path = pointer_of(sqe->addr);
    uint64_t flags = O_PATH | O_CLOEXEC;
    bool by_path = *path != '\0';
    bool local;
    int fd = sqe->fd;
    if (sqe->statx_flags & AT_SYMLINK_NOFOLLOW)
        flags |= O_NOFOLLOW;
    if (by_path) {
        fd = open_cached(fd, path, flags);
        if (fd < 0)
            return fd == -EMFILE || fd == -ENFILE ? -EAGAIN : fd; /* statx(2) needs none */
    }
    local = describe(fd, sqe->len, pointer_of(sqe->off));
    if (by_path)
        gy_sys_close(fd);
    return local ? 0 : -EAGAIN;
}

/* The last descriptor of a file that was unlinked frees it, and others have something to flush. */
static int32_t
close_nowait(const struct io_uring_sqe *sqe)
{
    struct statx status;
    if (!describe(sqe->fd, STATX_TYPE | STATX_NLINK, &status) || !is_plain(&status) ||
        status.stx_nlink == 0)
        return -EAGAIN;
    return gy_sys_file(sqe);
}

int32_t
gy_sys_file_nowait(const struct io_uring_sqe *sqe)
{
    switch (sqe->opcode) {
    case IORING_OP_READ:
    case IORING_OP_WRITE:
    case IORING_OP_READV:
    case IORING_OP_WRITEV:
        return rw_nowait(sqe);
    case IORING_OP_OPENAT:
        return open_nowait(sqe);
    case IORING_OP_STATX:
        return statx_nowait(sqe);
    case IORING_OP_CLOSE:
        return close_nowait(sqe);
    default:
        return -EAGAIN;
    }
}
