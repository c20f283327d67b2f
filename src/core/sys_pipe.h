/* sys_pipe.h: reading and writing what need not be a socket without waiting for it, and the mode of
 * its descriptor.
 *
 * O_NONBLOCK belongs to the open file description, which other descriptors and other processes
 * share: what sets it changes their reads and writes too.  So it is not set where the kernel takes
 * "do not wait" per call (sockets, pipes) and not on a description of somebody else's where there
 * can be one of our own (terminals).  For the rest (FIFOs, other devices, older kernels) it is set,
 * and taken back at the end.  Thread: any. */
#ifndef GY_SYS_PIPE_H
#define GY_SYS_PIPE_H

#include "base.h"
#include "list.h"
#include <sys/types.h>
#include <sys/uio.h>

/* Reads without waiting, whatever the mode: it looks first.  (Only if somebody else takes the bytes
 * in between does the mode decide.) */
ssize_t gy_sys_read_ready(int fd, void *buf, size_t len);
/* -EPIPE and no SIGPIPE when nobody will read; waits unless in non-blocking mode.  What gets lost
 * without RWF_NOSIGNAL (Linux 6.18) is a SIGPIPE that another thread sends to this one at that very
 * moment. */
ssize_t gy_sys_write(int fd, const struct iovec *iov, unsigned count);
/* The way of kernels that do not know RWF_NOSIGNAL, with other flags of pwritev2; for the tests. */
ssize_t gy_sys_write_masked(int fd, const struct iovec *iov, unsigned count, int flags);

/* The same for descriptors that take RWF_NOWAIT: neither waits, whatever the mode. */
ssize_t gy_sys_read_nowait(int fd, void *buf, size_t len);
ssize_t gy_sys_write_nowait(int fd, const struct iovec *iov, unsigned count);
/* Whether the ends of a pipe(2) do, on this kernel. */
bool gy_sys_pipe_nowait(void);
/* Whether fd is one of those; what has a name in a file system (a FIFO) is not. */
bool gy_sys_is_pipe(int fd);

/* A new description of the same terminal, in non-blocking mode, close-on-exec; or -errno: no
 * terminal, the master's end, not allowed. */
int gy_sys_reopen_terminal(int fd);

/* One user of a description in non-blocking mode, zeroed before its life.  A user that found the
 * description in blocking mode makes it so again when it ends, or leaves that to another user of
 * the same description.  A child of fork() changes nothing: its parent goes on. */
struct gy_pipe_mode {
    struct gy_list link; /* in the list of the process */
    dev_t device;
    ino_t inode;
    int access; /* O_RDONLY, O_WRONLY, O_RDWR: the ends of a pipe share an inode */
    int fd;
    bool listed;
    bool restores;
};

/* Sets O_NONBLOCK.  0 or -errno. */
int gy_pipe_mode_begin(struct gy_pipe_mode *mode, int fd);
/* Before fd is closed; ours is false if it was closed already, by somebody else.  Nothing for one
 * that has not begun or has ended. */
void gy_pipe_mode_end(struct gy_pipe_mode *mode, bool ours);

#endif
