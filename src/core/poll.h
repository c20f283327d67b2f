/* poll.h: readiness of descriptors that are not ours.
 *
 * gy_poll waits once for one descriptor (sock_* and the signal socket).
 * gy_pollset is add_reader/add_writer: one private epoll descriptor for all of them and one
 * one-shot poll on it, which is not armed while each look finds something.  So level-triggered
 * behaviour, EPERM for regular files, EBADF, and what happens when the user closes a registered
 * descriptor are exactly those of a selector, because the kernel does it. Thread: the loop's. */
#ifndef GY_POLL_H
#define GY_POLL_H

#include "op.h"
#include "work.h"

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
    uint32_t mask;  /* POLLIN, POLLOUT ... */
    int found;      /* the multishot poll saw this, and its end is awaited */
    bool multishot; /* the one-shot poll reported nothing that was asked for */
    bool cancelled; /* the host was promised ready(-ECANCELED) */
};

void gy_poll_init(struct gy_poll *poll, const struct gy_poll_host *host);
void gy_poll_start(struct gy_loop *loop, struct gy_poll *poll, int fd, uint32_t mask);
/* As gy_op_cancel(): true if idle at once (ready is not called), false if ready(-ECANCELED) will be
 * called: from a later turn, of the next run if the loop quiesces before. */
bool gy_poll_cancel(struct gy_loop *loop, struct gy_poll *poll);

enum { GY_POLLSET_EVENTS_MAX = 256 }; /* per pass: the rest comes in the next turn */

struct gy_pollset;
struct epoll_event;

struct gy_pollset_host {
    /* fd is ready for the directions in mask (EPOLLIN/EPOLLOUT/EPOLLERR/EPOLLHUP).  May add and
     * remove descriptors, this one too. */
    void (*ready)(struct gy_pollset *set, int fd, uint32_t mask);
};

struct gy_pollset {
    struct gy_poll poll;
    struct gy_loop *loop;
    const struct gy_pollset_host *host;
    int epoll_fd;              /* -1 until the first descriptor is added                       */
    uint32_t count;            /* descriptors registered                                       */
    struct epoll_event *batch; /* the events of the pass that is running, or NULL              */
    uint32_t batch_next;       /* first one not yet delivered                                  */
    uint32_t batch_count;
    struct gy_work work; /* looks again in the next turn, in place of the poll */
    uint32_t vain;       /* such looks in a row that found nothing             */
    uint32_t skip;       /* passes to go that arm the poll at once             */
};

void gy_pollset_init(struct gy_pollset *set, struct gy_loop *loop,
                     const struct gy_pollset_host *host);
/* Sets what is wanted of fd: EPOLLIN | EPOLLOUT, 0 removes it.  `was` is the previous mask (0:
 * new). 0 or -errno as epoll_ctl gives it (-EPERM: not pollable, -EBADF, -EEXIST is resolved
 * inside: a descriptor that was closed and whose number came back is added anew; removing one that
 * is gone succeeds). */
int gy_pollset_modify(struct gy_pollset *set, int fd, uint32_t was, uint32_t mask);
/* Closes the epoll descriptor and cancels the poll on it.  true: the memory may go now; false: not
 * before gy_pollset_closed() is true, or another gy_pollset_close() after the loop has quiesced. */
bool gy_pollset_close(struct gy_pollset *set);

static inline bool
gy_pollset_closed(const struct gy_pollset *set)
{
    return set->epoll_fd < 0 && gy_op_is_idle(&set->poll.op);
}

/* For loop.c: the look of the work list. */
void gy_pollset_run_work(struct gy_pollset *set);

/* For op.c. */
void gy_poll_prepare(struct gy_loop *loop, struct gy_op *op, struct io_uring_sqe *sqe);
void gy_poll_on_event(struct gy_loop *loop, struct gy_op *op, const struct gy_event *ev);

#endif
