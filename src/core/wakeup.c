/* wakeup.c: one eventfd per loop, written at most once per sleep; see wakeup.h.
 *
 * The race that this must not lose: a thread puts something into the embedder's inbox and looks
 * whether the loop sleeps, while the loop declares itself asleep and looks into the inbox.  Each
 * side writes, then fences, then reads, so at least one of them sees the other: either the loop
 * finds the inbox full, or the thread finds the loop not awake
 * and says so: by changing `state`, which a looking loop reads, or by writing the eventfd.  The
 * read op is submitted in the same enter that waits, or was left armed by an earlier wait; what was
 * written before it was armed stays in the counter, so nothing is lost between the declaration and
 * the wait. */
#include "wakeup.h"
#include "loop.h"
#include "prep.h"
#include "sys.h"

int
gy_wakeup_init(struct gy_wakeup *wakeup)
{
    int fd = gy_sys_eventfd();
    if (fd < 0)
        return fd;
    gy_op_init(&wakeup->op, GY_OP_WAKEUP);
    wakeup->fd = fd;
    wakeup->value = 0;
    atomic_init(&wakeup->state, GY_WAKEUP_AWAKE);
    atomic_init(&wakeup->sent, 0);
    return 0;
}

void
gy_wakeup_deinit(struct gy_wakeup *wakeup)
{
    int fd = wakeup->fd;
    wakeup->fd = -1;
    gy_sys_close(fd);
}

void
gy_wakeup_sleep(struct gy_loop *loop, struct gy_wakeup *wakeup, bool looking)
{
    if (gy_op_is_idle(&wakeup->op))
        gy_op_submit(loop, &wakeup->op);
    atomic_store_explicit(&wakeup->state, looking ? GY_WAKEUP_LOOKING : GY_WAKEUP_ASLEEP,
                          memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
}

bool
gy_wakeup_fall_asleep(struct gy_wakeup *wakeup)
{
    unsigned char looking = GY_WAKEUP_LOOKING;
    return atomic_compare_exchange_strong_explicit(&wakeup->state, &looking, GY_WAKEUP_ASLEEP,
                                                   memory_order_seq_cst, memory_order_seq_cst) ||
           looking == GY_WAKEUP_ASLEEP;
}

void
gy_wakeup_awake(struct gy_wakeup *wakeup)
{
    atomic_store_explicit(&wakeup->state, GY_WAKEUP_AWAKE, memory_order_relaxed);
}

void
gy_wakeup_send(struct gy_wakeup *wakeup)
{
    atomic_thread_fence(memory_order_seq_cst);
    /* The plain load keeps the cache line shared while the loop runs. */
    if (GY_LIKELY(atomic_load_explicit(&wakeup->state, memory_order_relaxed) == GY_WAKEUP_AWAKE))
        return;
    if (atomic_exchange_explicit(&wakeup->state, GY_WAKEUP_AWAKE, memory_order_seq_cst) !=
        GY_WAKEUP_ASLEEP)
        return; /* another waker was first, or the loop sees it */
    atomic_fetch_add_explicit(&wakeup->sent, 1, memory_order_relaxed);
    gy_sys_eventfd_add(wakeup->fd);
}

void
gy_wakeup_prepare(struct gy_loop *loop, struct gy_op *op, struct io_uring_sqe *sqe)
{
    struct gy_wakeup *wakeup = container_of(op, struct gy_wakeup, op);
    GY_ASSERT(wakeup == &loop->wakeup);
    gy_prep_read(sqe, wakeup->fd, &wakeup->value, sizeof wakeup->value, UINT64_MAX);
}

/* To have returned from the wait was all there was to do; the next sleep arms the read again. */
void
gy_wakeup_on_event(struct gy_loop *loop, struct gy_op *op, const struct gy_event *ev)
{
    GY_ASSERT(op == &loop->wakeup.op);
    GY_ASSERT(gy_op_is_idle(op));
}
