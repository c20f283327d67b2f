/* sockop.h: one-shot operations on a socket that is not ours: sock_recv, sock_sendall, sock_accept
 * ...
 *
 * The call is tried at once; only waiting for readiness is on the ring, and the call is tried again
 * after it. So cancelling loses no byte: an operation that was cancelled has taken nothing from the
 * socket. MSG_DONTWAIT is used: whether the socket is in blocking mode is neither read nor changed.
 * Owner: the embedder; buf must be there whenever the call is tried: see memory(). */
#ifndef GY_SOCKOP_H
#define GY_SOCKOP_H

#include "poll.h"
#include <sys/socket.h>
#include <sys/types.h>

enum gy_sockop_kind {
    GY_SOCK_RECV,
    GY_SOCK_RECVFROM,
    GY_SOCK_SENDALL,
    GY_SOCK_SENDTO,
    GY_SOCK_ACCEPT,
    GY_SOCK_CONNECT,
    GY_SOCK_READABLE,
    GY_SOCK_WRITABLE
};

struct gy_sockop;

struct gy_sockop_host {
    /* Asked after each wait, before fd is touched again: is fd still the descriptor of the socket
     * that the operation began with?  false: the operation is dropped with -EBADF.  A question
     * only: it calls nothing here. */
    bool (*valid)(struct gy_sockop *op);
    /* May be NULL.  Asked after valid(), before the call is tried again: an embedder that gave the
     * memory behind buf back for the time of the wait sets buf here.  false: -ENOMEM. */
    bool (*memory)(struct gy_sockop *op);
    /* Over: bytes received, bytes sent (all), accepted descriptor, 0 for connect, or -errno
     * (-ECANCELED). */
    void (*done)(struct gy_sockop *op, ssize_t result);
};

struct gy_sockop {
    struct gy_loop *loop;
    const struct gy_sockop_host *host;
    struct gy_poll poll;
    uint8_t kind;
    bool cancelled;
    int fd;
    char *buf;
    size_t len;
    size_t done_bytes;          /* SENDALL */
    struct gy_address *address; /* RECVFROM, SENDTO: the embedder's */
};

void gy_sockop_init(struct gy_sockop *op, struct gy_loop *loop, const struct gy_sockop_host *host);

/* Each tries at once.  The result if it could be given at once (>= 0 or -errno), or -EINPROGRESS:
 * done() will be called from a later turn. */
ssize_t gy_sockop_recv(struct gy_sockop *op, int fd, void *buf, size_t len);
ssize_t gy_sockop_sendall(struct gy_sockop *op, int fd, const void *buf, size_t len);
/* One datagram and where it came from, or goes to; *address stays while the operation is pending.
 */
ssize_t gy_sockop_recvfrom(struct gy_sockop *op, int fd, void *buf, size_t len,
                           struct gy_address *address);
ssize_t gy_sockop_sendto(struct gy_sockop *op, int fd, const void *buf, size_t len,
                         struct gy_address *address);
ssize_t gy_sockop_accept(struct gy_sockop *op, int fd);
ssize_t gy_sockop_connect(struct gy_sockop *op, int fd, const struct sockaddr *addr, socklen_t len);

/* Waits only, at least for the next turn: GY_SOCK_READABLE or GY_SOCK_WRITABLE.  done(0). */
void gy_sockop_wait(struct gy_sockop *op, int fd, enum gy_sockop_kind kind);

/* true: over at once, done() is not called.  false: done(-ECANCELED) follows; buf is not touched
 * any more. */
bool gy_sockop_cancel(struct gy_sockop *op);

#endif
