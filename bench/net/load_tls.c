/* load_tls.c: TLS of the load generator, see load_tls.h. */
#define _GNU_SOURCE
#include "load_tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

enum { RAW_BUFFER = 512 * 1024 };

struct tls {
    SSL *ssl;
    BIO *in;  /* owned by ssl */
    BIO *out; /* owned by ssl */
    int fd;
    bool blocking;
    bool drained; /* the last recv(2) emptied the socket */
};

static SSL_CTX *
context(void)
{
    static SSL_CTX *shared;
    if (shared != NULL)
        return shared;
    shared = SSL_CTX_new(TLS_client_method());
    if (shared == NULL)
        load_fail(LOAD_EXIT_USAGE, "OpenSSL made no context");
    SSL_CTX_set_verify(shared, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_session_cache_mode(shared, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(shared, SSL_MODE_RELEASE_BUFFERS);
    return shared;
}

struct tls *
tls_new(int fd, bool blocking)
{
    struct tls *tls = calloc(1, sizeof(*tls));
    if (tls == NULL)
        load_fail(LOAD_EXIT_USAGE, "out of memory");
    *tls = (struct tls){.ssl = SSL_new(context()),
                        .in = BIO_new(BIO_s_mem()),
                        .out = BIO_new(BIO_s_mem()),
                        .fd = fd,
                        .blocking = blocking};
    if (tls->ssl == NULL || tls->in == NULL || tls->out == NULL)
        load_fail(LOAD_EXIT_USAGE, "OpenSSL made no connection");
    BIO_set_mem_eof_return(tls->in, -1);
    SSL_set_bio(tls->ssl, tls->in, tls->out);
    SSL_set_connect_state(tls->ssl);
    return tls;
}

void
tls_free(struct tls *tls)
{
    if (tls == NULL)
        return;
    if (SSL_is_init_finished(tls->ssl)) {
        SSL_shutdown(tls->ssl);
        tls_flush(tls);
    }
    ERR_clear_error();
    SSL_free(tls->ssl);
    free(tls);
}

void
tls_unblock(struct tls *tls)
{
    tls->blocking = false;
}

void
tls_readable(struct tls *tls)
{
    tls->drained = false;
}

bool
tls_flush(struct tls *tls)
{
    char *data;
    long left;
    while ((left = BIO_get_mem_data(tls->out, &data)) > 0) {
        ssize_t sent =
            send(tls->fd, data, (size_t)left, MSG_NOSIGNAL | (tls->blocking ? 0 : MSG_DONTWAIT));
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return false;
        if (sent == left) {
            (void)BIO_reset(tls->out);
            return true;
        }
        for (ssize_t gone = 0; gone < sent;) { /* a memory BIO forgets by being read */
            char dropped[4096];
            size_t part = (size_t)(sent - gone);
            gone +=
                BIO_read(tls->out, dropped, (int)(part < sizeof(dropped) ? part : sizeof(dropped)));
        }
    }
    return true;
}

/* After a call into OpenSSL that did not succeed: true if it only waits for the peer. */
static bool
wants(struct tls *tls, int rc)
{
    int error = SSL_get_error(tls->ssl, rc);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
        return true;
    if (error == SSL_ERROR_ZERO_RETURN)
        load_fail(LOAD_EXIT_NETWORK, "the server closed a TLS connection");
    load_fail(LOAD_EXIT_NETWORK, "TLS: %s", ERR_reason_error_string(ERR_peek_last_error()));
}

/* Takes what the socket has.  What recv(2) returned; -1 with EAGAIN without a call if it would. */
static ssize_t
pull(struct tls *tls)
{
    static char raw[RAW_BUFFER];
    ssize_t got;
    if (tls->drained) {
        errno = EAGAIN;
        return -1;
    }
    do
        got = recv(tls->fd, raw, sizeof(raw), tls->blocking ? 0 : MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    tls->drained = !tls->blocking && got < (ssize_t)sizeof(raw);
    if (got > 0 && BIO_write(tls->in, raw, (int)got) != got)
        load_fail(LOAD_EXIT_USAGE, "out of memory");
    return got;
}

void
tls_handshake(struct tls *tls)
{
    int rc;
    while ((rc = SSL_do_handshake(tls->ssl)) != 1) {
        wants(tls, rc);
        if (!tls_flush(tls) || pull(tls) <= 0)
            load_fail(LOAD_EXIT_NETWORK, "handshake: %s", strerror(errno));
    }
    if (!tls_flush(tls))
        load_fail(LOAD_EXIT_NETWORK, "handshake: %s", strerror(errno));
}

ssize_t
tls_send(struct tls *tls, const void *data, size_t size)
{
    size_t taken = 0;
    if (!tls_flush(tls))
        return -1;
    int rc = SSL_write_ex(tls->ssl, data, size, &taken);
    bool waits = rc != 1 && wants(tls, rc);
    if (!tls_flush(tls) && errno != EAGAIN && errno != EWOULDBLOCK)
        return -1;
    if (!waits)
        return (ssize_t)taken;
    errno = EAGAIN;
    return -1;
}

ssize_t
tls_recv(struct tls *tls, void *data, size_t size)
{
    size_t have = 0;
    while (have < size) {
        size_t part = 0;
        int rc = SSL_read_ex(tls->ssl, (char *)data + have, size - have, &part);
        have += part;
        if (rc == 1)
            continue;
        wants(tls, rc);
        if (!tls_flush(tls) && errno != EAGAIN && errno != EWOULDBLOCK)
            return -1;
        if (have != 0 && tls->blocking)
            break;
        ssize_t got = pull(tls);
        if (got == 0)
            return (ssize_t)have;
        if (got < 0 && (have == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)))
            return -1;
        if (got < 0)
            break;
    }
    return (ssize_t)have;
}
