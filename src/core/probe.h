/* probe.h: what this kernel, in this sandbox, can do; asked once per process by doing it.
 *
 * Nothing outside probe.c tests a kernel version.  Every newer feature is a bit with a fallback. */
#ifndef GY_PROBE_H
#define GY_PROBE_H

#include "base.h"

enum gy_feature {
    GY_FEAT_POLL_MULTISHOT = 1u << 0,   /* IORING_POLL_ADD_MULTI, 5.13; edge-triggered       */
    GY_FEAT_ACCEPT_MULTISHOT = 1u << 1, /* IORING_ACCEPT_MULTISHOT, 5.19                     */
    GY_FEAT_RECV_MULTISHOT = 1u << 2,   /* IORING_RECV_MULTISHOT, 6.0 (needs BUF_RING)       */
    GY_FEAT_BUF_RING = 1u << 3,         /* IORING_REGISTER_PBUF_RING, 5.19                   */
    GY_FEAT_SYNC_CANCEL = 1u << 4,      /* IORING_REGISTER_SYNC_CANCEL, 6.0                  */
    GY_FEAT_NO_IOWAIT = 1u << 5,        /* IORING_ENTER_NO_IOWAIT, 6.15                      */
    GY_FEAT_ABS_TIMER = 1u << 6,        /* IORING_ENTER_ABS_TIMER, 6.12                      */
    GY_FEAT_RING_FD = 1u << 7,          /* IORING_REGISTER_RING_FDS, 5.18                    */
    GY_FEAT_NO_SQARRAY = 1u << 8,       /* IORING_SETUP_NO_SQARRAY, 6.6                      */
    GY_FEAT_ACCEPT = 1u << 9,           /* IORING_OP_ACCEPT, 5.5; else poll + accept4(2)     */
    GY_FEAT_EPOLL_PWAIT2 = 1u << 10,    /* epoll_pwait2(2), 5.11; else whole milliseconds     */
    GY_FEAT_UDP_GSO = 1u << 11,         /* UDP_SEGMENT, 4.18; else a send per datagram       */
    GY_FEAT_UDP_GRO = 1u << 12,         /* UDP_GRO, 5.0; else a receive per datagram         */
    GY_FEAT_FTRUNCATE = 1u << 13,       /* IORING_OP_FTRUNCATE, 6.9; else the host's threads */
    GY_FEAT_FIXED_BUFFERS = 1u << 14,   /* a sparse table of them, 5.19; else plain memory   */
    GY_FEAT_PIPE_NOWAIT = 1u << 15,     /* RWF_NOWAIT on pipes, 6.4; else non-blocking mode  */
    GY_FEAT_ALL = (1u << 16) - 1,
};

/* Name <-> bit, for GYRE_FEATURES=-recv_multishot,-buf_ring and for reports.  0 for an unknown
 * name. */
uint32_t gy_feature_by_name(const char *name, size_t len);
const char *gy_feature_name(uint32_t bit);

/* Parses "-name,-name" into the bits to switch off.  0, or -EINVAL for anything else with *bad
 * pointing at the offending item. */
int gy_features_parse(const char *text, uint32_t *off, const char **bad);

/* The features of this kernel's sockets and pipes, which every ring on a real kernel has. */
uint32_t gy_probe_sockets(void);

/* What is left of the features found when those in `off` are switched off: also those that need
 * one of them. */
uint32_t gy_features_effective(uint32_t found, uint32_t off);

/* The verdict about io_uring in this process: 0 and *features, or -errno with a stage that says
 * which call refused (setup, enter, or the DEFER_TASKRUN flag).  The first call makes a ring, runs
 * one NOP through enter and destroys it; later calls answer from memory (a refusal for want of
 * memory or descriptors is not remembered).  Thread-safe. */
enum gy_probe_stage {
    GY_PROBE_OK,
    GY_PROBE_SETUP,    /* io_uring_setup refused                             */
    GY_PROBE_FLAGS,    /* a plain ring works, one with DEFER_TASKRUN does not */
    GY_PROBE_REGISTER, /* io_uring_register refused                          */
    GY_PROBE_ENTER,    /* io_uring_enter refused, or its NOP never ended     */
};
int gy_probe_uring(uint32_t *features, enum gy_probe_stage *stage);

/* Writes one sentence of cause and one of remedy for a refusal into text (always terminated). */
void gy_probe_explain(int err, enum gy_probe_stage stage, char *text, size_t text_bytes);

#endif
