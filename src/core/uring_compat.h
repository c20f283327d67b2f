/* uring_compat.h: constants of the io_uring interface that are newer than the liburing at hand.
 *
 * liburing 2.3 is the oldest that builds; the numbers below are the kernel's and never change.
 * Macros that a newer header has are checked against them; enumerators cannot be seen by #ifndef
 * and would clash, so none of those is defined here. */
#ifndef GY_URING_COMPAT_H
#define GY_URING_COMPAT_H

#include <linux/time_types.h> /* liburing 2.3 uses it without including it */

#include <liburing/io_uring.h>

#ifndef IORING_SETUP_NO_SQARRAY
#define IORING_SETUP_NO_SQARRAY (1U << 16)
#endif
#ifndef IORING_ENTER_ABS_TIMER
#define IORING_ENTER_ABS_TIMER (1U << 5)
#endif
#ifndef IORING_ENTER_NO_IOWAIT
#define IORING_ENTER_NO_IOWAIT (1U << 7)
#endif
#ifndef IORING_FEAT_NO_IOWAIT
#define IORING_FEAT_NO_IOWAIT (1U << 17)
#endif

/* Opcodes are enumerators: ours have other names. */
#define GY_URING_OP_FTRUNCATE 55

_Static_assert(IORING_SETUP_NO_SQARRAY == 1U << 16, "kernel interface");
_Static_assert(IORING_ENTER_ABS_TIMER == 1U << 5, "kernel interface");
_Static_assert(IORING_ENTER_NO_IOWAIT == 1U << 7, "kernel interface");
_Static_assert(IORING_FEAT_NO_IOWAIT == 1U << 17, "kernel interface");

/* The ring that we want.  One thread submits and runs the kernel's deferred work, and only when it
 * enters: completions never interrupt it.  TASKRUN_FLAG tells without an enter whether there is
 * such work.  SUBMIT_ALL: one bad SQE does not hold up the others.  R_DISABLED: the thread that
 * enables the ring, not the one that creates it, is its owner. */
#define GY_URING_SETUP_FLAGS                                                                       \
    (IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN |         \
     IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP |                        \
     IORING_SETUP_SUBMIT_ALL | IORING_SETUP_R_DISABLED)

/* What we fill by hand must lie where the kernel reads it. */
_Static_assert(sizeof(struct io_uring_sqe) == 64, "kernel interface");
_Static_assert(sizeof(struct io_uring_cqe) == 16, "kernel interface");

#endif
