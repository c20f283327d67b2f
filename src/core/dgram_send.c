/* dgram_send.c: the sending half of a datagram socket.
 *
 * The queue holds what the socket did not take (FULL: the poll for room is under way) or the
 * followers of a burst, which wait for the end of the running callback.  A flush sends runs of
 * equal size and destination by one sendmsg(2) with UDP_SEGMENT; the last of a run may be shorter.
 * Where that is refused (a route whose packets are smaller, no checksums in hardware), they go one
 * by one, and if that works, the size is not tried together again. Owner and thread: dgram.c.
 * Invariants: datagrams leave in the order in which they came; a flush is never inside another; one
 * that is taken out of the queue is accounted before its owner is released, because a release or an
 * error may send again. */
#include "dgram.h"

#include "dgram_impl.h"
#include "ring.h"
#include "sys.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <string.h>

#ifndef UDP_SEGMENT /* headers of Linux before 4.18 */
#define UDP_SEGMENT 103
#endif

enum {
    QUEUE_MIN = 16,
    SENDS_PER_FLUSH = 64 /* the poll for room that follows fires at once if there is any */
};

/* Where datagrams of the queue go; those in a row share it. */
struct gy_dgram_target {
    uint32_t refs;
    struct gy_address address;
};

/* Marks those that host->send sends. */
static struct gy_dgram_target foreign;

static bool
same_address(const struct gy_address *a, const struct gy_address *b)
{
    return a->len == b->len && memcmp(&a->storage, &b->storage, a->len) == 0;
}

/* ---- the queue ---- */

static struct gy_datagram *
queue_at(const struct gy_dgram *dgram, uint32_t i)
{
    GY_ASSERT(i < dgram->count);
    return &dgram->queue[(dgram->head + i) & (dgram->capacity - 1)];
}

static int
queue_reserve(struct gy_dgram *dgram)
{
    uint32_t capacity = dgram->capacity > 0 ? dgram->capacity * 2 : QUEUE_MIN;
    struct gy_datagram *queue;

    if (dgram->count < dgram->capacity)
        return 0;
    if (capacity < dgram->capacity)
        return -ENOMEM;
    queue = gy_alloc(capacity * sizeof *queue);
    if (queue == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < dgram->count; i++)
        queue[i] = *queue_at(dgram, i);
    gy_free(dgram->queue);
    dgram->queue = queue;
    dgram->capacity = capacity;
    dgram->head = 0;
    return 0;
}

static void
target_release(struct gy_dgram_target *target)
{
    if (target == NULL || target == &foreign)
        return;
    GY_ASSERT(target->refs > 0);
    if (--target->refs == 0)
        gy_free(target);
}

/* The target for the next datagram of the queue.  0 or -ENOMEM. */
static int
target_take(struct gy_dgram *dgram, const struct gy_address *to, struct gy_dgram_target **out)
{
    struct gy_dgram_target *target = NULL;

    if (to == NULL) {
        *out = &foreign;
        return 0;
    }
    if (to->len == 0) {
        *out = NULL;
        return 0;
    }
    if (dgram->count > 0)
        target = queue_at(dgram, dgram->count - 1)->to;
    if (target == NULL || target == &foreign || !same_address(&target->address, to)) {
        target = gy_alloc(sizeof *target);
        if (target == NULL)
            return -ENOMEM;
        target->address.len = to->len;
        memcpy(&target->address.storage, &to->storage, to->len);
    }
    target->refs++;
    *out = target;
    return 0;
}

/* Takes the front out. */
static void
pop(struct gy_dgram *dgram)
{
    struct gy_datagram front = *queue_at(dgram, 0);

    dgram->head = (dgram->head + 1) & (dgram->capacity - 1);
    dgram->count--;
    dgram->queued_bytes -= front.len;
    target_release(front.to);
    dgram->host->release(dgram, front.owner);
}

void
gy_dgram_drop_queue(struct gy_dgram *dgram)
{
    while (dgram->count > 0)
        pop(dgram);
    gy_free(dgram->queue);
    dgram->queue = NULL;
    dgram->capacity = 0;
    dgram->head = 0;
}

/* ---- one system call ---- */

static ssize_t
sendmsg_counted(struct gy_dgram *dgram, const struct msghdr *message)
{
    struct gy_loop *loop = dgram->loop;
    ssize_t res = loop->ring->ops->try_sendmsg(loop->ring, dgram->fd, message);

    loop->counters.send_calls++;
    if (res > 0)
        loop->counters.bytes_out += (uint64_t)res;
    return res;
}

static ssize_t
send_one(struct gy_dgram *dgram, const void *data, size_t len, const struct gy_address *to)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

    if (to != NULL && to->len > 0) {
        message.msg_name = (void *)(uintptr_t)&to->storage;
        message.msg_namelen = to->len;
    }
    return sendmsg_counted(dgram, &message);
}

static ssize_t
send_front(struct gy_dgram *dgram)
{
    const struct gy_datagram *front = queue_at(dgram, 0);

    if (front->to == &foreign)
        return dgram->host->send(dgram, front->owner);
    return send_one(dgram, front->data, front->len, front->to ? &front->to->address : NULL);
}

/* The first `count` of the queue by one call. */
static ssize_t
send_segments(struct gy_dgram *dgram, unsigned count)
{
    union {
        char bytes[CMSG_SPACE(sizeof(uint16_t))];
        struct cmsghdr header;
    } control = {.bytes = {0}};
    struct iovec iov[GY_DGRAM_SEGMENTS_MAX];
    const struct gy_datagram *front = queue_at(dgram, 0);
    uint16_t size = (uint16_t)front->len;
    struct msghdr message = {.msg_iov = iov,
                             .msg_iovlen = count,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};

    GY_ASSERT(count <= GY_DGRAM_SEGMENTS_MAX);
    for (unsigned i = 0; i < count; i++) {
        const struct gy_datagram *datagram = queue_at(dgram, i);
        iov[i].iov_base = (void *)(uintptr_t)datagram->data;
        iov[i].iov_len = datagram->len;
    }
    if (front->to != NULL) {
        message.msg_name = &front->to->address.storage;
        message.msg_namelen = front->to->address.len;
    }
    control.header.cmsg_level = IPPROTO_UDP;
    control.header.cmsg_type = UDP_SEGMENT;
    control.header.cmsg_len = CMSG_LEN(sizeof size);
    memcpy(CMSG_DATA(&control.header), &size, sizeof size);
    return sendmsg_counted(dgram, &message);
}

/* How many of the front may leave together. */
static unsigned
run_length(const struct gy_dgram *dgram)
{
    const struct gy_datagram *front = queue_at(dgram, 0);
    size_t bytes = front->len;
    unsigned count = 1;

    if ((dgram->flags & GY_DGRAM_GSO) == 0 || dgram->singles > 0 || front->to == &foreign ||
        front->len == 0 || front->len > dgram->segment_max)
        return 1;
    while (count < dgram->count && count < GY_DGRAM_SEGMENTS_MAX) {
        const struct gy_datagram *next = queue_at(dgram, count);
        if (next->to != front->to || next->len == 0 || next->len > front->len ||
            bytes + next->len > GY_DGRAM_BURST_BYTES_MAX)
            break;
        bytes += next->len;
        count++;
        if (next->len < front->len)
            break; /* only the last may be shorter */
    }
    return count;
}

/* ---- flushing ---- */

void
gy_dgram_wait_for_room(struct gy_dgram *dgram)
{
    if ((dgram->flags & GY_DGRAM_FULL) != 0 || !gy_dgram_alive(dgram))
        return;
    dgram->flags |= GY_DGRAM_FULL | GY_DGRAM_BACKLOG;
    if (gy_op_is_idle(&dgram->room.op))
        gy_poll_start(dgram->loop, &dgram->room, dgram->fd, POLLOUT);
}

static bool
is_refusal(ssize_t res)
{
    return res == -EMSGSIZE || res == -EINVAL || res == -EIO;
}

/* Those that were refused together go one by one. */
static GY_COLD void
note_refusal(struct gy_dgram *dgram, ssize_t res, unsigned count)
{
    dgram->singles = count;
    if (res == -EIO)
        dgram->segment_max = 0;
    else
        dgram->refused = queue_at(dgram, 0)->len;
}

/* One of them has left: it was not the datagram that was at fault. */
static GY_COLD void
note_single(struct gy_dgram *dgram, ssize_t res)
{
    dgram->singles--;
    if (res < 0 || dgram->refused == 0)
        return;
    if (dgram->segment_max >= dgram->refused)
        dgram->segment_max = dgram->refused - 1;
    dgram->refused = 0;
}

/* Sends a run from the front.  False: the socket takes no more. */
static bool
flush_run(struct gy_dgram *dgram)
{
    unsigned count = run_length(dgram);
    ssize_t res = count > 1 ? send_segments(dgram, count) : send_front(dgram);

    if (res == -EAGAIN)
        return false;
    if (count > 1 && is_refusal(res)) {
        note_refusal(dgram, res, count);
        return true;
    }
    if (GY_UNLIKELY(dgram->singles > 0))
        note_single(dgram, res);
    if (res < 0)
        count = 1; /* an error that waited in the socket: the others may do better */
    while (count-- > 0 && dgram->count > 0)
        pop(dgram);
    if (res < 0 && gy_dgram_alive(dgram))
        dgram->host->error(dgram, (int)res);
    return true;
}

void
gy_dgram_flush(struct gy_dgram *dgram)
{
    unsigned sends = 0;

    if (dgram->count == 0 || (dgram->flags & GY_DGRAM_FULL) != 0)
        return;
    if ((dgram->flags & GY_DGRAM_FLUSHING) != 0) { /* the host waits for what is being sent */
        dgram->flags |= GY_DGRAM_DRAIN_DUE;
        return;
    }
    dgram->flags |= GY_DGRAM_FLUSHING;
    while (dgram->count > 0 && gy_dgram_alive(dgram)) {
        if (sends++ == SENDS_PER_FLUSH || !flush_run(dgram)) {
            gy_dgram_wait_for_room(dgram);
            break;
        }
    }
    dgram->flags &= ~(uint32_t)GY_DGRAM_FLUSHING;
    if (dgram->count == 0)
        dgram->flags &= ~(uint32_t)GY_DGRAM_BACKLOG;
    if ((dgram->flags & GY_DGRAM_DRAIN_DUE) != 0 && gy_dgram_alive(dgram))
        gy_dgram_queue_work(dgram);
}

void
gy_dgram_end_burst(struct gy_dgram *dgram)
{
    uint32_t before = dgram->count;

    GY_ASSERT(!dgram->loop->quiet);
    if (before == 0 || (dgram->flags & (GY_DGRAM_FULL | GY_DGRAM_FLUSHING)) != 0)
        return;
    gy_dgram_flush(dgram);
    if (dgram->count < before && gy_dgram_alive(dgram))
        dgram->host->drained(dgram);
}

static void
on_room(struct gy_poll *poll, int res)
{
    struct gy_dgram *dgram = container_of(poll, struct gy_dgram, room);
    uint32_t before = dgram->count;

    if ((dgram->flags & GY_DGRAM_CLOSING) != 0) {
        gy_dgram_settle(dgram);
        return;
    }
    dgram->flags &= ~(uint32_t)GY_DGRAM_FULL;
    if (res < 0 && res != -ECANCELED && res != -EINTR && res != -EAGAIN) {
        gy_dgram_fail(dgram, res);
        return;
    }
    gy_dgram_flush(dgram);
    if (dgram->count < before && gy_dgram_alive(dgram))
        dgram->host->drained(dgram);
}

const struct gy_poll_host gy_dgram_room_host = {.ready = on_room};

/* ---- what the embedder calls ---- */

/* A follower of the burst: of the size of its first datagram, or, as the last, shorter. */
static bool
follows(const struct gy_dgram *dgram, size_t len, const struct gy_address *to)
{
    if (!gy_list_linked(&dgram->burst) || len == 0 || len > dgram->burst_size ||
        dgram->burst_size > dgram->segment_max || !same_address(to, &dgram->last))
        return false;
    if (dgram->count == 0)
        return len == dgram->burst_size;
    return dgram->count < GY_DGRAM_SEGMENTS_MAX &&
           dgram->queued_bytes + len <= GY_DGRAM_BURST_BYTES_MAX;
}

/* This datagram has left while a callback runs: what it sends next may go together. */
static void
begin_burst(struct gy_dgram *dgram, size_t len, const struct gy_address *to)
{
    dgram->burst_size = len;
    dgram->last.len = to->len;
    memcpy(&dgram->last.storage, &to->storage, to->len);
    if (!gy_list_linked(&dgram->burst))
        gy_list_append(&dgram->loop->bursts, &dgram->burst);
}

ssize_t
gy_dgram_try_send(struct gy_dgram *dgram, const void *data, size_t len, const struct gy_address *to,
                  bool may_wait)
{
    bool gso = may_wait && (dgram->flags & GY_DGRAM_GSO) != 0;
    ssize_t res;

    if (gso && (dgram->flags & GY_DGRAM_FULL) == 0 && follows(dgram, len, to))
        return -EAGAIN;
    if (GY_UNLIKELY(dgram->count > 0))
        gy_dgram_flush(dgram); /* may call anything */
    if (!gy_dgram_alive(dgram))
        return -EPIPE;
    if (dgram->count > 0 || (dgram->flags & GY_DGRAM_FULL) != 0)
        return -EAGAIN;
    res = send_one(dgram, data, len, to);
    if (res == -EAGAIN)
        gy_dgram_wait_for_room(dgram);
    else if (gso)
        begin_burst(dgram, len, to);
    return res;
}

int
gy_dgram_push(struct gy_dgram *dgram, const struct gy_datagram *datagram,
              const struct gy_address *to)
{
    struct gy_dgram_target *target = NULL;
    bool ends;
    int err;

    if (!gy_dgram_alive(dgram))
        return -EPIPE;
    err = queue_reserve(dgram);
    if (err == 0)
        err = target_take(dgram, to, &target);
    if (err < 0)
        return err;
    dgram->count++;
    *queue_at(dgram, dgram->count - 1) = *datagram;
    queue_at(dgram, dgram->count - 1)->to = target;
    dgram->queued_bytes += datagram->len;
    if ((dgram->flags & GY_DGRAM_FULL) != 0)
        return 0;
    ends = datagram->len < dgram->burst_size || dgram->count >= GY_DGRAM_SEGMENTS_MAX ||
           dgram->queued_bytes + dgram->burst_size > GY_DGRAM_BURST_BYTES_MAX;
    if (ends || !gy_list_linked(&dgram->burst))
        gy_dgram_flush(dgram);
    return 0;
}
