/* ring_sim.c: see ring_sim.h.  Owner: the loop under test.  Thread: one. */
#include "ring_sim.h"

#include "prep.h"
#include "probe.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SQ_MAX = 8,
    OPS_MAX = 2048,
    CQ_SPACE = 1 << 12,
    IOV_MAX_COPIED = 64,
    BUFFERS_MAX = 1024,
    SHOTS_PER_RUN = 8,
    WAIT_STEPS_MAX = 2000,
    STEP_NS = 50 * 1000
};

/* One operation inside the fake kernel. */
struct sim_op {
    uint64_t user_data;
    struct sim_socket *socket; /* NULL: a real descriptor (the eventfd of a wakeup) */
    void *addr;
    struct iovec iov[IOV_MAX_COPIED];
    unsigned iov_count;
    size_t wanted;
    size_t done;
    int fd;
    uint32_t mask;
    uint32_t seen_in; /* wakes that were looked at */
    uint32_t seen_out;
    uint32_t len;
    uint16_t group;
    uint8_t opcode;
    bool multishot;
    bool waitall;
    bool fresh;      /* not yet tried              */
    bool doomed;     /* its cancel said -EALREADY  */
    uint64_t offset; /* of a file */
};

struct sim_ring {
    struct gy_ring base;
    struct sim_world *world;
    struct io_uring_sqe sq[SQ_MAX];
    unsigned sq_size;
    unsigned sq_len;
    struct sim_op *ops[OPS_MAX];
    unsigned ops_len;
    struct gy_event *cq;
    unsigned cq_head;
    unsigned cq_len;
    unsigned cq_limit; /* beyond it the CQ counts as overflown */
    uint64_t *order;   /* user_data of each queued event: what keeps its place */
    unsigned batch;    /* events before this one may no longer be shuffled     */
    bool enabled;
    char *buffers;
    uint32_t buffer_count;
    uint32_t buffer_bytes;
    uint16_t free_buffers[BUFFERS_MAX]; /* a fifo */
    bool buffer_free[BUFFERS_MAX];
    uint32_t buffer_used[BUFFERS_MAX]; /* bytes that the last receive put there */
    uint32_t free_count;
};

static struct sim_world *current_world;

static inline struct sim_ring *
sim_of(struct gy_ring *ring)
{
    return container_of(ring, struct sim_ring, base);
}

static struct sim_rng *
rng_of(struct sim_ring *sim)
{
    return &sim->world->net.rng;
}

static void
violation(struct sim_world *world, const char *what)
{
    world->violations++;
    world->violation = what;
}

/* ---- completions ---- */

/* Each new event goes to a random place after the events that it must not overtake. */
static void
post(struct sim_ring *sim, uint64_t user_data, int32_t res, uint32_t flags)
{
    unsigned place = sim->cq_len;
    if (sim->cq_head + sim->cq_len >= CQ_SPACE)
        abort();
    sim->cq[sim->cq_head + place] = (struct gy_event){
        .op = (struct gy_op *)(uintptr_t)(user_data & ~UINT64_C(1)),
        .res = res,
        .flags = flags,
        .is_cancel = (user_data & 1) != 0,
    };
    sim->order[sim->cq_head + place] = user_data;
    sim->cq_len++;
    while (place > sim->batch && sim_chance(rng_of(sim), 50)) {
        struct gy_event *event = &sim->cq[sim->cq_head + place];
        uint64_t *order = &sim->order[sim->cq_head + place];
        struct gy_event other = event[-1];
        if (order[-1] == order[0])
            break;
        event[-1] = event[0];
        event[0] = other;
        order[0] = order[-1];
        order[-1] = user_data;
        place--;
    }
}

static void
end_op(struct sim_ring *sim, struct sim_op *op)
{
    for (unsigned i = 0; i < sim->ops_len; i++) {
        if (sim->ops[i] == op) {
            sim->ops[i] = sim->ops[--sim->ops_len];
            break;
        }
    }
    if (op->socket != NULL)
        op->socket->ops--;
    sim->world->ops--;
    free(op);
}

static void
finish_op(struct sim_ring *sim, struct sim_op *op, int32_t res, uint32_t flags)
{
    post(sim, op->user_data, res, flags);
    end_op(sim, op);
}

/* One shot of a multishot operation; false if it was the last. */
static bool
shoot(struct sim_ring *sim, struct sim_op *op, int32_t res, uint32_t flags)
{
    bool last = !op->multishot || sim_chance(rng_of(sim), sim->world->faults.end_multishot);
    if (op->multishot && sim->cq_len >= sim->cq_limit) {
        sim->base.counters.overflows++;
        last = true;
    }
    if (last)
        finish_op(sim, op, res, flags);
    else
        post(sim, op->user_data, res, flags | IORING_CQE_F_MORE);
    return !last;
}

/* ---- running operations ---- */

static bool
run_poll(struct sim_ring *sim, struct sim_op *op)
{
    /* POLLRDHUP is reported unasked, as Linux 6.18 does. */
    uint32_t mask = sim_readiness(op->socket) & (op->mask | POLLERR | POLLHUP | POLLRDHUP);
    /* The wait queue may have told of data that is gone by now. */
    bool stale = !op->fresh && op->multishot && op->seen_in != op->socket->wakes_in &&
                 (op->mask & POLLIN) != 0 && sim_chance(rng_of(sim), 10);
    op->seen_in = op->socket->wakes_in;
    op->seen_out = op->socket->wakes_out;
    op->fresh = false;
    if (mask == 0 && stale)
        mask = POLLIN;
    if (mask == 0)
        return true;
    if (op->multishot && sim_chance(rng_of(sim), sim->world->faults.poll_fails)) {
        finish_op(sim, op, -ENOMEM, 0);
        return false;
    }
    return shoot(sim, op, (int32_t)mask, 0);
}

static bool
run_recv(struct sim_ring *sim, struct sim_op *op)
{
    op->fresh = false;
    op->seen_in = op->socket->wakes_in;
    for (unsigned shots = 0; shots < SHOTS_PER_RUN; shots++) {
        ssize_t got;
        uint16_t id;
        if (sim->free_count == 0 ||
            sim_chance(rng_of(sim), sim->world->faults.no_buffers)) { /* a buffer is chosen before
                                                                         the socket is looked at */
            finish_op(sim, op, -ENOBUFS, 0);
            return false;
        }
        id = sim->free_buffers[0];
        got = sim_recv(&sim->world->net, op->socket, sim->buffers + id * sim->buffer_bytes,
                       sim->buffer_bytes);
        if (got == -EAGAIN)
            return true;
        if (got <= 0) {
            finish_op(sim, op, (int32_t)got, 0);
            return false;
        }
        sim->free_count--;
        sim->buffer_free[id] = false;
        sim->buffer_used[id] = (uint32_t)got;
        memmove(sim->free_buffers, sim->free_buffers + 1, sim->free_count * sizeof(uint16_t));
        if (!shoot(sim, op, (int32_t)got,
                   IORING_CQE_F_BUFFER | (uint32_t)id << IORING_CQE_BUFFER_SHIFT))
            return false;
    }
    op->fresh = true; /* there may be more: the next run goes on */
    return true;
}

static bool
run_accept(struct sim_ring *sim, struct sim_op *op)
{
    op->fresh = false;
    op->seen_in = op->socket->wakes_in;
    for (unsigned shots = 0; shots < SHOTS_PER_RUN; shots++) {
        int fd;
        if (op->socket->backlog_count > 0 &&
            sim_chance(rng_of(sim), sim->world->faults.accept_fails)) {
            finish_op(sim, op, sim_chance(rng_of(sim), 50) ? -EMFILE : -ECONNABORTED, 0);
            return false;
        }
        fd = sim_accept(&sim->world->net, op->socket);
        if (fd == -EAGAIN)
            return true;
        if (fd < 0) {
            finish_op(sim, op, fd, 0);
            return false;
        }
        if (!shoot(sim, op, fd, 0))
            return false;
    }
    op->fresh = true;
    return true;
}

static bool
run_sendmsg(struct sim_ring *sim, struct sim_op *op)
{
    ssize_t sent;
    op->fresh = false;
    op->seen_out = op->socket->wakes_out;
    sent = sim_send(&sim->world->net, op->socket, op->iov, op->iov_count);
    if (sent > 0) {
        size_t left = (size_t)sent;
        op->done += left;
        while (op->iov_count > 0 && left >= op->iov[0].iov_len) {
            left -= op->iov[0].iov_len;
            memmove(op->iov, op->iov + 1, --op->iov_count * sizeof(op->iov[0]));
        }
        if (left > 0) {
            op->iov[0].iov_base = (char *)op->iov[0].iov_base + left;
            op->iov[0].iov_len -= left;
        }
    }
    if (sent < 0 && sent != -EAGAIN)
        finish_op(sim, op, op->done > 0 ? (int32_t)op->done : (int32_t)sent, 0);
    else if (op->done == op->wanted || (op->done > 0 && !op->waitall) || op->doomed)
        finish_op(sim, op, op->done > 0 ? (int32_t)op->done : -ECANCELED, 0);
    else if (op->socket->in_fin) /* the wait for room ends at once: POLLRDHUP, see run_poll() */
        finish_op(sim, op, op->done > 0 ? (int32_t)op->done : -EAGAIN, 0);
    else
        return true;
    return false;
}

/* The eventfd of a wakeup is real. */
static bool
run_read(struct sim_ring *sim, struct sim_op *op)
{
    struct pollfd ready = {.fd = op->fd, .events = POLLIN};
    if (poll(&ready, 1, 0) <= 0)
        return true;
    finish_op(sim, op, (int32_t)read(op->fd, op->addr, op->len), 0);
    return false;
}

static bool
is_file_op(uint8_t opcode, int fd)
{
    return opcode == IORING_OP_OPENAT || fd == SIM_FILE_FD;
}

/* Offsets are inside of the file; its end is where the array ends. */
static int32_t
file_call(struct sim_world *world, struct sim_op *op)
{
    struct sim_rng *rng = &world->net.rng;
    uint32_t len = op->len;
    char *place = world->file + op->offset;
    if (op->opcode == IORING_OP_OPENAT)
        return sim_connection(&world->net, 1)->fd;
    if (sim_chance(rng, world->faults.file_fails))
        return -EIO;
    if (op->offset + len > SIM_FILE_BYTES)
        abort();
    if (len > 0 && sim_chance(rng, 30))
        len = 1 + sim_below(rng, len);
    if (op->opcode == IORING_OP_WRITE)
        memcpy(place, op->addr, len);
    else
        memcpy(op->addr, place, len);
    return (int32_t)len;
}

static bool
run_file(struct sim_ring *sim, struct sim_op *op)
{
    op->fresh = false;
    if (op->doomed && sim_chance(rng_of(sim), 30))
        finish_op(sim, op, -EINTR, 0);
    else
        finish_op(sim, op, file_call(sim->world, op), 0);
    return false;
}

static int32_t
sim_file_nowait(struct gy_ring *ring, const struct io_uring_sqe *sqe)
{
    struct sim_ring *sim = sim_of(ring);
    struct sim_op op = {
        .opcode = sqe->opcode,
        .fd = sqe->fd,
        .addr = (void *)(uintptr_t)sqe->addr,
        .len = sqe->len,
        .offset = sqe->off,
    };
    if (!is_file_op(sqe->opcode, sqe->fd) || sim_chance(rng_of(sim), 60))
        return -EAGAIN;
    return file_call(sim->world, &op);
}

static bool
is_woken(const struct sim_op *op)
{
    if (op->fresh || op->doomed || op->socket == NULL)
        return true;
    switch (op->opcode) {
    case IORING_OP_SENDMSG:
        return op->seen_out != op->socket->wakes_out;
    case IORING_OP_POLL_ADD:
        return op->seen_in != op->socket->wakes_in ||
               ((op->mask & POLLOUT) != 0 && op->seen_out != op->socket->wakes_out);
    default:
        return op->seen_in != op->socket->wakes_in;
    }
}

/* True if the operation is still there. */
static bool
run_op(struct sim_ring *sim, struct sim_op *op)
{
    if (is_file_op(op->opcode, op->fd))
        return run_file(sim, op);
    switch (op->opcode) {
    case IORING_OP_POLL_ADD:
        return run_poll(sim, op);
    case IORING_OP_RECV:
        return run_recv(sim, op);
    case IORING_OP_ACCEPT:
        return run_accept(sim, op);
    case IORING_OP_SENDMSG:
        return run_sendmsg(sim, op);
    case IORING_OP_READ:
        return run_read(sim, op);
    default:
        abort();
    }
}

/* Runs what is woken, in random order, each with the chance of being late. */
static void
run_ops(struct sim_ring *sim, uint32_t late_percent)
{
    unsigned start = sim->ops_len > 0 ? sim_below(rng_of(sim), sim->ops_len) : 0;
    struct sim_op *snapshot[OPS_MAX];
    unsigned count = sim->ops_len;

    memcpy(snapshot, sim->ops, count * sizeof(snapshot[0]));
    for (unsigned i = 0; i < count; i++) { /* running one op never ends another */
        struct sim_op *op = snapshot[(start + i) % count];
        if (is_woken(op) && !sim_chance(rng_of(sim), late_percent))
            (void)run_op(sim, op);
    }
}

/* ---- submissions ---- */

static struct sim_op *
find_op(struct sim_ring *sim, uint64_t user_data)
{
    for (unsigned i = 0; i < sim->ops_len; i++)
        if (sim->ops[i]->user_data == user_data)
            return sim->ops[i];
    return NULL;
}

static void
cancel_op(struct sim_ring *sim, struct sim_op *op, uint64_t cancel_data)
{
    bool may_be_at_work = op->opcode == IORING_OP_SENDMSG || is_file_op(op->opcode, op->fd);
    /* It ends by itself, soon. */
    if (may_be_at_work && sim_chance(rng_of(sim), 30)) {
        op->doomed = true;
        if (cancel_data != 0)
            post(sim, cancel_data, -EALREADY, 0);
        return;
    }
    if (cancel_data != 0)
        post(sim, cancel_data, 0, 0);
    finish_op(sim, op, op->done > 0 ? (int32_t)op->done : -ECANCELED, 0);
}

static void
submit_sendmsg(struct sim_op *op, const struct io_uring_sqe *sqe)
{
    const struct msghdr *message = (const struct msghdr *)(uintptr_t)sqe->addr;
    if (message->msg_iovlen > IOV_MAX_COPIED || message->msg_iovlen == 0)
        abort();
    op->iov_count = (unsigned)message->msg_iovlen;
    memcpy(op->iov, message->msg_iov, op->iov_count * sizeof(op->iov[0]));
    for (unsigned i = 0; i < op->iov_count; i++)
        op->wanted += op->iov[i].iov_len;
    op->waitall = (sqe->msg_flags & MSG_WAITALL) != 0;
}

static void
submit(struct sim_ring *sim, const struct io_uring_sqe *sqe)
{
    struct sim_op *op;

    sim->base.counters.sqes++;
    if (sqe->opcode == IORING_OP_ASYNC_CANCEL) {
        op = find_op(sim, sqe->addr);
        if (op == NULL)
            post(sim, sqe->user_data, -ENOENT, 0);
        else
            cancel_op(sim, op, sqe->user_data);
        return;
    }
    if (sqe->opcode == IORING_OP_NOP) {
        post(sim, sqe->user_data, 0, 0);
        return;
    }
    if (find_op(sim, sqe->user_data) != NULL)
        violation(sim->world, "an op was submitted while in flight");
    op = calloc(1, sizeof(*op));
    if (op == NULL || sim->ops_len == OPS_MAX)
        abort();
    op->user_data = sqe->user_data;
    op->opcode = sqe->opcode;
    op->fd = sqe->fd;
    op->fresh = true;
    op->len = sqe->len;
    op->addr = (void *)(uintptr_t)sqe->addr;
    op->offset = sqe->off;
    op->socket = is_file_op(sqe->opcode, sqe->fd) ? NULL : sim_socket_of(&sim->world->net, sqe->fd);
    sim->ops[sim->ops_len++] = op;
    sim->world->ops++;
    if (op->socket != NULL)
        op->socket->ops++;
    if (is_file_op(sqe->opcode, sqe->fd))
        return;
    if (sqe->opcode != IORING_OP_READ && (op->socket == NULL || !op->socket->open)) {
        violation(sim->world, "an op was submitted for a descriptor that is closed");
        finish_op(sim, op, -EBADF, 0);
        return;
    }
    switch (sqe->opcode) {
    case IORING_OP_POLL_ADD:
        op->mask = gy_prep_poll_mask(sqe->poll32_events);
        op->multishot = (sqe->len & IORING_POLL_ADD_MULTI) != 0;
        break;
    case IORING_OP_RECV:
        op->multishot = (sqe->ioprio & IORING_RECV_MULTISHOT) != 0;
        op->group = sqe->buf_group;
        break;
    case IORING_OP_ACCEPT:
        op->multishot = (sqe->ioprio & IORING_ACCEPT_MULTISHOT) != 0;
        break;
    case IORING_OP_SENDMSG:
        submit_sendmsg(op, sqe);
        break;
    default:
        break;
    }
}

static void
submit_all(struct sim_ring *sim)
{
    unsigned count = sim->sq_len;
    sim->sq_len = 0;
    for (unsigned i = 0; i < count; i++)
        submit(sim, &sim->sq[i]);
}

/* ---- the table ---- */

static int
sim_enable(struct gy_ring *ring)
{
    sim_of(ring)->enabled = true;
    return 0;
}

static void
sim_destroy(struct gy_ring *ring, bool forked)
{
    struct sim_ring *sim = sim_of(ring);
    GY_UNUSED(forked);
    while (sim->ops_len > 0)
        end_op(sim, sim->ops[0]);
    free(sim->cq);
    free(sim->order);
    free(sim);
}

static struct io_uring_sqe *
sim_sqe(struct gy_ring *ring)
{
    struct sim_ring *sim = sim_of(ring);
    struct io_uring_sqe *sqe;
    if (sim_chance(rng_of(sim), sim->world->faults.no_sqe))
        return NULL;
    if (sim->sq_len == sim->sq_size)
        submit_all(sim);
    sqe = &sim->sq[sim->sq_len++];
    memset(sqe, 0, sizeof(*sqe));
    return sqe;
}

static void
enter_once(struct sim_ring *sim, uint32_t late_percent)
{
    /* What is there already was seen by the core: new events do not overtake it. */
    sim->batch = sim->cq_len;
    sim->base.counters.enters++;
    if (sim_chance(rng_of(sim), 50))
        run_ops(sim, late_percent);
    submit_all(sim);
    run_ops(sim, late_percent);
}

static int
sim_enter(struct gy_ring *ring, int64_t wait_ns)
{
    struct sim_ring *sim = sim_of(ring);
    struct sim_world *world = sim->world;
    int64_t end_ns;

    if (!sim->enabled)
        violation(world, "enter before enable");
    enter_once(sim, world->faults.late);
    if (wait_ns == 0)
        return 0;
    end_ns = wait_ns == GY_NS_NEVER ? GY_NS_NEVER : world->now_ns + wait_ns;
    for (unsigned step = 0; step < WAIT_STEPS_MAX; step++) {
        if (sim->cq_len > 0)
            return 0;
        if (sim_chance(rng_of(sim), world->faults.interrupt))
            return -EINTR;
        if (world->now_ns >= end_ns)
            return -ETIME;
        world->now_ns += 1 + (int64_t)sim_below(rng_of(sim), STEP_NS);
        if (world->tick != NULL)
            world->tick(world);
        enter_once(sim, world->faults.late);
    }
    if (wait_ns == GY_NS_NEVER)
        world->stalled = true;
    else
        world->now_ns = end_ns;
    return -ETIME;
}

static bool
sim_needs_enter(struct gy_ring *ring)
{
    struct sim_ring *sim = sim_of(ring);
    if (sim->sq_len > 0)
        return true;
    for (unsigned i = 0; i < sim->ops_len; i++)
        if (sim->ops[i]->socket != NULL && is_woken(sim->ops[i]))
            return true;
    return false;
}

static bool
sim_next_event(struct gy_ring *ring, struct gy_event *out)
{
    struct sim_ring *sim = sim_of(ring);
    if (sim->cq_len == 0) {
        sim->cq_head = 0;
        return false;
    }
    *out = sim->cq[sim->cq_head++];
    sim->cq_len--;
    if (sim->batch > 0)
        sim->batch--;
    ring->counters.events++;
    return true;
}

static void
sim_cancel_all(struct gy_ring *ring)
{
    struct sim_ring *sim = sim_of(ring);
    sim->batch = sim->cq_len;
    submit_all(sim);
    if (sim_chance(rng_of(sim), 10))
        run_ops(sim, 50);
    for (unsigned i = sim->ops_len; i > 0; i--)
        if (i <= sim->ops_len)
            cancel_op(sim, sim->ops[i - 1], 0);
}

static int
sim_buffers_register(struct gy_ring *ring, uint16_t group, void *memory, uint32_t count,
                     uint32_t buffer_bytes)
{
    struct sim_ring *sim = sim_of(ring);
    GY_UNUSED(group);
    if (count > BUFFERS_MAX || sim->buffers != NULL)
        return -EINVAL;
    sim->buffers = memory;
    sim->buffer_count = count;
    sim->buffer_bytes = buffer_bytes;
    return 0;
}

static void
sim_buffers_unregister(struct gy_ring *ring, uint16_t group)
{
    GY_UNUSED(group);
    sim_of(ring)->buffers = NULL;
}

static void
sim_buffer_provide(struct gy_ring *ring, uint16_t group, uint16_t id)
{
    struct sim_ring *sim = sim_of(ring);
    GY_UNUSED(group);
    if (id >= sim->buffer_count || sim->buffer_free[id]) {
        violation(sim->world, "a buffer was provided twice");
        return;
    }
    /* Poison: nobody may look at it any more. */
    memset(sim->buffers + id * sim->buffer_bytes, 0xdb, sim->buffer_used[id]);
    sim->buffer_free[id] = true;
    sim->free_buffers[sim->free_count++] = id;
}

static struct sim_socket *
open_socket(struct gy_ring *ring, int fd)
{
    struct sim_world *world = sim_of(ring)->world;
    struct sim_socket *socket = sim_socket_of(&world->net, fd);
    if (socket == NULL || !socket->open) {
        violation(world, "a system call on a descriptor that is closed");
        return NULL;
    }
    return socket;
}

static ssize_t
sim_try_recv(struct gy_ring *ring, int fd, void *buf, size_t len)
{
    struct sim_socket *socket = open_socket(ring, fd);
    return socket == NULL ? -EBADF : sim_recv(&sim_of(ring)->world->net, socket, buf, len);
}

/* A read that was cut says so; one that was not says now and then the same. */
static ssize_t
sim_try_recv_local(struct gy_ring *ring, int fd, void *buf, size_t len, bool *cut)
{
    struct sim_socket *socket = open_socket(ring, fd);
    ssize_t got = socket == NULL ? -EBADF : sim_try_recv(ring, fd, buf, len);
    if (got > 0)
        *cut = socket->in.len > 0 || sim_chance(rng_of(sim_of(ring)), 10);
    return got;
}

static ssize_t
sim_try_send(struct gy_ring *ring, int fd, const struct iovec *iov, unsigned count)
{
    struct sim_socket *socket = open_socket(ring, fd);
    return socket == NULL ? -EBADF : sim_send(&sim_of(ring)->world->net, socket, iov, count);
}

/* Now and then the kernel takes only the first, or none. */
static unsigned
sim_send_many(struct gy_ring *ring, struct gy_send *items, unsigned count)
{
    if (sim_chance(rng_of(sim_of(ring)), 10))
        count = sim_below(rng_of(sim_of(ring)), count + 1);
    for (unsigned i = 0; i < count; i++)
        items[i].res = (int32_t)sim_try_send(ring, items[i].fd, items[i].iov,
                                             (unsigned)items[i].message.msg_iovlen);
    return count;
}

static ssize_t
sim_try_sendmsg(struct gy_ring *ring, int fd, const struct msghdr *message)
{
    struct sim_socket *socket = open_socket(ring, fd);
    return socket == NULL ? -EBADF : sim_sendmsg(&sim_of(ring)->world->net, socket, message);
}

static ssize_t
sim_try_recvmsg(struct gy_ring *ring, int fd, struct msghdr *message)
{
    struct sim_socket *socket = open_socket(ring, fd);
    return socket == NULL ? -EBADF : sim_recvmsg(&sim_of(ring)->world->net, socket, message);
}

/* Nobody sends urgent data here, but what is told wrongly must do no harm. */
static bool
sim_at_mark(struct gy_ring *ring, int fd)
{
    struct sim_socket *socket = open_socket(ring, fd);
    return socket != NULL && sim_chance(rng_of(sim_of(ring)), 100);
}

static int
sim_udp_gro(struct gy_ring *ring, int fd)
{
    struct sim_socket *socket = open_socket(ring, fd);
    if (socket == NULL)
        return -EBADF;
    socket->gro = true;
    return 0;
}

static int
sim_try_accept(struct gy_ring *ring, int fd)
{
    struct sim_ring *sim = sim_of(ring);
    struct sim_socket *socket = open_socket(ring, fd);
    if (socket == NULL)
        return -EBADF;
    if (socket->backlog_count > 0 && sim_chance(rng_of(sim), sim->world->faults.accept_fails))
        return sim_chance(rng_of(sim), 50) ? -EMFILE : -ECONNABORTED;
    return sim_accept(&sim->world->net, socket);
}

static int
sim_try_connect(struct gy_ring *ring, int fd, const struct sockaddr *addr, socklen_t len)
{
    GY_UNUSED(ring);
    GY_UNUSED(fd);
    GY_UNUSED(addr);
    GY_UNUSED(len);
    return -EINPROGRESS;
}

static int
sim_socket_error(struct gy_ring *ring, int fd)
{
    struct sim_socket *socket = open_socket(ring, fd);
    return socket == NULL ? -EBADF : socket->error;
}

static int
sim_shutdown_call(struct gy_ring *ring, int fd, int how)
{
    struct sim_socket *socket = open_socket(ring, fd);
    if (how != SHUT_WR)
        violation(sim_of(ring)->world, "shutdown of the receiving side");
    return socket == NULL ? -EBADF : sim_shutdown(&sim_of(ring)->world->net, socket);
}

static void
sim_close_call(struct gy_ring *ring, int fd)
{
    sim_close(&sim_of(ring)->world->net, fd);
}

static int64_t
sim_now_ns(struct gy_ring *ring)
{
    return sim_of(ring)->world->now_ns;
}

static const struct gy_ring_ops sim_ops = {
    .name = "sim",
    .enable = sim_enable,
    .destroy = sim_destroy,
    .sqe = sim_sqe,
    .enter = sim_enter,
    .needs_enter = sim_needs_enter,
    .next_event = sim_next_event,
    .cancel_all = sim_cancel_all,
    .buffers_register = sim_buffers_register,
    .buffers_unregister = sim_buffers_unregister,
    .buffer_provide = sim_buffer_provide,
    .try_recv = sim_try_recv,
    .try_recv_local = sim_try_recv_local,
    .try_send = sim_try_send,
    .send_many = sim_send_many,
    .try_read_pipe = sim_try_recv,
    .try_write_pipe = sim_try_send,
    .try_read = sim_try_recv,
    .try_write = sim_try_send,
    .try_sendmsg = sim_try_sendmsg,
    .try_recvmsg = sim_try_recvmsg,
    .at_mark = sim_at_mark,
    .udp_gro = sim_udp_gro,
    .try_accept = sim_try_accept,
    .try_connect = sim_try_connect,
    .socket_error = sim_socket_error,
    .shutdown = sim_shutdown_call,
    .close = sim_close_call,
    .file_nowait = sim_file_nowait,
    .now_ns = sim_now_ns,
};

void
sim_world_init(struct sim_world *world, uint64_t seed, uint32_t features)
{
    memset(world, 0, sizeof(*world));
    sim_net_init(&world->net, seed);
    world->features = features;
    world->now_ns = GY_NS_PER_SECOND;
}

void
sim_world_deinit(struct sim_world *world)
{
    sim_net_deinit(&world->net);
}

void
sim_world_use(struct sim_world *world)
{
    current_world = world;
}

int
sim_ring_create(const struct gy_ring_options *options, struct gy_ring **out)
{
    struct sim_ring *sim = calloc(1, sizeof(*sim));
    if (sim == NULL)
        return -ENOMEM;
    sim->cq = calloc(CQ_SPACE, sizeof(*sim->cq));
    sim->order = calloc(CQ_SPACE, sizeof(*sim->order));
    if (sim->cq == NULL || sim->order == NULL)
        abort();
    sim->world = current_world;
    sim->base.ops = &sim_ops;
    sim->base.features = current_world->features & ~options->features_off;
    sim->sq_size = 1 + sim_below(rng_of(sim), SQ_MAX);
    sim->cq_limit = sim_chance(rng_of(sim), 30) ? 4 : 1000;
    sim->base.cheap_polls = sim->sq_size % 2 == 0;
    *out = &sim->base;
    return 0;
}
