/* sys.h: the plain system calls that the rings and the core share, and its allocations.
 *
 * Results are >= 0 or -errno; EINTR is retried inside.  Each call is an injection point of fault.h.
 * Nothing here blocks, provided that descriptors of connect are non-blocking. */
#ifndef GY_SYS_H
#define GY_SYS_H

#include "base.h"
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

struct epoll_event;

/* On sockets with MSG_DONTWAIT; on other descriptors (pipes) as gy_sys_read and, in
 * sys_pipe.h, gy_sys_write. */
ssize_t gy_sys_recv(int fd, void *buf, size_t len);
/* On a UNIX socket; *cut: descriptors or credentials came with the bytes and ended them (what was
 * passed is closed, as recv(2) does). */
ssize_t gy_sys_recv_local(int fd, void *buf, size_t len, bool *cut);
ssize_t gy_sys_send(int fd, const struct iovec *iov, unsigned count);
/* One sendmsg(2) that neither waits nor raises SIGPIPE. */
ssize_t gy_sys_sendmsg(int fd, const struct msghdr *message, int flags);
/* One recvmsg(2) that does not wait; message->msg_namelen and msg_controllen are set. */
ssize_t gy_sys_recvmsg(int fd, struct msghdr *message);
bool gy_sys_at_mark(int fd); /* sockatmark(3) that never fails: false */
int gy_sys_udp_gro(int fd);  /* datagrams of a sender come together: 0 or -errno */
/* What a new UDP socket takes: UDP_SEGMENT, UDP_GRO. */
void gy_sys_udp_offload(bool *gso, bool *gro);
int gy_sys_accept(int fd); /* non-blocking, close-on-exec */
/* An interrupted connect goes on by itself: -EINPROGRESS. */
int gy_sys_connect(int fd, const struct sockaddr *addr, socklen_t len);
int gy_sys_socket_error(int fd); /* SO_ERROR as -errno, 0 if none */
int gy_sys_shutdown(int fd, int how);
void gy_sys_close(int fd);
int64_t gy_sys_now_ns(void); /* CLOCK_MONOTONIC */
int64_t gy_sys_thread_cpu_ns(void);

int gy_sys_eventfd(void); /* blocking, close-on-exec */
/* Adds one to the counter.  Async-signal-safe, errno is kept. */
void gy_sys_eventfd_add(int fd);

int gy_sys_epoll_create(void); /* close-on-exec */
int gy_sys_epoll_ctl(int epoll_fd, int operation, int fd, uint32_t events);
/* As epoll_ctl, with 64 bits of the caller's. */
int gy_sys_epoll_set(int epoll_fd, int operation, int fd, uint32_t events, uint64_t data);
int gy_sys_epoll_poll(int epoll_fd, struct epoll_event *events, int max); /* does not wait */

/* These two wait, and return -EINTR after a signal. */
int gy_sys_epoll_wait(int epoll_fd, struct epoll_event *events, int max,
                      int wait_ms); /* -1: ever */
int gy_sys_epoll_pwait2(int epoll_fd, struct epoll_event *events, int max, int64_t wait_ns);

ssize_t gy_sys_read(int fd, void *buf, size_t len); /* waits unless in non-blocking mode */
int gy_sys_open(const char *path, int flags);       /* of a file that is there */
/* The beginning of a file. */
ssize_t gy_sys_read_file(const char *path, void *buf, size_t len);

/* Identifies the calling thread; never reused in this process, never 0. */
uint64_t gy_sys_thread_id(void);

/* NULL if there is no memory. */
void *gy_alloc(size_t bytes); /* zeroed */
void *gy_realloc(void *memory, size_t bytes);
void gy_free(void *memory);
/* The resident memory of the process; 0 if /proc does not tell. */
uint64_t gy_sys_resident_bytes(void);
/* Gives back to the system what is free in the C library's heap, all of it; may take a while. */
void gy_sys_trim_heap(void);
bool gy_sys_trims_heap(void); /* is there such a call */
/* Where the C library's heap ends; 0: not to be known.  No call to the kernel. */
uintptr_t gy_sys_heap_end(void);
/* Whole pages, zeroed, private; the child of a fork does not inherit them (MADV_DONTFORK), so a
 * forked child must not unmap them: the addresses may be another mapping by then. */
void *gy_map(size_t bytes);
void gy_unmap(void *memory, size_t bytes);
/* One page that a child of fork finds zeroed (MADV_WIPEONFORK). */
void *gy_map_wiped_on_fork(size_t bytes);

#endif
