/* net.c: sockets of the load generator. */
#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/un.h>

void
load_resolve(const struct load_options *options, struct load_address *out)
{
    memset(out, 0, sizeof(*out));
    if (options->unix_path != NULL) {
        struct sockaddr_un *local = (struct sockaddr_un *)&out->storage;
        if (strlen(options->unix_path) >= sizeof(local->sun_path))
            load_fail(LOAD_EXIT_USAGE, "the path of the UNIX socket is too long");
        local->sun_family = AF_UNIX;
        strcpy(local->sun_path, options->unix_path);
        out->length = sizeof(*local);
        out->family = AF_UNIX;
        return;
    }
    struct sockaddr_in *inet = (struct sockaddr_in *)&out->storage;
    inet->sin_family = AF_INET;
    inet->sin_port = htons((uint16_t)options->port);
    if (inet_pton(AF_INET, options->host, &inet->sin_addr) != 1)
        load_fail(LOAD_EXIT_USAGE, "%s is not an IPv4 address", options->host);
    out->length = sizeof(*inet);
    out->family = AF_INET;
}

/* Nagle off, and cubic: a default of bbr paces with timers, which on loopback measures the pacing.
 */
int
load_socket(const struct load_address *address)
{
    int one = 1;
    int fd = socket(address->family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        load_fail(LOAD_EXIT_NETWORK, "socket: %s", strerror(errno));
    if (address->family == AF_INET) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5);
    }
    return fd;
}

void
load_raise_descriptor_limit(unsigned wanted)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted)
        return;
    limit.rlim_cur = wanted;
    if (limit.rlim_max < wanted)
        limit.rlim_max = wanted;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        load_fail(LOAD_EXIT_USAGE, "%u descriptors are not allowed here (ulimit -n)", wanted);
}
