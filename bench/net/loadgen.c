/* loadgen.c: the load generator's command line. One JSON object on stdout, diagnostics on stderr;
 * the exit status says what went wrong (enum load_exit in load.h). */
#define _GNU_SOURCE
#include "load.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

static const char usage[] =
    "usage: loadgen (--port N [--host A.B.C.D] | --unix PATH) [options]\n"
    "  --mode echo|sink|source|churn|idle\n"
    "                       what a connection does (echo)\n"
    "  --connections N      at the same time (1)\n"
    "  --size BYTES         of a message (64)\n"
    "  --depth N            messages in flight per connection (1)\n"
    "  --split BYTES        send the first BYTES of each message by a call of their own\n"
    "  --rate N             messages per second over all connections, evenly spaced;\n"
    "                       latency then counts from when a message was due\n"
    "  --udp                UDP: echo, sink or source\n"
    "  --gso                UDP one way: many datagrams by one call\n"
    "  --tls                speak TLS (loadgen_tls only)\n"
    "  --poll busy|block    spin or sleep while nothing arrives (busy)\n"
    "  --warmup S, --duration S   before and in the measured window (0.3, 1.0)\n"
    "  --rest S             after an echo leave the connections idle for so long, close them, "
    "wait\n"
    "                       as long again, and report the server's memory at both times\n"
    "  --server-pid PID     read this process's CPU clock, faults and memory at both ends\n"
    "  --verify all|ends    in the window compare every byte, or the ends of each read (ends)\n"
    "  --histogram          report all latencies\n"
    "  --hold               print \"begin\" and \"end\" at the ends of the window, with nothing "
    "in\n"
    "                       flight, and wait for a byte on stdin each time\n";

static double
number(const char *text, double low, double high)
{
    char *end = NULL;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= low) || !(value <= high))
        load_fail(LOAD_EXIT_USAGE, "%s is not a number from %g to %g", text, low, high);
    return value;
}

static unsigned
choice(const char *text, const char *const *names, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (strcmp(text, names[i]) == 0)
            return i;
    load_fail(LOAD_EXIT_USAGE, "%s is not one of the choices\n%s", text, usage);
}

static const struct option long_options[] = {
    {"mode", required_argument, NULL, 'm'},
    {"host", required_argument, NULL, 'h'},
    {"port", required_argument, NULL, 'p'},
    {"unix", required_argument, NULL, 'u'},
    {"connections", required_argument, NULL, 'c'},
    {"size", required_argument, NULL, 's'},
    {"depth", required_argument, NULL, 'd'},
    {"split", required_argument, NULL, 'x'},
    {"rate", required_argument, NULL, 'r'},
    {"poll", required_argument, NULL, 'b'},
    {"tls", no_argument, NULL, 'l'},
    {"udp", no_argument, NULL, 'y'},
    {"gso", no_argument, NULL, 'z'},
    {"warmup", required_argument, NULL, 'w'},
    {"duration", required_argument, NULL, 't'},
    {"rest", required_argument, NULL, 'e'},
    {"server-pid", required_argument, NULL, 'i'},
    {"verify", required_argument, NULL, 'v'},
    {"histogram", no_argument, NULL, 'g'},
    {"hold", no_argument, NULL, 'o'},
    {"help", no_argument, NULL, '?'},
    {NULL, 0, NULL, 0},
};

static const char *const mode_names[] = {"echo", "sink", "source", "churn", "idle"};
static const char *const poll_names[] = {"block", "busy"};
static const char *const verify_names[] = {"ends", "all"};

static void
take_option(struct load_options *options, int letter, const char *value)
{
    switch (letter) {
    case 'm':
        options->mode = (enum load_mode)choice(value, mode_names, 5);
        return;
    case 'h':
        options->host = value;
        return;
    case 'p':
        options->port = (unsigned)number(value, 1, 65535);
        return;
    case 'u':
        options->unix_path = value;
        return;
    case 'c':
        options->connections = (unsigned)number(value, 1, 1000000);
        return;
    case 's':
        options->message_size = (size_t)number(value, 1, 1 << 30);
        return;
    case 'd':
        options->depth = (unsigned)number(value, 1, 65536);
        return;
    case 'x':
        options->split = (size_t)number(value, 0, 1 << 30);
        return;
    case 'r':
        options->rate = number(value, 0, 1e9);
        return;
    case 'b':
        options->busy_poll = choice(value, poll_names, 2);
        return;
    case 'w':
        options->warmup_ns = (uint64_t)(number(value, 0, 3600) * 1e9);
        return;
    case 't':
        options->duration_ns = (uint64_t)(number(value, 0.001, 3600) * 1e9);
        return;
    case 'e':
        options->rest_ns = (uint64_t)(number(value, 0, 3600) * 1e9);
        return;
    case 'i':
        options->server_pid = (pid_t)number(value, 1, 1 << 30);
        return;
    case 'v':
        options->verify_all = choice(value, verify_names, 2);
        return;
    case 'l':
        options->tls = true;
        return;
    case 'y':
        options->udp = true;
        return;
    case 'z':
        options->gso = true;
        return;
    case 'g':
        options->histogram = true;
        return;
    case 'o':
        options->hold = true;
        return;
    default:
        fputs(usage, stderr);
        exit(LOAD_EXIT_USAGE);
    }
}

static void
check_options(const struct load_options *options)
{
    if ((options->port == 0) == (options->unix_path == NULL))
        load_fail(LOAD_EXIT_USAGE, "give either --port or --unix\n%s", usage);
    if (options->split >= options->message_size)
        load_fail(LOAD_EXIT_USAGE, "--split must be smaller than --size");
    if (options->rate > 0 && options->mode != LOAD_ECHO)
        load_fail(LOAD_EXIT_USAGE, "--rate goes with --mode echo");
    if (options->rest_ns != 0 && (options->mode != LOAD_ECHO || options->udp || options->hold))
        load_fail(LOAD_EXIT_USAGE, "--rest goes with --mode echo, without --udp and --hold");
    if (options->tls && (options->mode == LOAD_SINK || options->mode == LOAD_SOURCE))
        load_fail(LOAD_EXIT_USAGE, "--tls goes with --mode echo, churn and idle");
    if (options->udp &&
        (options->mode == LOAD_CHURN || options->mode == LOAD_IDLE || options->unix_path != NULL ||
         options->tls || options->split != 0 || options->rate > 0))
        load_fail(LOAD_EXIT_USAGE, "--udp goes with --mode echo, sink and source alone");
    if (options->udp && (options->message_size < 9 || options->message_size > 65000))
        load_fail(LOAD_EXIT_USAGE, "--udp takes messages of 9 to 65000 bytes");
    if (options->udp && options->mode != LOAD_ECHO && options->hold)
        load_fail(LOAD_EXIT_USAGE, "--hold goes with --udp --mode echo");
    if (options->mode == LOAD_CHURN && options->message_size > PATTERN_CHUNK)
        load_fail(LOAD_EXIT_USAGE, "--mode churn takes messages of up to %d bytes", PATTERN_CHUNK);
}

int
main(int argc, char **argv)
{
    static struct load load; /* large: holds the histogram */
    struct load_options *options = &load.options;
    struct load_address address;
    int letter;

    *options = (struct load_options){.host = "127.0.0.1",
                                     .connections = 1,
                                     .depth = 1,
                                     .message_size = 64,
                                     .busy_poll = true,
                                     .warmup_ns = 300000000,
                                     .duration_ns = 1000000000};
    while ((letter = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        take_option(options, letter, optarg);
    if (optind != argc)
        load_fail(LOAD_EXIT_USAGE, "what is %s?\n%s", argv[optind], usage);
    check_options(options);

    prctl(PR_SET_TIMERSLACK, 1ul); /* or a paced, blocking client would be 50 us late each time */
    pattern_init();
    load_raise_descriptor_limit(options->connections + 64);
    load_resolve(options, &address);
    load.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (load.epoll_fd < 0)
        load_fail(LOAD_EXIT_NETWORK, "epoll_create1 failed");
    load_calibrate(&load);
    load_sample_server(&load, &load.before);

    switch (options->mode) {
    case LOAD_ECHO:
    case LOAD_SINK:
    case LOAD_SOURCE:
        if (options->udp)
            load_run_udp(&load, &address);
        else
            load_run_stream(&load, &address);
        break;
    case LOAD_CHURN:
        load_run_churn(&load, &address);
        break;
    case LOAD_IDLE:
        load_run_idle(&load, &address);
        break;
    }
    load_report(&load);
    return LOAD_EXIT_OK;
}
