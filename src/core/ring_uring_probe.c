/* ring_uring_probe.c: asks the kernel what its io_uring can do, by doing it on a small ring of its
 * own.
 *
 * The answer is kept for the process.  Thread: any; two first callers may both ask, and find the
 * same.  No lock, so that a fork at any moment leaves the child able to ask. */
#include "fault.h"
#include "prep.h"
#include "probe.h"
#include "ring_uring_fixed.h"
#include "sys.h"

#include <errno.h>
#include <liburing.h>
#include <sys/poll.h>
#include <stdatomic.h>

/* An older library would write indices into the head of a queue that has no array of them. */
#if defined(IO_URING_VERSION_MAJOR) && defined(IO_URING_VERSION_MINOR)
#define LIBRARY_KNOWS_NO_SQARRAY (IO_URING_VERSION_MAJOR * 100 + IO_URING_VERSION_MINOR >= 206)
#else
#define LIBRARY_KNOWS_NO_SQARRAY 0
#endif

enum { TRIAL_SQ_ENTRIES = 8, TRIAL_CQ_ENTRIES = 32, TRIAL_BUFFERS = 8, TRIAL_GROUP = 7 };

/* In one word, so that it is published at once. */
union verdict {
    uint64_t word;
    struct {
        uint32_t features;
        uint16_t errno_value;
        uint8_t stage;
        uint8_t known;
    } part;
};
_Static_assert(sizeof(union verdict) == sizeof(uint64_t), "published by one store");

static atomic_uint_fast64_t kept;

static int
trial_setup(struct io_uring *ring, unsigned flags)
{
    struct io_uring_params params = {.flags = flags, .cq_entries = TRIAL_CQ_ENTRIES};
    int err = GY_FAULT(RING);
    if (err < 0)
        return err;
    return io_uring_queue_init_params(TRIAL_SQ_ENTRIES, ring, &params);
}

/* Submits one SQE.  The first completion's result and flags, or -errno of the enter; with no
 * completion -EINPROGRESS. */
static int
trial_submit(struct io_uring *ring, const struct io_uring_sqe *filled, int32_t *res,
             uint32_t *flags)
{
    struct io_uring_cqe *cqe;
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    int err;
    if (sqe == NULL)
        return -EBUSY;
    *sqe = *filled;
    err = io_uring_submit_and_get_events(ring);
    if (err < 0)
        return err;
    if (io_uring_peek_cqe(ring, &cqe) < 0)
        return -EINPROGRESS;
    *res = cqe->res;
    *flags = cqe->flags;
    io_uring_cqe_seen(ring, cqe);
    return 0;
}

/* True if the kernel has what nothing can replace; what can be is a feature. */
static bool
opcodes_present(struct io_uring *ring, uint32_t *features)
{
    static const uint8_t needed[] = {
        IORING_OP_NOP,  IORING_OP_POLL_ADD, IORING_OP_READ,
        IORING_OP_RECV, IORING_OP_SENDMSG,  IORING_OP_ASYNC_CANCEL,
    };
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    bool present = probe != NULL;
    for (unsigned i = 0; present && i < sizeof needed; i++)
        present = io_uring_opcode_supported(probe, needed[i]) != 0;
    if (present && io_uring_opcode_supported(probe, IORING_OP_ACCEPT))
        *features |= GY_FEAT_ACCEPT;
    if (present && io_uring_opcode_supported(probe, GY_URING_OP_FTRUNCATE))
        *features |= GY_FEAT_FTRUNCATE;
    if (present && io_uring_opcode_supported(probe, IORING_OP_READ_FIXED) &&
        io_uring_opcode_supported(probe, IORING_OP_WRITE_FIXED) && gy_uring_fixed_works(ring))
        *features |= GY_FEAT_FIXED_BUFFERS;
    io_uring_free_probe(probe);
    return present;
}

/* ---- one trial per feature ---- */

/* A descriptor of the wrong kind tells a flag that is refused (-EINVAL) from one that is understood
 * (-ENOTSOCK) without any socket. */
static bool
flag_understood(struct io_uring *ring, const struct io_uring_sqe *sqe)
{
    int32_t res;
    uint32_t flags;
    return trial_submit(ring, sqe, &res, &flags) == 0 && res == -ENOTSOCK;
}

static bool
try_accept_multishot(struct io_uring *ring, int fd)
{
    struct io_uring_sqe sqe = {.user_data = 0};
    gy_prep_accept(&sqe, fd, 0, true);
    return flag_understood(ring, &sqe);
}

static bool
try_recv_multishot(struct io_uring *ring, int fd)
{
    struct io_uring_sqe sqe = {.user_data = 0};
    gy_prep_recv_multishot(&sqe, fd, TRIAL_GROUP);
    return flag_understood(ring, &sqe);
}

/* fd is readable: the first event comes at once and leaves the poll armed. */
static bool
try_poll_multishot(struct io_uring *ring, int fd)
{
    struct io_uring_sqe sqe = {.user_data = 0};
    int32_t res;
    uint32_t flags;
    gy_prep_poll(&sqe, fd, POLLIN, true);
    return trial_submit(ring, &sqe, &res, &flags) == 0 && res > 0 && (flags & IORING_CQE_F_MORE);
}

static bool
try_buf_ring(struct io_uring *ring)
{
    struct io_uring_buf_reg request = {.ring_entries = TRIAL_BUFFERS, .bgid = TRIAL_GROUP};
    size_t map_bytes = TRIAL_BUFFERS * sizeof(struct io_uring_buf);
    void *memory = gy_map(map_bytes);
    bool works;
    if (memory == NULL)
        return false;
    request.ring_addr = gy_prep_address(memory);
    works = io_uring_register_buf_ring(ring, &request, 0) == 0;
    if (works)
        works = io_uring_unregister_buf_ring(ring, TRIAL_GROUP) == 0;
    gy_unmap(memory, map_bytes);
    return works;
}

static bool
try_sync_cancel(struct io_uring *ring)
{
    struct io_uring_sync_cancel_reg request = {
        .fd = -1,
        .flags = IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY,
    };
    int res = io_uring_register_sync_cancel(ring, &request);
    return res >= 0 || res == -ENOENT;
}

static bool
try_ring_fd(struct io_uring *ring)
{
    return io_uring_register_ring_fd(ring) == 1 && io_uring_unregister_ring_fd(ring) == 1;
}

/* The kernel refuses flags that it does not know before it does anything. */
static bool
try_abs_timer(struct io_uring *ring)
{
    struct io_uring_getevents_arg wait = {.ts = 0};
    return io_uring_enter2((unsigned)ring->ring_fd, 0, 0,
                           IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG | IORING_ENTER_ABS_TIMER,
                           (sigset_t *)(void *)&wait, sizeof wait) >= 0;
}

static bool
try_no_sqarray(void)
{
    struct io_uring ring;
    if (!LIBRARY_KNOWS_NO_SQARRAY ||
        trial_setup(&ring, GY_URING_SETUP_FLAGS | IORING_SETUP_NO_SQARRAY) < 0)
        return false;
    io_uring_queue_exit(&ring);
    return true;
}

static int
try_features(struct io_uring *ring, uint32_t *out)
{
    uint32_t features = *out;
    int fd = gy_sys_eventfd();
    if (fd < 0)
        return fd;
    gy_sys_eventfd_add(fd);
    if (ring->features & IORING_FEAT_NO_IOWAIT)
        features |= GY_FEAT_NO_IOWAIT;
    if (try_abs_timer(ring))
        features |= GY_FEAT_ABS_TIMER;
    if (try_ring_fd(ring))
        features |= GY_FEAT_RING_FD;
    if (try_sync_cancel(ring))
        features |= GY_FEAT_SYNC_CANCEL;
    if (try_buf_ring(ring))
        features |= GY_FEAT_BUF_RING;
    if ((features & GY_FEAT_ACCEPT) && try_accept_multishot(ring, fd))
        features |= GY_FEAT_ACCEPT_MULTISHOT;
    if ((features & GY_FEAT_BUF_RING) && try_recv_multishot(ring, fd))
        features |= GY_FEAT_RECV_MULTISHOT;
    if (try_poll_multishot(ring, fd)) /* the last one: it stays armed */
        features |= GY_FEAT_POLL_MULTISHOT;
    gy_sys_close(fd);
    if (try_no_sqarray())
        features |= GY_FEAT_NO_SQARRAY;
    *out = features | gy_probe_sockets();
    return 0;
}

/* ---- the verdict ---- */

static int
ask_ring(struct io_uring *ring, uint32_t *features, enum gy_probe_stage *stage)
{
    struct io_uring_sqe nop = {.user_data = 0};
    int32_t res;
    uint32_t flags;
    int err;
    *stage = GY_PROBE_REGISTER;
    err = io_uring_register((unsigned)ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    if (err < 0)
        return err;
    if (!opcodes_present(ring, features))
        return -ENOSYS;
    *stage = GY_PROBE_ENTER; /* some filters refuse this call alone */
    gy_prep_nop(&nop);
    err = trial_submit(ring, &nop, &res, &flags);
    if (err < 0)
        return err == -EINPROGRESS ? -EIO : err;
    if (res != 0)
        return -EIO;
    *stage = GY_PROBE_SETUP; /* whatever fails now is a want of resources */
    err = try_features(ring, features);
    if (err < 0)
        return err;
    *stage = GY_PROBE_OK;
    return 0;
}

static int
ask_kernel(uint32_t *features, enum gy_probe_stage *stage)
{
    struct io_uring ring;
    int err = trial_setup(&ring, GY_URING_SETUP_FLAGS);
    *stage = GY_PROBE_SETUP;
    if (err == -EINVAL) {
        int plain = trial_setup(&ring, IORING_SETUP_CQSIZE);
        if (plain < 0)
            return plain;
        io_uring_queue_exit(&ring);
        *stage = GY_PROBE_FLAGS;
        return err;
    }
    if (err < 0)
        return err;
    err = ask_ring(&ring, features, stage);
    io_uring_queue_exit(&ring);
    return err;
}

/* Lack of memory or descriptors passes; the others are how this process will find it for ever. */
static bool
worth_keeping(int err)
{
    return err == 0 || err == -EPERM || err == -EACCES || err == -ENOSYS || err == -EINVAL;
}

int
gy_probe_uring(uint32_t *features, enum gy_probe_stage *stage)
{
    union verdict verdict = {.word = atomic_load(&kept)};
    if (!verdict.part.known) {
        uint32_t found = 0;
        enum gy_probe_stage found_stage;
        int err = ask_kernel(&found, &found_stage);
        verdict.part.features = found;
        verdict.part.errno_value = (uint16_t)-err;
        verdict.part.stage = (uint8_t)found_stage;
        verdict.part.known = 1;
        if (worth_keeping(err))
            atomic_store(&kept, verdict.word);
    }
    *features = verdict.part.features;
    *stage = (enum gy_probe_stage)verdict.part.stage;
    return -(int)verdict.part.errno_value;
}
