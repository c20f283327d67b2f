/* limit_epoll.c: the least that an echo server on epoll can do; what no Python loop can beat.
 *
 * Level-triggered, one read of up to 256 KiB and one write per turn and connection. What the socket
 * does not take is kept, and the connection is not read until it is gone. Prints one JSON line with
 * the port when it listens. usage: limit_epoll [--unix PATH | --udp] [--spin-us N] */
#define _GNU_SOURCE
#include "limit.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER_BYTES = 256 * 1024, EVENTS_MAX = 512 };

struct client {
    int fd;
    unsigned char *rest; /* received and not yet sent, or NULL */
    size_t rest_size;
    size_t rest_sent;
};

static int epoll_fd;
static unsigned char buffer[BUFFER_BYTES];

static void
watch(int operation, int fd, uint32_t events, void *data)
{
    struct epoll_event event = {.events = events, .data.ptr = data};
    if (epoll_ctl(epoll_fd, operation, fd, &event) != 0)
        limit_die("epoll_ctl");
}

static void
client_close(struct client *client)
{
    close(client->fd);
    free(client->rest);
    free(client);
}

static bool
client_send(struct client *client, const unsigned char *data, size_t size, size_t *sent)
{
    *sent = 0;
    while (*sent < size) {
        ssize_t done = send(client->fd, data + *sent, size - *sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (done < 0)
            return errno == EAGAIN;
        *sent += (size_t)done;
    }
    return true;
}

static bool
client_keep(struct client *client, size_t from, size_t size)
{
    client->rest = malloc(size - from);
    if (client->rest == NULL)
        return false;
    memcpy(client->rest, buffer + from, size - from);
    client->rest_size = size - from;
    client->rest_sent = 0;
    watch(EPOLL_CTL_MOD, client->fd, EPOLLOUT, client);
    return true;
}

static bool
client_flush(struct client *client)
{
    size_t sent;
    if (!client_send(client, client->rest + client->rest_sent,
                     client->rest_size - client->rest_sent, &sent))
        return false;
    client->rest_sent += sent;
    if (client->rest_sent < client->rest_size)
        return true;
    free(client->rest);
    client->rest = NULL;
    watch(EPOLL_CTL_MOD, client->fd, EPOLLIN, client);
    return true;
}

static bool
client_ready(struct client *client)
{
    size_t sent;
    if (client->rest != NULL)
        return client_flush(client);
    ssize_t got = recv(client->fd, buffer, BUFFER_BYTES, MSG_DONTWAIT);
    if (got < 0)
        return errno == EAGAIN || errno == EINTR;
    if (got == 0)
        return false;
    if (!client_send(client, buffer, (size_t)got, &sent))
        return false;
    return sent == (size_t)got || client_keep(client, sent, (size_t)got);
}

static void
listener_ready(int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        struct client *client = calloc(1, sizeof(*client));
        if (client == NULL)
            limit_die("calloc");
        client->fd = fd;
        watch(EPOLL_CTL_ADD, fd, EPOLLIN, client);
    }
}

static int
wait_for_events(struct epoll_event *events, int64_t spin_us)
{
    if (spin_us > 0) {
        int64_t until = limit_now_us() + spin_us;
        do {
            int count = epoll_wait(epoll_fd, events, EVENTS_MAX, 0);
            if (count != 0)
                return count;
        } while (limit_now_us() < until);
    }
    return epoll_wait(epoll_fd, events, EVENTS_MAX, -1);
}

/* Echoes until the socket is empty, at most 32 datagrams a turn. */
_Noreturn static void
serve_udp(const struct limit_options *options)
{
    struct epoll_event events[EVENTS_MAX];
    int fd = limit_udp_socket();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    watch(EPOLL_CTL_ADD, fd, EPOLLIN, NULL);
    limit_announce(fd, "epoll");
    for (;;) {
        (void)wait_for_events(events, options->spin_us);
        for (unsigned i = 0; i < 32; i++) {
            struct sockaddr_storage peer;
            socklen_t length = sizeof(peer);
            ssize_t got =
                recvfrom(fd, buffer, BUFFER_BYTES, MSG_DONTWAIT, (struct sockaddr *)&peer, &length);
            if (got < 0)
                break;
            (void)!sendto(fd, buffer, (size_t)got, MSG_DONTWAIT, (struct sockaddr *)&peer, length);
        }
    }
}

int
main(int argc, char **argv)
{
    struct epoll_event events[EVENTS_MAX];
    struct limit_options options = limit_options(argc, argv);
    if (options.udp)
        serve_udp(&options);
    int listener = limit_listen(&options);

    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    watch(EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    limit_announce(listener, "epoll");
    for (;;) {
        int count = wait_for_events(events, options.spin_us);
        for (int i = 0; i < count; i++) {
            struct client *client = events[i].data.ptr;
            if (client == NULL)
                listener_ready(listener);
            else if (!client_ready(client))
                client_close(client);
        }
    }
}
