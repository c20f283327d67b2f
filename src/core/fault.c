/* fault.c: counts the questions "may this fail now?" and answers yes to the n-th; see fault.h.
 * Process-wide, for tests that arm it from one thread. */
#include "fault.h"

#if GY_FAULTS
#include <stdatomic.h>

static struct {
    atomic_uint left; /* questions until the one that fails; 0: not armed */
    atomic_int err;
    atomic_bool fired;
} faults[GY_FAULT_KINDS];

void
gy_fault_arm(enum gy_fault_kind kind, uint32_t nth, int err)
{
    GY_ASSERT(kind < GY_FAULT_KINDS);
    GY_ASSERT(nth == 0 || err < 0);
    faults[kind].err = err;
    faults[kind].fired = false;
    faults[kind].left = nth;
}

bool
gy_fault_fired(enum gy_fault_kind kind)
{
    GY_ASSERT(kind < GY_FAULT_KINDS);
    return faults[kind].fired;
}

int
gy_fault(enum gy_fault_kind kind)
{
    unsigned left = faults[kind].left;
    do {
        if (left == 0)
            return 0;
    } while (!atomic_compare_exchange_weak(&faults[kind].left, &left, left - 1));
    if (left != 1)
        return 0;
    faults[kind].fired = true;
    return faults[kind].err;
}
#else
typedef int gy_fault_is_compiled_out;
#endif
