/* poll.c: gy_poll (one descriptor, once) and gy_pollset (add_reader/add_writer); see poll.h.
 * Thread: the loop's.  Invariant: while descriptors are registered and no pass runs, the poll of a
 * pollset is armed, or a look of it is on the work list. */
#include "poll.h"
#include "loop.h"
#include "prep.h"
#include "probe.h"
#include "sys.h"

#include <errno.h>
#include <sys/poll.h>
#include <sys/epoll.h>

/* ---- one descriptor ---- */

void
gy_poll_init(struct gy_poll *poll, const struct gy_poll_host *host)
{
    gy_op_init(&poll->op, GY_OP_POLL);
    poll->host = host;
    poll->fd = -1;
    poll->mask = 0;
    poll->found = 0;
    poll->multishot = false;
    poll->cancelled = false;
}

void
gy_poll_start(struct gy_loop *loop, struct gy_poll *poll, int fd, uint32_t mask)
{
    GY_ASSERT(gy_op_is_idle(&poll->op));
    GY_ASSERT(fd >= 0);
    poll->fd = fd;
    poll->mask = mask;
    poll->found = 0;
    poll->multishot = false;
    poll->cancelled = false;
    gy_op_submit(loop, &poll->op);
}

bool
gy_poll_cancel(struct gy_loop *loop, struct gy_poll *poll)
{
    if (gy_op_cancel(loop, &poll->op))
        return true;
    poll->cancelled = true;
    return false;
}

/* A cancelled poll gets here only if its end came while the loop was quiet: the NOP brings the
 * promised call in the next run. */
void
gy_poll_prepare(struct gy_loop *loop, struct gy_op *op, struct io_uring_sqe *sqe)
{
    const struct gy_poll *poll = container_of(op, struct gy_poll, op);
    if (GY_UNLIKELY(poll->cancelled))
        gy_prep_nop(sqe);
    else
        gy_prep_poll(sqe, poll->fd, poll->mask, poll->multishot);
}

static bool
is_answer(const struct gy_poll *poll, int res)
{
    uint32_t answers = poll->mask | POLLERR | POLLHUP | POLLNVAL;
    return res <= 0 || ((uint32_t)res & answers) != 0;
}

void
gy_poll_on_event(struct gy_loop *loop, struct gy_op *op, const struct gy_event *ev)
{
    struct gy_poll *poll = container_of(op, struct gy_poll, op);
    int res = poll->found != 0 ? poll->found : ev->res;

    if (GY_UNLIKELY(!gy_op_is_idle(op))) { /* multishot */
        if (is_answer(poll, ev->res)) {
            poll->found = ev->res;
            (void)gy_op_cancel(loop, op);
        }
        return;
    }
    if (GY_UNLIKELY(loop->quiet)) {
        /* Readiness is a state, not news: asking again in the next run finds it again. */
        poll->found = 0;
        gy_op_submit(loop, op);
        return;
    }
    /* The kernel polls for POLLRDHUP unasked, and would report it again at once: a multishot poll
     * says it once and then waits for the rest. */
    if (GY_UNLIKELY(!poll->cancelled && !is_answer(poll, res)) &&
        (loop->features & GY_FEAT_POLL_MULTISHOT) != 0) {
        poll->multishot = true;
        gy_op_submit(loop, op);
        return;
    }
    poll->host->ready(poll, poll->cancelled ? -ECANCELED : res);
}

/* ---- a set of descriptors ---- */

static void
pollset_arm(struct gy_pollset *set)
{
    if (set->count == 0 || set->epoll_fd < 0 || set->batch != NULL ||
        gy_list_linked(&set->work.link))
        return;
    if (gy_op_is_idle(&set->poll.op))
        gy_poll_start(set->loop, &set->poll, set->epoll_fd, POLLIN);
}

static void
pollset_deliver(struct gy_pollset *set)
{
    while (set->batch_next < set->batch_count) {
        struct epoll_event event = set->batch[set->batch_next++];
        if (event.events == 0)
            continue;
        set->host->ready(set, event.data.fd, event.events);
        if (set->loop->interrupted || gy_loop_forked(set->loop))
            return; /* what is left is still ready in the next pass */
    }
}

/* Several descriptors were ready, or the last look found some: more are ready, most likely, when
 * the callbacks have run.  To look again costs one system call, to arm the poll and be told two.
 * Looks in vain are made less and less often. */
static bool
is_worth_a_look(struct gy_pollset *set, int count, bool looked)
{
    enum { VAIN_SHIFT_MAX = 5 };
    if (looked && count <= 0) {
        if (set->vain < VAIN_SHIFT_MAX)
            set->vain++;
        set->skip = (1u << set->vain) - 1;
        return false;
    }
    if (looked) {
        set->vain = 0;
        return true;
    }
    if (count <= 1)
        return false;
    if (set->skip == 0)
        return true;
    set->skip--;
    return false;
}

/* One pass: what epoll reports now, at most GY_POLLSET_EVENTS_MAX; the rest, being level-triggered,
 * makes the poll fire again as soon as it is armed. */
static void
pollset_pass(struct gy_pollset *set, bool looked)
{
    struct epoll_event events[GY_POLLSET_EVENTS_MAX];
    int count;
    GY_ASSERT(set->batch == NULL);
    if (set->epoll_fd < 0)
        return; /* closed meanwhile */
    count = gy_sys_epoll_poll(set->epoll_fd, events, GY_POLLSET_EVENTS_MAX);
    if (count > 0) {
        set->batch = events;
        set->batch_next = 0;
        set->batch_count = (uint32_t)count;
        pollset_deliver(set);
        set->batch = NULL;
    }
    if (is_worth_a_look(set, count, looked) && gy_op_is_idle(&set->poll.op) &&
        !gy_list_linked(&set->work.link))
        gy_list_append(&set->loop->work, &set->work.link);
    pollset_arm(set);
}

static void
pollset_on_ready(struct gy_poll *poll, int res)
{
    GY_UNUSED(res);
    pollset_pass(container_of(poll, struct gy_pollset, poll), false);
}

void
gy_pollset_run_work(struct gy_pollset *set)
{
    pollset_pass(set, true);
}

static const struct gy_poll_host pollset_poll_host = {.ready = pollset_on_ready};

void
gy_pollset_init(struct gy_pollset *set, struct gy_loop *loop, const struct gy_pollset_host *host)
{
    gy_poll_init(&set->poll, &pollset_poll_host);
    set->loop = loop;
    set->host = host;
    set->epoll_fd = -1;
    set->count = 0;
    set->batch = NULL;
    set->batch_next = 0;
    set->batch_count = 0;
    gy_work_init(&set->work, GY_WORK_POLLSET);
    set->vain = set->skip = 0;
}

/* What this pass still holds for fd was found under the old registration. */
static void
pollset_forget(struct gy_pollset *set, int fd)
{
    if (set->batch == NULL)
        return;
    for (uint32_t i = set->batch_next; i < set->batch_count; i++) {
        if (set->batch[i].data.fd == fd)
            set->batch[i].events = 0;
    }
}

static int
pollset_remove(struct gy_pollset *set, int fd)
{
    int err = set->epoll_fd < 0 ? -ENOENT : gy_sys_epoll_ctl(set->epoll_fd, EPOLL_CTL_DEL, fd, 0);
    /* The user closed it before, or opened another file under its number: it left the set then. */
    if (err == -ENOENT || err == -EBADF || err == -EPERM)
        err = 0;
    return err;
}

/* The user may have closed and reopened the number behind our back, so that the kernel's view of
 * whether it is registered differs from the caller's: the kernel's counts. */
static int
pollset_set(struct gy_pollset *set, int fd, bool known, uint32_t mask)
{
    int operation = known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    int err = gy_sys_epoll_ctl(set->epoll_fd, operation, fd, mask);
    if (err == -ENOENT && known)
        err = gy_sys_epoll_ctl(set->epoll_fd, EPOLL_CTL_ADD, fd, mask);
    else if (err == -EEXIST && !known)
        err = gy_sys_epoll_ctl(set->epoll_fd, EPOLL_CTL_MOD, fd, mask);
    return err;
}

int
gy_pollset_modify(struct gy_pollset *set, int fd, uint32_t was, uint32_t mask)
{
    int err;
    GY_ASSERT(!set->loop->closed);
    GY_ASSERT((mask & ~(uint32_t)(EPOLLIN | EPOLLOUT)) == 0);
    if (mask == 0) {
        if (was == 0)
            return 0;
        err = pollset_remove(set, fd);
    } else {
        if (set->epoll_fd < 0) {
            int epoll_fd = gy_sys_epoll_create();
            if (epoll_fd < 0)
                return epoll_fd;
            set->epoll_fd = epoll_fd;
        }
        err = pollset_set(set, fd, was != 0, mask);
    }
    if (err < 0)
        return err;
    if (was == 0) {
        set->count++;
    } else if (mask == 0) {
        GY_ASSERT(set->count > 0);
        set->count--;
    }
    pollset_forget(set, fd);
    pollset_arm(set);
    return 0;
}

bool
gy_pollset_close(struct gy_pollset *set)
{
    if (set->epoll_fd >= 0) {
        gy_sys_close(set->epoll_fd);
        set->epoll_fd = -1;
    }
    set->count = 0;
    set->batch_count = set->batch_next;
    gy_list_remove(&set->work.link);
    return gy_poll_cancel(set->loop, &set->poll);
}
