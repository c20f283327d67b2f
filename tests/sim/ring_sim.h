/* ring_sim.h: a seeded fake kernel behind struct gy_ring_ops.
 *
 * Completions come late, in any order that a kernel may choose (those of one operation stay in
 * order), multishot operations end at random, cancels race with what they cancel, buffers run out,
 * time is virtual.  The same seed gives the same run. */
#ifndef RING_SIM_H
#define RING_SIM_H

#include "ring.h"
#include "sim_net.h"

struct sim_faults {         /* in per cent */
    uint32_t late;          /* an operation that could run waits for the next enter */
    uint32_t end_multishot; /* an event of a multishot operation is its last        */
    uint32_t no_sqe;        /* sqe() gives none                                     */
    uint32_t interrupt;     /* a wait ends with -EINTR                              */
    uint32_t no_buffers;    /* a receive finds no provided buffer                   */
    uint32_t poll_fails;    /* a poll ends with -ENOMEM                             */
    uint32_t accept_fails;  /* an accept fails, half of the time for want of descriptors */
    uint32_t file_fails;    /* a read or write of a file ends with -EIO                      */
};

/* The one file of a world: reads and writes of SIM_FILE_FD are short at random, an open of any path
 * gives a descriptor as a connection has one, and anything may be under way when it is cancelled.
 */
enum { SIM_FILE_FD = SIM_FD_FIRST - 1, SIM_FILE_BYTES = 16 * 1024 };

struct sim_world {
    struct sim_net net;
    struct sim_faults faults;
    char file[SIM_FILE_BYTES];
    int64_t now_ns;
    uint32_t features;
    uint32_t ops;        /* in the kernel                                              */
    uint32_t violations; /* what no correct core does; `violation` says what            */
    const char *violation;
    bool stalled; /* a wait without limit could never have ended                 */
    void (*tick)(struct sim_world *world); /* during a wait: lets the remotes act, or NULL */
    void *context;
};

void sim_world_init(struct sim_world *world, uint64_t seed, uint32_t features);
void sim_world_deinit(struct sim_world *world);

/* For gy_loop_init().  Rings belong to the world that was set last. */
void sim_world_use(struct sim_world *world);
int sim_ring_create(const struct gy_ring_options *options, struct gy_ring **out);

#endif
