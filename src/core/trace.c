/* trace.c: the ring of the last events and what a failed assertion prints; see trace.h.
 * Thread: any.  A record is claimed by one atomic add and then filled without a lock, so that a
 * dump may show one that is half written. */
#include "trace.h"

#if GY_TRACE_ON
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum { TRACE_RECORDS = 256, LINE_BYTES = 128 };
_Static_assert((TRACE_RECORDS & (TRACE_RECORDS - 1)) == 0, "the index is masked");

struct trace_record {
    const void *subject;
    int64_t a;
    int64_t b;
    uint32_t kind;
    bool used;
};

static struct trace_record records[TRACE_RECORDS];
static atomic_uint next_record;

static const char *const kind_names[GY_TRACE_KINDS] = {
    [GY_TRACE_SUBMIT] = "submit", [GY_TRACE_CANCEL] = "cancel", [GY_TRACE_LAND] = "land",
    [GY_TRACE_ENTER] = "enter",   [GY_TRACE_CLOSE] = "close",   [GY_TRACE_QUIESCE] = "quiesce",
};

void
gy_trace(enum gy_trace_kind kind, const void *subject, int64_t a, int64_t b)
{
    unsigned index = atomic_fetch_add_explicit(&next_record, 1, memory_order_relaxed);
    struct trace_record *record = &records[index & (TRACE_RECORDS - 1)];
    record->subject = subject;
    record->a = a;
    record->b = b;
    record->kind = kind;
    record->used = true;
}

/* A line is put together by hand: stdio is not async-signal-safe. */
struct line {
    char text[LINE_BYTES];
    size_t len;
};

static void
line_text(struct line *line, const char *text)
{
    while (*text != '\0' && line->len < LINE_BYTES - 1)
        line->text[line->len++] = *text++;
}

static void
line_number(struct line *line, uint64_t value, unsigned base)
{
    char digits[24];
    unsigned count = 0;
    do {
        digits[count++] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    while (count > 0 && line->len < LINE_BYTES - 1)
        line->text[line->len++] = digits[--count];
}

static void
line_signed(struct line *line, int64_t value)
{
    if (value < 0)
        line_text(line, "-");
    line_number(line, value < 0 ? UINT64_C(0) - (uint64_t)value : (uint64_t)value, 10);
}

static void
line_write(struct line *line, int fd)
{
    ssize_t ignored;
    line->text[line->len++] = '\n';
    ignored = write(fd, line->text, line->len);
    GY_UNUSED(ignored);
}

void
gy_trace_dump(int fd)
{
    unsigned end = atomic_load(&next_record);
    for (unsigned i = 0; i < TRACE_RECORDS; i++) {
        const struct trace_record *record = &records[(end + i) & (TRACE_RECORDS - 1)];
        struct line line = {.len = 0};
        if (!record->used || record->kind >= GY_TRACE_KINDS)
            continue;
        line_text(&line, "gyre trace: ");
        line_text(&line, kind_names[record->kind]);
        line_text(&line, " 0x");
        line_number(&line, (uintptr_t)record->subject, 16);
        line_text(&line, " ");
        line_signed(&line, record->a);
        line_text(&line, " ");
        line_signed(&line, record->b);
        line_write(&line, fd);
    }
}
#endif

#if GY_ASSERTS
#include <stdlib.h>

void
gy_assert_failed(const char *expression, const char *file, int line_of_file)
{
    struct line line = {.len = 0};
    gy_trace_dump(STDERR_FILENO);
    line_text(&line, "gyre: broken invariant at ");
    line_text(&line, file);
    line_text(&line, ":");
    line_number(&line, (uint64_t)line_of_file, 10);
    line_text(&line, ": ");
    line_text(&line, expression);
    line_write(&line, STDERR_FILENO);
    abort();
}
#endif

#if !GY_TRACE_ON
typedef int gy_trace_is_compiled_out;
#endif
