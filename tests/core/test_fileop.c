/* test_fileop.c: operations on files: each kind, cancelled at each stage, left over by a run, more
 * than there are workers, and what cannot be cancelled. */
#include "fake_ring.h"
#include "fileop.h"
#include "gy_test.h"
#include "prep.h"
#include "probe.h"
#include "sys_file.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>

struct call {
    struct gy_fileop op;
    unsigned dones;
    int32_t res;
};

static char directory[64];

static void
on_done(struct gy_fileop *op, int32_t res)
{
    struct call *call = container_of(op, struct call, op);
    CHECK(!op->loop->quiet);
    CHECK(!gy_fileop_busy(op));
    call->dones++;
    call->res = res;
}

static const struct gy_fileop_host host = {.done = on_done};

static void
call_init(struct call *call, struct gy_loop *loop)
{
    memset(call, 0, sizeof *call);
    gy_fileop_init(&call->op, loop, &host);
}

/* To its end, through the ring. */
static int32_t
finish(struct call *call)
{
    unsigned before = call->dones;
    gy_fileop_submit(&call->op);
    TURN_UNTIL(call->op.loop, call->dones > before);
    CHECK_EQ(call->dones, before + 1);
    return call->res;
}

static void
make_directory(void)
{
    snprintf(directory, sizeof directory, "/tmp/gyre-fileop-XXXXXX");
    CHECK(mkdtemp(directory) != NULL);
    CHECK_EQ(chdir(directory), 0);
}

static void
remove_directory(void)
{
    CHECK_EQ(chdir("/"), 0);
    CHECK_EQ(rmdir(directory), 0);
}

static void
begin(struct gy_loop *loop, struct call *call)
{
    make_directory();
    gy_test_loop_begin(loop);
    call_init(call, loop);
}

static void
end(struct gy_loop *loop)
{
    gy_test_loop_end(loop);
    remove_directory();
}

/* ---- each kind ---- */

static void
descriptors(void)
{
    struct gy_loop loop;
    struct call call;
    char buf[16] = "0123456789";
    char in[16] = "";
    struct iovec iov[2] = {{buf, 4}, {buf + 4, 6}};
    struct iovec into[2] = {{in, 3}, {in + 3, 13}};
    struct stat status;
    int fd;

    begin(&loop, &call);
    gy_prep_openat(gy_fileop_sqe(&call.op), AT_FDCWD, "file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK_EQ(gy_fileop_try(&call.op), -EAGAIN);
    fd = finish(&call);
    CHECK_LE(0, fd);
    gy_prep_write(gy_fileop_sqe(&call.op), fd, buf, 10, 0);
    CHECK_EQ(finish(&call), 10);
    gy_prep_writev(gy_fileop_sqe(&call.op), fd, iov, 2, UINT64_MAX);
    CHECK_EQ(finish(&call), 10);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 10);
    gy_prep_read(gy_fileop_sqe(&call.op), fd, in, sizeof in, 5);
    CHECK_EQ(finish(&call), 5);
    CHECK(memcmp(in, "56789", 5) == 0);
    gy_prep_readv(gy_fileop_sqe(&call.op), fd, into, 2, 0);
    CHECK_EQ(gy_fileop_try(&call.op), 10);
    CHECK_EQ(finish(&call), 10);
    CHECK(memcmp(in, "0123456789", 10) == 0);
    gy_prep_fsync(gy_fileop_sqe(&call.op), fd, false);
    CHECK_EQ(finish(&call), 0);
    gy_prep_fsync(gy_fileop_sqe(&call.op), fd, true);
    CHECK_EQ(finish(&call), 0);
    gy_prep_fallocate(gy_fileop_sqe(&call.op), fd, 0, 0, 100);
    CHECK_EQ(finish(&call), 0);
    gy_prep_fadvise(gy_fileop_sqe(&call.op), fd, 0, 0, POSIX_FADV_WILLNEED);
    CHECK_EQ(finish(&call), 0);
    CHECK_EQ(fstat(fd, &status), 0);
    CHECK_EQ(status.st_size, 100);
    if (loop.features & GY_FEAT_FTRUNCATE) {
        gy_prep_ftruncate(gy_fileop_sqe(&call.op), fd, 7);
        CHECK_EQ(finish(&call), 0);
        CHECK_EQ(fstat(fd, &status), 0);
        CHECK_EQ(status.st_size, 7);
    }
    gy_prep_close(gy_fileop_sqe(&call.op), fd);
    CHECK_EQ(finish(&call), 0);
    CHECK_EQ(finish(&call), -EBADF);
    CHECK_EQ(unlink("file"), 0);
    end(&loop);
}

static void
paths(void)
{
    struct gy_loop loop;
    struct call call;
    struct statx status = {0}; /* valgrind does not see what the ring writes */
    struct statx again = {0};
    struct stat plain;

    begin(&loop, &call);
    gy_prep_mkdirat(gy_fileop_sqe(&call.op), AT_FDCWD, "one", 0700);
    CHECK_EQ(finish(&call), 0);
    gy_prep_rename(gy_fileop_sqe(&call.op), "one", "two", 0);
    CHECK_EQ(finish(&call), 0);
    CHECK_EQ(finish(&call), -ENOENT);
    gy_prep_symlink(gy_fileop_sqe(&call.op), "two", "soft");
    CHECK_EQ(finish(&call), 0);
    gy_prep_statx(gy_fileop_sqe(&call.op), AT_FDCWD, "soft", AT_SYMLINK_NOFOLLOW, &status);
    CHECK_EQ(finish(&call), 0);
    CHECK(S_ISLNK(status.stx_mode));
    gy_prep_statx(gy_fileop_sqe(&call.op), AT_FDCWD, "soft", 0, &status);
    CHECK_EQ(finish(&call), 0);
    CHECK_EQ(stat("two", &plain), 0);
    CHECK_EQ(status.stx_mode, plain.st_mode);
    CHECK_EQ(status.stx_ino, plain.st_ino);
    gy_prep_statx(gy_fileop_sqe(&call.op), AT_FDCWD, "soft", 0, &again);
    if (gy_fileop_try(&call.op) == 0)
        CHECK_EQ(again.stx_ino, plain.st_ino);
    gy_prep_link(gy_fileop_sqe(&call.op), "soft", "hard");
    CHECK_EQ(finish(&call), 0);
    for (unsigned i = 0; i < 2; i++) {
        gy_prep_unlinkat(gy_fileop_sqe(&call.op), AT_FDCWD, i ? "soft" : "hard", 0);
        CHECK_EQ(finish(&call), 0);
    }
    gy_prep_unlinkat(gy_fileop_sqe(&call.op), AT_FDCWD, "two", AT_REMOVEDIR);
    CHECK_EQ(finish(&call), 0);
    end(&loop);
}

static void
splices(void)
{
    struct gy_loop loop;
    struct call call;
    struct io_uring_sqe *sqe;
    char in[8];
    int pair[2];
    int fd;

    begin(&loop, &call);
    fd = open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK_LE(0, fd);
    CHECK_EQ(write(fd, "spliced", 7), 7);
    CHECK_EQ(pipe2(pair, O_CLOEXEC), 0);
    sqe = gy_fileop_sqe(&call.op);
    gy_prep_splice_out(sqe, pair[1], UINT64_MAX, 100, 0);
    sqe->splice_fd_in = fd;
    sqe->splice_off_in = 1;
    CHECK_EQ(finish(&call), 6);
    CHECK_EQ(read(pair[0], in, sizeof in), 6);
    CHECK(memcmp(in, "pliced", 6) == 0);
    CHECK_EQ(unlink("file"), 0);
    close(fd);
    close(pair[0]);
    close(pair[1]);
    end(&loop);
}

/* ---- registered memory: by its slot where the ring has such, else like any other ---- */

static char page[4096] __attribute__((aligned(4096)));

static void
there_and_back(struct call *call, struct gy_fixed *fixed, int fd)
{
    memset(page, 'x', sizeof page);
    gy_prep_write(gy_fileop_sqe(&call->op), fd, page + 1000, 2000, 100);
    call->op.fixed = fixed;
    CHECK_EQ(finish(call), 2000);
    memset(page, 0, sizeof page);
    gy_prep_read(gy_fileop_sqe(&call->op), fd, page + 10, 2000, 200);
    call->op.fixed = fixed;
    CHECK_EQ(finish(call), 1900);
    CHECK(page[9] == 0 && page[10] == 'x' && page[1909] == 'x' && page[1910] == 0);
}

struct fixed_run {
    struct call *call;
    struct gy_fixed *fixed;
    int fd;
};

static void *
run_in_thread(void *argument)
{
    struct fixed_run *run = argument;
    struct gy_loop *loop = run->call->op.loop;
    CHECK_EQ(gy_loop_begin(loop), 0);
    there_and_back(run->call, run->fixed, run->fd);
    CHECK_EQ(gy_loop_quiesce(loop, GY_NS_PER_SECOND), 0);
    return NULL;
}

static void
registered(void)
{
    struct gy_loop loop;
    struct call call;
    struct gy_fixed fixed;
    pthread_t thread;
    bool has;
    int fd;

    begin(&loop, &call);
    has = (loop.features & GY_FEAT_FIXED_BUFFERS) != 0;
    fd = open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK_LE(0, fd);
    gy_fixed_init(&fixed, page, sizeof page);
    there_and_back(&call, &fixed, fd);
    CHECK_EQ(loop.counters.fixed_ops, 0);
    CHECK_EQ(gy_fixed_add(&loop.fixed, loop.ring, &fixed), has ? 0 : -EOPNOTSUPP);
    there_and_back(&call, &fixed, fd);
    CHECK_EQ(loop.counters.fixed_ops, has ? 2 : 0);
    /* A run in another thread has another ring. */
    CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 0);
    struct fixed_run run = {&call, &fixed, fd};
    CHECK_EQ(pthread_create(&thread, NULL, run_in_thread, &run), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(loop.counters.fixed_ops, has ? 4 : 0);
    /* Given back in a thread that cannot say so: its slot is used again all the same. */
    gy_fixed_remove(loop.ring, &fixed);
    gy_fixed_remove(loop.ring, &fixed);
    CHECK_EQ(gy_loop_begin(&loop), 0);
    for (unsigned i = 0; i < 2 * GY_FIXED_SLOTS; i++) {
        CHECK_EQ(gy_fixed_add(&loop.fixed, loop.ring, &fixed), has ? 0 : -EOPNOTSUPP);
        gy_fixed_remove(loop.ring, &fixed);
    }
    there_and_back(&call, &fixed, fd);
    CHECK_EQ(loop.counters.fixed_ops, has ? 4 : 0);
    CHECK_EQ(unlink("file"), 0);
    close(fd);
    /* The loop forgets what it still has. */
    CHECK_EQ(gy_fixed_add(&loop.fixed, loop.ring, &fixed), has ? 0 : -EOPNOTSUPP);
    end(&loop);
    CHECK_EQ(fixed.slot, -1);
    gy_fixed_remove(NULL, &fixed);
}

static void
too_many_registered(void)
{
    struct gy_loop loop;
    struct call call;
    struct gy_fixed fixed[GY_FIXED_SLOTS + 1];
    begin(&loop, &call);
    for (unsigned i = 0; i <= GY_FIXED_SLOTS; i++)
        gy_fixed_init(&fixed[i], page, sizeof page);
    if (loop.features & GY_FEAT_FIXED_BUFFERS) {
        for (unsigned i = 0; i < GY_FIXED_SLOTS; i++)
            CHECK_EQ(gy_fixed_add(&loop.fixed, loop.ring, &fixed[i]), 0);
        CHECK_EQ(gy_fixed_add(&loop.fixed, loop.ring, &fixed[GY_FIXED_SLOTS]), -ENOSPC);
        gy_fixed_remove(loop.ring, &fixed[7]);
        CHECK_EQ(gy_fixed_add(&loop.fixed, loop.ring, &fixed[GY_FIXED_SLOTS]), 0);
        CHECK_EQ(fixed[GY_FIXED_SLOTS].slot, 7);
    }
    end(&loop);
}

/* Only what is certain not to wait is tried: no FIFO, no device, nothing new. */
static void
attempts(void)
{
    struct gy_loop loop;
    struct call call;
    int fd;

    begin(&loop, &call);
    CHECK_EQ(mkfifo("fifo", 0600), 0);
    gy_prep_openat(gy_fileop_sqe(&call.op), AT_FDCWD, "fifo", O_RDONLY, 0);
    CHECK_EQ(gy_fileop_try(&call.op), -EAGAIN);
    gy_prep_openat(gy_fileop_sqe(&call.op), AT_FDCWD, "/dev/null", O_RDONLY, 0);
    CHECK_EQ(gy_fileop_try(&call.op), -EAGAIN);
    gy_prep_openat(gy_fileop_sqe(&call.op), AT_FDCWD, "new", O_RDWR | O_CREAT, 0600);
    CHECK_EQ(gy_fileop_try(&call.op), -EAGAIN);
    CHECK_EQ(access("new", F_OK), -1);
    fd = open("new", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK_LE(0, fd);
    CHECK_EQ(unlink("new"), 0);
    gy_prep_close(gy_fileop_sqe(&call.op), fd);
    CHECK_EQ(gy_fileop_try(&call.op), -EAGAIN); /* it frees the file */
    CHECK_EQ(finish(&call), 0);
    gy_prep_fsync(gy_fileop_sqe(&call.op), 0, false);
    CHECK_EQ(gy_fileop_try(&call.op), -EAGAIN);
    CHECK_EQ(unlink("fifo"), 0);
    end(&loop);
}

/* ---- more than there are workers ---- */

static void
many(void)
{
    enum { CALLS = 300, BYTES = 512 };
    static struct call calls[CALLS];
    static char buffers[CALLS][BYTES];
    struct gy_loop loop;
    struct call call;
    unsigned done = 0;
    int fd;

    begin(&loop, &call);
    fd = open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK_LE(0, fd);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < CALLS; i++) {
            call_init(&calls[i], &loop);
            memset(buffers[i], round ? 0 : (int)i, BYTES);
            if (round == 0)
                gy_prep_write(gy_fileop_sqe(&calls[i].op), fd, buffers[i], BYTES, i * BYTES);
            else
                gy_prep_read(gy_fileop_sqe(&calls[i].op), fd, buffers[i], BYTES, i * BYTES);
            gy_fileop_submit(&calls[i].op);
        }
        for (done = 0; done < CALLS;) {
            (void)gy_test_turn(&loop, GY_NS_PER_SECOND);
            done = 0;
            for (unsigned i = 0; i < CALLS; i++)
                done += calls[i].dones;
        }
        for (unsigned i = 0; i < CALLS; i++) {
            CHECK_EQ(calls[i].res, BYTES);
            CHECK_EQ((unsigned char)buffers[i][BYTES - 1], i & 255);
        }
    }
    close(fd);
    CHECK_EQ(unlink("file"), 0);
    end(&loop);
}

/* ---- cancelling ---- */

static void
cancelled_read_of_a_pipe(void)
{
    struct gy_loop loop;
    struct call call;
    char in[8];
    int pair[2];

    begin(&loop, &call);
    CHECK_EQ(pipe2(pair, O_CLOEXEC), 0);
    for (unsigned stage = 0; stage < 4; stage++) {
        bool at_once;
        unsigned before = call.dones;
        gy_prep_read(gy_fileop_sqe(&call.op), pair[0], in, sizeof in, UINT64_MAX);
        gy_fileop_submit(&call.op);
        if (stage > 0)
            (void)gy_test_turn(&loop, 0);
        at_once = gy_fileop_cancel(&call.op);
        CHECK_EQ(at_once, stage == 0);
        if (stage == 2)
            CHECK(!gy_fileop_cancel(&call.op)); /* twice is once */
        if (!at_once) {
            TURN_UNTIL(&loop, call.dones > before);
            CHECK_EQ(call.res, -ECANCELED);
        }
        CHECK_EQ(call.dones, before + !at_once);
        CHECK_EQ(write(pair[1], "kept", 4), 4);
        CHECK_EQ(read(pair[0], in, sizeof in), 4);
    }
    close(pair[0]);
    close(pair[1]);
    end(&loop);
}

/* Whenever the cancel comes, no descriptor is left: the end of each test counts them. */
static void
cancelled_open(void)
{
    struct gy_loop loop;
    struct call call;

    begin(&loop, &call);
    for (unsigned turns = 0; turns < 20; turns++) {
        unsigned before = call.dones;
        bool at_once;
        gy_prep_openat(gy_fileop_sqe(&call.op), AT_FDCWD, "file", O_RDWR | O_CREAT | O_CLOEXEC,
                       0600);
        gy_fileop_submit(&call.op);
        for (unsigned i = 0; i < turns && call.dones == before; i++)
            (void)gy_test_turn(&loop, 0);
        if (call.dones == before) {
            at_once = gy_fileop_cancel(&call.op);
            if (!at_once) {
                TURN_UNTIL(&loop, call.dones > before);
                CHECK_EQ(call.res, -ECANCELED);
            }
        } else {
            CHECK_LE(0, call.res);
            close(call.res);
        }
    }
    (void)unlink("file");
    end(&loop);
}

static void
deferred(void)
{
    struct gy_loop loop;
    struct call call;
    int fd;

    begin(&loop, &call);
    gy_fileop_defer(&call.op, 42);
    CHECK(gy_fileop_busy(&call.op));
    CHECK_EQ(call.dones, 0);
    (void)gy_test_turn(&loop, GY_NS_PER_SECOND);
    CHECK_EQ(call.dones, 1);
    CHECK_EQ(call.res, 42);
    gy_fileop_defer(&call.op, 42);
    CHECK(gy_fileop_cancel(&call.op));
    (void)gy_test_turn(&loop, 0);
    CHECK_EQ(call.dones, 1);
    /* A descriptor on its way to a host that does not want it any more. */
    fd = open("/", O_RDONLY | O_CLOEXEC);
    CHECK_LE(0, fd);
    gy_prep_openat(gy_fileop_sqe(&call.op), AT_FDCWD, "/", O_RDONLY, 0);
    gy_fileop_defer(&call.op, fd);
    CHECK(gy_fileop_cancel(&call.op));
    CHECK_EQ(fcntl(fd, F_GETFD), -1);
    end(&loop);
}

/* ---- runs ---- */

static void
goes_on_in_the_next_run(void)
{
    struct gy_loop loop;
    struct call call;
    char in[8];
    int pair[2];

    begin(&loop, &call);
    CHECK_EQ(pipe2(pair, O_CLOEXEC), 0);
    gy_prep_read(gy_fileop_sqe(&call.op), pair[0], in, sizeof in, UINT64_MAX);
    gy_fileop_submit(&call.op);
    (void)gy_test_turn(&loop, 0);
    CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 0);
    CHECK(gy_fileop_busy(&call.op));
    CHECK_EQ(call.dones, 0);
    CHECK_EQ(write(pair[1], "next", 4), 4);
    CHECK_EQ(gy_loop_begin(&loop), 0);
    TURN_UNTIL(&loop, call.dones == 1);
    CHECK_EQ(call.res, 4);
    /* It ends while the loop comes to rest: told in the next run. */
    gy_prep_read(gy_fileop_sqe(&call.op), pair[0], in, sizeof in, UINT64_MAX);
    gy_fileop_submit(&call.op);
    (void)gy_test_turn(&loop, 0);
    CHECK_EQ(write(pair[1], "late", 4), 4);
    CHECK_EQ(gy_loop_quiesce(&loop, GY_NS_PER_SECOND), 0);
    CHECK_EQ(call.dones, 1);
    CHECK_EQ(gy_loop_begin(&loop), 0);
    TURN_UNTIL(&loop, call.dones == 2);
    CHECK_EQ(call.res, 4);
    close(pair[0]);
    close(pair[1]);
    end(&loop);
}

/* An open of a FIFO without another end: io_uring interrupts it; a thread of ours it holds, and the
 * loop is closed over it.  Its memory (here: static) stays. */
static void
what_cannot_be_cancelled(void)
{
    static struct call call;
    static struct gy_loop loop;
    uint32_t left;
    int fd;

    begin(&loop, &call);
    CHECK_EQ(mkfifo("fifo", 0600), 0);
    gy_prep_openat(gy_fileop_sqe(&call.op), AT_FDCWD, "fifo", O_RDONLY | O_CLOEXEC, 0);
    gy_fileop_submit(&call.op);
    (void)gy_test_turn(&loop, 0);
    (void)usleep(10000); /* the thread is in the call, or will soon be */
    left = gy_loop_quiesce(&loop, GY_NS_PER_SECOND / 20);
    CHECK_LE(left, 1);
    CHECK_EQ(left, gy_test_on_epoll());
    gy_loop_close(&loop);
    CHECK_EQ(call.dones, 0);
    /* Lets the thread go; it closes what it opened. */
    CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    fd = open("fifo", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0) {
        char byte = 0;
        while (write(fd, &byte, 1) == 1)
            (void)usleep(1000);
        close(fd);
    }
    CHECK_EQ(unlink("fifo"), 0);
    remove_directory();
}

/* ---- what the kernel answers, one by one ---- */

static void
answer(struct gy_loop *loop, struct call *call, uint8_t opcode, int32_t res)
{
    (void)gy_loop_poll(loop, true);
    CHECK_EQ(fake.sqes[fake.sqe_count - 1].opcode, opcode);
    CHECK_EQ(fake.sqes[fake.sqe_count - 1].fd, 7);
    fake_push(&call->op.op, res, 0, false);
    (void)gy_loop_reap(loop);
}

/* Kernels before 6.x answer -EAGAIN for a non-blocking pipe that is empty: then a poll waits. */
static void
answers(void)
{
    struct gy_loop loop;
    struct call call;
    char buf[4];
    fake_loop_begin(&loop);
    call_init(&call, &loop);
    gy_prep_read(gy_fileop_sqe(&call.op), 7, buf, sizeof buf, UINT64_MAX);
    gy_fileop_submit(&call.op);
    answer(&loop, &call, IORING_OP_READ, -EINTR); /* a signal: once more */
    answer(&loop, &call, IORING_OP_READ, -ECANCELED);
    answer(&loop, &call, IORING_OP_READ, -EAGAIN);
    answer(&loop, &call, IORING_OP_POLL_ADD, -EINTR);
    answer(&loop, &call, IORING_OP_POLL_ADD, 1);
    answer(&loop, &call, IORING_OP_READ, -EAGAIN); /* another reader was first */
    answer(&loop, &call, IORING_OP_POLL_ADD, 1);
    CHECK_EQ(call.dones, 0);
    answer(&loop, &call, IORING_OP_READ, 3);
    CHECK_EQ(call.dones, 1);
    CHECK_EQ(call.res, 3);
    gy_prep_write(gy_fileop_sqe(&call.op), 7, buf, sizeof buf, UINT64_MAX);
    gy_fileop_submit(&call.op);
    answer(&loop, &call, IORING_OP_WRITE, -EAGAIN);
    answer(&loop, &call, IORING_OP_POLL_ADD, -EBADF);
    CHECK_EQ(call.dones, 2);
    CHECK_EQ(call.res, -EBADF);
    /* Others do not wait for readiness; an unexpected number is told. */
    gy_prep_fsync(gy_fileop_sqe(&call.op), 7, false);
    gy_fileop_submit(&call.op);
    answer(&loop, &call, IORING_OP_FSYNC, -EAGAIN);
    CHECK_EQ(call.res, -EAGAIN);
    gy_fileop_submit(&call.op);
    answer(&loop, &call, IORING_OP_FSYNC, -12345);
    CHECK_EQ(call.res, -12345);
    /* A close that was interrupted has closed; one that was cancelled has not. */
    gy_prep_close(gy_fileop_sqe(&call.op), 7);
    gy_fileop_submit(&call.op);
    answer(&loop, &call, IORING_OP_CLOSE, -ECANCELED);
    answer(&loop, &call, IORING_OP_CLOSE, -EINTR);
    CHECK_EQ(call.dones, 5);
    CHECK_EQ(call.res, -EINTR);
    fake_loop_end(&loop);
}

/* A driver that always answers so gets tired of, and its error is told. */
static void
always_again(void)
{
    static const int32_t results[] = {-ECANCELED, -EINTR, -EAGAIN};
    struct gy_loop loop;
    struct call call;
    char buf[4];
    fake_loop_begin(&loop);
    call_init(&call, &loop);
    for (unsigned i = 0; i < 3; i++) {
        unsigned asked = 0;
        gy_prep_read(gy_fileop_sqe(&call.op), 7, buf, sizeof buf, UINT64_MAX);
        gy_fileop_submit(&call.op);
        while (call.dones == i && asked++ < 5000) {
            fake.sqe_count = 0;
            fake.event_head = fake.event_tail = 0;
            answer(&loop, &call, IORING_OP_READ, results[i]);
            if (results[i] == -EAGAIN && call.dones == i)
                answer(&loop, &call, IORING_OP_POLL_ADD, 1);
        }
        CHECK_EQ(call.dones, i + 1);
        CHECK_EQ(call.res, results[i]);
        CHECK_LE(100, asked);
    }
    fake_loop_end(&loop);
}

/* The two events of a cancelled operation, in either order, and what it came to before. */
static void
cancel_races(void)
{
    static const int32_t results[] = {-ECANCELED, -EINTR, 4, -EIO, 0};
    for (unsigned first = 0; first < 2; first++) {
        for (unsigned i = 0; i < sizeof results / sizeof results[0]; i++) {
            struct gy_loop loop;
            struct call call;
            char buf[4] = "abc";
            fake_loop_begin(&loop);
            call_init(&call, &loop);
            gy_prep_write(gy_fileop_sqe(&call.op), 7, buf, sizeof buf, 0);
            gy_fileop_submit(&call.op);
            (void)gy_loop_poll(&loop, true);
            CHECK(!gy_fileop_cancel(&call.op));
            (void)gy_loop_poll(&loop, true);
            fake_push(&call.op.op, first ? -EALREADY : results[i], 0, first);
            (void)gy_loop_reap(&loop);
            CHECK_EQ(call.dones, 0);
            CHECK(gy_fileop_busy(&call.op));
            fake_push(&call.op.op, first ? results[i] : -ENOENT, 0, !first);
            (void)gy_loop_reap(&loop);
            CHECK_EQ(call.dones, 1);
            CHECK_EQ(call.res, results[i]);
            fake_loop_end(&loop);
        }
    }
}

/* ---- failures ---- */

/* Each failure in turn: the operation reports it, and all is freed. */
static void
nth_failure(void)
{
#if GY_FAULTS
    static const enum gy_fault_kind kinds[] = {GY_FAULT_ALLOC, GY_FAULT_SYSCALL};
    make_directory();
    for (unsigned k = 0; k < 2; k++) {
        for (unsigned nth = 1;; nth++) {
            struct gy_ring_options options = gy_test_options();
            struct gy_loop loop;
            struct call call;
            gy_test_need_ring();
            CHECK_EQ(gy_loop_init(&loop, &options, gy_test_create), 0);
            CHECK_EQ(gy_loop_begin(&loop), 0);
            call_init(&call, &loop);
            gy_prep_mkdirat(gy_fileop_sqe(&call.op), AT_FDCWD, "made", 0700);
            gy_fileop_submit(&call.op);
            gy_fault_arm(kinds[k], nth, kinds[k] == GY_FAULT_ALLOC ? -ENOMEM : -EMFILE);
            for (unsigned i = 0; i < 1000 && call.dones == 0; i++) {
                (void)gy_loop_poll(&loop, true);
                (void)gy_loop_reap(&loop);
                (void)usleep(100);
            }
            bool fired = gy_fault_fired(kinds[k]);
            gy_fault_arm(kinds[k], 0, 0);
            CHECK_EQ(call.dones, 1);
            CHECK(call.res == 0 || call.res == -ENOMEM || call.res == -EMFILE);
            if (call.res == 0)
                CHECK_EQ(rmdir("made"), 0);
            gy_test_loop_end(&loop);
            if (!fired)
                break;
        }
    }
    remove_directory();
#else
    SKIP("built without faults");
#endif
}

static const struct gy_test tests[] = {
    GY_TEST(descriptors),
    GY_TEST(paths),
    GY_TEST(splices),
    GY_TEST(registered),
    GY_TEST(too_many_registered),
    GY_TEST(attempts),
    GY_TEST(many),
    GY_TEST(cancelled_read_of_a_pipe),
    GY_TEST(cancelled_open),
    GY_TEST(deferred),
    GY_TEST(goes_on_in_the_next_run),
    GY_TEST(what_cannot_be_cancelled),
    GY_TEST(answers),
    GY_TEST(always_again),
    GY_TEST(cancel_races),
    GY_TEST(nth_failure),
};

GY_TEST_MAIN(tests)
