/* forkmark.h: tells what a child of fork() inherited from what it made itself.
 *
 * One page of the process is emptied by the kernel in each child (MADV_WIPEONFORK); what is made
 * keeps the word that stood there.  One page for all loops: one each was a tenth of what a loop
 * cost.  It is never unmapped.  Thread: any; a fork may come at any moment. */
#ifndef GY_FORKMARK_H
#define GY_FORKMARK_H

#include "base.h"
#include <stdatomic.h>

struct gy_forkmark {
    atomic_uint *word; /* in the page; never written through this */
    unsigned value;    /* what it was */
};

/* 0 or -ENOMEM. */
int gy_forkmark_init(struct gy_forkmark *mark);
/* A mark that is the same in every process. */
void gy_forkmark_clear(struct gy_forkmark *mark);

/* True in a child of the process that made the mark.  One word read. */
static inline bool
gy_forkmark_differs(const struct gy_forkmark *mark)
{
    return atomic_load_explicit(mark->word, memory_order_relaxed) != mark->value;
}

#endif
