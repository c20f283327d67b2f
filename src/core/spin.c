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
    RETRY_MASK = 63, /* one sleep in 64 is tried: perhaps it was the wake-ups that took long */
    /* Where a look brings no more events per time: what sleeping costs there, and a look beyond
     * that counts twice. */
    OPEN_SLEEP_COST_NS = 4 * 1000,
    OPEN_CHARGE = 2,
    TRIAL_WAITS = 16,    /* of each kind */
    TRIAL_PERIOD = 2048, /* so that fewer than one wait in a hundred is slept through for it */
    TRIAL_FIRST_PERIOD = 128,
    TRIALS_FIRST = 6,
    /* (rate looking - rate sleeping) / (their sum), in parts of GAIN_ONE. */
    GAIN_ONE = 1024,
    GAIN_SHIFT = 2,
    GAIN_MAX = GAIN_ONE / 8, /* the core may have been somebody else's for a while */
    GAIN_MUCH = GAIN_ONE / 16,
    GAIN_LITTLE = GAIN_ONE / 24,
};

void
gy_spin_init(struct gy_spin *spin, int64_t limit_ns, bool always)
{
    GY_ASSERT(limit_ns >= 0);
    GY_ASSERT(limit_ns <= GY_SPIN_MAX_NS);
    *spin = (struct gy_spin){.limit_ns = limit_ns,
                             .always = always,
                             .usual_ns = CAP_NS,
                             .credit_ns = CREDIT_MAX_NS,
                             .gain = 2 * GAIN_MUCH,
                             .gains = true};
}

/* ---- trials ---- */

static uint32_t
trial_begins(const struct gy_spin *spin)
{
    return spin->trials < TRIALS_FIRST ? TRIAL_FIRST_PERIOD : TRIAL_PERIOD;
}

/* In the second half of a trial, which sleeps. */
static bool
is_trying_to_sleep(const struct gy_spin *spin)
{
    return spin->step >= trial_begins(spin) + TRIAL_WAITS;
}

/* Each wait ends with something, if not with an event of the ring's. */
static uint64_t
came(const struct gy_spin *spin, uint64_t events, uint32_t waits)
{
    uint64_t count = events - spin->mark_count;
    return count > waits ? count : waits;
}

static void
mark(struct gy_spin *spin, int64_t now_ns, uint64_t events)
{
    spin->mark_ns = now_ns;
    spin->mark_count = events;
}

static void
trial_ends(struct gy_spin *spin, int64_t slept_ns, uint64_t slept_count)
{
    double looked = (double)spin->looked_count * (double)slept_ns;
    double slept = (double)slept_count * (double)spin->looked_ns;
    spin->step = 0;
    spin->trials++;
    if (looked + slept <= 0)
        return; /* the clock stood still */
    int32_t gain = (int32_t)(GAIN_ONE * (looked - slept) / (looked + slept));
    if (gain > GAIN_MAX)
        gain = GAIN_MAX;
    if (gain < -GAIN_MAX)
        gain = -GAIN_MAX;
    spin->gain += (gain - spin->gain) / (1 << GAIN_SHIFT);
    spin->gains = spin->gain >= (spin->gains ? GAIN_LITTLE : GAIN_MUCH);
}

/* True while a trial decides: *budget_ns is set. */
static bool
try(struct gy_spin *spin, int64_t now_ns, uint64_t events, int64_t *budget_ns)
{
    uint32_t begins = trial_begins(spin);
    uint32_t step = spin->step++;
    if (GY_LIKELY(step < begins))
        return false;
    step -= begins;
    if (step == 0)
        mark(spin, now_ns, events);
    if (step < TRIAL_WAITS) {
        *budget_ns = spin->limit_ns;
        return true;
    }
    if (step == TRIAL_WAITS) {
        spin->looked_ns = now_ns - spin->mark_ns;
        spin->looked_count = came(spin, events, TRIAL_WAITS);
        mark(spin, now_ns, events);
    } else if (step == 2 * TRIAL_WAITS || now_ns - spin->mark_ns > 2 * spin->looked_ns) {
        /* When it is clear, no more is lost by it. */
        trial_ends(spin, now_ns - spin->mark_ns, came(spin, events, step - TRIAL_WAITS));
        return false;
    }
    *budget_ns = 0;
    return true;
}

/* ---- the policy ---- */

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
gy_spin_budget(struct gy_spin *spin, int64_t now_ns, uint64_t events)
{
    int64_t budget_ns;
    if (spin->always)
        return spin->limit_ns;
    if (spin->usual_ns >= WORTH_NS &&
        (spin->usual_ns >= LONG_NS || (++spin->slept & RETRY_MASK) != 0)) {
        spin->step = 0;
        return 0;
    }
    top_up(spin, now_ns);
    if (spin->skip > 0) {
        spin->skip--;
        return 0;
    }
    if (try(spin, now_ns, events, &budget_ns))
        return budget_ns;
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
        charge_ns -= spin->gains ? SLEEP_COST_NS : OPEN_SLEEP_COST_NS;
        if (charge_ns < 0)
            charge_ns = 0;
    } else {
        if (spin->vain < VAIN_SKIP_SHIFT_MAX)
            spin->vain++;
        spin->skip = (1u << spin->vain) - 1;
    }
    spin->credit_ns -= spin->gains ? charge_ns : OPEN_CHARGE * charge_ns;
}

void
gy_spin_waited(struct gy_spin *spin, int64_t took_ns)
{
    if (is_trying_to_sleep(spin))
        return; /* these do not count: their wake-ups are in it */
    if (took_ns > CAP_NS)
        took_ns = CAP_NS;
    spin->usual_ns += (took_ns - spin->usual_ns) / (1 << USUAL_SHIFT);
}
