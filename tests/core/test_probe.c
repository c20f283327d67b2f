/* test_probe.c: features, their names, and what is said when io_uring is refused.
 *
 * Refusals are real: a seccomp filter in the test's own process does what a container's profile
 * does. */
#include "gy_test.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* Asked in a child, so that this process has not asked yet. */
static void
skip_if_refused(void)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        uint32_t features;
        enum gy_probe_stage stage;
        _exit(gy_probe_uring(&features, &stage) == 0 ? 0 : 1);
    }
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    if (status != 0)
        SKIP("no io_uring here");
}

static void
test_names(void)
{
    uint32_t all = 0;
    for (uint32_t bit = 1; bit != 0 && bit <= GY_FEAT_ALL; bit <<= 1) {
        const char *name = gy_feature_name(bit);
        CHECK(name != NULL);
        CHECK_EQ(gy_feature_by_name(name, strlen(name)), bit);
        CHECK_EQ(gy_feature_by_name(name, strlen(name) - 1), 0);
        all |= bit;
    }
    CHECK_EQ(all, GY_FEAT_ALL);
    CHECK(gy_feature_name(0) == NULL);
    CHECK(gy_feature_name(3) == NULL);
    CHECK_EQ(gy_feature_by_name("", 0), 0);
}

static void
test_parse(void)
{
    static const struct {
        const char *text;
        size_t bad_at;
    } refused[] = {
        {"buf_ring", 0},   {"-", 0},
        {"-buf_rin", 0},   {"-buf_ring,", 10},
        {",", 0},          {"-buf_ring,,-ring_fd", 10},
        {" -buf_ring", 0}, {"-buf_ring -ring_fd", 0},
        {"+buf_ring", 0},  {"-ring_fd,-nonsense", 9},
    };
    uint32_t off = 77;
    const char *bad = NULL;
    CHECK_EQ(gy_features_parse("", &off, &bad), 0);
    CHECK_EQ(off, 0);
    CHECK_EQ(gy_features_parse("-buf_ring", &off, &bad), 0);
    CHECK_EQ(off, GY_FEAT_BUF_RING);
    CHECK_EQ(gy_features_parse("-poll_multishot,-sync_cancel,-sync_cancel", &off, &bad), 0);
    CHECK_EQ(off, GY_FEAT_POLL_MULTISHOT | GY_FEAT_SYNC_CANCEL);
    CHECK(bad == NULL);
    for (unsigned i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        off = 77;
        CHECK_EQ(gy_features_parse(refused[i].text, &off, &bad), -EINVAL);
        CHECK_EQ(off, 77);
        CHECK_EQ(bad - refused[i].text, refused[i].bad_at);
    }
}

/* Every kernel that has DEFER_TASKRUN (6.1) has these. */
static void
test_this_kernel(void)
{
    uint32_t features = 0;
    uint32_t again = 0;
    enum gy_probe_stage stage;
    uint32_t expected = GY_FEAT_POLL_MULTISHOT | GY_FEAT_ACCEPT | GY_FEAT_ACCEPT_MULTISHOT |
                        GY_FEAT_BUF_RING | GY_FEAT_RECV_MULTISHOT | GY_FEAT_SYNC_CANCEL |
                        GY_FEAT_RING_FD;
    gy_test_need_uring();
    CHECK_EQ(gy_probe_uring(&features, &stage), 0);
    CHECK_EQ(stage, GY_PROBE_OK);
    CHECK_EQ(features & expected, expected);
    CHECK_EQ(features & ~(uint32_t)GY_FEAT_ALL, 0);
    CHECK_EQ(gy_probe_uring(&again, &stage), 0);
    CHECK_EQ(again, features);
}

static void *
probe_in_thread(void *out)
{
    enum gy_probe_stage stage;
    CHECK_EQ(gy_probe_uring(out, &stage), 0);
    return NULL;
}

static void
test_first_asked_by_many_threads(void)
{
    enum { THREADS = 8 };
    pthread_t threads[THREADS];
    uint32_t features[THREADS] = {0};
    skip_if_refused();
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, probe_in_thread, &features[i]), 0);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    for (int i = 1; i < THREADS; i++)
        CHECK_EQ(features[i], features[0]);
    CHECK(features[0] != 0);
}

/* ---- refusals ---- */

static void
forbid(int system_call, int err)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)system_call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)err),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof filter[0], .filter = filter};
    CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        SKIP("seccomp filters are not available");
}

static void
check_refusal(int err, enum gy_probe_stage stage, const char *word)
{
    struct gy_ring_options options = {0};
    struct gy_ring *ring = NULL;
    uint32_t features = 0;
    enum gy_probe_stage found;
    char text[512];
    CHECK_EQ(gy_probe_uring(&features, &found), -err);
    CHECK_EQ(found, stage);
    CHECK_EQ(gy_probe_uring(&features, &found), -err); /* from memory */
    CHECK_EQ(found, stage);
    CHECK_EQ(gy_ring_uring_create(&options, &ring), -err);
    CHECK(ring == NULL);
    gy_probe_explain(-err, found, text, sizeof text);
    fprintf(stderr, "     %s\n", text);
    CHECK(strstr(text, word) != NULL);
}

static void
test_setup_forbidden(void)
{
    forbid(SYS_io_uring_setup, EPERM);
    check_refusal(EPERM, GY_PROBE_SETUP, "seccomp");
}

static void
test_setup_unknown(void)
{
    forbid(SYS_io_uring_setup, ENOSYS);
    check_refusal(ENOSYS, GY_PROBE_SETUP, "Linux 6.1");
}

static void
test_register_forbidden(void)
{
    skip_if_refused();
    forbid(SYS_io_uring_register, EPERM);
    check_refusal(EPERM, GY_PROBE_REGISTER, "seccomp");
}

static void
test_enter_forbidden(void)
{
    skip_if_refused();
    forbid(SYS_io_uring_enter, EPERM);
    check_refusal(EPERM, GY_PROBE_ENTER, "seccomp");
}

static void
test_enter_unknown(void)
{
    skip_if_refused();
    forbid(SYS_io_uring_enter, ENOSYS);
    check_refusal(ENOSYS, GY_PROBE_ENTER, "io_uring_enter");
}

/* A kernel older than 6.1: plain rings work, the flags do not. */
static void
test_flags_refused(void)
{
#if GY_FAULTS
    skip_if_refused();
    gy_fault_arm(GY_FAULT_RING, 1, -EINVAL);
    check_refusal(EINVAL, GY_PROBE_FLAGS, "6.1");
#else
    SKIP("built without fault injection");
#endif
}

/* A want of memory or descriptors is told, and asked again later. */
static void
test_passing_failures_are_not_kept(void)
{
#if GY_FAULTS
    static const int errors[] = {-ENOMEM, -EMFILE, -ENFILE};
    uint32_t features = 0;
    enum gy_probe_stage stage;
    skip_if_refused();
    for (unsigned i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        gy_fault_arm(GY_FAULT_RING, 1, errors[i]);
        CHECK_EQ(gy_probe_uring(&features, &stage), errors[i]);
        CHECK_EQ(stage, GY_PROBE_SETUP);
    }
    gy_fault_arm(GY_FAULT_SYSCALL, 1, -EMFILE);
    CHECK_EQ(gy_probe_uring(&features, &stage), -EMFILE);
    CHECK_EQ(gy_probe_uring(&features, &stage), 0);
    CHECK(features != 0);
#else
    SKIP("built without fault injection");
#endif
}

static void
test_every_explanation(void)
{
    static const int errors[] = {0,      EPERM,  EACCES, ENOSYS, EINVAL,
                                 ENOMEM, EMFILE, ENFILE, EIO,    ENOTSUP};
    for (unsigned i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        for (int stage = GY_PROBE_OK; stage <= GY_PROBE_ENTER; stage++) {
            char text[512];
            memset(text, 'x', sizeof text);
            gy_probe_explain(-errors[i], (enum gy_probe_stage)stage, text, sizeof text);
            CHECK(memchr(text, '\0', sizeof text) != NULL);
            CHECK_LT(10, strlen(text));
            CHECK_LT(strlen(text), sizeof text - 1); /* not cut */
            gy_probe_explain(-errors[i], (enum gy_probe_stage)stage, text, 5);
            CHECK_EQ(strlen(text), 4);
        }
    }
}

static const struct gy_test tests[] = {
    GY_TEST(test_names),
    GY_TEST(test_parse),
    GY_TEST(test_this_kernel),
    GY_TEST(test_first_asked_by_many_threads),
    GY_TEST(test_setup_forbidden),
    GY_TEST(test_setup_unknown),
    GY_TEST(test_register_forbidden),
    GY_TEST(test_enter_forbidden),
    GY_TEST(test_enter_unknown),
    GY_TEST(test_flags_refused),
    GY_TEST(test_passing_failures_are_not_kept),
    GY_TEST(test_every_explanation),
};
GY_TEST_MAIN(tests)
