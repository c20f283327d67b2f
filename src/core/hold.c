/* hold.c: the policy of holding small sends; see hold.h. */
#include "hold.h"

enum {
    HOLD_NS = 160 * 1000, /* about what the first of those that are held waits, at most       */
    QUICK_NS = 20 * 1000, /* a callback that takes longer gains nothing worth waiting for     */
    REST_PASSES = 8,      /* after a slow pass; twice as many after each further one           */
    REST_SHIFT_MAX = 5,
    USUAL_SHIFT = 3, /* a pass weighs 1/8 in the average */
};

void
gy_hold_begin(struct gy_hold *hold, int64_t now_ns)
{
    hold->began_ns = now_ns;
    hold->room = GY_HOLD_MAX;
    if (hold->usual_ns > HOLD_NS / GY_HOLD_MAX)
        hold->room = (uint32_t)(HOLD_NS / hold->usual_ns);
    hold->left = hold->room;
}

void
gy_hold_end(struct gy_hold *hold, size_t count, int64_t now_ns)
{
    int64_t took_ns = now_ns - hold->began_ns;
    hold->room = 0;
    hold->left = 0;
    if (count == 0)
        return;
    took_ns /= (int64_t)count;
    if (took_ns > QUICK_NS) {
        hold->rest = (uint32_t)REST_PASSES << hold->slow;
        if (hold->slow < REST_SHIFT_MAX)
            hold->slow++;
        took_ns = QUICK_NS;
    } else {
        hold->slow = 0;
    }
    hold->usual_ns += (took_ns - hold->usual_ns) / (1 << USUAL_SHIFT);
}
