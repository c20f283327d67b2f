/* limit_chain.c: whole small files by linked chains on direct descriptors, and by plain calls.
 *
 *     limit_chain FOLDER FILES ROUNDS [cold]
 *
 * Reads the files FOLDER/0 ... of 4 KiB: open, read, close by one chain of three linked SQEs on a
 * direct descriptor, 1 and 64 chains at once; and by openat, pread and close, which is what gyre's
 * attempts at once do.  "cold" drops all caches before each pass, which needs root.  Prints
 * microseconds per file, elapsed and of CPU time: medians. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { FILE_BYTES = 4096, DEPTH_MAX = 64, WAYS = 3, ROUNDS_MAX = 100, NAME_BYTES = 512 };

static const char *const names[WAYS] = {"plain calls", "chains, 1 at once", "chains, 64 at once"};
static const unsigned depths[WAYS] = {0, 1, DEPTH_MAX};

static struct io_uring ring;
static char buffers[DEPTH_MAX][FILE_BYTES];
static char paths[DEPTH_MAX][NAME_BYTES];
static double wall_us[WAYS][ROUNDS_MAX];
static double cpu_us[WAYS][ROUNDS_MAX];

static void
fail(const char *what)
{
    perror(what);
    exit(1);
}

static double
now_us(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void
drop_caches(void)
{
    int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
    if (fd < 0 || write(fd, "3", 1) != 1)
        fail("drop_caches");
    close(fd);
}

static void
read_plainly(const char *folder, int files)
{
    for (int i = 0; i < files; i++) {
        int fd;
        snprintf(paths[0], sizeof paths[0], "%s/%d", folder, i);
        fd = open(paths[0], O_RDONLY | O_CLOEXEC);
        if (fd < 0 || pread(fd, buffers[0], FILE_BYTES, 0) != FILE_BYTES)
            fail(paths[0]);
        close(fd);
    }
}

static void
start_chain(const char *folder, int file, unsigned slot)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    snprintf(paths[slot], sizeof paths[slot], "%s/%d", folder, file);
    io_uring_prep_openat_direct(sqe, AT_FDCWD, paths[slot], O_RDONLY, 0, slot);
    sqe->flags |= IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS;
    sqe = io_uring_get_sqe(&ring);
    io_uring_prep_read(sqe, (int)slot, buffers[slot], FILE_BYTES, 0);
    sqe->flags |= IOSQE_FIXED_FILE | IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS;
    sqe = io_uring_get_sqe(&ring);
    io_uring_prep_close_direct(sqe, slot);
    sqe->user_data = slot;
}

static void
read_by_chains(const char *folder, int files, unsigned depth)
{
    int started = 0, ended = 0;
    while (started < files && started < (int)depth) {
        start_chain(folder, started, (unsigned)started);
        started++;
    }
    while (ended < files) {
        struct io_uring_cqe *cqe;
        if (io_uring_submit_and_wait(&ring, 1) < 0)
            fail("io_uring_enter");
        while (io_uring_peek_cqe(&ring, &cqe) == 0) {
            unsigned slot = (unsigned)cqe->user_data;
            if (cqe->res < 0)
                fail("a chain");
            io_uring_cqe_seen(&ring, cqe);
            ended++;
            if (started < files)
                start_chain(folder, started++, slot);
        }
    }
}

static void
measure(const char *folder, int files, int way, int round)
{
    double wall = now_us(CLOCK_MONOTONIC), cpu = now_us(CLOCK_PROCESS_CPUTIME_ID);
    if (depths[way] == 0)
        read_plainly(folder, files);
    else
        read_by_chains(folder, files, depths[way]);
    wall_us[way][round] = (now_us(CLOCK_MONOTONIC) - wall) / files;
    cpu_us[way][round] = (now_us(CLOCK_PROCESS_CPUTIME_ID) - cpu) / files;
}

static int
compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double
median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof *values, compare);
    return values[count / 2];
}

static void
make_files(const char *folder, int files)
{
    for (int i = 0; i < files; i++) {
        int fd;
        snprintf(paths[0], sizeof paths[0], "%s/%d", folder, i);
        fd = open(paths[0], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (fd < 0 || write(fd, buffers[0], FILE_BYTES) != FILE_BYTES)
            fail(paths[0]);
        close(fd);
    }
    sync();
}

int
main(int argc, char **argv)
{
    unsigned setup =
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN;
    int files = argc > 3 ? atoi(argv[2]) : 0, rounds = argc > 3 ? atoi(argv[3]) : 0;
    if (files < 1 || rounds < 1 || rounds > ROUNDS_MAX) {
        fprintf(stderr, "usage: limit_chain FOLDER FILES ROUNDS [cold]\n");
        return 2;
    }
    if (io_uring_queue_init(4 * DEPTH_MAX, &ring, setup) < 0 ||
        io_uring_register_files_sparse(&ring, DEPTH_MAX) < 0)
        fail("io_uring");
    make_files(argv[1], files);
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < WAYS; i++) {
            if (argc > 4)
                drop_caches();
            measure(argv[1], files, (i + round) % WAYS, round);
        }
    }
    for (int way = 0; way < WAYS; way++)
        printf("%-18s %6.1f us elapsed, %5.1f us of CPU time\n", names[way],
               median(wall_us[way], rounds), median(cpu_us[way], rounds));
    io_uring_queue_exit(&ring);
    return 0;
}
