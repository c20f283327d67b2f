/* window.c: warm-up, measured window, clocks of both processes, and the JSON report. */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { STALL_SECONDS = 10, CALIBRATION_POLLS = 2000 };

static const uint64_t SECOND_NS = 1000000000u;

uint64_t
load_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

void
load_fail(enum load_exit code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("loadgen: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit((int)code);
}

static uint64_t
process_cpu_ns(pid_t pid)
{
    clockid_t clock = CLOCK_PROCESS_CPUTIME_ID;
    struct timespec value;
    if (pid != 0 && clock_getcpuclockid(pid, &clock) != 0)
        load_fail(LOAD_EXIT_NETWORK, "process %d is gone", (int)pid);
    if (clock_gettime(clock, &value) != 0)
        load_fail(LOAD_EXIT_NETWORK, "the CPU clock of process %d: %s", (int)pid, strerror(errno));
    return (uint64_t)value.tv_sec * SECOND_NS + (uint64_t)value.tv_nsec;
}

/* Fields 10, 14, 15 and 24 of /proc/<pid>/stat; the name in field 2 may hold anything but ends at
 * the last parenthesis. The ticks (1/100 s) only split the CPU clock into user and system. */
static void
read_proc_stat(pid_t pid, struct server_sample *out)
{
    char path[64], text[1024];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        load_fail(LOAD_EXIT_NETWORK, "%s: %s", path, strerror(errno));
    size_t length = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    text[length] = '\0';
    char *field = strrchr(text, ')');
    uint64_t value[25] = {0};
    if (field != NULL) {
        char *rest = NULL;
        unsigned number = 3;
        for (char *word = strtok_r(field + 1, " ", &rest); word != NULL && number < 25;
             word = strtok_r(NULL, " ", &rest))
            value[number++] = strtoull(word, NULL, 10);
    }
    out->minor_faults = value[10];
    out->user_ticks = value[14];
    out->system_ticks = value[15];
    out->rss_bytes = value[24] * (uint64_t)sysconf(_SC_PAGESIZE);
}

void
load_sample_server(struct load *load, struct server_sample *out)
{
    memset(out, 0, sizeof(*out));
    if (load->options.server_pid == 0)
        return;
    read_proc_stat(load->options.server_pid, out);
    out->cpu_ns = process_cpu_ns(load->options.server_pid);
}

/* What a wait that finds nothing costs: the idle share of a busy-polling client follows from the
 * number of such waits, without reading a clock around each. */
void
load_calibrate(struct load *load)
{
    struct epoll_event event;
    uint64_t start = process_cpu_ns(0);
    for (unsigned i = 0; i < CALIBRATION_POLLS; i++)
        load_wait(load, &event, 1, true, UINT64_MAX);
    load->empty_poll_cost_ns = (process_cpu_ns(0) - start) / CALIBRATION_POLLS;
}

void
load_start_clock(struct load *load)
{
    load->phase = PHASE_WARMUP;
    load->now_ns = load_now_ns();
    load->progress_ns = load->now_ns;
    load->edge_ns = load->now_ns + load->options.warmup_ns;
}

/* Tells the runner where we are and waits for its byte: it attaches or detaches strace meanwhile.
 */
static void
hold(const char *word)
{
    char byte;
    printf("%s\n", word);
    fflush(stdout);
    if (read(STDIN_FILENO, &byte, 1) != 1)
        load_fail(LOAD_EXIT_USAGE, "--hold: stdin was closed");
}

static void
begin_window(struct load *load)
{
    hist_reset(&load->latency);
    load->messages = load->bytes_in = load->bytes_out = 0;
    load->polls = load->empty_polls = 0;
    load_sample_server(load, &load->begin);
    load->client_cpu_ns = process_cpu_ns(0);
    load->begin_ns = load->now_ns = load->progress_ns = load_now_ns();
    load->edge_ns = load->begin_ns + load->options.duration_ns;
    load->phase = PHASE_MEASURE;
}

/* The clock of the server first: reading the rest takes time that is not in the window. */
static void
end_window(struct load *load)
{
    load->end_ns = load_now_ns();
    uint64_t server_cpu_ns =
        load->options.server_pid ? process_cpu_ns(load->options.server_pid) : 0;
    load->client_cpu_ns = process_cpu_ns(0) - load->client_cpu_ns;
    load_sample_server(load, &load->end);
    load->end.cpu_ns = server_cpu_ns;
    load->phase = PHASE_DONE;
}

/* Leaves the server alone for a while, then looks at it. */
void
load_rest(struct load *load, struct server_sample *out)
{
    struct timespec rest = {(time_t)(load->options.rest_ns / SECOND_NS),
                            (long)(load->options.rest_ns % SECOND_NS)};
    nanosleep(&rest, NULL);
    load_sample_server(load, out);
}

bool
load_turn_phase(struct load *load)
{
    bool drains = load->options.mode == LOAD_ECHO || load->options.mode == LOAD_CHURN;
    switch (load->phase) {
    case PHASE_GREET:
        break;
    case PHASE_WARMUP:
        if (load->now_ns < load->edge_ns)
            break;
        if (load->options.hold)
            load->phase = PHASE_SETTLE_BEGIN;
        else
            begin_window(load);
        return true;
    case PHASE_SETTLE_BEGIN:
        if (drains && load->in_flight != 0)
            break;
        hold("begin");
        begin_window(load);
        return true;
    case PHASE_MEASURE:
        if (load->now_ns < load->edge_ns)
            break;
        if (load->options.hold || load->options.rest_ns != 0)
            load->phase = PHASE_SETTLE_END;
        else
            end_window(load);
        return true;
    case PHASE_SETTLE_END:
        if (drains && load->in_flight != 0)
            break;
        end_window(load);
        if (load->options.hold)
            hold("end");
        return true;
    case PHASE_DONE:
        break;
    }
    if (load->now_ns > load->progress_ns + STALL_SECONDS * SECOND_NS)
        load_fail(LOAD_EXIT_NETWORK, "nothing moved for %d s, %" PRIu64 " messages in flight",
                  STALL_SECONDS, load->in_flight);
    return false;
}

int
load_wait(struct load *load, struct epoll_event *events, int max, bool again, uint64_t due_ns)
{
    struct timespec timeout = {0, 0};
    if (!load->options.busy_poll && !again) {
        uint64_t until = load->edge_ns;
        if (!load_sending(load))
            until = load->now_ns + SECOND_NS;
        if (due_ns < until)
            until = due_ns;
        uint64_t now = load_now_ns();
        uint64_t wait = until > now ? until - now : 0;
        timeout.tv_sec = (time_t)(wait / SECOND_NS);
        timeout.tv_nsec = (long)(wait % SECOND_NS);
    }
    int count = epoll_pwait2(load->epoll_fd, events, max, &timeout, NULL);
    if (count < 0) {
        if (errno != EINTR)
            load_fail(LOAD_EXIT_NETWORK, "epoll_pwait2: %s", strerror(errno));
        count = 0;
    }
    load->polls++;
    if (count == 0) {
        load->empty_polls += !again;
        load->now_ns = load_now_ns();
    }
    return count;
}

static void
report_latency(const struct hist *hist, bool whole)
{
    static const struct {
        const char *name;
        double quantile;
    } points[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}};
    printf("  \"latency_us\": {\"count\": %" PRIu64, hist->count);
    for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++)
        printf(", \"%s\": %.3f", points[i].name,
               (double)hist_quantile_ns(hist, points[i].quantile) / 1e3);
    printf(", \"mean\": %.3f, \"max\": %.3f},\n",
           hist->count ? (double)hist->sum_ns / (double)hist->count / 1e3 : 0.0,
           (double)hist->max_ns / 1e3);
    if (!whole)
        return;
    printf("  \"histogram_us\": [");
    const char *comma = "";
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        if (hist->bucket[i] == 0)
            continue;
        printf("%s[%.3f, %" PRIu64 "]", comma, (double)hist_bucket_middle_ns(i) / 1e3,
               hist->bucket[i]);
        comma = ", ";
    }
    printf("],\n");
}

/* The share of the window in which the client had work; its spinning is not work. */
static double
client_busy_share(const struct load *load, double window_ns)
{
    double idle_ns = load->options.busy_poll
                         ? (double)load->empty_polls * (double)load->empty_poll_cost_ns
                         : 0.0;
    double busy = ((double)load->client_cpu_ns - idle_ns) / window_ns;
    return busy < 0.0 ? 0.0 : busy > 1.0 ? 1.0 : busy;
}

void
load_report(const struct load *load)
{
    static const char *const names[] = {"echo", "sink", "source", "churn", "idle"};
    const struct load_options *options = &load->options;
    double window_ns = (double)(load->end_ns - load->begin_ns);
    double seconds = window_ns / 1e9;
    double server_cpu_ns = (double)(load->end.cpu_ns - load->begin.cpu_ns);
    double messages = (double)load->messages;
    double grown = (double)load->end.rss_bytes - (double)load->before.rss_bytes;

    printf("{\n  \"mode\": \"%s\", \"connections\": %u, \"size\": %zu, \"depth\": %u,\n",
           names[options->mode], options->connections, options->message_size, options->depth);
    printf("  \"split\": %zu, \"rate\": %.1f, \"poll\": \"%s\",\n", options->split, options->rate,
           options->busy_poll ? "busy" : "block");
    printf("  \"window_s\": %.6f, \"messages\": %" PRIu64 ",\n", seconds, load->messages);
    printf("  \"bytes_in\": %" PRIu64 ", \"bytes_out\": %" PRIu64 ",\n", load->bytes_in,
           load->bytes_out);
    printf("  \"messages_per_s\": %.3f,\n", seconds > 0 ? messages / seconds : 0.0);
    report_latency(&load->latency, options->histogram);
    printf("  \"unserved\": %" PRIu64 ",\n", load->unserved);
    printf("  \"client\": {\"cpu_s\": %.6f, \"busy\": %.4f, \"polls\": %" PRIu64
           ", \"empty_polls\": %" PRIu64 "},\n",
           (double)load->client_cpu_ns / 1e9, client_busy_share(load, window_ns), load->polls,
           load->empty_polls);
    if (options->server_pid != 0) {
        printf("  \"server\": {\"cpu_s\": %.6f, \"utilisation\": %.4f, \"cpu_us_per_message\": "
               "%.4f,\n",
               server_cpu_ns / 1e9, server_cpu_ns / window_ns,
               messages > 0 ? server_cpu_ns / messages / 1e3 : 0.0);
        printf("    \"user_ticks\": %" PRIu64 ", \"system_ticks\": %" PRIu64
               ", \"minor_faults\": %" PRIu64 ",\n",
               load->end.user_ticks - load->begin.user_ticks,
               load->end.system_ticks - load->begin.system_ticks,
               load->end.minor_faults - load->begin.minor_faults);
        if (options->rest_ns != 0)
            printf("    \"rss_bytes_resting\": %" PRIu64 ", \"rss_bytes_closed\": %" PRIu64 ",\n",
                   load->resting.rss_bytes, load->closed.rss_bytes);
        printf("    \"rss_bytes\": %" PRIu64 ", \"rss_bytes_before\": %" PRIu64
               ", \"rss_bytes_per_connection\": %.1f},\n",
               load->end.rss_bytes, load->before.rss_bytes, grown / options->connections);
    }
    printf("  \"ok\": true\n}\n");
    fflush(stdout);
}
