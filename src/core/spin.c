/* spin.c: the policy of looking before sleeping; see spin.h. */
#include "spin.h"

enum {
    USUAL_SHIFT = 3,         /* a new wait weighs 1/8 in the average                       */
    VAIN_SKIP_SHIFT_MAX = 8, /* after many looks in vain: one in 256 sleeps                */
    SPIN_SHARE = 8,          /* one part in this many of the time may be spent             */
    /* About what a sleep and its wake-up cost in CPU time: a look that was shorter cost nothing. */
    SLEEP_COST_NS = 10 * 1000,
    CREDIT_MAX_NS = 1000 * 1000,
    /* Waits that usually take longer are slept at once: what a look saves is the wake-up, and it
     * would burn several times that.  What was measured asleep has the wake-up in it. */
    WORTH_NS = 25 * 1000,
    CAP_NS = 4 * WORTH_NS, /* one long wait among short ones changes little */
    LONG_NS = 3 * WORTH_NS,
    TRIAL_MASK = 63, /* one sleep in 64 is tried: perhaps it was the wake-ups that took long */
};

void
gy_spin_init(struct gy_spin *spin, int64_t limit_ns, bool always)
{
    GY_ASSERT(limit_ns >= 0);
    GY_ASSERT(limit_ns <= GY_SPIN_MAX_NS);
    *spin = (struct gy_spin){
        .limit_ns = limit_ns, .always = always, .usual_ns = CAP_NS, .credit_ns = CREDIT_MAX_NS};
}

static void
top_up(struct gy_spin *spin, int64_t now_ns)
{
    int64_t gone_ns = now_ns - spin->credited_ns;
    spin->credited_ns = now_ns;
    if (gone_ns > SPIN_SHARE * (int64_t)CREDIT_MAX_NS)
        gone_ns = SPIN_SHARE * (int64_t)CREDIT_MAX_NS;
    spin->credit_ns += gone_ns / SPIN_SHARE;
    if (spin->credit_ns > CREDIT_MAX_NS)
        spin->credit_ns = CREDIT_MAX_NS;
}

int64_t
gy_spin_budget(struct gy_spin *spin, int64_t now_ns)
{
    if (spin->always)
        return spin->limit_ns;
    if (spin->usual_ns >= WORTH_NS &&
        (spin->usual_ns >= LONG_NS || (++spin->slept & TRIAL_MASK) != 0))
        return 0;
    top_up(spin, now_ns);
    if (spin->skip > 0) {
        spin->skip--;
        return 0;
    }
    return spin->credit_ns >= spin->limit_ns ? spin->limit_ns : 0;
}

void
gy_spin_looked(struct gy_spin *spin, int64_t took_ns, bool found)
{
    /* More than the limit was not looked: another thread or process had the core meanwhile. */
    int64_t charge_ns = took_ns < spin->limit_ns ? took_ns : spin->limit_ns;
    GY_ASSERT(took_ns >= 0);
    spin->looks++;
    spin->spent_ns += (uint64_t)took_ns;
    if (found) {
        spin->found++;
        spin->vain = 0;
        if (spin->usual_ns >= WORTH_NS && took_ns < WORTH_NS)
            spin->usual_ns = took_ns;
        charge_ns = charge_ns > SLEEP_COST_NS ? charge_ns - SLEEP_COST_NS : 0;
    } else {
        if (spin->vain < VAIN_SKIP_SHIFT_MAX)
            spin->vain++;
        spin->skip = (1u << spin->vain) - 1;
    }
    spin->credit_ns -= charge_ns;
}

void
gy_spin_waited(struct gy_spin *spin, int64_t took_ns)
{
    if (took_ns > CAP_NS)
        took_ns = CAP_NS;
    spin->usual_ns += (took_ns - spin->usual_ns) / (1 << USUAL_SHIFT);
}
