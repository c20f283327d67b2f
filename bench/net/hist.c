/* hist.c: latency histogram with constant relative error.
 *
 * Values below 64 ns have a bucket each; above, each power of two is cut into 64 buckets, so a
 * quantile is right to within 1.6 %, whatever the spread. Values beyond the range go to the last.
 */
#include "load.h"

#include <string.h>

void
hist_reset(struct hist *hist)
{
    memset(hist, 0, sizeof(*hist));
}

static unsigned
bucket_of(uint64_t value_ns)
{
    if (value_ns < HIST_SUB)
        return (unsigned)value_ns;
    unsigned top = 63u - (unsigned)__builtin_clzll(value_ns);
    if (top >= HIST_RANGE_BITS)
        return HIST_BUCKETS - 1;
    unsigned shift = top - HIST_SUB_BITS;
    unsigned sub = (unsigned)(value_ns >> shift) & (HIST_SUB - 1);
    return (shift + 1) * HIST_SUB + sub;
}

uint64_t
hist_bucket_middle_ns(unsigned index)
{
    if (index < HIST_SUB)
        return index;
    unsigned shift = index / HIST_SUB - 1;
    uint64_t low = (uint64_t)(HIST_SUB + index % HIST_SUB) << shift;
    return low + (((uint64_t)1 << shift) >> 1);
}

void
hist_add(struct hist *hist, uint64_t value_ns)
{
    hist->bucket[bucket_of(value_ns)]++;
    hist->count++;
    hist->sum_ns += value_ns;
    if (value_ns > hist->max_ns)
        hist->max_ns = value_ns;
}

uint64_t
hist_quantile_ns(const struct hist *hist, double quantile)
{
    if (hist->count == 0)
        return 0;
    double exact = quantile * (double)hist->count;
    uint64_t rank = (uint64_t)exact;
    if ((double)rank < exact || rank == 0)
        rank++;
    uint64_t seen = 0;
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        seen += hist->bucket[i];
        if (seen >= rank) {
            uint64_t middle = hist_bucket_middle_ns(i);
            return middle < hist->max_ns ? middle : hist->max_ns;
        }
    }
    return hist->max_ns;
}
