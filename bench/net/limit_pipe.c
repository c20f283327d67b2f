/* limit_pipe.c: what the pipes to and from a child can carry, without Python.
 *
 * Writes blocks of 64 KiB to cat and reads them back, in one thread that waits by poll(2) only when
 * neither can be done: the workload proc.pipe.  `limit_pipe pipe` does it through pipes as large as
 * gyre makes them, `limit_pipe socket` through the socketpairs that uvloop gives its children.
 * Prints microseconds per block. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK_BYTES = 64 * 1024, PIPE_BYTES = 256 * 1024, BLOCKS = 4000, READS_PER_TURN = 4 };

struct child {
    pid_t pid;
    int to;
    int from;
};

static void
die(const char *what)
{
    perror(what);
    exit(1);
}

/* ends[0] is read from, ends[1] written to. */
static void
make_ends(int ends[2], bool sockets)
{
    int err =
        sockets ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) : pipe2(ends, O_CLOEXEC);
    if (err != 0)
        die("pipe");
    if (!sockets && fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES) < 0)
        die("F_SETPIPE_SZ");
}

static struct child
start_cat(bool sockets)
{
    int in[2];
    int out[2];
    make_ends(in, sockets);
    make_ends(out, sockets);
    struct child child = {.pid = fork(), .to = in[1], .from = out[0]};
    if (child.pid < 0)
        die("fork");
    if (child.pid == 0) {
        if (dup2(in[0], 0) == 0 && dup2(out[1], 1) == 1)
            execl("/bin/cat", "cat", (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    if (fcntl(child.to, F_SETFL, O_NONBLOCK) < 0 || fcntl(child.from, F_SETFL, O_NONBLOCK) < 0)
        die("O_NONBLOCK");
    return child;
}

/* The bytes that are still to be written. */
static size_t
write_some(const struct child *child, size_t left)
{
    static const char block[BLOCK_BYTES];
    while (left > 0) {
        size_t len = left < BLOCK_BYTES ? left : BLOCK_BYTES;
        ssize_t done = write(child->to, block, len);
        if (done < 0 && errno != EAGAIN)
            die("write");
        if (done > 0)
            left -= (size_t)done;
        if (done < (ssize_t)len)
            break;
    }
    return left;
}

static size_t
read_some(const struct child *child)
{
    static char buffer[BLOCK_BYTES];
    size_t got = 0;
    for (unsigned i = 0; i < READS_PER_TURN; i++) {
        ssize_t done = read(child->from, buffer, sizeof(buffer));
        if (done == 0 || (done < 0 && errno != EAGAIN))
            die("read");
        if (done < 0)
            break;
        got += (size_t)done;
        if (done < (ssize_t)sizeof(buffer))
            break;
    }
    return got;
}

static void
echo(const struct child *child, size_t bytes)
{
    size_t to_write = bytes;
    size_t to_read = bytes;
    while (to_read > 0) {
        to_write = write_some(child, to_write);
        size_t got = read_some(child);
        to_read -= got;
        if (got == 0) {
            struct pollfd ready[2] = {{.fd = child->from, .events = POLLIN},
                                      {.fd = to_write > 0 ? child->to : -1, .events = POLLOUT}};
            if (poll(ready, 2, -1) < 0)
                die("poll");
        }
    }
}

static double
now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

int
main(int argc, char **argv)
{
    if (argc != 2 || (strcmp(argv[1], "pipe") != 0 && strcmp(argv[1], "socket") != 0)) {
        fprintf(stderr, "usage: %s pipe|socket\n", argv[0]);
        return 2;
    }
    struct child child = start_cat(strcmp(argv[1], "socket") == 0);
    echo(&child, (size_t)BLOCKS / 4 * BLOCK_BYTES); /* warm */
    double began_us = now_us();
    echo(&child, (size_t)BLOCKS * BLOCK_BYTES);
    printf("%.2f\n", (now_us() - began_us) / BLOCKS);
    close(child.to);
    waitpid(child.pid, NULL, 0);
    return 0;
}
