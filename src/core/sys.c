/* sys.c: system calls as functions that return -errno; see sys.h.
 * Thread: any.  Owner of nothing: no state but the counter of thread numbers. */
#include "sys.h"
#include "fault.h"
#include "sys_pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/time_types.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT /* headers of Linux before 4.18 */
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO /* 5.0 */
#define UDP_GRO 104
#endif
#ifndef SYS_epoll_pwait2 /* headers of Linux before 5.11 */
#define SYS_epoll_pwait2 441
#endif

/* ---- sockets ---- */

static GY_COLD ssize_t
plain_read(int fd, void *buf, size_t len)
{
    ssize_t res;
    do
        res = read(fd, buf, len);
    while (res < 0 && errno == EINTR);
    return res < 0 ? -errno : res;
}

ssize_t
gy_sys_recv(int fd, void *buf, size_t len)
{
    ssize_t res = GY_FAULT(SYSCALL);
    if (GY_UNLIKELY(res < 0))
        return res;
    do
        res = recv(fd, buf, len, MSG_DONTWAIT);
    while (res < 0 && errno == EINTR);
    if (GY_LIKELY(res >= 0))
        return res;
    return errno == ENOTSOCK ? plain_read(fd, buf, len) : -errno;
}

ssize_t
gy_sys_recv_local(int fd, void *buf, size_t len, bool *cut)
{
    struct iovec iov = {.iov_base = buf, .iov_len = len};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t res = GY_FAULT(SYSCALL);
    if (GY_UNLIKELY(res < 0))
        return res;
    do
        res = recvmsg(fd, &message, MSG_DONTWAIT);
    while (res < 0 && errno == EINTR);
    if (GY_UNLIKELY(res < 0))
        return -errno;
    *cut = (message.msg_flags & MSG_CTRUNC) != 0; /* there is no room for what is not bytes */
    return res;
}

ssize_t
gy_sys_send(int fd, const struct iovec *iov, unsigned count)
{
    enum { SEND_FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL };
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = count};
    ssize_t res = GY_FAULT(SYSCALL);
    GY_ASSERT(count > 0);
    if (GY_UNLIKELY(res < 0))
        return res;
    do {
        if (count == 1)
            res = send(fd, iov->iov_base, iov->iov_len, SEND_FLAGS);
        else
            res = sendmsg(fd, &message, SEND_FLAGS);
    } while (res < 0 && errno == EINTR);
    if (GY_LIKELY(res >= 0))
        return res;
    return errno == ENOTSOCK ? gy_sys_write(fd, iov, count) : -errno;
}

ssize_t
gy_sys_sendmsg(int fd, const struct msghdr *message, int flags)
{
    const struct iovec *iov = message->msg_iov;
    ssize_t res = GY_FAULT(SYSCALL);
    flags |= MSG_DONTWAIT | MSG_NOSIGNAL;
    if (GY_UNLIKELY(res < 0))
        return res;
    do {
        if (message->msg_iovlen == 1 && message->msg_controllen == 0) /* less to copy */
            res = sendto(fd, iov->iov_base, iov->iov_len, flags, message->msg_name,
                         message->msg_namelen);
        else
            res = sendmsg(fd, message, flags);
    } while (res < 0 && errno == EINTR);
    return res < 0 ? -errno : res;
}

ssize_t
gy_sys_recvmsg(int fd, struct msghdr *message)
{
    ssize_t res = GY_FAULT(SYSCALL);
    if (GY_UNLIKELY(res < 0))
        return res;
    do {
        if (message->msg_iovlen == 1 && message->msg_controllen == 0)
            res = recvfrom(fd, message->msg_iov->iov_base, message->msg_iov->iov_len, MSG_DONTWAIT,
                           message->msg_name, &message->msg_namelen);
        else
            res = recvmsg(fd, message, MSG_DONTWAIT);
    } while (res < 0 && errno == EINTR);
    return res < 0 ? -errno : res;
}

bool
gy_sys_at_mark(int fd)
{
    int mark = 0;
    return ioctl(fd, SIOCATMARK, &mark) == 0 && mark != 0;
}

int
gy_sys_udp_gro(int fd)
{
    int on = 1;
    return setsockopt(fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on) < 0 ? -errno : 0;
}

void
gy_sys_udp_offload(bool *gso, bool *gro)
{
    int size = 1000;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    *gso = fd >= 0 && setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof size) == 0;
    *gro = fd >= 0 && gy_sys_udp_gro(fd) == 0;
    if (fd >= 0)
        (void)close(fd);
}

int
gy_sys_accept(int fd)
{
    int res = GY_FAULT(SYSCALL);
    if (res < 0)
        return res;
    do
        res = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    while (res < 0 && errno == EINTR);
    return res < 0 ? -errno : res;
}

int
gy_sys_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    int res = GY_FAULT(SYSCALL);
    if (res < 0)
        return res;
    if (connect(fd, addr, len) == 0)
        return 0;
    return errno == EINTR ? -EINPROGRESS : -errno;
}

int
gy_sys_socket_error(int fd)
{
    int err = 0;
    socklen_t len = sizeof err;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
        return -errno;
    return -err;
}

int
gy_sys_shutdown(int fd, int how)
{
    int res = GY_FAULT(SYSCALL);
    if (res < 0)
        return res;
    return shutdown(fd, how) < 0 ? -errno : 0;
}

/* Never retried: on Linux the descriptor is gone whatever close says. */
void
gy_sys_close(int fd)
{
    GY_ASSERT(fd >= 0);
    (void)close(fd);
}

int64_t
gy_sys_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * GY_NS_PER_SECOND + now.tv_nsec;
}

int64_t
gy_sys_thread_cpu_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * GY_NS_PER_SECOND + now.tv_nsec;
}

/* ---- eventfd and epoll ---- */

int
gy_sys_eventfd(void)
{
    int fd = GY_FAULT(SYSCALL);
    if (fd < 0)
        return fd;
    fd = eventfd(0, EFD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

void
gy_sys_eventfd_add(int fd)
{
    const uint64_t one = 1;
    int saved = errno;
    ssize_t res;
    do
        res = write(fd, &one, sizeof one);
    while (res < 0 && errno == EINTR);
    errno = saved;
}

int
gy_sys_epoll_create(void)
{
    int fd = GY_FAULT(SYSCALL);
    if (fd < 0)
        return fd;
    fd = epoll_create1(EPOLL_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int
gy_sys_epoll_ctl(int epoll_fd, int operation, int fd, uint32_t events)
{
    return gy_sys_epoll_set(epoll_fd, operation, fd, events, (uint64_t)(uint32_t)fd);
}

int
gy_sys_epoll_set(int epoll_fd, int operation, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event event = {.events = events, .data.u64 = data};
    int res = GY_FAULT(SYSCALL);
    if (res < 0)
        return res;
    return epoll_ctl(epoll_fd, operation, fd, &event) < 0 ? -errno : 0;
}

int
gy_sys_epoll_poll(int epoll_fd, struct epoll_event *events, int max)
{
    int res = GY_FAULT(SYSCALL);
    if (res < 0)
        return res;
    do
        res = epoll_wait(epoll_fd, events, max, 0);
    while (res < 0 && errno == EINTR);
    return res < 0 ? -errno : res;
}

int
gy_sys_epoll_wait(int epoll_fd, struct epoll_event *events, int max, int wait_ms)
{
    int res = GY_FAULT(SYSCALL);
    if (res < 0)
        return res;
    res = epoll_wait(epoll_fd, events, max, wait_ms);
    return res < 0 ? -errno : res;
}

/* Not the library's function: glibc has it from 2.35 on. */
int
gy_sys_epoll_pwait2(int epoll_fd, struct epoll_event *events, int max, int64_t wait_ns)
{
    struct __kernel_timespec time = {.tv_sec = wait_ns / GY_NS_PER_SECOND,
                                     .tv_nsec = wait_ns % GY_NS_PER_SECOND};
    long res = GY_FAULT(SYSCALL);
    if (res < 0)
        return (int)res;
    res = syscall(SYS_epoll_pwait2, epoll_fd, events, max, &time, NULL, (size_t)0);
    return res < 0 ? -errno : (int)res;
}

/* ---- files, threads and memory ---- */

ssize_t
gy_sys_read(int fd, void *buf, size_t len)
{
    ssize_t res = GY_FAULT(SYSCALL);
    return res < 0 ? res : plain_read(fd, buf, len);
}

int
gy_sys_open(const char *path, int flags)
{
    int fd = GY_FAULT(SYSCALL);
    if (fd < 0)
        return fd;
    fd = open(path, flags);
    return fd < 0 ? -errno : fd;
}

ssize_t
gy_sys_read_file(const char *path, void *buf, size_t len)
{
    ssize_t res = GY_FAULT(SYSCALL);
    int fd;
    if (res < 0)
        return res;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    res = plain_read(fd, buf, len);
    gy_sys_close(fd);
    return res;
}

uint64_t
gy_sys_thread_id(void)
{
    static atomic_uint_fast64_t last;
    static _Thread_local uint64_t mine;
    if (mine == 0)
        mine = atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1;
    return mine;
}

void *
gy_alloc(size_t bytes)
{
    return GY_FAULT(ALLOC) ? NULL : calloc(1, bytes);
}

void *
gy_realloc(void *memory, size_t bytes)
{
    return GY_FAULT(ALLOC) ? NULL : realloc(memory, bytes);
}

void
gy_free(void *memory)
{
    free(memory);
}

uint64_t
gy_sys_resident_bytes(void)
{
    char text[128]; /* pages: in all, resident, ... */
    ssize_t len = gy_sys_read_file("/proc/self/statm", text, sizeof text - 1);
    char *resident;
    if (len <= 0)
        return 0;
    text[len] = '\0';
    resident = strchr(text, ' ');
    return resident ? strtoull(resident, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

#ifdef __GLIBC__
void
gy_sys_trim_heap(void)
{
    (void)malloc_trim(0);
}

bool
gy_sys_trims_heap(void)
{
    return true;
}

uintptr_t
gy_sys_heap_end(void)
{
    void *end = sbrk(0);
    return end == (void *)-1 ? 0 : (uintptr_t)end;
}
#else
void
gy_sys_trim_heap(void)
{
}

bool
gy_sys_trims_heap(void)
{
    return false;
}

uintptr_t
gy_sys_heap_end(void)
{
    return 0;
}
#endif

static void *
map_advised(size_t bytes, int advice)
{
    void *memory;
    if (GY_FAULT(ALLOC))
        return NULL;
    memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    if (madvise(memory, bytes, advice) < 0) {
        (void)munmap(memory, bytes);
        return NULL;
    }
    return memory;
}

void *
gy_map(size_t bytes)
{
    return map_advised(bytes, MADV_DONTFORK);
}

void *
gy_map_wiped_on_fork(size_t bytes)
{
    return map_advised(bytes, MADV_WIPEONFORK);
}

void
gy_unmap(void *memory, size_t bytes)
{
    (void)munmap(memory, bytes);
}
