/* load_tls.h: TLS of the load generator.
 *
 * A connection is a descriptor and two memory BIOs of OpenSSL, so that a message of any size is one
 * send(2), and one recv(2) as a rule. tls_send() and tls_recv() return what send(2) and recv(2)
 * would: they run the handshake first, and say EAGAIN until it is done.
 * Without LOAD_TLS (the program that needs no OpenSSL) there is no TLS and tls_new() fails. */
#ifndef BENCH_LOAD_TLS_H
#define BENCH_LOAD_TLS_H

#include "load.h"

struct tls;

#ifdef LOAD_TLS
struct tls *tls_new(int fd, bool blocking);
void tls_free(struct tls *tls); /* says close_notify; the descriptor stays open */
void tls_handshake(struct tls *tls);
void tls_unblock(struct tls *tls);
/* There may be more in the socket than the last short recv(2) left. */
void tls_readable(struct tls *tls);
/* Sends what an earlier call could not send; true when nothing is left of it. */
bool tls_flush(struct tls *tls);
ssize_t tls_send(struct tls *tls, const void *data, size_t size);
ssize_t tls_recv(struct tls *tls, void *data, size_t size);
#else
static inline struct tls *
tls_new(int fd, bool blocking)
{
    (void)fd;
    (void)blocking;
    load_fail(LOAD_EXIT_USAGE,
              "--tls: this program was built without OpenSSL (loadgen_tls has it)");
}
static inline void
tls_free(struct tls *tls)
{
    (void)tls;
}
static inline void
tls_handshake(struct tls *tls)
{
    (void)tls;
}
static inline void
tls_unblock(struct tls *tls)
{
    (void)tls;
}
static inline void
tls_readable(struct tls *tls)
{
    (void)tls;
}
static inline bool
tls_flush(struct tls *tls)
{
    return tls == NULL;
}
static inline ssize_t
tls_send(struct tls *tls, const void *data, size_t size)
{
    (void)tls;
    (void)data;
    return (ssize_t)size;
}
static inline ssize_t
tls_recv(struct tls *tls, void *data, size_t size)
{
    (void)tls;
    (void)data;
    return (ssize_t)size;
}
#endif

#endif
