/* ring.h: the seam between the engine and a kernel interface.
 *
 * Everything above takes SQEs from a gy_ring, enters, and receives gy_events; it does not know
 * whether io_uring, epoll or a simulated kernel answers.  The immediate calls go through the same
 * table so that a simulated kernel sees them too. Thread: all calls from the thread that enabled
 * the ring, except create/destroy. */
#ifndef GY_RING_H
#define GY_RING_H

#include "base.h"
#include <sys/socket.h>
#include <sys/uio.h>

struct io_uring_sqe;
struct gy_op;
struct gy_ring;

struct gy_address {
    socklen_t len; /* 0: none */
    struct sockaddr_storage storage;
};

/* One of the sends of a send_many. */
enum { GY_SENDS_MAX = 32, GY_SEND_PIECES_MAX = 4 };

struct gy_send {
    int fd;
    int32_t res;           /* what try_send would have returned */
    struct msghdr message; /* of iov                            */
    struct iovec iov[GY_SEND_PIECES_MAX];
};

struct gy_event {
    struct gy_op *op; /* user_data without bit 0; NULL for an event that belongs to no op      */
    int32_t res;
    uint32_t flags; /* IORING_CQE_F_*; F_MORE: the op stays in flight; F_BUFFER: id << 16     */
    bool is_cancel; /* this is the cancel's own event (bit 0 of user_data)                    */
};

struct gy_ring_counters {
    uint64_t enters;    /* io_uring_enter or epoll_wait            */
    uint64_t sqes;      /* submissions                             */
    uint64_t events;    /* completions handed out                  */
    uint64_t overflows; /* times the CQ overflowed                 */
    uint64_t controls;  /* epoll: changes of what is watched       */
};

struct gy_ring_ops {
    const char *name; /* "io_uring", "epoll", "sim" */

    /* Binds the ring to the calling thread; succeeds once, before the first enter.  0 or -errno. */
    int (*enable)(struct gy_ring *ring);
    /* Ends the ring.  `forked`: called in a child of fork(): release this process's mappings and
     * descriptor only, touch nothing that is shared with the parent. */
    void (*destroy)(struct gy_ring *ring, bool forked);

    /* A zeroed SQE.  A full queue is submitted first; NULL only if the kernel then takes nothing
     * (out of memory): the caller keeps what it wanted to queue and tries again in a later turn. */
    struct io_uring_sqe *(*sqe)(struct gy_ring *ring);
    /* Submits everything queued and runs due kernel work (not if half of a queue that can overflow
     * waits to be taken: then it neither fetches nor waits); with wait_ns > 0 waits for at least
     * one event at most that long (GY_NS_NEVER: no limit); with 0 does not wait. 0, -EINTR after a
     * signal (or when it cannot be told whether there was one), -ETIME when time ran out (0 may be
     * returned for both of the last when events are there), another -errno for a broken ring. */
    int (*enter)(struct gy_ring *ring, int64_t wait_ns);
    /* Optional, with GY_FEAT_ABS_TIMER: as enter, but the limit is a time of CLOCK_MONOTONIC. */
    int (*enter_until)(struct gy_ring *ring, int64_t deadline_ns);
    /* True if an enter(0) would find anything to do: SQEs queued, or what the kernel has flagged
     * while no event is here, which would go before it. */
    bool (*needs_enter)(struct gy_ring *ring);
    /* Optional: looks for events without waiting, as cheaply as can be (a read of memory where that
     * tells), and without submitting more than what was queued before.  True: next_event gives one.
     * NULL: this ring is not to be asked again and again. */
    bool (*look)(struct gy_ring *ring);
    /* Copies the next event out and advances; false when there is none. */
    bool (*next_event)(struct gy_ring *ring, struct gy_event *out);
    /* Optional: the run ended (nothing is in flight).  Lets go of what is registered with the
     * thread, so that another thread may destroy the ring; the ring stays enabled. */
    void (*rest)(struct gy_ring *ring);
    /* Cancels every operation in flight, those queued before it included; events follow from the
     * next enter. */
    void (*cancel_all)(struct gy_ring *ring);

    /* Provided buffers; absent unless GY_FEAT_BUF_RING.  `memory` holds count (a power of two)
     * buffers in a row; the kernel has none of them before buffer_provide.  0 or -errno. */
    int (*buffers_register)(struct gy_ring *ring, uint16_t group, void *memory, uint32_t count,
                            uint32_t buffer_bytes);
    void (*buffers_unregister)(struct gy_ring *ring, uint16_t group);
    void (*buffer_provide)(struct gy_ring *ring, uint16_t group, uint16_t id);

    /* Registered buffers; absent unless GY_FEAT_FIXED_BUFFERS.  The slot of this memory, below
     * GY_FIXED_SLOTS, for IORING_OP_READ_FIXED and WRITE_FIXED; or -errno.  To unregister does not
     * wait for what is in flight, which keeps the pages; any thread while the ring rests. */
    int (*fixed_register)(struct gy_ring *ring, void *memory, size_t bytes);
    void (*fixed_unregister)(struct gy_ring *ring, int slot);

    /* Immediate, non-blocking calls: result or -errno; EINTR is retried inside. */
    ssize_t (*try_recv)(struct gy_ring *ring, int fd, void *buf, size_t len);
    /* The same on a UNIX socket; *cut: it ended at what came with the bytes (a descriptor, say),
     * and more may be there. */
    ssize_t (*try_recv_local)(struct gy_ring *ring, int fd, void *buf, size_t len, bool *cut);
    ssize_t (*try_send)(struct gy_ring *ring, int fd, const struct iovec *iov, unsigned count);
    /* Optional: as many try_send by one call; count <= GY_SENDS_MAX.  How many of the first were
     * tried, 0 if it cannot be done: the caller sends the rest one by one. */
    unsigned (*send_many)(struct gy_ring *ring, struct gy_send *items, unsigned count);
    /* Datagrams: one sendmsg(2) or recvmsg(2), with what they carry beside the bytes. */
    ssize_t (*try_sendmsg)(struct gy_ring *ring, int fd, const struct msghdr *message);
    ssize_t (*try_recvmsg)(struct gy_ring *ring, int fd, struct msghdr *message);
    /* The same for what need not be a socket; no SIGPIPE.  On a pipe that takes RWF_NOWAIT, or on
     * any descriptor in non-blocking mode. */
    ssize_t (*try_read_pipe)(struct gy_ring *ring, int fd, void *buf, size_t len);
    ssize_t (*try_write_pipe)(struct gy_ring *ring, int fd, const struct iovec *iov,
                              unsigned count);
    ssize_t (*try_read)(struct gy_ring *ring, int fd, void *buf, size_t len);
    ssize_t (*try_write)(struct gy_ring *ring, int fd, const struct iovec *iov, unsigned count);
    /* The next receive begins at the byte that was sent with MSG_OOB. */
    bool (*at_mark)(struct gy_ring *ring, int fd);
    int (*udp_gro)(struct gy_ring *ring, int fd); /* switches UDP_GRO on: 0 or -errno         */
    int (*try_accept)(struct gy_ring *ring, int fd);
    int (*try_connect)(struct gy_ring *ring, int fd, const struct sockaddr *addr, socklen_t len);
    int (*socket_error)(struct gy_ring *ring, int fd); /* SO_ERROR as -errno, 0 if none       */
    int (*shutdown)(struct gy_ring *ring, int fd, int how);
    void (*close)(struct gy_ring *ring, int fd);
    /* A file operation that can be answered from memory, or -EAGAIN; sys_file.h. */
    int32_t (*file_nowait)(struct gy_ring *ring, const struct io_uring_sqe *sqe);
    int64_t (*now_ns)(struct gy_ring *ring); /* CLOCK_MONOTONIC                            */
};

struct gy_ring {
    const struct gy_ring_ops *ops;
    uint32_t features; /* enum gy_feature bits, after GYRE_FEATURES took some away */
    bool cheap_polls;  /* arming one is part of the next enter, and no call of its own */
    struct gy_ring_counters counters;
};

enum { GY_FIXED_SLOTS = 64 }; /* registered buffers of a ring */

struct gy_ring_options {
    uint32_t sq_entries;   /* 0: default 256 */
    uint32_t cq_entries;   /* 0: default 1024 */
    uint32_t features_off; /* bits to switch off */
    bool late;             /* enable may set up what it takes, and fail for want of it */
};

/* Threads of the kernel's that work for one ring, of each kind: those for regular files and paths
 * (bounded) and those for everything else (unbounded). */
enum { GY_URING_WORKERS_MAX = 8 };

/* Creates a disabled io_uring ring; -ENOMEM is retried with smaller queues.  0 and *out, or -errno.
 * Its memory is MADV_DONTFORK and its descriptor close-on-exec.  With options->late the process's
 * second ring and those after it are set up by enable: a loop that never runs costs none. */
int gy_ring_uring_create(const struct gy_ring_options *options, struct gy_ring **out);

/* Creates a ring that executes the same SQEs by epoll and plain system calls.  0 and *out, or
 * -errno. */
int gy_ring_epoll_create(const struct gy_ring_options *options, struct gy_ring **out);

#endif
