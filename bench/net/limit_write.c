/* limit_write.c: what it costs to have a worker of the kernel's write 1 MiB, without Python.
 *
 *     limit_write PATH ROUNDS anew|over
 *
 * A round writes 64 MiB by each way in turn: pwrite(2); one io_uring write at a time, asleep until
 * it is done; the same, looking for its end; pwrite(2) again, which shows the noise.  "anew"
 * empties the file before, as the cell files.sequential.write does.  Prints microseconds per MiB
 * (median), and medians of pwrite's time over each way's, of the writes alone and with the open. */
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PIECE_BYTES = 1 << 20, PIECES = 64, WAYS = 4, ROUNDS_MAX = 1000 };

enum way { WAY_PWRITE, WAY_SLEEP, WAY_LOOK, WAY_AGAIN };

static const char *const names[WAYS] = {"pwrite", "ring, asleep", "ring, looking", "pwrite again"};

static struct io_uring ring;
static char piece[PIECE_BYTES];
static double writes_us[WAYS][ROUNDS_MAX];
static double whole_us[WAYS][ROUNDS_MAX];

static double
now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void
fail(const char *what)
{
    perror(what);
    exit(1);
}

/* Looks as a loop does that will not sleep: at memory, and into the kernel when it says so. */
static void
look(void)
{
    while (io_uring_cq_ready(&ring) == 0) {
        if (IO_URING_READ_ONCE(*ring.sq.kflags) & IORING_SQ_TASKRUN)
            (void)io_uring_get_events(&ring);
    }
}

static void
write_by_ring(int fd, off_t offset, int asleep)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    struct io_uring_cqe *cqe;
    io_uring_prep_write(sqe, fd, piece, PIECE_BYTES, (__u64)offset);
    if (io_uring_submit_and_wait(&ring, asleep ? 1 : 0) < 0)
        fail("io_uring_enter");
    if (!asleep)
        look();
    if (io_uring_wait_cqe(&ring, &cqe) < 0 || cqe->res != PIECE_BYTES)
        fail("write");
    io_uring_cqe_seen(&ring, cqe);
}

static void
measure(const char *path, int flags, enum way way, int round)
{
    double start_us = now_us(), opened_us, end_us;
    int fd = open(path, flags, 0644);
    if (fd < 0)
        fail(path);
    opened_us = now_us();
    for (int i = 0; i < PIECES; i++) {
        off_t offset = (off_t)i * PIECE_BYTES;
        if (way == WAY_SLEEP || way == WAY_LOOK)
            write_by_ring(fd, offset, way == WAY_SLEEP);
        else if (pwrite(fd, piece, PIECE_BYTES, offset) != PIECE_BYTES)
            fail("pwrite");
    }
    end_us = now_us();
    close(fd);
    writes_us[way][round] = (end_us - opened_us) / PIECES;
    whole_us[way][round] = (end_us - start_us) / PIECES;
}

static int
compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* The median of over[i] / under[i]; under NULL: of over. */
static double
median(const double *over, const double *under, int count)
{
    double values[ROUNDS_MAX];
    for (int i = 0; i < count; i++)
        values[i] = under != NULL ? over[i] / under[i] : over[i];
    qsort(values, (size_t)count, sizeof *values, compare);
    return values[count / 2];
}

int
main(int argc, char **argv)
{
    unsigned setup =
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
    int rounds = argc == 4 ? atoi(argv[2]) : 0;
    int flags = O_WRONLY | O_CREAT | O_CLOEXEC;
    if (rounds < 1 || rounds > ROUNDS_MAX) {
        fprintf(stderr, "usage: limit_write PATH ROUNDS anew|over\n");
        return 2;
    }
    if (strcmp(argv[3], "anew") == 0)
        flags |= O_TRUNC;
    if (io_uring_queue_init(8, &ring, setup) < 0)
        fail("io_uring");
    memset(piece, 'x', sizeof piece);
    measure(argv[1], flags, WAY_PWRITE, 0); /* so that there is something to empty */
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < WAYS; i++)
            measure(argv[1], flags, (enum way)((i + round) % WAYS), round);
    }
    for (int way = 0; way < WAYS; way++)
        printf("%-14s %4.0f us per MiB, pwrite's share of it %.3f; with the open %4.0f, %.3f\n",
               names[way], median(writes_us[way], NULL, rounds),
               median(writes_us[WAY_PWRITE], writes_us[way], rounds),
               median(whole_us[way], NULL, rounds),
               median(whole_us[WAY_PWRITE], whole_us[way], rounds));
    io_uring_queue_exit(&ring);
    return 0;
}
