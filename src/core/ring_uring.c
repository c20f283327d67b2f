/* ring_uring.c: struct gy_ring on io_uring, through liburing (ring_uring_probe.c is its only other
 * caller).
 *
 * liburing sets the ring up; submitting and waiting are one io_uring_enter(2) of our own, because
 * the library's helpers know neither the newer enter flags nor a registered descriptor that can be
 * given back.  Owner: whoever created it.  Thread: all calls from the thread that enabled it,
 * except create and destroy.  Invariant: an SQE stays in the submission queue until the kernel has
 * taken it, whatever enter answers. */
#include "ring.h"
#include "fault.h"
#include "prep.h"
#include "probe.h"
#include "ring_calls.h"
#include "ring_uring_buffers.h"
#include "ring_uring_fixed.h"
#include "ring_uring_sends.h"
#include "sys.h"
#include "trace.h"

#include <errno.h>
#include <liburing.h>
#include <stdatomic.h>
#include <string.h>

enum {
    SQ_ENTRIES_DEFAULT = 256,
    CQ_ENTRIES_DEFAULT = 1024,
    SQ_ENTRIES_MIN = 8, /* below this a failure for want of memory is final */
    /* Registering the descriptor costs a system call and saves a reference count per enter: a run
     * that turns only a few times does without. */
    REGISTER_AFTER_ENTERS = 64,
    EVENTS_PER_ENTER = 20,     /* of deferred work, at most, on newer kernels */
    BACK_OFF_NS = 1000 * 1000, /* the kernel took no SQE: try again after this */
};

/* Rings of the full size can be made here, as far as the process knows. */
static atomic_bool made_one;

struct uring {
    struct gy_ring base;
    struct io_uring ring;
    uint64_t owner_thread;  /* who enabled it; 0: nobody yet                          */
    int enter_fd;           /* ring_fd, or its index among the thread's registered fds */
    unsigned enter_flags;   /* IORING_ENTER_REGISTERED_RING, if so                    */
    unsigned wait_flags;    /* those of an enter that waits                           */
    uint32_t enters_in_run; /* up to REGISTER_AFTER_ENTERS                            */
    bool registered;
    bool there;    /* it is set up                                            */
    bool disabled; /* and has to be enabled                                   */
    uint32_t sq_entries;
    uint32_t cq_entries;
    struct gy_uring_buffers buffers;
    struct gy_uring_fixed fixed;
    struct gy_uring_sends *sends;
};

static inline struct uring *
uring_of(struct gy_ring *ring)
{
    return container_of(ring, struct uring, base);
}

static inline bool
cq_has_event(const struct uring *uring)
{
    return *uring->ring.cq.khead != io_uring_smp_load_acquire(uring->ring.cq.ktail);
}

static inline unsigned
sq_flags(const struct uring *uring)
{
    return IO_URING_READ_ONCE(*uring->ring.sq.kflags);
}

/* SQEs that the kernel has not taken. */
static inline unsigned
sq_queued(const struct uring *uring)
{
    return uring->ring.sq.sqe_tail - io_uring_smp_load_acquire(uring->ring.sq.khead);
}

/* ---- the registered descriptor ---- */

static GY_COLD void
register_descriptor(struct uring *uring)
{
    struct io_uring_rsrc_update update = {.offset = UINT32_MAX,
                                          .data = (uint32_t)uring->ring.ring_fd};
    int res;
    if (!(uring->base.features & GY_FEAT_RING_FD) || uring->registered)
        return;
    res = GY_FAULT(RING);
    if (res == 0)
        res =
            io_uring_register((unsigned)uring->ring.ring_fd, IORING_REGISTER_RING_FDS, &update, 1);
    if (res != 1) /* the table of the thread is full: the plain descriptor works as well */
        return;
    uring->registered = true;
    uring->enter_fd = (int)update.offset;
    uring->enter_flags = IORING_ENTER_REGISTERED_RING;
}

/* The index means something in the owner's thread only; in another one it may be another ring. */
static void
unregister_descriptor(struct uring *uring)
{
    struct io_uring_rsrc_update update = {.offset = (uint32_t)uring->enter_fd};
    if (!uring->registered || uring->owner_thread != gy_sys_thread_id())
        return;
    (void)io_uring_register((unsigned)uring->ring.ring_fd, IORING_UNREGISTER_RING_FDS, &update, 1);
    uring->registered = false;
    uring->enter_fd = uring->ring.ring_fd;
    uring->enter_flags = 0;
}

static void
uring_rest(struct gy_ring *ring)
{
    struct uring *uring = uring_of(ring);
    unregister_descriptor(uring);
    uring->enters_in_run = 0;
}

/* ---- enter ---- */

/* One system call; events are fetched with IORING_ENTER_GETEVENTS.  SQEs taken, or -errno. */
static int
enter_once(struct uring *uring, unsigned to_submit, unsigned flags,
           struct io_uring_getevents_arg *wait)
{
    int res = GY_FAULT(RING);
    if (GY_UNLIKELY(res < 0))
        return res;
    if (GY_UNLIKELY(uring->enters_in_run < REGISTER_AFTER_ENTERS) &&
        ++uring->enters_in_run == REGISTER_AFTER_ENTERS)
        register_descriptor(uring);
    flags |= uring->enter_flags;
    if (wait != NULL)
        flags |= IORING_ENTER_EXT_ARG | uring->wait_flags;
    uring->base.counters.enters++;
    /* The prototype names the older meaning of the argument; EXT_ARG says which it is. */
    res = io_uring_enter2((unsigned)uring->enter_fd, to_submit, wait != NULL, flags,
                          (sigset_t *)(void *)wait, wait != NULL ? sizeof *wait : 0);
    if (GY_LIKELY(res > 0))
        uring->base.counters.sqes += (unsigned)res;
    return res;
}

static inline void
wait_set_time(struct io_uring_getevents_arg *wait, struct __kernel_timespec *time, int64_t ns)
{
    GY_ASSERT(ns > 0);
    memset(wait, 0, sizeof *wait);
    if (ns == GY_NS_NEVER)
        return;
    time->tv_sec = ns / GY_NS_PER_SECOND;
    time->tv_nsec = ns % GY_NS_PER_SECOND;
    wait->ts = gy_prep_address(time);
}

/* The kernel had no memory for requests (-EAGAIN), or too many completions wait to be reaped
 * (-EBUSY).  The SQEs stay queued.  Deferred work is run, which may free something; without events
 * to reap a waiting caller waits for a moment, so that trying again does not spin. */
static GY_COLD int
enter_back_off(struct uring *uring, bool may_wait)
{
    struct io_uring_getevents_arg wait;
    struct __kernel_timespec time;
    int res = enter_once(uring, 0, IORING_ENTER_GETEVENTS, NULL);
    if (res < 0 && res != -EAGAIN && res != -EBUSY)
        return res;
    if (!may_wait || cq_has_event(uring))
        return 0;
    wait_set_time(&wait, &time, BACK_OFF_NS);
    res = enter_once(uring, 0, IORING_ENTER_GETEVENTS, &wait);
    return res == -ETIME || res == -EAGAIN || res == -EBUSY || res > 0 ? 0 : res;
}

static inline unsigned
cq_count(const struct uring *uring)
{
    return io_uring_smp_load_acquire(uring->ring.cq.ktail) - *uring->ring.cq.khead;
}

/* Newer kernels deliver at most 20 events of deferred work per call, but at once those of an SQE
 * whose descriptor is ready when it is submitted.  Descriptors that are armed again and again would
 * so go before those whose event waits: what waits is fetched too, as epoll_wait(2) does. */
static inline bool
more_waits(const struct uring *uring, unsigned before)
{
    const struct io_uring_cq *cq = &uring->ring.cq;
    unsigned count = cq_count(uring);
    if (GY_LIKELY(count - before < EVENTS_PER_ENTER) || count >= cq->ring_entries / 2 ||
        (sq_flags(uring) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != IORING_SQ_TASKRUN)
        return false;
    /* Not what brings buffers: one descriptor may bring any number of them. */
    return (cq->cqes[(*cq->khead + count - 1) & cq->ring_mask].flags & IORING_CQE_F_BUFFER) == 0;
}

static void
fetch_rest(struct uring *uring)
{
    unsigned before;
    do {
        before = cq_count(uring);
    } while (enter_once(uring, 0, IORING_ENTER_GETEVENTS, NULL) >= 0 && more_waits(uring, before));
}

static int
submit(struct uring *uring, unsigned flags, struct io_uring_getevents_arg *wait)
{
    struct io_uring_sq *sq = &uring->ring.sq;
    unsigned to_submit;
    int res;
    GY_ASSERT(uring->owner_thread == gy_sys_thread_id());
    sq->sqe_head = sq->sqe_tail;
    io_uring_smp_store_release(sq->ktail, sq->sqe_tail);
    to_submit = sq_queued(uring);
    res = enter_once(uring, to_submit, flags, wait);
    GY_TRACE(ENTER, uring, to_submit, res);
    if (GY_UNLIKELY(sq_flags(uring) & IORING_SQ_CQ_OVERFLOW))
        uring->base.counters.overflows++;
    if (GY_UNLIKELY(res == -EAGAIN || res == -EBUSY))
        return enter_back_off(uring, wait != NULL);
    if (res <= 0)
        return res;
    /* A count of SQEs hides how the wait ended. */
    if (wait != NULL && (unsigned)res == to_submit && !cq_has_event(uring))
        return -EINTR;
    return 0;
}

static int
enter_submit(struct uring *uring, unsigned flags, struct io_uring_getevents_arg *wait)
{
    unsigned before = cq_count(uring);
    int res;
    if (GY_UNLIKELY(before >= uring->ring.cq.ring_entries / 2))
        return sq_queued(uring) != 0 ? submit(uring, 0, NULL) : 0; /* more could overflow it */
    res = submit(uring, flags | IORING_ENTER_GETEVENTS, wait);
    if (GY_UNLIKELY(more_waits(uring, before)) && res >= 0)
        fetch_rest(uring);
    return res;
}

static int
uring_enter(struct gy_ring *ring, int64_t wait_ns)
{
    struct io_uring_getevents_arg wait;
    struct __kernel_timespec time;
    GY_ASSERT(wait_ns >= 0);
    /* Never a wait with a time of zero: it arms a kernel timer and sleeps, 20 us instead of 0.2. */
    if (wait_ns == 0)
        return enter_submit(uring_of(ring), 0, NULL);
    wait_set_time(&wait, &time, wait_ns);
    return enter_submit(uring_of(ring), 0, &wait);
}

static int
uring_enter_until(struct gy_ring *ring, int64_t deadline_ns)
{
    struct io_uring_getevents_arg wait;
    struct __kernel_timespec time;
    GY_ASSERT(ring->features & GY_FEAT_ABS_TIMER);
    wait_set_time(&wait, &time, deadline_ns);
    return enter_submit(uring_of(ring), deadline_ns == GY_NS_NEVER ? 0 : IORING_ENTER_ABS_TIMER,
                        &wait);
}

static bool
uring_needs_enter(struct gy_ring *ring)
{
    const struct uring *uring = uring_of(ring);
    if (sq_queued(uring) != 0)
        return true;
    /* What waits in the kernel comes after what is here. */
    return (sq_flags(uring) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0 &&
           !cq_has_event(uring);
}

static bool
uring_look(struct gy_ring *ring)
{
    const struct uring *uring = uring_of(ring);
    if (uring_needs_enter(ring))
        (void)enter_submit(uring_of(ring), 0, NULL);
    return cq_has_event(uring);
}

/* ---- queues ---- */

static GY_COLD struct io_uring_sqe *
sqe_after_submit(struct uring *uring)
{
    (void)enter_submit(uring, 0, NULL);
    return io_uring_get_sqe(&uring->ring);
}

static struct io_uring_sqe *
uring_sqe(struct gy_ring *ring)
{
    struct uring *uring = uring_of(ring);
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    if (GY_UNLIKELY(sqe == NULL)) {
        sqe = sqe_after_submit(uring);
        if (sqe == NULL)
            return NULL;
    }
    memset(sqe, 0, sizeof *sqe);
    return sqe;
}

static bool
uring_next_event(struct gy_ring *ring, struct gy_event *out)
{
    struct uring *uring = uring_of(ring);
    struct io_uring_cq *cq = &uring->ring.cq;
    unsigned head = *cq->khead;
    const struct io_uring_cqe *cqe;
    uint64_t user_data;
    if (head == io_uring_smp_load_acquire(cq->ktail))
        return false;
    cqe = &cq->cqes[head & cq->ring_mask];
    user_data = cqe->user_data;
    out->op = (struct gy_op *)(uintptr_t)(user_data & ~UINT64_C(1));
    out->is_cancel = (user_data & 1) != 0;
    out->res = cqe->res;
    out->flags = cqe->flags;
    io_uring_smp_store_release(cq->khead, head + 1);
    ring->counters.events++;
    return true;
}

/* The register call needs no SQE: for a queue that is stuck. */
static GY_COLD void
cancel_all_at_once(struct uring *uring)
{
    struct io_uring_sync_cancel_reg request = {
        .fd = -1,
        .flags = IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY,
    };
    (void)io_uring_register_sync_cancel(&uring->ring, &request);
}

static void
uring_cancel_all(struct gy_ring *ring)
{
    struct io_uring_sqe *sqe = uring_sqe(ring);
    if (GY_LIKELY(sqe != NULL))
        gy_prep_cancel_all(sqe); /* user_data 0: its event belongs to nobody */
    else if (ring->features & GY_FEAT_SYNC_CANCEL)
        cancel_all_at_once(uring_of(ring));
}

/* ---- provided and registered buffers ---- */

static int
uring_buffers_register(struct gy_ring *ring, uint16_t id, void *memory, uint32_t count,
                       uint32_t buffer_bytes)
{
    struct uring *uring = uring_of(ring);
    struct gy_uring_buffer_group group = {
        .memory = memory, .count = count, .buffer_bytes = buffer_bytes, .id = id};
    GY_ASSERT(ring->features & GY_FEAT_BUF_RING);
    return gy_uring_buffers_register(&uring->ring, &uring->buffers, &group);
}

static void
uring_buffers_unregister(struct gy_ring *ring, uint16_t id)
{
    gy_uring_buffers_unregister(&uring_of(ring)->ring, &uring_of(ring)->buffers, id);
}

static void
uring_buffer_provide(struct gy_ring *ring, uint16_t id, uint16_t buffer_id)
{
    gy_uring_buffers_provide(&uring_of(ring)->buffers, id, buffer_id);
}

static int
uring_fixed_register(struct gy_ring *ring, void *memory, size_t bytes)
{
    return gy_uring_fixed_register(&uring_of(ring)->ring, &uring_of(ring)->fixed, memory, bytes);
}

static void
uring_fixed_unregister(struct gy_ring *ring, int slot)
{
    gy_uring_fixed_unregister(&uring_of(ring)->ring, &uring_of(ring)->fixed, slot);
}

static unsigned
uring_send_many(struct gy_ring *ring, struct gy_send *items, unsigned count)
{
    unsigned tried = gy_uring_sends_run(uring_of(ring)->sends, items, count);
    ring->counters.enters += tried != 0;
    ring->counters.sqes += tried;
    return tried;
}

static void
uring_close(struct gy_ring *ring, int fd)
{
    GY_UNUSED(ring);
    gy_sys_close(fd);
}

/* ---- life ---- */

/* The queues of all rings of a user count against RLIMIT_MEMLOCK, so smaller ones may still fit. */
static int
setup_queues(struct uring *uring, unsigned flags)
{
    uint32_t sq_entries = uring->sq_entries;
    uint32_t cq_entries = uring->cq_entries;
    int err;
    if (cq_entries < sq_entries)
        cq_entries = sq_entries; /* the kernel takes no less */
    for (;;) {
        struct io_uring_params params = {.flags = flags, .cq_entries = cq_entries};
        err = GY_FAULT(RING);
        if (err == 0)
            err = io_uring_queue_init_params(sq_entries, &uring->ring, &params);
        if (err != -ENOMEM || sq_entries <= SQ_ENTRIES_MIN)
            return err;
        sq_entries /= 2;
        cq_entries = cq_entries / 2 > sq_entries ? cq_entries / 2 : sq_entries;
    }
}

/* We publish SQEs in the order of the array, so its entries are set once and never again.  A ring
 * without the array, which a newer liburing may ask for by itself, has none to set. */
static void
fill_sq_array(struct uring *uring)
{
    unsigned *array = uring->ring.sq.array;
    if (array == NULL || (uring->ring.flags & IORING_SETUP_NO_SQARRAY))
        return;
    for (unsigned i = 0; i < uring->ring.sq.ring_entries; i++)
        array[i] = i;
}

/* Makes the ring: one that this thread may enter at once, or one that is to be enabled. */
static int
set_up(struct uring *uring, bool disabled)
{
    unsigned flags = GY_URING_SETUP_FLAGS;
    int err;
    GY_ASSERT(!uring->there);
    if (!disabled)
        flags &= ~(unsigned)IORING_SETUP_R_DISABLED;
    if (uring->base.features & GY_FEAT_NO_SQARRAY)
        flags |= IORING_SETUP_NO_SQARRAY;
    err = setup_queues(uring, flags);
    if (err < 0)
        return err;
    err = io_uring_ring_dontfork(&uring->ring);
    if (err < 0) {
        io_uring_queue_exit(&uring->ring);
        return err;
    }
    fill_sq_array(uring);
    uring->enter_fd = uring->ring.ring_fd;
    uring->there = true;
    uring->disabled = disabled;
    atomic_store_explicit(&made_one, true, memory_order_relaxed);
    return 0;
}

/* Not io_uring_enable_rings(): liburing 2.3 declares it and does not export it. */
static int
enable_rings(struct uring *uring)
{
    int err = GY_FAULT(RING);
    if (err == 0)
        err =
            io_uring_register((unsigned)uring->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    return err < 0 ? err : 0;
}

/* Threads of the kernel's, for what it cannot do without blocking.  They are this thread's: only
 * now is it known.  A kernel that refuses has its own limits. */
static void
limit_workers(struct uring *uring)
{
    unsigned limits[] = {GY_URING_WORKERS_MAX, GY_URING_WORKERS_MAX};
    (void)io_uring_register((unsigned)uring->ring.ring_fd, IORING_REGISTER_IOWQ_MAX_WORKERS, limits,
                            2);
}

static int
uring_enable(struct gy_ring *ring)
{
    struct uring *uring = uring_of(ring);
    int err = 0;
    GY_ASSERT(uring->owner_thread == 0);
    if (!uring->there)
        err = set_up(uring, false);
    else if (uring->disabled)
        err = enable_rings(uring);
    if (err < 0)
        return err;
    uring->disabled = false;
    uring->owner_thread = gy_sys_thread_id();
    limit_workers(uring);
    return 0;
}

static void
uring_destroy(struct gy_ring *ring, bool forked)
{
    struct uring *uring = uring_of(ring);
    gy_uring_sends_free(uring->sends, forked);
    if (forked) {
        /* The mappings were not inherited, and their addresses may be in use again.  Closing the
         * inherited descriptor is harmless to the parent, and needed: it keeps the files of the
         * parent's operations open. */
        if (uring->there)
            gy_sys_close(uring->ring.ring_fd);
        gy_free(uring);
        return;
    }
    unregister_descriptor(uring);
    if (uring->there)
        io_uring_queue_exit(&uring->ring);
    gy_uring_buffers_free(&uring->buffers);
    gy_free(uring);
}

static const struct gy_ring_ops uring_ops = {
    .name = "io_uring",
    .enable = uring_enable,
    .destroy = uring_destroy,
    .sqe = uring_sqe,
    .enter = uring_enter,
    .enter_until = uring_enter_until,
    .needs_enter = uring_needs_enter,
    .look = uring_look,
    .next_event = uring_next_event,
    .rest = uring_rest,
    .cancel_all = uring_cancel_all,
    .buffers_register = uring_buffers_register,
    .buffers_unregister = uring_buffers_unregister,
    .buffer_provide = uring_buffer_provide,
    .fixed_register = uring_fixed_register,
    .fixed_unregister = uring_fixed_unregister,
    GY_RING_PLAIN_BYTES,
    .at_mark = gy_ring_plain_at_mark,
    .send_many = uring_send_many,
    .udp_gro = gy_ring_plain_udp_gro,
    .try_accept = gy_ring_plain_accept,
    .try_connect = gy_ring_plain_connect,
    .socket_error = gy_ring_plain_socket_error,
    .shutdown = gy_ring_plain_shutdown,
    .close = uring_close,
    .file_nowait = gy_ring_plain_file_nowait,
    .now_ns = gy_ring_plain_now_ns,
};

int
gy_ring_uring_create(const struct gy_ring_options *options, struct gy_ring **out)
{
    struct uring *uring;
    enum gy_probe_stage stage;
    uint32_t features;
    int err = gy_probe_uring(&features, &stage);
    if (err < 0)
        return err;
    uring = gy_alloc(sizeof *uring);
    if (uring == NULL)
        return -ENOMEM;
    uring->sends = gy_uring_sends_new();
    if (uring->sends == NULL) {
        gy_free(uring);
        return -ENOMEM;
    }
    uring->base.ops = &uring_ops;
    uring->base.cheap_polls = true;
    uring->base.features = gy_features_effective(features, options->features_off);
    uring->sq_entries = options->sq_entries ? options->sq_entries : SQ_ENTRIES_DEFAULT;
    uring->cq_entries = options->cq_entries ? options->cq_entries : CQ_ENTRIES_DEFAULT;
    uring->wait_flags = uring->base.features & GY_FEAT_NO_IOWAIT ? IORING_ENTER_NO_IOWAIT : 0;
    if (!options->late || !atomic_load_explicit(&made_one, memory_order_relaxed))
        err = set_up(uring, true);
    if (err < 0) {
        gy_uring_sends_free(uring->sends, false);
        gy_free(uring);
        return err;
    }
    *out = &uring->base;
    return 0;
}
