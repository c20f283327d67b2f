/* load.h: what the parts of the load generator share.
 *
 * One thread, one epoll descriptor, N connections. A run has a warm-up and a measured window; the
 * clocks of the server process are read at both ends of the window, by this process, so that the
 * CPU time and the messages belong to exactly the same stretch of time. */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

enum load_mode {
    LOAD_ECHO,   /* send a message, wait for its echo */
    LOAD_SINK,   /* send without end; the server discards and at the end tells what it got */
    LOAD_SOURCE, /* the server sends without end; we discard */
    LOAD_CHURN,  /* connect, one echo, close */
    LOAD_IDLE,   /* open all connections, wait, look at the server's memory */
};

enum load_exit {
    LOAD_EXIT_OK = 0,
    LOAD_EXIT_USAGE = 2,
    LOAD_EXIT_NETWORK = 3, /* the server refused, reset or closed a connection, or stalled */
    LOAD_EXIT_CONTENT = 4, /* the bytes that came back are not the bytes that were sent */
};

struct load_options {
    enum load_mode mode;
    const char *host;
    const char *unix_path; /* NULL: TCP */
    unsigned port;
    unsigned connections;
    unsigned depth;      /* messages in flight per connection */
    size_t message_size; /* bytes */
    size_t split;        /* bytes of each message that go out in a send of their own; 0: none */
    double rate;         /* messages per second over all connections; 0: as fast as answered */
    bool busy_poll;      /* never sleep */
    bool udp;            /* UDP: echo, sink or source */
    bool gso;            /* UDP one way: many datagrams by one call */
    bool tls;            /* TLS, as a client that verifies nothing */
    bool verify_all;     /* compare every byte in the window too, not only the ends of each read */
    bool hold;           /* wait on stdin at both ends of the window, with nothing in flight */
    bool histogram;      /* put the whole latency histogram into the report */
    uint64_t warmup_ns;
    uint64_t duration_ns;
    uint64_t rest_ns; /* after an echo: nothing in flight for so long, then closed for so long */
    pid_t server_pid; /* 0: no figures about the server */
};

/* ---- hist.c: log-linear latency histogram, 1/64 relative resolution, 0 to 2^40 ns ---- */

enum {
    HIST_SUB_BITS = 6,
    HIST_SUB = 1 << HIST_SUB_BITS,
    HIST_RANGE_BITS = 40,
    HIST_BUCKETS = (HIST_RANGE_BITS - HIST_SUB_BITS + 1) * HIST_SUB,
};

struct hist {
    uint64_t count;
    uint64_t sum_ns;
    uint64_t max_ns;
    uint64_t bucket[HIST_BUCKETS];
};

void hist_reset(struct hist *hist);
void hist_add(struct hist *hist, uint64_t value_ns);
/* The smallest bucket middle that at least `quantile` of all values do not exceed; 0 when empty. */
uint64_t hist_quantile_ns(const struct hist *hist, double quantile);
uint64_t hist_bucket_middle_ns(unsigned index);

/* ---- window.c: phases of a run, clocks, the report ---- */

enum load_phase {
    PHASE_GREET, /* each connection in turn does one echo */
    PHASE_WARMUP,
    PHASE_SETTLE_BEGIN, /* hold only: nothing new is sent until nothing is in flight */
    PHASE_MEASURE,
    PHASE_SETTLE_END,
    PHASE_DONE,
};

struct server_sample {
    uint64_t cpu_ns; /* CPU clock of the whole process, threads and kernel workers included */
    uint64_t user_ticks;
    uint64_t system_ticks;
    uint64_t minor_faults;
    uint64_t rss_bytes;
};

struct load {
    struct load_options options;
    int epoll_fd;
    enum load_phase phase;
    uint64_t now_ns;      /* refreshed at each completion and each empty poll */
    uint64_t edge_ns;     /* when the phase ends */
    uint64_t progress_ns; /* when bytes last moved: a stall is an error, not a wait without end */
    uint64_t begin_ns;
    uint64_t end_ns;
    uint64_t in_flight; /* messages sent or being sent and not yet answered */
    uint64_t messages;  /* the next three count inside the window only */
    uint64_t bytes_in;
    uint64_t bytes_out;
    uint64_t polls;
    uint64_t empty_polls;
    uint64_t unserved;           /* connections without an answer in the window (echo) */
    uint64_t empty_poll_cost_ns; /* calibrated before the run */
    uint64_t client_cpu_ns;
    struct server_sample before; /* before the first connection */
    struct server_sample begin;
    struct server_sample end;
    struct server_sample resting; /* rest_ns: the connections are open and idle */
    struct server_sample closed;  /* rest_ns: they are closed */
    struct hist latency;
};

uint64_t load_now_ns(void);
void load_sample_server(struct load *load, struct server_sample *out);
void load_calibrate(struct load *load);
void load_start_clock(struct load *load);
/* Moves to the next phase when it is time; returns true when the phase changed. */
bool load_turn_phase(struct load *load);
/* Waits for events as the poll mode and the next edge say; `again`: work is left, do not sleep. */
struct epoll_event;
int load_wait(struct load *load, struct epoll_event *events, int max, bool again, uint64_t due_ns);
void load_rest(struct load *load, struct server_sample *out);
void load_report(const struct load *load);
_Noreturn void load_fail(enum load_exit code, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static inline bool
load_sending(const struct load *load)
{
    return load->phase == PHASE_WARMUP || load->phase == PHASE_MEASURE;
}

static inline bool
load_counting(const struct load *load)
{
    return load->phase == PHASE_MEASURE || load->phase == PHASE_SETTLE_END;
}

/* ---- net.c: sockets ---- */

struct load_address {
    struct sockaddr_storage storage;
    socklen_t length;
    int family;
};

void load_resolve(const struct load_options *options, struct load_address *out);
int load_socket(const struct load_address *address);
void load_raise_descriptor_limit(unsigned wanted);

/* ---- one function per kind of run ---- */

void load_run_stream(struct load *load, const struct load_address *address);
void load_run_churn(struct load *load, const struct load_address *address);
void load_run_udp(struct load *load, const struct load_address *address);
void load_run_idle(struct load *load, const struct load_address *address);

/* ---- pattern.c: the bytes of a stream; every connection starts at another place of it ---- */

enum {
    PATTERN_PERIOD = 4099, /* prime: no message size divides it, so each message differs */
    PATTERN_CHUNK = 1 << 20,
};

void pattern_init(void);
const unsigned char *pattern_at(uint64_t offset); /* PATTERN_CHUNK bytes are readable from here */
uint64_t pattern_start(unsigned connection);
/* Compares all of it, or its first and last 64 bytes. */
bool pattern_equal(uint64_t offset, const unsigned char *data, size_t length, bool all);
/* The same for what a source sends: 0, 1, ... 255 over and over. */
bool pattern_counting(uint64_t offset, const unsigned char *data, size_t length, bool all);

#endif
