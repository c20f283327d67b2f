/* poll.h: readiness of descriptors that are not ours.
 *
 * gy_poll waits once for one descriptor (sock_* and the signal socket).
 * gy_pollset is add_reader/add_writer: one private epoll descriptor for all of them and one
 * one-shot poll on it.  So level-triggered behaviour, EPERM for regular files, EBADF, and what
 * happens when the user closes a registered descriptor are exactly those of a selector, because the
 * kernel does it. Thread: the loop's. */
#ifndef GY_POLL_H
#define GY_POLL_H

#include "op.h"

struct gy_poll;

struct gy_poll_host {
    /* The descriptor is ready (res: poll mask > 0), failed (-errno) or was cancelled (-ECANCELED).
     * The poll is idle: it may be started again or its memory freed. */
    void (*ready)(struct gy_poll *poll, int res);
};

struct gy_poll {
    struct gy_op op;
    const struct gy_poll_host *host;
    int fd;
    uint32_t mask; /* POLLIN, POLLOUT ... */
};

void gy_poll_init(struct gy_poll *poll, const struct gy_poll_host *host);
void gy_poll_start(struct gy_loop *loop, struct gy_poll *poll, int fd, uint32_t mask);
/* As gy_op_cancel(): true if idle at once (ready is not called), false if ready will be called. */
bool gy_poll_cancel(struct gy_loop *loop, struct gy_poll *poll);

enum { GY_POLLSET_EVENTS_MAX = 64 }; /* per pass: the rest comes in the next turn */

struct gy_pollset;

struct gy_pollset_host {
    /* fd is ready for the directions in mask (EPOLLIN/EPOLLOUT/EPOLLERR/EPOLLHUP).  May add and
     * remove descriptors, this one too. */
    void (*ready)(struct gy_pollset *set, int fd, uint32_t mask);
};

struct gy_pollset {
    struct gy_poll poll;
    struct gy_loop *loop;
    const struct gy_pollset_host *host;
    int epoll_fd;   /* -1 until the first descriptor is added */
    uint32_t count; /* descriptors registered                 */
};

void gy_pollset_init(struct gy_pollset *set, struct gy_loop *loop,
                     const struct gy_pollset_host *host);
/* Sets what is wanted of fd: EPOLLIN | EPOLLOUT, 0 removes it.  `was` is the previous mask (0:
 * new). 0 or -errno as epoll_ctl gives it (-EPERM: not pollable, -EBADF, -EEXIST is resolved
 * inside: a descriptor that was closed and whose number came back is added anew; removing one that
 * is gone succeeds). */
int gy_pollset_modify(struct gy_pollset *set, int fd, uint32_t was, uint32_t mask);
/* Cancels the poll; true: idle now, epoll_fd closed.  false: gy_pollset_closed will be true later.
 */
bool gy_pollset_close(struct gy_pollset *set);

#endif
