/* gy_test.h: a test program is a list of functions; this runs each in a process of its own.
 *
 * Exit code 0: all passed, 1: one failed or crashed (the rest still ran), 77: all were skipped.  A
 * check that fails prints what it saw and ends its test.  After each test the number of open
 * descriptors must be what it was.  Arguments choose tests by name; a single one runs without a
 * fork, for a debugger.  A test that hangs is ended by SIGALRM.
 *
 * Environment: GYRE_BACKEND=epoll puts the loops of the tests on that ring, else they are on
 * io_uring; GYRE_FEATURES switches features off as in the product; GY_TEST_SQ is the size of the
 * submission queue. */
#ifndef GY_TEST_H
#define GY_TEST_H

#include "fault.h"
#include "loop.h"
#include "probe.h"
#include "sys.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct gy_test {
    const char *name;
    void (*run)(void);
};

enum { GY_TEST_PASS = 0, GY_TEST_FAIL = 1, GY_TEST_SKIP = 77, GY_TEST_LIMIT_S = 60 };

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);              \
            exit(GY_TEST_FAIL);                                                                    \
        }                                                                                          \
    } while (0)

/* Compares two integers and prints both. */
#define CHECK_RELATION(left, relation, right)                                                      \
    do {                                                                                           \
        int64_t left_value = (int64_t)(left);                                                      \
        int64_t right_value = (int64_t)(right);                                                    \
        if (!(left_value relation right_value)) {                                                  \
            fprintf(stderr, "%s:%d: not true: %s %s %s (%" PRId64 ", %" PRId64 ")\n", __FILE__,    \
                    __LINE__, #left, #relation, #right, left_value, right_value);                  \
            exit(GY_TEST_FAIL);                                                                    \
        }                                                                                          \
    } while (0)
#define CHECK_EQ(left, right) CHECK_RELATION(left, ==, right)
#define CHECK_LE(left, right) CHECK_RELATION(left, <=, right)
#define CHECK_LT(left, right) CHECK_RELATION(left, <, right)

#define SKIP(reason)                                                                               \
    do {                                                                                           \
        fprintf(stderr, "skipped: %s\n", reason);                                                  \
        exit(GY_TEST_SKIP);                                                                        \
    } while (0)

/* valgrind runs one thread at a time and takes io_uring_enter for a call that does not block: while
 * one waits, no other thread runs and no signal is delivered. */
#define VALGRIND_WAITS_ALONE "valgrind lets nothing else happen during a wait"
#define VALGRIND_FAKES_LIMITS "valgrind does not pass RLIMIT_NOFILE on to the kernel"

static inline void
gy_test_skip_under_valgrind(const char *reason)
{
    const char *preload = getenv("LD_PRELOAD");
    if (preload != NULL && strstr(preload, "vgpreload") != NULL)
        SKIP(reason);
}

static inline unsigned
gy_test_open_descriptors(void)
{
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (dir != NULL && readdir(dir) != NULL)
        count++;
    if (dir != NULL)
        closedir(dir);
    return count;
}

/* What the profile of this run asks for. */
static inline struct gy_ring_options
gy_test_options(void)
{
    struct gy_ring_options options = {0};
    const char *features = getenv("GYRE_FEATURES");
    const char *entries = getenv("GY_TEST_SQ");
    const char *bad;
    if (features != NULL && gy_features_parse(features, &options.features_off, &bad) < 0) {
        fprintf(stderr, "GYRE_FEATURES: what is '%s'?\n", bad);
        exit(GY_TEST_FAIL);
    }
    if (entries != NULL)
        options.sq_entries = (uint32_t)strtoul(entries, NULL, 10);
    return options;
}

static inline bool
gy_test_on_epoll(void)
{
    const char *backend = getenv("GYRE_BACKEND");
    return backend != NULL && strcmp(backend, "epoll") == 0;
}

/* Of a test that is about io_uring alone. */
static inline void
gy_test_need_uring(void)
{
    uint32_t features;
    enum gy_probe_stage stage;
    char text[512];
    int err;
    if (gy_test_on_epoll())
        SKIP("this test is about io_uring");
    err = gy_probe_uring(&features, &stage);
    if (err == 0)
        return;
    gy_probe_explain(err, stage, text, sizeof text);
    SKIP(text);
}

/* Makes the ring that this run is about; a test that needs one skips where the kernel has none. */
static inline int
gy_test_create(const struct gy_ring_options *options, struct gy_ring **out)
{
    return gy_test_on_epoll() ? gy_ring_epoll_create(options, out)
                              : gy_ring_uring_create(options, out);
}

static inline void
gy_test_need_ring(void)
{
    if (!gy_test_on_epoll())
        gy_test_need_uring();
}

/* A loop that has begun, and its balanced end. */
static inline void
gy_test_loop_begin(struct gy_loop *loop)
{
    struct gy_ring_options options = gy_test_options();
    gy_test_need_ring();
    CHECK_EQ(gy_loop_init(loop, &options, gy_test_create), 0);
    CHECK_EQ(gy_loop_begin(loop), 0);
}

static inline void
gy_test_loop_end(struct gy_loop *loop)
{
    CHECK_EQ(gy_loop_quiesce(loop, GY_NS_PER_SECOND), 0);
    CHECK_EQ(loop->inflight, 0);
    CHECK_EQ(loop->live, 0);
    CHECK_EQ(loop->buffers.leased, 0);
    gy_loop_close(loop);
}

/* One turn as an embedder makes it: waits at most until the deadline, dispatches. */
static inline unsigned
gy_test_turn(struct gy_loop *loop, int64_t wait_ns)
{
    int err;
    if (wait_ns == 0 || gy_loop_has_work(loop)) {
        err = gy_loop_poll(loop, true);
    } else {
        gy_loop_prepare_wait(loop);
        err = gy_loop_wait(loop, gy_loop_now_ns(loop) + wait_ns);
        gy_loop_finish_wait(loop);
    }
    CHECK(err == 0 || err == -EINTR);
    return gy_loop_reap(loop);
}

/* Turns until the condition holds; a second is far more than anything here needs. */
#define TURN_UNTIL(loop, condition)                                                                \
    do {                                                                                           \
        int64_t turn_end_ns = gy_sys_now_ns() + 5 * GY_NS_PER_SECOND;                              \
        while (!(condition)) {                                                                     \
            CHECK_LT(gy_sys_now_ns(), turn_end_ns);                                                \
            (void)gy_test_turn((loop), GY_NS_PER_SECOND / 10);                                     \
        }                                                                                          \
    } while (0)

static inline bool
gy_test_chosen(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], name) == 0)
            return true;
    }
    return argc < 2;
}

/* Seconds; GYRE_TEST_SLOWER is how many times slower than usual the run is, under valgrind. */
static inline unsigned
gy_test_limit_s(void)
{
    const char *slower = getenv("GYRE_TEST_SLOWER");
    unsigned long times = slower != NULL ? strtoul(slower, NULL, 10) : 1;
    return times > 1 && times < 1000 ? GY_TEST_LIMIT_S * (unsigned)times : GY_TEST_LIMIT_S;
}

static inline void
gy_test_body(const struct gy_test *test)
{
    unsigned before = gy_test_open_descriptors();
    unsigned after;
    alarm(gy_test_limit_s());
    test->run();
    after = gy_test_open_descriptors();
    CHECK_EQ(after, before);
}

static inline int
gy_test_fork(const struct gy_test *test)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        gy_test_body(test);
        exit(GY_TEST_PASS);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return GY_TEST_FAIL;
    if (WIFSIGNALED(status))
        fprintf(stderr, "ended by signal %d\n", WTERMSIG(status));
    return WIFEXITED(status) ? WEXITSTATUS(status) : GY_TEST_FAIL;
}

static inline int
gy_test_main(const struct gy_test *tests, unsigned count, int argc, char **argv)
{
    unsigned passed = 0;
    unsigned failed = 0;
    for (unsigned i = 0; i < count; i++) {
        int verdict = GY_TEST_PASS;
        if (!gy_test_chosen(tests[i].name, argc, argv))
            continue;
        if (argc == 2)
            gy_test_body(&tests[i]);
        else
            verdict = gy_test_fork(&tests[i]);
        passed += verdict == GY_TEST_PASS;
        failed += verdict != GY_TEST_PASS && verdict != GY_TEST_SKIP;
        fprintf(stderr, "%s %s\n",
                verdict == GY_TEST_PASS   ? "ok  "
                : verdict == GY_TEST_SKIP ? "skip"
                                          : "FAIL",
                tests[i].name);
    }
    if (failed > 0)
        return GY_TEST_FAIL;
    return passed > 0 ? GY_TEST_PASS : GY_TEST_SKIP;
}

#define GY_TEST(name)                                                                              \
    {                                                                                              \
#name, name                                                                                \
    }
#define GY_TEST_MAIN(tests)                                                                        \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        return gy_test_main(tests, sizeof tests / sizeof tests[0], argc, argv);                    \
    }

#endif
