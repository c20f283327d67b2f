/* ring_epoll.h: what the files of the ring on epoll share, and nobody else includes.
 *
 *   ring_epoll.c          the table, the two queues, the wait
 *   ring_epoll_request.c  what each opcode does; cancelling
 *   ring_epoll_watch.c    which descriptors epoll watches for which requests
 *   ring_epoll_pool.c     what would block: files, in threads
 *
 * An SQE is executed when the ring is entered: it ends at once, or becomes a request that waits for
 * its descriptor.  No memory is allocated for it then: taking an SQE (gy_ring_ops.sqe) has reserved
 * a request and the room for its events. */
#ifndef GY_RING_EPOLL_H
#define GY_RING_EPOLL_H

#include "forkmark.h"
#include "list.h"
#include "pool.h"
#include "ring.h"
#include "uring_compat.h"

struct epoll_event;

/* The result that leaves a request waiting although more could be done at once: epoll has to report
 * its descriptor again. */
#define GY_EPOLL_AGAIN INT32_MIN

/* One operation that waits for its descriptor. */
struct gy_epoll_request {
    struct gy_list link;           /* in epoll->live, oldest first, or in epoll->spare           */
    struct gy_epoll_request *next; /* those that wait for the same descriptor, oldest first      */
    struct gy_epoll_request *prev;
    struct gy_epoll_request *chain; /* in the same bucket                                        */
    uint64_t user_data;
    uint64_t addr;     /* the buffer, or the struct msghdr                            */
    uint64_t posted;   /* multishot poll: one more than the number of its last event  */
    size_t done_bytes; /* sendmsg                                                     */
    int fd;
    uint32_t len;
    uint32_t msg_flags;
    uint32_t mask; /* EPOLL*: what it waits for                                       */
    uint8_t opcode;
    bool multishot;
    uint64_t off;             /* READ, WRITE and their vectors */
    struct gy_epoll_job *job; /* it is with the threads        */
};

/* What epoll knows of one descriptor number. */
struct gy_epoll_watch {
    struct gy_epoll_request *first;
    struct gy_epoll_request *last;
    uint32_t events;     /* what epoll reports: EPOLL*, with EPOLLET or EPOLLONESHOT; 0: nothing */
    uint32_t generation; /* counts the registrations of this number                             */
    bool registered;     /* as far as we know: closing the file undoes it silently              */
};

struct gy_epoll {
    struct gy_ring base;
    int epoll_fd;
    struct gy_forkmark forkmark; /* a forked child shares the epoll descriptor of its parent */
    /* submissions */
    struct io_uring_sqe *sqes;
    uint32_t sq_entries; /* a power of two; head and tail run freely */
    uint32_t sq_head;
    uint32_t sq_tail;
    /* events */
    struct gy_event *events;
    uint64_t event_capacity; /* a power of two */
    uint64_t event_head;
    uint64_t event_tail;
    /* requests */
    struct gy_list live;
    struct gy_list spare;
    uint32_t live_count;
    uint32_t spare_count;
    struct gy_epoll_chunk *chunks;
    struct gy_epoll_request **buckets; /* live ones by user_data */
    uint32_t bucket_bits;
    /* descriptors */
    struct gy_epoll_watch *watches;
    uint32_t watch_count;
    struct gy_pool *pool; /* NULL until something was given to it */
    /* when to look although nothing was asked for */
    int64_t entered_ns;
    uint32_t looks;
};

/* ring_epoll.c */
/* Room for one more event than the requests and the queued SQEs may need; false without memory. */
bool gy_epoll_room(struct gy_epoll *epoll);
void gy_epoll_post(struct gy_epoll *epoll, uint64_t user_data, int32_t res, uint32_t flags);

/* ring_epoll_request.c */
int gy_epoll_requests_init(struct gy_epoll *epoll);
void gy_epoll_requests_deinit(struct gy_epoll *epoll);
/* More spare requests; false without memory. */
bool gy_epoll_requests_grow(struct gy_epoll *epoll);
/* Executes one SQE. */
void gy_epoll_start(struct gy_epoll *epoll, const struct io_uring_sqe *sqe);
/* Ends every request with -ECANCELED, or what it came to. */
void gy_epoll_cancel_live(struct gy_epoll *epoll);
/* Posts the terminal event and forgets the request; epoll's registration stays as it is. */
void gy_epoll_finish(struct gy_epoll *epoll, struct gy_epoll_request *request, int32_t res);
/* The descriptor of the request is ready for `events`: does what can be done.  True if epoll has to
 * report the descriptor again, because not all of it was done. */
bool gy_epoll_proceed(struct gy_epoll *epoll, struct gy_epoll_request *request, uint32_t events);

/* ring_epoll_pool.c */
/* In the data of epoll's event for the pool. */
#define GY_EPOLL_POOL_TAG UINT64_MAX
/* Gives what the SQE asks for to a thread; the request has a job from then on.  0 or -errno. */
int gy_epoll_pool_start(struct gy_epoll *epoll, struct gy_epoll_request *request,
                        const struct io_uring_sqe *sqe);
/* true: it never ran, and the request has no job any more. */
bool gy_epoll_pool_cancel(struct gy_epoll *epoll, struct gy_epoll_request *request);
/* Ends the requests whose jobs are done. */
void gy_epoll_pool_reap(struct gy_epoll *epoll);
void gy_epoll_pool_deinit(struct gy_epoll *epoll, bool forked);

/* ring_epoll_request.c: the end of a request that no descriptor lists. */
void gy_epoll_end(struct gy_epoll *epoll, struct gy_epoll_request *request, int32_t res);

/* ring_epoll_watch.c */
/* Adds the request to those that wait for its descriptor; a state that is there already is reported
 * by the next wait.  0 or -errno (-EPERM: a file that cannot be polled), nothing kept. */
int gy_epoll_watch_add(struct gy_epoll *epoll, struct gy_epoll_request *request);
/* Takes the request out of the list of its descriptor. */
void gy_epoll_watch_remove(struct gy_epoll *epoll, struct gy_epoll_request *request);
/* A request of this opcode for fd was cancelled: if it was the last, epoll forgets the descriptor,
 * now if others may share it, else with its next event. */
void gy_epoll_watch_release(struct gy_epoll *epoll, int fd, uint8_t opcode);
/* The owner is about to close fd. */
void gy_epoll_watch_close(struct gy_epoll *epoll, int fd);
/* Those that wait for fd, oldest first. */
struct gy_epoll_request *gy_epoll_watch_first(const struct gy_epoll *epoll, int fd);
/* One event of a wait. */
void gy_epoll_watch_event(struct gy_epoll *epoll, const struct epoll_event *event);

#endif
