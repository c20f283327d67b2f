/* dgram.c: life, close machine and receiving half of a datagram socket; dgram_send.c sends.
 *
 * Owner: the embedder allocates it; from gy_dgram_init until host->closed the kernel may hold its
 * ops.  Thread: the loop's.
 * Invariants: READABLE is cleared only by a receive that found nothing (a multishot poll is
 * edge-triggered); fd is closed exactly once, when both ops are idle; while the loop is quiet
 * nothing is called but release. */
#include "dgram.h"

#include "dgram_impl.h"
#include "prep.h"
#include "probe.h"
#include "sys.h"
#include "trace.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <string.h>

#ifndef UDP_GRO /* headers of Linux before 5.0 */
#define UDP_GRO 104
#endif

/* Room for the segment size and for what else the user has asked the socket to tell. */
enum { CONTROL_BYTES = 512 };

/* Datagrams that one receive brought and the host has not yet taken. */
struct gy_dgram_parked {
    struct gy_address from;
    size_t len;
    size_t at;
    size_t segment;
    char data[];
};

void
gy_dgram_init(struct gy_dgram *dgram, struct gy_loop *loop, int fd,
              const struct gy_dgram_host *host, uint32_t flags)
{
    struct gy_ring *ring = loop->ring;

    GY_ASSERT(fd >= 0);
    GY_ASSERT(!loop->closed);
    GY_ASSERT((flags & ~(uint32_t)(GY_DGRAM_FOREIGN | GY_DGRAM_OFFLOAD)) == 0);
    memset(dgram, 0, sizeof *dgram);
    dgram->loop = loop;
    dgram->host = host;
    dgram->fd = fd;
    dgram->flags = flags;
    gy_work_init(&dgram->work, GY_WORK_DGRAM);
    gy_list_init(&dgram->burst);
    gy_op_init(&dgram->recv_op, GY_OP_DGRAM_RECV);
    gy_poll_init(&dgram->room, &gy_dgram_room_host);
    loop->live++;
    if ((flags & GY_DGRAM_OFFLOAD) == 0)
        return;
    if ((loop->features & GY_FEAT_UDP_GSO) != 0) {
        dgram->flags |= GY_DGRAM_GSO;
        dgram->segment_max = GY_DGRAM_BURST_BYTES_MAX / 2;
    }
    if ((loop->features & GY_FEAT_UDP_GRO) != 0 && ring->ops->udp_gro(ring, fd) == 0)
        dgram->flags |= GY_DGRAM_GRO;
}

void
gy_dgram_queue_work(struct gy_dgram *dgram)
{
    GY_ASSERT((dgram->flags & GY_DGRAM_CLOSED) == 0);
    if (!gy_list_linked(&dgram->work.link))
        gy_list_append(&dgram->loop->work, &dgram->work.link);
}

void
gy_dgram_fail(struct gy_dgram *dgram, int err)
{
    GY_ASSERT(err < 0);
    if (!gy_dgram_alive(dgram))
        return;
    dgram->failure = err;
    gy_dgram_queue_work(dgram);
}

/* ---- the end ---- */

/* Ops are idle, or lost with their ring. */
static void
release_everything(struct gy_dgram *dgram)
{
    gy_list_remove(&dgram->work.link);
    gy_list_remove(&dgram->burst);
    gy_dgram_drop_queue(dgram);
    gy_free(dgram->parked);
    dgram->parked = NULL;
}

static void
finish(struct gy_dgram *dgram)
{
    struct gy_loop *loop = dgram->loop;

    GY_ASSERT((dgram->flags & GY_DGRAM_CLOSED) == 0);
    GY_ASSERT(!loop->quiet);
    release_everything(dgram);
    dgram->host->detach(dgram);
    GY_TRACE(CLOSE, dgram, dgram->fd, 0);
    if (dgram->fd >= 0)
        loop->ring->ops->close(loop->ring, dgram->fd);
    dgram->fd = -1;
    dgram->flags |= GY_DGRAM_CLOSED;
    loop->live--;
    dgram->host->closed(dgram); /* may free the dgram */
}

void
gy_dgram_settle(struct gy_dgram *dgram)
{
    GY_ASSERT((dgram->flags & GY_DGRAM_CLOSING) != 0);
    if (!gy_op_is_idle(&dgram->recv_op) || !gy_op_is_idle(&dgram->room.op))
        return;
    /* On the work list already: gy_dgram_close() may have been called in this very turn. */
    if (dgram->loop->quiet || gy_list_linked(&dgram->work.link))
        gy_dgram_queue_work(dgram);
    else
        finish(dgram);
}

void
gy_dgram_close(struct gy_dgram *dgram)
{
    bool recv_idle;
    bool room_idle;

    if ((dgram->flags & GY_DGRAM_CLOSING) != 0)
        return;
    dgram->flags = (dgram->flags | GY_DGRAM_CLOSING) & ~(uint32_t)GY_DGRAM_READING;
    gy_list_remove(&dgram->work.link);
    gy_list_remove(&dgram->burst);
    recv_idle = gy_op_cancel(dgram->loop, &dgram->recv_op);
    room_idle = gy_poll_cancel(dgram->loop, &dgram->room);
    if (recv_idle && room_idle)
        gy_dgram_queue_work(dgram);
    gy_dgram_drop_queue(dgram);
}

void
gy_dgram_close_now(struct gy_dgram *dgram)
{
    struct gy_loop *loop = dgram->loop;

    gy_dgram_close(dgram);
    if (!loop->running || loop->quiet || gy_loop_forked(loop) ||
        (dgram->flags & (GY_DGRAM_RECEIVING | GY_DGRAM_FLUSHING)) != 0)
        return;
    /* On the work list the socket is not finished by the events, but here. */
    gy_dgram_queue_work(dgram);
    gy_loop_land(loop, &dgram->recv_op, &dgram->room.op);
    if (!gy_op_is_idle(&dgram->recv_op) || !gy_op_is_idle(&dgram->room.op))
        return;
    gy_list_remove(&dgram->work.link);
    finish(dgram);
}

/* For an op of a loop that is closed, or idle. */
static void
abandon_op(struct gy_loop *loop, struct gy_op *op)
{
    if (gy_op_cancel(loop, op))
        return;
    GY_ASSERT(loop->closed); /* else it would land in freed memory */
    gy_list_remove(&op->link);
}

void
gy_dgram_abandon(struct gy_dgram *dgram)
{
    struct gy_loop *loop = dgram->loop;

    GY_ASSERT((dgram->flags & GY_DGRAM_CLOSED) == 0);
    dgram->flags = (dgram->flags | GY_DGRAM_CLOSING) & ~(uint32_t)GY_DGRAM_READING;
    abandon_op(loop, &dgram->recv_op);
    abandon_op(loop, &dgram->room.op);
    release_everything(dgram);
    dgram->host->detach(dgram);
    if (dgram->fd >= 0 && loop->ring != NULL)
        loop->ring->ops->close(loop->ring, dgram->fd);
    else if (dgram->fd >= 0)
        gy_sys_close(dgram->fd);
    dgram->fd = -1;
    dgram->flags |= GY_DGRAM_CLOSED;
    loop->live--;
}

/* ---- receiving ---- */

/* While a multishot poll is armed each datagram costs its sender a call into the ring, and us an
 * event for what was received already: many datagrams come to one socket.  So where arming is
 * cheap, a poll is for the time in which there is nothing to receive. */
static bool
poll_stays(const struct gy_loop *loop)
{
    return (loop->features & GY_FEAT_POLL_MULTISHOT) != 0 && !loop->ring->cheap_polls;
}

/* Submits the poll if it is wanted and not under way.  While READABLE is set nothing is armed: the
 * next poll looks at the socket anew, so no edge is lost. */
static void
arm_recv(struct gy_dgram *dgram)
{
    if (!gy_op_is_idle(&dgram->recv_op) || !gy_dgram_alive(dgram))
        return;
    if ((dgram->flags & (GY_DGRAM_READING | GY_DGRAM_READABLE)) == GY_DGRAM_READING)
        gy_op_submit(dgram->loop, &dgram->recv_op);
}

void
gy_dgram_prepare(struct gy_loop *loop, struct gy_op *op, struct io_uring_sqe *sqe)
{
    struct gy_dgram *dgram = container_of(op, struct gy_dgram, recv_op);

    gy_prep_poll(sqe, dgram->fd, POLLIN, poll_stays(loop));
}

void
gy_dgram_resume(struct gy_dgram *dgram)
{
    if (!gy_dgram_alive(dgram) || (dgram->flags & GY_DGRAM_READING) != 0)
        return;
    dgram->flags |= GY_DGRAM_READING;
    if ((dgram->flags & GY_DGRAM_READABLE) != 0 || dgram->parked != NULL)
        gy_dgram_queue_work(dgram);
    arm_recv(dgram);
}

/* The poll ends: a socket that nobody reads would wake the loop with every datagram. */
void
gy_dgram_pause(struct gy_dgram *dgram)
{
    dgram->flags &= ~(uint32_t)GY_DGRAM_READING;
    if (gy_dgram_alive(dgram))
        (void)gy_op_cancel(dgram->loop, &dgram->recv_op);
}

static bool
may_deliver(const struct gy_dgram *dgram)
{
    const struct gy_loop *loop = dgram->loop;

    return gy_dgram_alive(dgram) && (dgram->flags & GY_DGRAM_READING) != 0 && !loop->quiet &&
           !loop->interrupted &&
           gy_loop_may_read_on(loop, dgram->told_turn == (uint32_t)loop->turn);
}

static void
tell(struct gy_dgram *dgram, const void *data, size_t len, const struct gy_address *from)
{
    dgram->told_turn = (uint32_t)dgram->loop->turn;
    dgram->host->datagram(dgram, data, len, from);
}

/* True if there is none left. */
static bool
deliver_parked(struct gy_dgram *dgram)
{
    struct gy_dgram_parked *parked = dgram->parked;

    if (GY_LIKELY(parked == NULL))
        return true;
    while (parked->at < parked->len) {
        size_t left = parked->len - parked->at;
        const char *data = parked->data + parked->at;
        size_t len = left < parked->segment ? left : parked->segment;

        if (!may_deliver(dgram))
            return false;
        parked->at += len;
        tell(dgram, data, len, &parked->from);
        if (dgram->parked != parked)
            return false; /* closed and abandoned */
    }
    dgram->parked = NULL;
    gy_free(parked);
    return true;
}

/* Keeps data..len for later; without memory they are lost, as datagrams may be. */
static void
park(struct gy_dgram *dgram, const char *data, size_t len, size_t segment,
     const struct gy_address *from)
{
    struct gy_dgram_parked *parked;

    if ((dgram->flags & GY_DGRAM_CLOSING) != 0)
        return;
    GY_ASSERT(dgram->parked == NULL);
    parked = gy_alloc(sizeof *parked + len);
    if (parked == NULL)
        return;
    parked->from = *from;
    parked->len = len;
    parked->at = 0;
    parked->segment = segment;
    memcpy(parked->data, data, len);
    dgram->parked = parked;
}

static void
deliver_segments(struct gy_dgram *dgram, const char *data, size_t len, size_t segment,
                 const struct gy_address *from)
{
    while (len > 0) {
        size_t part = len < segment ? len : segment;

        if (!may_deliver(dgram)) {
            park(dgram, data, len, segment, from);
            return;
        }
        tell(dgram, data, part, from);
        data += part;
        len -= part;
    }
}

/* The size of the datagrams that lie one behind the other in what was received; 0: it is one. */
static size_t
segment_size(struct msghdr *message)
{
    struct cmsghdr *control;

    for (control = CMSG_FIRSTHDR(message); control != NULL;
         control = CMSG_NXTHDR(message, control)) {
        if (control->cmsg_level == IPPROTO_UDP && control->cmsg_type == UDP_GRO) {
            int size;
            memcpy(&size, CMSG_DATA(control), sizeof size);
            return size > 0 ? (size_t)size : 0;
        }
    }
    return 0;
}

/* One receive: 0, -EAGAIN if there is nothing, or -errno. */
static int
receive_one(struct gy_dgram *dgram)
{
    _Alignas(struct cmsghdr) char control[CONTROL_BYTES];
    struct gy_loop *loop = dgram->loop;
    struct gy_address from;
    struct iovec iov = {.iov_base = loop->scratch, .iov_len = GY_DGRAM_BYTES_MAX};
    struct msghdr message = {.msg_name = &from.storage,
                             .msg_namelen = sizeof from.storage,
                             .msg_iov = &iov,
                             .msg_iovlen = 1};
    size_t segment = 0;
    ssize_t res;

    if ((dgram->flags & GY_DGRAM_GRO) != 0) {
        message.msg_control = control;
        message.msg_controllen = sizeof control;
    }
    res = loop->ring->ops->try_recvmsg(loop->ring, dgram->fd, &message);
    if (res < 0)
        return (int)res;
    from.len = message.msg_namelen;
    loop->counters.recv_calls++;
    loop->counters.bytes_in += (uint64_t)res;
    if (message.msg_controllen > 0)
        segment = segment_size(&message);
    if (segment == 0 || (size_t)res <= segment)
        tell(dgram, loop->scratch, (size_t)res, &from);
    else
        deliver_segments(dgram, loop->scratch, (size_t)res, segment, &from);
    return 0;
}

static void
receive_some(struct gy_dgram *dgram)
{
    struct gy_loop *loop = dgram->loop;

    if (loop->scratch == NULL)
        loop->scratch = gy_alloc(GY_DGRAM_BYTES_MAX);
    if (loop->scratch == NULL) {
        gy_dgram_fail(dgram, -ENOMEM);
        return;
    }
    for (unsigned calls = 0; calls < GY_DGRAM_CALLS_PER_TURN && may_deliver(dgram); calls++) {
        int err = (dgram->flags & GY_DGRAM_FOREIGN) != 0 ? dgram->host->receive(dgram)
                                                         : receive_one(dgram);
        if (err == -EAGAIN) {
            dgram->flags &= ~(uint32_t)GY_DGRAM_READABLE;
            break;
        }
        dgram->told_turn = (uint32_t)loop->turn;
        if (err < 0 && gy_dgram_alive(dgram))
            dgram->host->error(dgram, err);
    }
}

static void
receive(struct gy_dgram *dgram)
{
    dgram->flags |= GY_DGRAM_RECEIVING;
    if (deliver_parked(dgram) && (dgram->flags & GY_DGRAM_READABLE) != 0)
        receive_some(dgram);
    dgram->flags &= ~(uint32_t)GY_DGRAM_RECEIVING;
    /* What is left is read in the next turn, or when reading goes on. */
    if (((dgram->flags & GY_DGRAM_READABLE) != 0 || dgram->parked != NULL) &&
        gy_dgram_alive(dgram) && (dgram->flags & GY_DGRAM_READING) != 0)
        gy_dgram_queue_work(dgram);
}

void
gy_dgram_on_event(struct gy_loop *loop, struct gy_op *op, const struct gy_event *ev)
{
    struct gy_dgram *dgram = container_of(op, struct gy_dgram, recv_op);
    int res = ev->res;

    GY_ASSERT((dgram->flags & GY_DGRAM_CLOSED) == 0);
    if ((dgram->flags & GY_DGRAM_CLOSING) != 0) {
        if (gy_op_is_idle(op))
            gy_dgram_settle(dgram);
        return;
    }
    if (res > 0)
        dgram->flags |= GY_DGRAM_READABLE;
    else if (res < 0 && res != -ECANCELED && res != -EINTR && res != -EAGAIN)
        gy_dgram_fail(dgram, res);
    if (GY_UNLIKELY(loop->quiet)) {
        if ((dgram->flags & GY_DGRAM_READABLE) != 0)
            gy_dgram_queue_work(dgram);
    } else if ((dgram->flags & GY_DGRAM_READABLE) != 0 && !gy_list_linked(&dgram->work.link)) {
        receive(dgram);
    }
    arm_recv(dgram);
}

void
gy_dgram_run_work(struct gy_dgram *dgram)
{
    GY_ASSERT(!dgram->loop->quiet);
    GY_ASSERT((dgram->flags & GY_DGRAM_CLOSED) == 0);
    if ((dgram->flags & GY_DGRAM_CLOSING) != 0) {
        gy_dgram_settle(dgram); /* else the handler of the last op does it */
        return;
    }
    if (dgram->failure != 0) {
        (void)gy_op_cancel(dgram->loop, &dgram->recv_op);
        dgram->host->broken(dgram, dgram->failure);
        return;
    }
    if ((dgram->flags & GY_DGRAM_DRAIN_DUE) != 0) {
        dgram->flags = (dgram->flags & ~(uint32_t)GY_DGRAM_DRAIN_DUE) | GY_DGRAM_RECEIVING;
        dgram->host->drained(dgram);
    }
    receive(dgram);
    arm_recv(dgram);
}
