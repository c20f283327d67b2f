/* sim_net.h: sockets of a fake kernel, one side held by the core, the other played by a test.
 *
 * A descriptor is SIM_FD_FIRST + index, so it is never a real one.  Bytes wait in two bounded
 * queues.  Every change that a kernel would report wakes the socket: `wakes` counts them for the
 * edge-triggered polls of ring_sim.c.  Deterministic: all chance comes from one seeded generator.
 */
#ifndef SIM_NET_H
#define SIM_NET_H

#include "base.h"
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

enum { SIM_FD_FIRST = 1 << 20, SIM_SOCKETS_MAX = 256, SIM_BACKLOG_MAX = 64 };

struct sim_rng {
    uint64_t state;
};

uint64_t sim_random(struct sim_rng *rng);
uint32_t sim_below(struct sim_rng *rng, uint32_t limit); /* 0 .. limit - 1     */
bool sim_chance(struct sim_rng *rng, uint32_t percent);  /* true in that many  */

/* How many seeds to run: as the text says, or the usual number if it is NULL.  Under valgrind,
 * where GYRE_TEST_SLOWER says how many times slower all is, so many times fewer. */
uint64_t sim_seeds(const char *text, uint64_t usual);
uint32_t sim_size(struct sim_rng *rng, uint32_t most); /* 1 .. most, mostly small */

struct sim_queue {
    char *bytes;
    size_t len;
    size_t capacity;
};

struct sim_socket {
    int fd;
    bool used;
    bool listener;
    bool open;            /* the core holds the descriptor                                    */
    bool datagram;        /* the queues hold datagrams, each behind its length                */
    bool gro;             /* one receive may bring several                                    */
    size_t out_limit;     /* datagram: full from so many bytes on                             */
    bool message_like;    /* receives come short although more is there (GY_STREAM_READ_OUT)  */
    uint32_t ops;         /* operations of the kernel that keep the file alive                */
    uint32_t wakes_in;    /* readable side changed                                            */
    uint32_t wakes_out;   /* writable side changed                                            */
    struct sim_queue in;  /* remote -> core */
    struct sim_queue out; /* core -> remote */
    bool in_fin;          /* the remote sends no more                       */
    bool out_fin;         /* the core has shut down its side                */
    bool remote_gone;     /* the remote has closed: bytes for it are lost   */
    int error;            /* -errno that the next receive or send meets     */
    bool reset;           /* the connection is dead                         */
    int backlog[SIM_BACKLOG_MAX];
    uint32_t backlog_count;
};

struct sim_net {
    struct sim_rng rng;
    struct sim_socket sockets[SIM_SOCKETS_MAX];
    uint32_t count;
    uint32_t bad_closes; /* close() of what is not open: a bug of the core */
    uint32_t opened;     /* descriptors that the core got or was given     */
    uint32_t closed;
};

void sim_net_init(struct sim_net *net, uint64_t seed);
void sim_net_deinit(struct sim_net *net);

/* What a test does.  A new connection whose core side is open. */
struct sim_socket *sim_connection(struct sim_net *net, uint32_t buffer_bytes);
struct sim_socket *sim_datagrams(struct sim_net *net, uint32_t buffer_bytes);
struct sim_socket *sim_listener(struct sim_net *net);
struct sim_socket *sim_socket_of(struct sim_net *net, int fd); /* NULL: no such descriptor */

/* The remote side. */
struct sim_socket *sim_remote_connect(struct sim_net *net, struct sim_socket *listener,
                                      uint32_t buffer_bytes); /* NULL: backlog full */
size_t sim_remote_send(struct sim_net *net, struct sim_socket *socket, const char *data,
                       size_t len);
size_t sim_remote_recv(struct sim_net *net, struct sim_socket *socket, char *data, size_t len);
/* Datagrams; false: no room, -1: nothing there. */
bool sim_remote_send_datagram(struct sim_socket *socket, const char *data, size_t len);
ssize_t sim_remote_recv_datagram(struct sim_socket *socket, char *data, size_t len);
void sim_remote_shutdown(struct sim_net *net, struct sim_socket *socket);
void sim_remote_close(struct sim_net *net, struct sim_socket *socket);
void sim_remote_reset(struct sim_net *net, struct sim_socket *socket);
/* True when the remote would read an end of file: the core shut down, or closed and no operation
 * keeps the file. */
bool sim_remote_sees_end(const struct sim_socket *socket);

/* The core's system calls: result or -errno. */
uint32_t sim_readiness(const struct sim_socket *socket); /* POLLIN ... */
ssize_t sim_recv(struct sim_net *net, struct sim_socket *socket, void *data, size_t len);
ssize_t sim_send(struct sim_net *net, struct sim_socket *socket, const struct iovec *iov,
                 unsigned count);
/* Neither address: a datagram socket has one remote.  UDP_SEGMENT and UDP_GRO as in the kernel. */
ssize_t sim_recvmsg(struct sim_net *net, struct sim_socket *socket, struct msghdr *message);
ssize_t sim_sendmsg(struct sim_net *net, struct sim_socket *socket, const struct msghdr *message);
int sim_accept(struct sim_net *net, struct sim_socket *socket);
int sim_shutdown(struct sim_net *net, struct sim_socket *socket);
void sim_close(struct sim_net *net, int fd);

#endif
