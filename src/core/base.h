/* base.h: the few macros that every file of the core needs. */
#ifndef GY_BASE_H
#define GY_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Build switches; the build system sets those that are on. */
#ifndef GY_ASSERTS
#define GY_ASSERTS 0
#endif
#ifndef GY_FAULTS
#define GY_FAULTS 0
#endif
#ifndef GY_TRACE_ON
#define GY_TRACE_ON GY_ASSERTS
#endif

#define GY_COLD __attribute__((cold, noinline))
#define GY_LIKELY(x) __builtin_expect(!!(x), 1)
#define GY_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define GY_UNUSED(x) ((void)(x))

#define container_of(pointer, type, member)                                                        \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* GY_ASSERT guards invariants of our own, never what a peer, the kernel or a user did.  It is
 * compiled in by -DGY_ASSERTS=1 (debug and CI builds); it dumps the trace ring and aborts. */
#if GY_ASSERTS
void gy_assert_failed(const char *expression, const char *file, int line)
    __attribute__((noreturn, cold));
#define GY_ASSERT(x)                                                                               \
    do {                                                                                           \
        if (GY_UNLIKELY(!(x)))                                                                     \
            gy_assert_failed(#x, __FILE__, __LINE__);                                              \
    } while (0)
#define GY_UNREACHABLE() gy_assert_failed("unreachable", __FILE__, __LINE__)
#else
#define GY_ASSERT(x) ((void)0)
#define GY_UNREACHABLE() __builtin_unreachable()
#endif

/* Nanoseconds on CLOCK_MONOTONIC, the clock of time.monotonic(). */
#define GY_NS_PER_SECOND INT64_C(1000000000)
#define GY_NS_NEVER INT64_MAX

#endif
