/* limit.c: common parts of the C echo servers. */
#define _GNU_SOURCE
#include "limit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void
limit_die(const char *what)
{
    perror(what);
    exit(1);
}

struct limit_options
limit_options(int argc, char **argv)
{
    struct limit_options options = {0};
    struct rlimit files;
    for (int i = 1; i < argc; i += 2) {
        if (strcmp(argv[i], "--udp") == 0) {
            options.udp = 1;
            i--; /* it has no value */
        } else if (i + 1 < argc && strcmp(argv[i], "--unix") == 0)
            options.unix_path = argv[i + 1];
        else if (i + 1 < argc && strcmp(argv[i], "--spin-us") == 0)
            options.spin_us = atoll(argv[i + 1]);
        else {
            fprintf(stderr, "usage: %s [--unix PATH | --udp] [--spin-us N]\n", argv[0]);
            exit(2);
        }
    }
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    return options;
}

static int
listen_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path)) {
        fputs("the path of the UNIX socket is too long\n", stderr);
        exit(2);
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        limit_die(path);
    return fd;
}

static int
listen_tcp(void)
{
    int one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        limit_die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        limit_die("bind");
    return fd;
}

int
limit_udp_socket(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    int bytes = 4 << 20;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        limit_die("bind");
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) != 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    return fd;
}

int
limit_listen(const struct limit_options *options)
{
    int fd = options->unix_path ? listen_unix(options->unix_path) : listen_tcp();
    if (listen(fd, 4096) != 0)
        limit_die("listen");
    return fd;
}

void
limit_announce(int listener, const char *kind)
{
    struct sockaddr_in address = {0};
    socklen_t length = sizeof(address);
    unsigned port = 0;
    if (getsockname(listener, (struct sockaddr *)&address, &length) == 0 &&
        address.sin_family == AF_INET)
        port = ntohs(address.sin_port);
    printf("{\"pid\": %d, \"port\": %u, \"loop\": \"C %s\"}\n", (int)getpid(), port, kind);
    fflush(stdout);
}
