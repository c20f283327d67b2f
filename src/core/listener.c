/* listener.c: accepts connections.
 *
 * Owner: the embedder; until host->closed the kernel may hold op.  Thread: the loop's.
 * Invariants: each descriptor that the kernel hands out is given to the host, parked or closed,
 * exactly once; while the retry timer runs no accept is in flight; nothing is upcalled while the
 * loop is quiet or after closed(). */
#include "listener.h"

#include "loop.h"
#include "prep.h"
#include "probe.h"
#include "ring.h"
#include "sys.h"
#include "trace.h"
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

enum accept_mode { ACCEPT_MULTISHOT, ACCEPT_ONCE, ACCEPT_POLL };

enum {
    ACCEPTS_PER_EVENT = 64, /* ACCEPT_POLL: the poll that follows fires at once if more wait */
    PARKED_FIRST_CAPACITY = 8
};

void
gy_listener_init(struct gy_listener *listener, struct gy_loop *loop, int fd, bool owns_fd,
                 const struct gy_listener_host *host)
{
    GY_ASSERT(fd >= 0);
    GY_ASSERT(!loop->closed);
    *listener = (struct gy_listener){.loop = loop, .host = host, .fd = fd, .owns_fd = owns_fd};
    gy_op_init(&listener->op, GY_OP_ACCEPT);
    gy_work_init(&listener->work, GY_WORK_LISTENER);
    gy_timer_init(&listener->retry, GY_TIMER_ACCEPT_RETRY);
    loop->live++;
}

static void
queue_work(struct gy_listener *listener)
{
    if (!gy_list_linked(&listener->work.link))
        gy_list_append(&listener->loop->work, &listener->work.link);
}

static void
close_fd(struct gy_listener *listener, int fd)
{
    if (listener->loop->ring != NULL)
        listener->loop->ring->ops->close(listener->loop->ring, fd);
    else
        gy_sys_close(fd);
}

static void
arm(struct gy_listener *listener)
{
    if (!listener->accepting || listener->closing || listener->error != 0)
        return;
    if (!gy_op_is_idle(&listener->op) || gy_timer_is_set(&listener->retry))
        return;
    gy_op_submit(listener->loop, &listener->op);
}

void
gy_listener_start(struct gy_listener *listener)
{
    GY_ASSERT(!listener->closed);
    if (listener->closing)
        return;
    listener->accepting = true;
    arm(listener);
}

void
gy_listener_prepare(struct gy_loop *loop, struct gy_op *op, struct io_uring_sqe *sqe)
{
    struct gy_listener *listener = container_of(op, struct gy_listener, op);

    if ((loop->features & GY_FEAT_ACCEPT) == 0)
        listener->mode = ACCEPT_POLL;
    else
        listener->mode =
            (loop->features & GY_FEAT_ACCEPT_MULTISHOT) != 0 ? ACCEPT_MULTISHOT : ACCEPT_ONCE;
    if (listener->mode == ACCEPT_POLL)
        gy_prep_poll(sqe, listener->fd, POLLIN, false);
    else
        gy_prep_accept(sqe, listener->fd, SOCK_NONBLOCK | SOCK_CLOEXEC,
                       listener->mode == ACCEPT_MULTISHOT);
}

/* The loop is quiet: fd waits for the next run. */
static GY_COLD void
park(struct gy_listener *listener, int fd)
{
    if (listener->parked_count == listener->parked_capacity) {
        uint32_t capacity =
            listener->parked_capacity ? listener->parked_capacity * 2 : PARKED_FIRST_CAPACITY;
        int *parked = gy_realloc(listener->parked, capacity * sizeof(*parked));
        if (parked == NULL) {
            close_fd(listener, fd); /* the peer sees a connection that ends: better than a leak */
            return;
        }
        listener->parked = parked;
        listener->parked_capacity = capacity;
    }
    listener->parked[listener->parked_count++] = fd;
    queue_work(listener);
}

static void
take(struct gy_listener *listener, int fd)
{
    GY_ASSERT(fd >= 0);
    if (listener->closing) {
        close_fd(listener, fd);
        return;
    }
    if (listener->loop->quiet) {
        park(listener, fd);
        return;
    }
    listener->loop->counters.accepted++;
    listener->host->accepted(listener, fd);
}

/* The connection that was to be accepted is what failed, or nothing did (accept(2), "Error
 * handling"; EPERM is a firewall's). */
static bool
error_is_of_the_connection(int err)
{
    switch (-err) {
    case EAGAIN:
    case ECANCELED:
    case ECONNABORTED:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case EINTR:
    case ENETDOWN:
    case ENETUNREACH:
    case ENONET:
    case ENOPROTOOPT:
    case EPERM:
    case EPROTO:
        return true;
    default:
        return false;
    }
}

static bool
error_is_for_good(int err)
{
    return err == -EBADF || err == -EINVAL || err == -ENOTSOCK || err == -EOPNOTSUPP;
}

static GY_COLD void
fail(struct gy_listener *listener, int err)
{
    struct gy_loop *loop = listener->loop;

    if (listener->closing || error_is_of_the_connection(err))
        return;
    listener->error = err;
    listener->error_retry = !error_is_for_good(err);
    if (!listener->error_retry)
        listener->accepting = false;
    else if (!gy_timer_is_set(&listener->retry) &&
             gy_timers_add(&loop->timers, &listener->retry,
                           gy_loop_now_ns(loop) + GY_ACCEPT_RETRY_NS) < 0)
        listener->accepting = listener->error_retry = false; /* no memory even for a timer */
    queue_work(listener);
}

/* ACCEPT_POLL: the listener is readable. */
static void
accept_batch(struct gy_listener *listener)
{
    struct gy_ring *ring = listener->loop->ring;

    for (unsigned i = 0; i < ACCEPTS_PER_EVENT; i++) {
        int fd;
        if (listener->closing || listener->loop->quiet || listener->loop->interrupted)
            return;
        fd = ring->ops->try_accept(ring, listener->fd);
        if (fd == -EAGAIN)
            return;
        if (fd >= 0)
            take(listener, fd);
        else if (!error_is_of_the_connection(fd)) {
            fail(listener, fd);
            return;
        }
    }
}

static void
finish(struct gy_listener *listener)
{
    GY_ASSERT(listener->closing);
    GY_ASSERT(!listener->closed);
    GY_ASSERT(listener->fd == -1);
    GY_ASSERT(gy_op_is_idle(&listener->op));
    gy_list_remove(&listener->work.link);
    listener->closed = true;
    listener->loop->live--;
    listener->host->closed(listener); /* may free the listener */
}

void
gy_listener_on_accept(struct gy_loop *loop, struct gy_op *op, const struct gy_event *ev)
{
    struct gy_listener *listener = container_of(op, struct gy_listener, op);

    GY_ASSERT(!listener->closed);
    GY_ASSERT(listener->loop == loop);
    if (listener->mode == ACCEPT_POLL) {
        if (ev->res > 0)
            accept_batch(listener);
        else if (ev->res < 0)
            fail(listener, ev->res);
    } else if (ev->res >= 0) {
        take(listener, ev->res);
    } else {
        fail(listener, ev->res);
    }
    if (!listener->closing)
        arm(listener);
    else if (gy_op_is_idle(op)) {
        /* On the work list already: closed in this very turn. */
        if (loop->quiet || gy_list_linked(&listener->work.link))
            queue_work(listener);
        else
            finish(listener);
    }
}

/* Everything that close and abandon share, up to the descriptor. */
static void
let_go(struct gy_listener *listener)
{
    listener->accepting = false;
    gy_timers_remove(&listener->loop->timers, &listener->retry);
    for (uint32_t i = 0; i < listener->parked_count; i++)
        close_fd(listener, listener->parked[i]);
    gy_free(listener->parked);
    listener->parked = NULL;
    listener->parked_count = 0;
    listener->parked_capacity = 0;
}

static void
close_socket(struct gy_listener *listener)
{
    int fd = listener->fd;

    listener->host->detach(listener);
    GY_TRACE(CLOSE, listener, fd, 0);
    if (listener->owns_fd)
        close_fd(listener, fd);
    listener->fd = -1;
}

void
gy_listener_close(struct gy_listener *listener)
{
    struct gy_loop *loop = listener->loop;

    if (listener->closing)
        return;
    listener->closing = true;
    gy_list_remove(&listener->work.link);
    let_go(listener);
    if (gy_op_cancel(loop, &listener->op))
        queue_work(listener);
    else if (loop->running && !gy_loop_forked(loop))
        /* The kernel lets go of the socket here, so that its port is free when fd is closed.  A
         * ring that is broken frees it when it is destroyed. */
        (void)gy_loop_poll(loop, true);
    close_socket(listener);
}

void
gy_listener_abandon(struct gy_listener *listener)
{
    GY_ASSERT(!listener->closed);
    GY_ASSERT(!listener->loop->running);
    GY_ASSERT(listener->loop->closed || gy_op_is_idle(&listener->op) ||
              listener->op.state == GY_OP_QUEUED);
    let_go(listener);
    if (!gy_op_cancel(listener->loop, &listener->op))
        gy_list_remove(&listener->op.link);
    gy_list_remove(&listener->work.link);
    if (!listener->closing)
        close_socket(listener);
    listener->closing = true;
    listener->closed = true;
    listener->loop->live--;
}

void
gy_listener_retry_due(struct gy_listener *listener)
{
    GY_ASSERT(!gy_timer_is_set(&listener->retry));
    arm(listener);
}

static void
deliver_parked(struct gy_listener *listener)
{
    while (listener->parked_count > 0 && !listener->loop->interrupted) {
        int fd = listener->parked[0];
        listener->parked_count--;
        for (uint32_t i = 0; i < listener->parked_count; i++)
            listener->parked[i] = listener->parked[i + 1];
        take(listener, fd); /* may close the listener, which empties the list */
    }
    if (listener->parked_count > 0)
        queue_work(listener);
}

void
gy_listener_run_work(struct gy_listener *listener)
{
    GY_ASSERT(!listener->closed);
    GY_ASSERT(!listener->loop->quiet);
    if (listener->closing) {
        if (gy_op_is_idle(&listener->op))
            finish(listener);
        return;
    }
    if (listener->parked_count > 0)
        deliver_parked(listener);
    if (listener->error != 0 && !listener->closing) {
        int err = listener->error;
        listener->error = 0;
        listener->host->failed(listener, err, listener->error_retry);
    }
    arm(listener);
}
