/* listener.h: accepts connections on a listening socket.
 *
 * Multishot accept where the kernel has it, else one-shot accepts, else (GYRE_FEATURES) poll +
 * accept4(2). A descriptor that arrives after close is closed on arrival; one that arrives while
 * the loop is quiet is parked and delivered at the next run.  At the descriptor limit (EMFILE,
 * ENFILE, ENOBUFS, ENOMEM) accepting pauses for GY_ACCEPT_RETRY_NS, as asyncio does, instead of
 * spinning. Close: cancel + enter + close(fd) in one call, so that the port is free when it
 * returns.  Never shutdown(2): it acts on the socket, which forked workers may share. Owner: the
 * embedder; until host->closed the kernel may hold its op.  Thread: the loop's. */
#ifndef GY_LISTENER_H
#define GY_LISTENER_H

#include "op.h"
#include "timer.h"
#include "work.h"

struct gy_listener;

#define GY_ACCEPT_RETRY_NS GY_NS_PER_SECOND

struct gy_listener_host {
    /* A new connection, non-blocking and close-on-exec; the host owns fd. */
    void (*accepted)(struct gy_listener *listener, int fd);
    /* accept failed with -errno.  retry: out of resources, accepting goes on after
     * GY_ACCEPT_RETRY_NS; otherwise accepting has stopped. */
    void (*failed)(struct gy_listener *listener, int err, bool retry);
    void (*detach)(struct gy_listener *listener); /* just before close(fd) */
    void (*closed)(struct gy_listener *listener); /* the memory may be freed */
};

struct gy_listener {
    struct gy_loop *loop;
    const struct gy_listener_host *host;
    int fd;
    bool owns_fd; /* close(fd) at the end, or leave it to the embedder */
    bool accepting;
    bool closing;
    bool closed;
    int32_t error; /* -errno that host->failed still has to hear, or 0 */
    bool error_retry;
    struct gy_op op;
    struct gy_work work;
    struct gy_timer retry; /* kind GY_TIMER_ACCEPT_RETRY */
    uint8_t mode;          /* how op was last armed: listener.c */
    int *parked;           /* descriptors that came while quiet */
    uint32_t parked_count;
    uint32_t parked_capacity;
};

void gy_listener_init(struct gy_listener *listener, struct gy_loop *loop, int fd, bool owns_fd,
                      const struct gy_listener_host *host);
void gy_listener_start(struct gy_listener *listener);
/* Stops accepting and closes; the socket is closed when this returns if the loop runs in this
 * thread (or never ran); closed() follows from a later turn, never from inside. */
void gy_listener_close(struct gy_listener *listener);
/* For a listener whose loop is closed or will never turn again: closes at once.  Of the host only
 * detach is called; the memory may be freed when this returns. */
void gy_listener_abandon(struct gy_listener *listener);

void gy_listener_run_work(struct gy_listener *listener);
void gy_listener_retry_due(struct gy_listener *listener);
void gy_listener_prepare(struct gy_loop *loop, struct gy_op *op, struct io_uring_sqe *sqe);
void gy_listener_on_accept(struct gy_loop *loop, struct gy_op *op, const struct gy_event *ev);

#endif
