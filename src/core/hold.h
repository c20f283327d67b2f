/* hold.h: whether small sends may wait for those of the next callbacks.
 *
 * Sends of many streams that leave together cost less than one by one, but the first of them waits
 * for the last.  So they wait only in a pass over many callbacks that have been quick, for as many
 * of these as usually end within HOLD_NS, and a slow one ends it for a while.  This is the policy
 * alone, arithmetic on times and counts; loop.c does the holding.
 * Owner: the loop.  Thread: the loop's. */
#ifndef GY_HOLD_H
#define GY_HOLD_H

#include "base.h"

enum { GY_HOLD_MAX = 32, GY_HOLD_MIN_PASS = 4 };

struct gy_hold {
    bool wanted;      /* the embedder's: it may be done at all                        */
    uint32_t room;    /* callbacks after which what is held leaves; 0: nothing is held */
    uint32_t left;    /* of these, how many are to come                               */
    uint32_t rest;    /* passes to go without, after a slow one                       */
    uint32_t slow;    /* slow passes in a row                                         */
    int64_t usual_ns; /* what a callback takes: a moving average                      */
    int64_t began_ns; /* when this pass began                                         */
};

/* A pass over about `count` callbacks begins.  True: it may hold, if gy_hold_begin is told when. */
static inline bool
gy_hold_likely(struct gy_hold *hold, size_t count)
{
    if (GY_LIKELY(count < GY_HOLD_MIN_PASS) || !hold->wanted)
        return false;
    if (hold->rest == 0)
        return true;
    hold->rest--;
    return false;
}
void gy_hold_begin(struct gy_hold *hold, int64_t now_ns);

/* The pass is over; it has run `count` callbacks. */
void gy_hold_end(struct gy_hold *hold, size_t count, int64_t now_ns);

/* A callback has ended with something to send.  True: that stays. */
static inline bool
gy_hold_keeps(struct gy_hold *hold)
{
    if (hold->left > 1) {
        hold->left--;
        return true;
    }
    hold->left = hold->room;
    return false;
}

#endif
