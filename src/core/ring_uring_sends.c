/* ring_uring_sends.c: see ring_uring_sends.h.
 *
 * Invariant: between two calls both queues are empty. */
#include "ring_uring_sends.h"
#include "fault.h"
#include "prep.h"
#include "sys.h"
#include "uring_compat.h"

#include <liburing.h>
#include <string.h>

struct gy_uring_sends {
    struct io_uring ring;
    bool there;
};

struct gy_uring_sends *
gy_uring_sends_new(void)
{
    return gy_alloc(sizeof(struct gy_uring_sends));
}

static GY_COLD bool
set_up(struct gy_uring_sends *sends)
{
    struct io_uring_params params = {
        .flags = GY_URING_SETUP_FLAGS & ~(unsigned)(IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE)};
    int err = GY_FAULT(RING);
    if (err == 0)
        err = io_uring_queue_init_params(GY_SENDS_MAX, &sends->ring, &params);
    if (err == 0) {
        err = io_uring_ring_dontfork(&sends->ring);
        if (err < 0)
            io_uring_queue_exit(&sends->ring);
    }
    sends->there = err == 0;
    return sends->there;
}

static void
prepare(struct io_uring *ring, const struct gy_send *item, unsigned index)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    GY_ASSERT(sqe != NULL);
    memset(sqe, 0, sizeof *sqe);
    if (GY_LIKELY(item->message.msg_iovlen == 1))
        gy_prep_send(sqe, item->fd, item->iov, MSG_DONTWAIT | MSG_NOSIGNAL);
    else
        gy_prep_sendmsg(sqe, item->fd, &item->message, MSG_DONTWAIT | MSG_NOSIGNAL);
    sqe->user_data = index;
}

/* What the kernel did not take (it had no memory) it must never see. */
static GY_COLD void
take_back(struct io_uring *ring)
{
    struct io_uring_sq *sq = &ring->sq;
    unsigned head = io_uring_smp_load_acquire(sq->khead);
    sq->sqe_head = head;
    sq->sqe_tail = head;
    io_uring_smp_store_release(sq->ktail, head);
}

unsigned
gy_uring_sends_run(struct gy_uring_sends *sends, struct gy_send *items, unsigned count)
{
    struct io_uring *ring = &sends->ring;
    struct io_uring_cqe *cqe;
    int taken;
    GY_ASSERT(count <= GY_SENDS_MAX);
    if (GY_UNLIKELY(!sends->there) && !set_up(sends))
        return 0;
    for (unsigned i = 0; i < count; i++)
        prepare(ring, &items[i], i);
    taken = io_uring_submit(ring);
    if (GY_UNLIKELY(taken != (int)count)) {
        take_back(ring);
        if (taken <= 0)
            return 0;
    }
    for (int i = 0; i < taken; i++) {
        while (GY_UNLIKELY(io_uring_peek_cqe(ring, &cqe) != 0))
            (void)io_uring_submit_and_wait(ring, 1); /* not seen: the events are there */
        items[cqe->user_data].res = cqe->res;
        io_uring_cqe_seen(ring, cqe);
    }
    return (unsigned)taken;
}

void
gy_uring_sends_free(struct gy_uring_sends *sends, bool forked)
{
    if (sends == NULL)
        return;
    if (sends->there && forked)
        gy_sys_close(sends->ring.ring_fd);
    else if (sends->there)
        io_uring_queue_exit(&sends->ring);
    gy_free(sends);
}
