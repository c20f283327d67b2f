/* pattern.c: what is sent, and the check of what comes back.
 *
 * The stream of a connection is a repetition of 4099 pseudo-random bytes that starts at a place of
 * its own. Lost, repeated, reordered bytes and bytes of another connection all show up. The table
 * is one period plus the largest single send, so that every send and compare is one memory range.
 */
#include "load.h"

#include <string.h>

static unsigned char table[PATTERN_PERIOD + PATTERN_CHUNK];
static unsigned char counting[256 + PATTERN_CHUNK]; /* 0, 1, ... 255, 0, ...: what a source sends */

void
pattern_init(void)
{
    uint32_t state = 0x9e3779b9u;
    for (size_t i = 0; i < PATTERN_PERIOD; i++) {
        state = state * 1664525u + 1013904223u;
        table[i] = (unsigned char)(state >> 24);
    }
    for (size_t i = PATTERN_PERIOD; i < sizeof(table); i++)
        table[i] = table[i - PATTERN_PERIOD];
    for (size_t i = 0; i < sizeof(counting); i++)
        counting[i] = (unsigned char)i;
}

const unsigned char *
pattern_at(uint64_t offset)
{
    return table + offset % PATTERN_PERIOD;
}

uint64_t
pattern_start(unsigned connection)
{
    return (uint64_t)connection * 977u;
}

static bool
equal_to(const unsigned char *expected, const unsigned char *data, size_t length, bool all)
{
    enum { END = 64 };
    if (all || length <= 2 * END)
        return memcmp(data, expected, length) == 0;
    return memcmp(data, expected, END) == 0 &&
           memcmp(data + length - END, expected + length - END, END) == 0;
}

bool
pattern_equal(uint64_t offset, const unsigned char *data, size_t length, bool all)
{
    return equal_to(pattern_at(offset), data, length, all);
}

bool
pattern_counting(uint64_t offset, const unsigned char *data, size_t length, bool all)
{
    return equal_to(counting + offset % 256, data, length, all);
}
