/* trace.h: the last 256 events of the core, for a stall or a failed assertion.
 *
 * A process-wide ring of small records without locks: entries of several threads may interleave,
 * which is good enough for a post-mortem.  Compiled in with GY_ASSERTS (or -DGY_TRACE_ON=1),
 * otherwise nothing is left. */
#ifndef GY_TRACE_H
#define GY_TRACE_H

#include "base.h"

enum gy_trace_kind {
    GY_TRACE_SUBMIT,
    GY_TRACE_CANCEL,
    GY_TRACE_LAND,
    GY_TRACE_ENTER,
    GY_TRACE_CLOSE,
    GY_TRACE_QUIESCE,
    GY_TRACE_KINDS
};

#if GY_TRACE_ON
void gy_trace(enum gy_trace_kind kind, const void *subject, int64_t a, int64_t b);
void gy_trace_dump(int fd); /* async-signal-safe, one line per record */
#define GY_TRACE(kind, subject, a, b)                                                              \
    gy_trace(GY_TRACE_##kind, (subject), (int64_t)(a), (int64_t)(b))
#else
#define GY_TRACE(kind, subject, a, b) ((void)0)
#endif

#endif
