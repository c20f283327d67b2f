/* fault.h: n-th-failure injection, a build option (-Dfault_injection=true) for tests.
 *
 * Every place of the core that can fail asks GY_FAULT(ALLOC) etc. first.  A test arms the n-th such
 * question to fail, runs the operation, and repeats with n + 1 until nothing was injected: each
 * failure path has run. */
#ifndef GY_FAULT_H
#define GY_FAULT_H

#include "base.h"

enum gy_fault_kind { GY_FAULT_ALLOC, GY_FAULT_SYSCALL, GY_FAULT_RING, GY_FAULT_KINDS };

#if GY_FAULTS
void gy_fault_arm(enum gy_fault_kind kind, uint32_t nth,
                  int err);                   /* nth: 1 is the next; err: -errno */
bool gy_fault_fired(enum gy_fault_kind kind); /* since it was armed              */
int gy_fault(enum gy_fault_kind kind);        /* -errno if this one fails, or 0  */
#define GY_FAULT(kind) gy_fault(GY_FAULT_##kind)
#else
#define GY_FAULT(kind) 0
#endif

#endif
