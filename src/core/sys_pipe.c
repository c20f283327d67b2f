/* sys_pipe.c: reading and writing what need not be a socket, and the mode of its descriptor.
 *
 * Invariant of the modes: in the list of the process are those that have begun and not ended, here
 * and not in the process that forked this one; of those that share a description, which was in
 * blocking mode, at least one restores it.  Thread: any. */
#include "sys_pipe.h"
#include "fault.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef RWF_NOSIGNAL /* headers of Linux before 6.18 */
#define RWF_NOSIGNAL 0x00000100
#endif
#ifndef F_DUPFD_QUERY /* 6.10: do these two share a description? */
#define F_DUPFD_QUERY 1027
#endif

enum { PIPEFS = 0x50495045 }; /* PIPEFS_MAGIC of <linux/magic.h> */

/* ---- bytes ---- */

ssize_t
gy_sys_read_ready(int fd, void *buf, size_t len)
{
    struct pollfd look = {.fd = fd, .events = POLLIN};
    ssize_t res = GY_FAULT(SYSCALL);
    if (GY_UNLIKELY(res < 0))
        return res;
    do
        res = poll(&look, 1, 0);
    while (res < 0 && errno == EINTR);
    if (res == 0)
        return -EAGAIN;
    do
        res = read(fd, buf, len);
    while (res < 0 && errno == EINTR);
    return res < 0 ? -errno : res;
}

ssize_t
gy_sys_read_nowait(int fd, void *buf, size_t len)
{
    struct iovec iov = {.iov_base = buf, .iov_len = len};
    ssize_t res = GY_FAULT(SYSCALL);
    if (GY_UNLIKELY(res < 0))
        return res;
    do
        res = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);
    while (res < 0 && errno == EINTR);
    return res < 0 ? -errno : res;
}

static ssize_t
plain_write(int fd, const struct iovec *iov, unsigned count, int flags)
{
    ssize_t res;
    do
        res = flags != 0 ? pwritev2(fd, iov, (int)count, -1, flags) : writev(fd, iov, (int)count);
    while (res < 0 && errno == EINTR);
    return res < 0 ? -errno : res;
}

/* SIGPIPE is ignored, as in nearly every Python, or kept away from this thread and taken back. */
ssize_t
gy_sys_write_masked(int fd, const struct iovec *iov, unsigned count, int flags)
{
    const struct timespec no_wait = {0, 0};
    struct sigaction action;
    sigset_t sigpipe, before, pending;
    ssize_t res;
    if (sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
        return plain_write(fd, iov, count, flags);
    (void)sigemptyset(&sigpipe);
    (void)sigaddset(&sigpipe, SIGPIPE);
    (void)pthread_sigmask(SIG_BLOCK, &sigpipe, &before);
    (void)sigpending(&pending);
    res = plain_write(fd, iov, count, flags);
    if (res == -EPIPE && sigismember(&pending, SIGPIPE) == 0)
        (void)sigtimedwait(&sigpipe, NULL, &no_wait);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return res;
}

static ssize_t
write_silently(int fd, const struct iovec *iov, unsigned count, int flags)
{
    static atomic_bool refused; /* by the kernel, or by one odd file: both ways are right */
    ssize_t res = GY_FAULT(SYSCALL);
    GY_ASSERT(count > 0);
    if (GY_UNLIKELY(res < 0))
        return res;
    if (GY_UNLIKELY(atomic_load_explicit(&refused, memory_order_relaxed)))
        return gy_sys_write_masked(fd, iov, count, flags);
    do
        res = pwritev2(fd, iov, (int)count, -1, RWF_NOSIGNAL | flags);
    while (res < 0 && errno == EINTR);
    if (GY_LIKELY(res >= 0))
        return res;
    if (errno != EOPNOTSUPP && errno != ENOSYS)
        return -errno;
    atomic_store_explicit(&refused, true, memory_order_relaxed);
    return gy_sys_write_masked(fd, iov, count, flags);
}

ssize_t
gy_sys_write(int fd, const struct iovec *iov, unsigned count)
{
    return write_silently(fd, iov, count, 0);
}

ssize_t
gy_sys_write_nowait(int fd, const struct iovec *iov, unsigned count)
{
    return write_silently(fd, iov, count, RWF_NOWAIT);
}

bool
gy_sys_pipe_nowait(void)
{
    int fds[2];
    char byte;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    bool works;
    if (GY_FAULT(SYSCALL) < 0 || pipe2(fds, O_CLOEXEC) < 0)
        return false;
    works = preadv2(fds[0], &iov, 1, -1, RWF_NOWAIT) < 0 && errno == EAGAIN;
    gy_sys_close(fds[0]);
    gy_sys_close(fds[1]);
    return works;
}

bool
gy_sys_is_pipe(int fd)
{
    struct statfs status;
    return fstatfs(fd, &status) == 0 && (unsigned long)status.f_type == PIPEFS;
}

int
gy_sys_reopen_terminal(int fd)
{
    char path[sizeof "/proc/self/fd/" + 10];
    struct stat given, opened;
    unsigned number;
    int access = fcntl(fd, F_GETFL);
    int own = GY_FAULT(SYSCALL);
    if (own < 0)
        return own;
    /* To open the master's name is to make a new terminal. */
    if (access < 0 || !isatty(fd) || ioctl(fd, TIOCGPTN, &number) == 0 || fstat(fd, &given) < 0)
        return -ENOTTY;
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    own = open(path, (access & O_ACCMODE) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (own < 0)
        return -errno;
    if (fstat(own, &opened) == 0 && opened.st_rdev == given.st_rdev)
        return own;
    gy_sys_close(own);
    return -ENOTTY;
}

/* ---- modes ---- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct gy_list modes = {&modes, &modes};

static void
before_fork(void)
{
    (void)pthread_mutex_lock(&mutex);
}

static void
after_fork(void)
{
    (void)pthread_mutex_unlock(&mutex);
}

static void
after_fork_in_child(void)
{
    struct gy_list *node;
    while ((node = gy_list_pop(&modes)) != NULL)
        container_of(node, struct gy_pipe_mode, link)->listed = false;
    (void)pthread_mutex_unlock(&mutex);
}

static void
watch_forks(void)
{
    (void)pthread_atfork(before_fork, after_fork, after_fork_in_child);
}

/* 0 or -errno. */
static int
identify(struct gy_pipe_mode *mode, int fd)
{
    struct stat status;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fstat(fd, &status) < 0)
        return -errno;
    mode->fd = fd;
    mode->device = status.st_dev;
    mode->inode = status.st_ino;
    mode->access = flags & O_ACCMODE;
    return 0;
}

static bool
same_file(const struct gy_pipe_mode *one, const struct gy_pipe_mode *other)
{
    return one->device == other->device && one->inode == other->inode &&
           one->access == other->access;
}

/* Another user of the description, or NULL.  Where the kernel cannot tell, that of the same file
 * is taken for one. */
static struct gy_pipe_mode *
other_user(const struct gy_pipe_mode *mode, bool ours)
{
    for (struct gy_list *node = modes.next; node != &modes; node = node->next) {
        struct gy_pipe_mode *other = container_of(node, struct gy_pipe_mode, link);
        int shared;
        if (!same_file(mode, other))
            continue;
        shared = ours ? fcntl(mode->fd, F_DUPFD_QUERY, other->fd) : -1;
        if (shared != 0)
            return other;
    }
    return NULL;
}

int
gy_pipe_mode_begin(struct gy_pipe_mode *mode, int fd)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    int err = GY_FAULT(SYSCALL);
    int flags;
    GY_ASSERT(!mode->listed);
    if (err == 0)
        err = identify(mode, fd);
    if (err < 0)
        return err;
    (void)pthread_once(&once, watch_forks);
    (void)pthread_mutex_lock(&mutex);
    flags = fcntl(fd, F_GETFL);
    mode->restores = flags >= 0 && (flags & O_NONBLOCK) == 0;
    if (flags < 0 || (mode->restores && fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)) {
        err = -errno;
    } else {
        gy_list_init(&mode->link);
        gy_list_append(&modes, &mode->link);
        mode->listed = true;
    }
    (void)pthread_mutex_unlock(&mutex);
    return err;
}

static void
restore(const struct gy_pipe_mode *mode)
{
    struct gy_pipe_mode now = {0};
    int flags = fcntl(mode->fd, F_GETFL);
    /* Somebody may have put another file in its place. */
    if (flags >= 0 && identify(&now, mode->fd) == 0 && same_file(mode, &now))
        (void)fcntl(mode->fd, F_SETFL, flags & ~O_NONBLOCK);
}

void
gy_pipe_mode_end(struct gy_pipe_mode *mode, bool ours)
{
    struct gy_pipe_mode *heir;
    if (!mode->listed) /* written by its owner alone, and by a fork */
        return;
    (void)pthread_mutex_lock(&mutex);
    mode->listed = false;
    gy_list_remove(&mode->link);
    heir = mode->restores ? other_user(mode, ours) : NULL;
    if (heir != NULL)
        heir->restores = true;
    else if (mode->restores && ours)
        restore(mode);
    (void)pthread_mutex_unlock(&mutex);
}
