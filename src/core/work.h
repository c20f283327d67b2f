/* work.h: an intrusive item on the loop's list of deferred work.
 *
 * What must not run inside the call that asks for it (an upcall, the end of a close) is put on the
 * list and runs in the loop's next turn; a loop with work does not block. */
#ifndef GY_WORK_H
#define GY_WORK_H

#include "list.h"

enum gy_work_kind {
    GY_WORK_STREAM,
    GY_WORK_LISTENER,
    GY_WORK_FILE,
    GY_WORK_DGRAM,
    GY_WORK_POLLSET,
    GY_WORK_KINDS
};

struct gy_work {
    struct gy_list link; /* in loop->work                           */
    uint8_t kind;        /* enum gy_work_kind: whose member this is */
};

static inline void
gy_work_init(struct gy_work *work, enum gy_work_kind kind)
{
    gy_list_init(&work->link);
    work->kind = (uint8_t)kind;
}

#endif
