/* test_sys_pipe.c: calls that do not wait, and modes that are left as they were. */
#include "gy_test.h"
#include "sys_pipe.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static struct iovec
piece(const char *text)
{
    return (struct iovec){.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};
}

static bool
blocking(int fd)
{
    return (fcntl(fd, F_GETFL) & O_NONBLOCK) == 0;
}

/* Nobody reads: -EPIPE, and SIGPIPE, which would end the process, is not raised. */
static void
test_write_to_a_broken_pipe(void)
{
    int fds[2];
    int pair[2];
    char buf[16];
    sigset_t pending;
    struct iovec pieces[2] = {piece("ab"), piece("cd")};
    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    for (unsigned ignored = 0; ignored < 2; ignored++) {
        CHECK_EQ(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
        CHECK_EQ(gy_sys_write(fds[1], pieces, 2), 4);
        CHECK_EQ(gy_sys_write_masked(fds[1], pieces, 1, 0), 2);
        CHECK_EQ(gy_sys_read(fds[0], buf, sizeof buf), 6);
        CHECK_EQ(memcmp(buf, "abcdab", 6), 0);
        gy_sys_close(fds[0]);
        CHECK_EQ(gy_sys_write(fds[1], pieces, 2), -EPIPE);
        CHECK_EQ(gy_sys_write_masked(fds[1], pieces, 2, 0), -EPIPE);
        CHECK_EQ(gy_sys_send(fds[1], pieces, 2), -EPIPE);
        gy_sys_close(fds[1]);
        CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
        gy_sys_close(pair[0]);
        CHECK_EQ(gy_sys_write(pair[1], pieces, 2), -EPIPE);
        CHECK_EQ(gy_sys_write_masked(pair[1], pieces, 2, 0), -EPIPE);
        gy_sys_close(pair[1]);
        CHECK_EQ(sigpending(&pending), 0);
        CHECK_EQ(sigismember(&pending, SIGPIPE), 0);
        CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    }
}

/* The mode of both ends is the blocking one throughout. */
static void
test_no_waiting(void)
{
    enum { BYTES = 1 << 20 };
    static char big[BYTES];
    int fds[2];
    char buf[16];
    struct iovec pieces[2] = {piece("ab"), piece("cd")};
    struct iovec much = {.iov_base = big, .iov_len = BYTES};
    ssize_t taken;
    CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
    CHECK(gy_sys_is_pipe(fds[0]) && gy_sys_is_pipe(fds[1]));
    CHECK_EQ(gy_sys_read_ready(fds[0], buf, sizeof buf), -EAGAIN);
    CHECK_EQ(gy_sys_write(fds[1], pieces, 2), 4);
    CHECK_EQ(gy_sys_read_ready(fds[0], buf, sizeof buf), 4);
    if (!gy_sys_pipe_nowait())
        SKIP("no RWF_NOWAIT on pipes");
    CHECK_EQ(gy_sys_read_nowait(fds[0], buf, sizeof buf), -EAGAIN);
    CHECK_EQ(gy_sys_write_nowait(fds[1], pieces, 2), 4);
    CHECK_EQ(gy_sys_read_nowait(fds[0], buf, sizeof buf), 4);
    taken = gy_sys_write_nowait(fds[1], &much, 1);
    CHECK(taken > 0 && taken < BYTES);
    CHECK_EQ(gy_sys_write_nowait(fds[1], pieces, 2), -EAGAIN);
    CHECK_EQ(gy_sys_write_masked(fds[1], pieces, 2, RWF_NOWAIT), -EAGAIN);
    CHECK(blocking(fds[0]) && blocking(fds[1]));
    gy_sys_close(fds[1]);
    while (taken > 0)
        taken -= gy_sys_read_nowait(fds[0], big, BYTES);
    CHECK_EQ(gy_sys_read_nowait(fds[0], buf, sizeof buf), 0);
    CHECK_EQ(gy_sys_read_ready(fds[0], buf, sizeof buf), 0);
    gy_sys_close(fds[0]);
}

static void
test_terminals(void)
{
    int master;
    int slave;
    int own;
    int fds[2];
    master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK_LE(0, master);
    CHECK_EQ(grantpt(master), 0);
    CHECK_EQ(unlockpt(master), 0);
    slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    own = gy_sys_reopen_terminal(slave);
    CHECK_LE(0, own);
    CHECK(!blocking(own));
    CHECK(blocking(slave));
    CHECK((fcntl(own, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK_EQ(gy_sys_reopen_terminal(master), -ENOTTY);
    gy_sys_close(own);
    gy_sys_close(slave);
    gy_sys_close(master);
    CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
    CHECK_EQ(gy_sys_reopen_terminal(fds[0]), -ENOTTY);
    gy_sys_close(fds[0]);
    gy_sys_close(fds[1]);
    CHECK_EQ(gy_sys_reopen_terminal(fds[0]), -ENOTTY);
}

static void
test_mode_comes_back(void)
{
    struct gy_pipe_mode mode = {0};
    struct gy_pipe_mode other = {0};
    int fds[2];
    CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
    gy_pipe_mode_end(&mode, true); /* has not begun */
    for (unsigned times = 0; times < 2; times++) {
        CHECK_EQ(gy_pipe_mode_begin(&mode, fds[0]), 0);
        CHECK_EQ(gy_pipe_mode_begin(&other, fds[1]), 0); /* same inode, another description */
        CHECK(!blocking(fds[0]) && !blocking(fds[1]));
        gy_pipe_mode_end(&mode, true);
        gy_pipe_mode_end(&mode, true);
        CHECK(blocking(fds[0]) && !blocking(fds[1]));
        gy_pipe_mode_end(&other, true);
        CHECK(blocking(fds[1]));
    }
    CHECK_EQ(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0); /* it was so before */
    CHECK_EQ(gy_pipe_mode_begin(&mode, fds[0]), 0);
    gy_pipe_mode_end(&mode, true);
    CHECK(!blocking(fds[0]));
    gy_sys_close(fds[0]);
    gy_sys_close(fds[1]);
    CHECK_EQ(gy_pipe_mode_begin(&mode, fds[0]), -EBADF);
    gy_pipe_mode_end(&mode, true);
}

/* Whoever ends last makes it blocking again. */
static void
check_shared(void)
{
    struct gy_pipe_mode modes[3] = {{.fd = 0}, {.fd = 0}, {.fd = 0}};
    for (unsigned first = 0; first < 3; first++) {
        unsigned second = (first + 1) % 3;
        unsigned third = (first + 2) % 3;
        int fds[2];
        int copies[3];
        CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
        for (unsigned i = 0; i < 3; i++) {
            copies[i] = dup(fds[0]);
            CHECK_EQ(gy_pipe_mode_begin(&modes[i], copies[i]), 0);
        }
        gy_pipe_mode_end(&modes[first], true);
        gy_sys_close(copies[first]);
        CHECK(!blocking(fds[0]));
        gy_sys_close(copies[second]); /* by somebody else, who did not say so */
        gy_pipe_mode_end(&modes[second], false);
        CHECK(!blocking(fds[0]));
        gy_pipe_mode_end(&modes[third], true);
        CHECK(blocking(fds[0]));
        gy_sys_close(copies[third]);
        gy_sys_close(fds[0]);
        gy_sys_close(fds[1]);
    }
}

static void
test_shared_descriptions(void)
{
    check_shared();
}

/* Where the kernel does not know F_DUPFD_QUERY. */
static void
test_shared_without_the_query(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fcntl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 1027, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        CHECK_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0), 0);
        check_shared();
        _exit(0);
    }
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
}

/* The number may be another file's by now. */
static void
test_number_of_another_file(void)
{
    struct gy_pipe_mode mode = {0};
    int fds[2];
    int others[2];
    CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
    CHECK_EQ(gy_pipe_mode_begin(&mode, fds[0]), 0);
    CHECK_EQ(pipe2(others, O_CLOEXEC | O_NONBLOCK), 0);
    CHECK_EQ(dup2(others[0], fds[0]), fds[0]);
    gy_pipe_mode_end(&mode, true);
    CHECK(!blocking(fds[0]));
    gy_sys_close(fds[0]);
    gy_sys_close(fds[1]);
    gy_sys_close(others[0]);
    gy_sys_close(others[1]);
}

/* The description is the parent's too, which goes on reading. */
static void
test_child_changes_nothing(void)
{
    struct gy_pipe_mode mode = {0};
    int fds[2];
    int status;
    pid_t pid;
    CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
    CHECK_EQ(gy_pipe_mode_begin(&mode, fds[0]), 0);
    pid = fork();
    if (pid == 0) {
        struct gy_pipe_mode mine = {0};
        gy_pipe_mode_end(&mode, true);
        CHECK(!blocking(fds[0]));
        CHECK_EQ(gy_pipe_mode_begin(&mine, fds[0]), 0);
        gy_pipe_mode_end(&mine, true);
        CHECK(!blocking(fds[0]));
        _exit(0);
    }
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    CHECK(!blocking(fds[0]));
    gy_pipe_mode_end(&mode, true);
    CHECK(blocking(fds[0]));
    gy_sys_close(fds[0]);
    gy_sys_close(fds[1]);
}

static const struct gy_test tests[] = {
    GY_TEST(test_write_to_a_broken_pipe),
    GY_TEST(test_no_waiting),
    GY_TEST(test_terminals),
    GY_TEST(test_mode_comes_back),
    GY_TEST(test_shared_descriptions),
    GY_TEST(test_shared_without_the_query),
    GY_TEST(test_number_of_another_file),
    GY_TEST(test_child_changes_nothing),
};
GY_TEST_MAIN(tests)
