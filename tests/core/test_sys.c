/* test_sys.c: the plain system calls, allocations and trace of the core. */
#include "gy_test.h"
#include "sys_pipe.h"
#include "trace.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>

static struct iovec
piece(const char *text)
{
    return (struct iovec){.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};
}

static void
test_send_and_receive(void)
{
    int pair[2];
    char buf[64];
    struct iovec pieces[3] = {piece("one"), piece("two"), piece("three")};
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0); /* blocking */
    CHECK_EQ(gy_sys_recv(pair[0], buf, sizeof buf), -EAGAIN);
    CHECK_EQ(gy_sys_send(pair[1], pieces, 1), 3);
    CHECK_EQ(gy_sys_send(pair[1], pieces + 1, 2), 8);
    CHECK_EQ(gy_sys_recv(pair[0], buf, sizeof buf), 11);
    CHECK_EQ(memcmp(buf, "onetwothree", 11), 0);
    CHECK_EQ(gy_sys_shutdown(pair[1], SHUT_WR), 0);
    CHECK_EQ(gy_sys_recv(pair[0], buf, sizeof buf), 0);
    gy_sys_close(pair[0]);
    CHECK_EQ(gy_sys_send(pair[1], pieces, 1), -EPIPE); /* and no SIGPIPE */
    gy_sys_close(pair[1]);
    CHECK_EQ(gy_sys_recv(pair[1], buf, sizeof buf), -EBADF);
}

static void
test_send_to_a_full_socket(void)
{
    int pair[2];
    static char block[65536];
    struct iovec iov = {.iov_base = block, .iov_len = sizeof block};
    ssize_t res = 1;
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    for (int i = 0; i < 1000 && res > 0; i++)
        res = gy_sys_send(pair[0], &iov, 1);
    CHECK_EQ(res, -EAGAIN);
    gy_sys_close(pair[0]);
    gy_sys_close(pair[1]);
}

static void
test_pipes(void)
{
    int fds[2];
    char buf[16];
    struct iovec pieces[2] = {piece("ab"), piece("cd")};
    CHECK_EQ(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    CHECK_EQ(gy_sys_recv(fds[0], buf, sizeof buf), -EAGAIN);
    CHECK_EQ(gy_sys_send(fds[1], pieces, 2), 4);
    CHECK_EQ(gy_sys_recv(fds[0], buf, sizeof buf), 4);
    CHECK_EQ(memcmp(buf, "abcd", 4), 0);
    gy_sys_close(fds[1]);
    CHECK_EQ(gy_sys_recv(fds[0], buf, sizeof buf), 0);
    gy_sys_close(fds[0]);
}

static void
test_connect_and_accept(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int refused = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int server;
    int res;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK_EQ(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    CHECK_EQ(listen(listener, 4), 0);
    CHECK_EQ(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    CHECK_EQ(gy_sys_accept(listener), -EAGAIN);
    res = gy_sys_connect(client, (struct sockaddr *)&address, len);
    CHECK(res == 0 || res == -EINPROGRESS);
    do
        server = gy_sys_accept(listener);
    while (server == -EAGAIN);
    CHECK_LE(0, server);
    CHECK(fcntl(server, F_GETFL) & O_NONBLOCK);
    CHECK(fcntl(server, F_GETFD) & FD_CLOEXEC);
    CHECK_EQ(gy_sys_socket_error(client), 0);
    CHECK_EQ(gy_sys_socket_error(1000), -EBADF);
    gy_sys_close(server);
    gy_sys_close(client);
    gy_sys_close(listener);
    CHECK_EQ(gy_sys_connect(refused, (struct sockaddr *)&address, len), -ECONNREFUSED);
    gy_sys_close(refused);
}

static void
test_files(void)
{
    char buf[4] = {0};
    CHECK_EQ(gy_sys_read_file("/proc/self/exe", buf, sizeof buf), 4);
    CHECK_EQ(memcmp(buf, "\177ELF", 4), 0);
    CHECK_EQ(gy_sys_read_file("/nowhere", buf, sizeof buf), -ENOENT);
}

static void *
ask_thread_id(void *out)
{
    *(uint64_t *)out = gy_sys_thread_id();
    return NULL;
}

/* The identifiers of threads that come one after the other differ, as pthread_t need not. */
static void
test_thread_ids(void)
{
    uint64_t ids[10];
    CHECK_LT(0, gy_sys_thread_id());
    CHECK_EQ(gy_sys_thread_id(), gy_sys_thread_id());
    for (int i = 0; i < 10; i++) {
        pthread_t thread;
        CHECK_EQ(pthread_create(&thread, NULL, ask_thread_id, &ids[i]), 0);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        CHECK(ids[i] != gy_sys_thread_id());
        for (int j = 0; j < i; j++)
            CHECK(ids[j] != ids[i]);
    }
}

static void
test_memory_over_fork(void)
{
    long page = sysconf(_SC_PAGESIZE);
    char *kept = gy_map((size_t)page);
    char *wiped = gy_map_wiped_on_fork((size_t)page);
    unsigned char resident;
    int status = 0;
    pid_t pid;
    CHECK(kept != NULL && wiped != NULL);
    CHECK_EQ(kept[5], 0);
    kept[5] = 1;
    wiped[5] = 1;
    pid = fork();
    if (pid == 0)
        _exit(wiped[5] == 0 && mincore(kept, (size_t)page, &resident) < 0 && errno == ENOMEM ? 0
                                                                                             : 1);
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    CHECK_EQ(wiped[5], 1);
    gy_unmap(kept, (size_t)page);
    gy_unmap(wiped, (size_t)page);
    CHECK(gy_map((size_t)1 << 62) == NULL);
}

/* Each process of a family makes marks that are its own. */
static void
test_forkmarks(void)
{
    struct gy_forkmark marks[3];
    struct gy_forkmark same;
    int status = 0;
    gy_forkmark_clear(&same);
    CHECK_EQ(gy_forkmark_init(&marks[0]), 0);
    for (int depth = 1; depth < 3; depth++) {
        pid_t pid = fork();
        if (pid != 0) {
            CHECK_EQ(waitpid(pid, &status, 0), pid);
            CHECK_EQ(status, 0);
            CHECK_EQ(gy_forkmark_init(&same), 0);
            CHECK(same.word == marks[0].word && same.value == marks[depth - 1].value);
            for (int i = 0; i < depth; i++)
                CHECK_EQ(gy_forkmark_differs(&marks[i]), i != depth - 1);
            if (depth > 1)
                exit(0);
            return;
        }
        CHECK(!gy_forkmark_differs(&same));
        for (int made = 0; made < 2; made++) {
            for (int i = 0; i < depth; i++)
                CHECK(gy_forkmark_differs(&marks[i]));
            CHECK_EQ(gy_forkmark_init(&marks[depth]), 0);
            CHECK(!gy_forkmark_differs(&marks[depth]));
        }
    }
    exit(0);
}

static void
test_faults(void)
{
#if GY_FAULTS
    char buf[4];
    struct epoll_event event;
    struct iovec iov = piece("x");
    gy_fault_arm(GY_FAULT_SYSCALL, 3, -EIO);
    CHECK_EQ(gy_sys_recv(1000, buf, 1), -EBADF);
    CHECK(!gy_fault_fired(GY_FAULT_SYSCALL));
    CHECK_EQ(gy_sys_recv(1000, buf, 1), -EBADF);
    CHECK_EQ(gy_sys_recv(1000, buf, 1), -EIO);
    CHECK(gy_fault_fired(GY_FAULT_SYSCALL));
    CHECK_EQ(gy_sys_recv(1000, buf, 1), -EBADF);
    gy_fault_arm(GY_FAULT_ALLOC, 1, -ENOMEM);
    CHECK(!gy_fault_fired(GY_FAULT_ALLOC));
    CHECK(gy_alloc(1) == NULL);
    gy_fault_arm(GY_FAULT_ALLOC, 1, -ENOMEM);
    gy_fault_arm(GY_FAULT_ALLOC, 0, 0); /* disarmed */
    gy_free(gy_alloc(1));
    CHECK(!gy_fault_fired(GY_FAULT_ALLOC));
#define CHECK_FAULT(call)                                                                          \
    do {                                                                                           \
        gy_fault_arm(GY_FAULT_SYSCALL, 1, -EIO);                                                   \
        CHECK_EQ(call, -EIO);                                                                      \
    } while (0)
    CHECK_FAULT(gy_sys_send(1000, &iov, 1));
    CHECK_FAULT(gy_sys_accept(1000));
    CHECK_FAULT(gy_sys_connect(1000, NULL, 0));
    CHECK_FAULT(gy_sys_shutdown(1000, SHUT_WR));
    CHECK_FAULT(gy_sys_eventfd());
    CHECK_FAULT(gy_sys_epoll_create());
    CHECK_FAULT(gy_sys_epoll_ctl(1000, EPOLL_CTL_ADD, 0, 0));
    CHECK_FAULT(gy_sys_epoll_poll(1000, &event, 1));
    CHECK_FAULT(gy_sys_read_file("/", buf, 1));
#else
    SKIP("built without fault injection");
#endif
}

static void
test_trace_shows_the_last_events(void)
{
#if GY_TRACE_ON
    char text[65536] = {0};
    size_t len = 0;
    ssize_t got;
    int fds[2];
    int shown = 0;
    CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
    CHECK_LE(65536, fcntl(fds[1], F_SETPIPE_SZ, 65536));
    for (int i = 0; i < 1000; i++)
        GY_TRACE(SUBMIT, (void *)(uintptr_t)0xabc, i, -i);
    GY_TRACE(LAND, NULL, INT64_MIN, INT64_MAX);
    gy_trace_dump(fds[1]);
    close(fds[1]);
    while ((got = read(fds[0], text + len, sizeof text - 1 - len)) > 0)
        len += (size_t)got;
    close(fds[0]);
    for (const char *line = text; (line = strchr(line, '\n')) != NULL; line++)
        shown++;
    CHECK_EQ(shown, 256);
    CHECK(strstr(text, "submit 0xabc 999 -999\n") != NULL);
    CHECK(strstr(text, "submit 0xabc 744 ") == NULL); /* overwritten */
    CHECK(strstr(text, "submit 0xabc 745 -745\n") != NULL);
    CHECK(strstr(text, "land 0x0 -9223372036854775808 9223372036854775807\n") != NULL);
#else
    SKIP("built without the trace");
#endif
}

static void
test_assertion_aborts_with_a_trace(void)
{
#if GY_ASSERTS
    char text[4096] = {0};
    int fds[2];
    int status = 0;
    pid_t pid;
    CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
    pid = fork();
    if (pid == 0) {
        signal(SIGABRT, SIG_DFL);
        dup2(fds[1], STDERR_FILENO);
        GY_TRACE(QUIESCE, NULL, 1, 2);
        GY_ASSERT(1 + 1 == 3);
        _exit(0);
    }
    close(fds[1]);
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    CHECK_LT(0, read(fds[0], text, sizeof text - 1));
    close(fds[0]);
    CHECK(strstr(text, "quiesce 0x0 1 2\n") != NULL);
    CHECK(strstr(text, "test_sys.c:") != NULL);
    CHECK(strstr(text, "1 + 1 == 3\n") != NULL);
#else
    SKIP("built without assertions");
#endif
}

static const struct gy_test tests[] = {
    GY_TEST(test_send_and_receive),
    GY_TEST(test_send_to_a_full_socket),
    GY_TEST(test_pipes),
    GY_TEST(test_connect_and_accept),
    GY_TEST(test_files),
    GY_TEST(test_thread_ids),
    GY_TEST(test_memory_over_fork),
    GY_TEST(test_forkmarks),
    GY_TEST(test_faults),
    GY_TEST(test_trace_shows_the_last_events),
    GY_TEST(test_assertion_aborts_with_a_trace),
};
GY_TEST_MAIN(tests)
