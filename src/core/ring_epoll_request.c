/* ring_epoll_request.c: what each opcode does on the ring on epoll, and how it is cancelled.
 *
 * Everything that may have to wait is armed first and tried when its descriptor is ready: the core
 * submits only what it has tried in vain.  A request is found by its user_data through a hash
 * table, since a cancel names nothing else.
 * Invariants: each SQE has one terminal event, and a cancel one of its own; a request that was
 * cancelled after it had sent something reports how much. */
#include "prep.h"
#include "ring_epoll.h"
#include "sys.h"
#include "sys_file.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

enum {
    CHUNK_REQUESTS_MIN = 64,
    CHUNK_REQUESTS_MAX = 4096,
    ACCEPTS_PER_EVENT = 64, /* then everything else has its turn */
    SENDS_PER_EVENT = 16,
    SEND_IOV_MAX = 64,
    SEND_BYTES_MAX = 0x7ffff000, /* the kernel's own limit of one call */
};

struct gy_epoll_chunk {
    struct gy_epoll_chunk *next;
    uint32_t count;
    struct gy_epoll_request requests[];
};

/* ---- memory ---- */

static uint32_t
bucket_of(const struct gy_epoll *epoll, uint64_t user_data)
{
    return (uint32_t)((user_data * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - epoll->bucket_bits));
}

static void
chain(struct gy_epoll *epoll, struct gy_epoll_request *request)
{
    struct gy_epoll_request **bucket = &epoll->buckets[bucket_of(epoll, request->user_data)];
    request->chain = *bucket;
    *bucket = request;
}

static void
unchain(struct gy_epoll *epoll, struct gy_epoll_request *request)
{
    struct gy_epoll_request **link = &epoll->buckets[bucket_of(epoll, request->user_data)];
    while (*link != request)
        link = &(*link)->chain;
    *link = request->chain;
}

static struct gy_epoll_request *
request_of(struct gy_list *node)
{
    return container_of(node, struct gy_epoll_request, link);
}

/* Without memory the chains stay long, and all works. */
static void
grow_buckets(struct gy_epoll *epoll, uint32_t bits)
{
    struct gy_epoll_request **buckets = gy_alloc(sizeof(*buckets) << bits);
    if (buckets == NULL)
        return;
    gy_free(epoll->buckets);
    epoll->buckets = buckets;
    epoll->bucket_bits = bits;
    for (struct gy_list *node = epoll->live.next; node != &epoll->live; node = node->next)
        chain(epoll, request_of(node));
}

bool
gy_epoll_requests_grow(struct gy_epoll *epoll)
{
    uint32_t count = epoll->chunks ? epoll->chunks->count * 2 : CHUNK_REQUESTS_MIN;
    struct gy_epoll_chunk *chunk;
    if (count > CHUNK_REQUESTS_MAX)
        count = CHUNK_REQUESTS_MAX;
    chunk = gy_alloc(sizeof *chunk + count * sizeof(struct gy_epoll_request));
    if (chunk == NULL)
        return false;
    chunk->next = epoll->chunks;
    chunk->count = count;
    epoll->chunks = chunk;
    for (uint32_t i = 0; i < count; i++) {
        gy_list_init(&chunk->requests[i].link);
        gy_list_append(&epoll->spare, &chunk->requests[i].link);
    }
    epoll->spare_count += count;
    if (epoll->live_count + epoll->spare_count > 1u << epoll->bucket_bits)
        grow_buckets(epoll, epoll->bucket_bits + 1);
    return true;
}

int
gy_epoll_requests_init(struct gy_epoll *epoll)
{
    gy_list_init(&epoll->live);
    gy_list_init(&epoll->spare);
    grow_buckets(epoll, 6);
    return epoll->buckets != NULL ? 0 : -ENOMEM;
}

void
gy_epoll_requests_deinit(struct gy_epoll *epoll)
{
    while (epoll->chunks != NULL) {
        struct gy_epoll_chunk *chunk = epoll->chunks;
        epoll->chunks = chunk->next;
        gy_free(chunk);
    }
    gy_free(epoll->buckets);
}

static struct gy_epoll_request *
lookup(const struct gy_epoll *epoll, uint64_t user_data)
{
    struct gy_epoll_request *request = epoll->buckets[bucket_of(epoll, user_data)];
    while (request != NULL && request->user_data != user_data)
        request = request->chain;
    return request;
}

/* ---- one request ---- */

static struct gy_epoll_request *
begin(struct gy_epoll *epoll, const struct io_uring_sqe *sqe)
{
    struct gy_list *node = gy_list_pop(&epoll->spare);
    struct gy_epoll_request *request;
    GY_ASSERT(node != NULL); /* reserved with the SQE */
    request = request_of(node);
    request->user_data = sqe->user_data;
    request->addr = sqe->addr;
    request->posted = 0;
    request->off = sqe->off;
    request->job = NULL;
    request->done_bytes = 0;
    request->fd = sqe->fd;
    request->len = sqe->len;
    request->msg_flags = sqe->msg_flags;
    request->opcode = sqe->opcode;
    request->multishot = false;
    epoll->spare_count--;
    epoll->live_count++;
    gy_list_append(&epoll->live, &request->link);
    chain(epoll, request);
    return request;
}

/* Back to the spare ones, after its terminal event; no descriptor lists it any more. */
void
gy_epoll_end(struct gy_epoll *epoll, struct gy_epoll_request *request, int32_t res)
{
    uint64_t user_data = request->user_data;
    unchain(epoll, request);
    gy_list_remove(&request->link);
    gy_list_append(&epoll->spare, &request->link);
    epoll->spare_count++;
    epoll->live_count--;
    gy_epoll_post(epoll, user_data, res, 0);
}

void
gy_epoll_finish(struct gy_epoll *epoll, struct gy_epoll_request *request, int32_t res)
{
    gy_epoll_watch_remove(epoll, request);
    gy_epoll_end(epoll, request, res);
}

/* A file without readiness (a regular one) is always ready, and its calls may block. */
static void
start_unpollable(struct gy_epoll *epoll, struct gy_epoll_request *request,
                 const struct io_uring_sqe *sqe)
{
    int32_t res = -ENOTSOCK;
    switch (request->opcode) {
    case IORING_OP_POLL_ADD:
        res = (int32_t)(request->mask & (EPOLLIN | EPOLLOUT));
        break;
    case IORING_OP_READ:
    case IORING_OP_READV:
    case IORING_OP_WRITE:
    case IORING_OP_WRITEV:
        res = gy_epoll_pool_start(epoll, request, sqe);
        if (res == 0)
            return;
        break;
    default:
        break;
    }
    gy_epoll_end(epoll, request, res);
}

static void
wait_for(struct gy_epoll *epoll, const struct io_uring_sqe *sqe, uint32_t mask, bool multishot)
{
    struct gy_epoll_request *request = begin(epoll, sqe);
    int err;
    request->mask = mask | EPOLLERR;
    request->multishot = multishot;
    err = gy_epoll_watch_add(epoll, request);
    if (err == -EPERM)
        start_unpollable(epoll, request, sqe);
    else if (err < 0)
        gy_epoll_end(epoll, request, err);
}

/* ---- the calls ---- */

/* The part of the message that is not yet sent: its pieces into iov, at most SEND_IOV_MAX. */
static unsigned
rest_of_message(const struct gy_epoll_request *request, struct iovec *iov)
{
    const struct msghdr *message = (const struct msghdr *)(uintptr_t)request->addr;
    size_t skip = request->done_bytes;
    size_t room = SEND_BYTES_MAX - skip;
    unsigned count = 0;
    for (size_t i = 0; i < message->msg_iovlen && count < SEND_IOV_MAX && room > 0; i++) {
        const struct iovec *piece = &message->msg_iov[i];
        if (skip >= piece->iov_len) {
            skip -= piece->iov_len;
            continue;
        }
        iov[count].iov_base = (char *)piece->iov_base + skip;
        iov[count].iov_len = piece->iov_len - skip < room ? piece->iov_len - skip : room;
        room -= iov[count].iov_len;
        skip = 0;
        count++;
    }
    return count;
}

/* With MSG_WAITALL all of the message is sent.  An error ends it whatever went before: the kernel
 * tells it once, so to report the bytes instead, as io_uring does, would lose it. */
static int32_t
call_sendmsg(struct gy_epoll_request *request)
{
    const struct msghdr *message = (const struct msghdr *)(uintptr_t)request->addr;
    for (unsigned calls = 0; calls < SENDS_PER_EVENT; calls++) {
        struct iovec iov[SEND_IOV_MAX];
        struct msghdr rest = *message;
        ssize_t sent;
        rest.msg_iov = iov;
        rest.msg_iovlen = rest_of_message(request, iov);
        if (rest.msg_iovlen == 0 && request->done_bytes > 0)
            return (int32_t)request->done_bytes;
        sent = gy_sys_sendmsg(request->fd, &rest, (int)request->msg_flags & ~MSG_WAITALL);
        if (sent == -EAGAIN)
            return -EAGAIN;
        if (sent < 0)
            return (int32_t)sent;
        request->done_bytes += (size_t)sent;
        if (!(request->msg_flags & MSG_WAITALL) || rest.msg_iovlen == 0)
            return (int32_t)request->done_bytes;
    }
    return GY_EPOLL_AGAIN;
}

/* On a pipe, a terminal, an eventfd, which was reported ready; another reader may have been first.
 */
static int32_t
call_rw(const struct gy_epoll_request *request)
{
    bool write = request->opcode == IORING_OP_WRITE || request->opcode == IORING_OP_WRITEV;
    bool vector = request->opcode == IORING_OP_READV || request->opcode == IORING_OP_WRITEV;
    void *address = (void *)(uintptr_t)request->addr;
    struct iovec one = {.iov_base = address, .iov_len = request->len};
    const struct iovec *iov = vector ? address : &one;
    int count = vector ? (int)request->len : 1;
    ssize_t res = gy_sys_rw_nowait(request->fd, iov, count, (int64_t)request->off, write);
    /* The kernel does not look at the offset of a file that has none. */
    if (res == -ESPIPE)
        res = gy_sys_rw_nowait(request->fd, iov, count, -1, write);
    return (int32_t)res;
}

/* The result, -EAGAIN to wait on, or GY_EPOLL_AGAIN. */
static int32_t
call(struct gy_epoll_request *request)
{
    void *buf = (void *)(uintptr_t)request->addr;
    switch (request->opcode) {
    case IORING_OP_READ:
    case IORING_OP_READV:
    case IORING_OP_WRITE:
    case IORING_OP_WRITEV:
        return call_rw(request);
    case IORING_OP_RECV:
        return (int32_t)gy_sys_recv(request->fd, buf, request->len);
    case IORING_OP_ACCEPT:
        return gy_sys_accept(request->fd);
    case IORING_OP_CONNECT:
        return gy_sys_socket_error(request->fd);
    case IORING_OP_SENDMSG:
        return call_sendmsg(request);
    default:
        GY_UNREACHABLE();
        return -EINVAL;
    }
}

static bool
accept_many(struct gy_epoll *epoll, struct gy_epoll_request *request)
{
    for (unsigned i = 0; i < ACCEPTS_PER_EVENT && gy_epoll_room(epoll); i++) {
        int32_t res = call(request);
        if (res == -EAGAIN)
            return false;
        if (res < 0) {
            gy_epoll_finish(epoll, request, res);
            return false;
        }
        gy_epoll_post(epoll, request->user_data, res, IORING_CQE_F_MORE);
    }
    return true;
}

/* Readiness that the core has not heard of yet is one event, however often it came. */
static void
post_readiness(struct gy_epoll *epoll, struct gy_epoll_request *request, int32_t res)
{
    if (request->posted > epoll->event_head) {
        epoll->events[(request->posted - 1) & (epoll->event_capacity - 1)].res |= res;
        return;
    }
    gy_epoll_post(epoll, request->user_data, res, IORING_CQE_F_MORE);
    request->posted = epoll->event_tail;
}

/* It is ready, and there is no call for it that promises not to block (a terminal). */
static void
move_to_pool(struct gy_epoll *epoll, struct gy_epoll_request *request)
{
    struct io_uring_sqe sqe = {.opcode = request->opcode,
                               .fd = request->fd,
                               .addr = request->addr,
                               .len = request->len,
                               .off = request->off};
    int err;
    gy_epoll_watch_remove(epoll, request);
    err = gy_epoll_pool_start(epoll, request, &sqe);
    if (err < 0)
        gy_epoll_end(epoll, request, err);
}

bool
gy_epoll_proceed(struct gy_epoll *epoll, struct gy_epoll_request *request, uint32_t events)
{
    int32_t res;
    if (GY_LIKELY(request->opcode == IORING_OP_POLL_ADD)) {
        res = (int32_t)(events & (request->mask | EPOLLHUP));
        if (request->multishot)
            post_readiness(epoll, request, res);
        else
            gy_epoll_finish(epoll, request, res);
        return false;
    }
    if (request->multishot)
        return accept_many(epoll, request);
    res = call(request);
    if (res == GY_EPOLL_AGAIN)
        return true;
    if (GY_UNLIKELY(res == -EOPNOTSUPP))
        move_to_pool(epoll, request);
    else if (res != -EAGAIN)
        gy_epoll_finish(epoll, request, res);
    return false;
}

/* ---- cancelling ---- */

/* What a thread is at runs to its end. */
static int32_t
cancel_job(struct gy_epoll *epoll, struct gy_epoll_request *request)
{
    if (!gy_epoll_pool_cancel(epoll, request))
        return -EALREADY;
    gy_epoll_end(epoll, request, -ECANCELED);
    return 0;
}

/* The result of the cancel. */
static int32_t
cancel(struct gy_epoll *epoll, struct gy_epoll_request *request)
{
    int fd = request->fd;
    uint8_t opcode = request->opcode;
    if (request->job != NULL)
        return cancel_job(epoll, request);
    gy_epoll_finish(epoll, request,
                    request->done_bytes > 0 ? (int32_t)request->done_bytes : -ECANCELED);
    gy_epoll_watch_release(epoll, fd, opcode);
    return 0;
}

void
gy_epoll_cancel_live(struct gy_epoll *epoll)
{
    struct gy_list *node = epoll->live.next;
    while (node != &epoll->live) {
        struct gy_epoll_request *request = request_of(node);
        node = node->next; /* a cancel ends no other request */
        (void)cancel(epoll, request);
    }
}

/* How many were cancelled, as the kernel counts with IORING_ASYNC_CANCEL_ALL. */
static int32_t
cancel_many(struct gy_epoll *epoll, const struct io_uring_sqe *sqe)
{
    uint32_t before = epoll->live_count;
    if (sqe->cancel_flags & IORING_ASYNC_CANCEL_ANY) {
        gy_epoll_cancel_live(epoll);
    } else {
        struct gy_epoll_request *request;
        while ((request = gy_epoll_watch_first(epoll, sqe->fd)) != NULL)
            (void)cancel(epoll, request);
    }
    return (int32_t)(before - epoll->live_count);
}

static void
start_cancel(struct gy_epoll *epoll, const struct io_uring_sqe *sqe)
{
    struct gy_epoll_request *request;
    int32_t res = 0;
    if (sqe->cancel_flags & IORING_ASYNC_CANCEL_ALL) {
        res = cancel_many(epoll, sqe);
    } else {
        request = sqe->cancel_flags & IORING_ASYNC_CANCEL_FD ? gy_epoll_watch_first(epoll, sqe->fd)
                                                             : lookup(epoll, sqe->addr);
        res = request != NULL ? cancel(epoll, request) : -ENOENT;
    }
    gy_epoll_post(epoll, sqe->user_data, res, 0);
}

/* ---- SQEs ---- */

static void
start_connect(struct gy_epoll *epoll, const struct io_uring_sqe *sqe)
{
    const struct sockaddr *address = (const struct sockaddr *)(uintptr_t)sqe->addr;
    int err = gy_sys_connect(sqe->fd, address, (socklen_t)sqe->off);
    if (err == -EINPROGRESS)
        wait_for(epoll, sqe, EPOLLOUT, false);
    else
        gy_epoll_post(epoll, sqe->user_data, err, 0);
}

/* All else is for a thread, or not known. */
static void
start_job(struct gy_epoll *epoll, const struct io_uring_sqe *sqe)
{
    struct gy_epoll_request *request = begin(epoll, sqe);
    int err = -EINVAL;
    if (gy_sys_file_knows(sqe->opcode))
        err = gy_epoll_pool_start(epoll, request, sqe);
    if (err < 0)
        gy_epoll_end(epoll, request, err);
}

void
gy_epoll_start(struct gy_epoll *epoll, const struct io_uring_sqe *sqe)
{
    switch (sqe->opcode) {
    case IORING_OP_NOP:
        gy_epoll_post(epoll, sqe->user_data, 0, 0);
        return;
    case IORING_OP_POLL_ADD:
        wait_for(epoll, sqe, gy_prep_poll_mask(sqe->poll32_events),
                 (sqe->len & IORING_POLL_ADD_MULTI) != 0);
        return;
    case IORING_OP_READ:
    case IORING_OP_READV:
    case IORING_OP_RECV:
        wait_for(epoll, sqe, EPOLLIN, false);
        return;
    case IORING_OP_WRITE:
    case IORING_OP_WRITEV:
        wait_for(epoll, sqe, EPOLLOUT, false);
        return;
    case IORING_OP_ACCEPT:
        wait_for(epoll, sqe, EPOLLIN, (sqe->ioprio & IORING_ACCEPT_MULTISHOT) != 0);
        return;
    case IORING_OP_SENDMSG:
        wait_for(epoll, sqe, EPOLLOUT, false);
        return;
    case IORING_OP_CONNECT:
        start_connect(epoll, sqe);
        return;
    case IORING_OP_ASYNC_CANCEL:
        start_cancel(epoll, sqe);
        return;
    default:
        start_job(epoll, sqe);
        return;
    }
}
