/* ssl_engine.h: what ssl_read.c and ssl_write.c want of OpenSSL, on one of two ways.
 *
 * Direct: the functions of the library, on the SSL* and its two memory BIOs.  By calls: the methods
 * of _ssl's objects, for a Python whose OpenSSL cannot be reached; memoryviews of our memory are
 * what they get.  Thread: the loop's, with the GIL. */
#ifndef GPY_SSL_ENGINE_H
#define GPY_SSL_ENGINE_H

#include "ssl.h"

enum gpy_ssl_pull {
    GPY_SSL_PULL_DATA,
    GPY_SSL_PULL_AGAIN, /* it needs more ciphertext */
    GPY_SSL_PULL_END,   /* close_notify             */
    GPY_SSL_PULL_ERROR, /* an exception is set      */
};

/* By calls. */
size_t gpy_ssl_calls_pending(struct gpy_ssl *self, PyObject *bio);
size_t gpy_ssl_calls_buffered(struct gpy_ssl *self);
int gpy_ssl_calls_put(struct gpy_ssl *self, const char *data, size_t len);
int gpy_ssl_calls_take(struct gpy_ssl *self, char *into, size_t room);
size_t gpy_ssl_calls_seal(struct gpy_ssl *self, const char *data, size_t len);
/* Also the direct way's when OpenSSL says neither data nor "more": the same call made by _ssl
 * finds the same and says it in its words.  (After an error OpenSSL fails again, and leaves its
 * queue of errors as it was.) */
enum gpy_ssl_pull gpy_ssl_calls_pull(struct gpy_ssl *self, char *into, size_t room, size_t *got);

/* Bytes of ciphertext in the BIOs. */
static inline size_t
gpy_ssl_incoming(struct gpy_ssl *self)
{
    return GY_LIKELY(self->ssl != NULL) ? gpy_ssl_pipe_incoming(&self->pipe)
                                        : gpy_ssl_calls_pending(self, self->incoming);
}

static inline size_t
gpy_ssl_outgoing(struct gpy_ssl *self)
{
    return GY_LIKELY(self->ssl != NULL) ? gpy_ssl_pipe_outgoing(&self->pipe)
                                        : gpy_ssl_calls_pending(self, self->outgoing);
}

/* Bytes of plaintext that are decrypted and not read. */
static inline size_t
gpy_ssl_buffered(struct gpy_ssl *self)
{
    if (GY_UNLIKELY(self->ssl == NULL))
        return gpy_ssl_calls_buffered(self);
    int count = self->lib->SSL_pending(self->ssl);
    return count > 0 ? (size_t)count : 0;
}

/* Ciphertext, at most INT_MAX bytes, for the BIO.  0 or -1. */
static inline int
gpy_ssl_put(struct gpy_ssl *self, const char *data, size_t len)
{
    if (GY_UNLIKELY(self->ssl == NULL))
        return gpy_ssl_calls_put(self, data, len);
    self->pipe.stored = true;
    if (GY_LIKELY(self->lib->BIO_write(self->pipe.incoming, data, (int)len) == (int)len))
        return 0;
    (void)PyErr_NoMemory();
    return -1;
}

/* Ciphertext out of the MemoryBIO, which has some: how many bytes, or -1. */
static inline int
gpy_ssl_take(struct gpy_ssl *self, char *into, size_t room)
{
    return GY_LIKELY(self->ssl != NULL) ? self->lib->BIO_read(self->pipe.outgoing, into, (int)room)
                                        : gpy_ssl_calls_take(self, into, room);
}

/* Makes records of len > 0 bytes; how many it took, 0: the call has to be made again by _ssl. */
static inline size_t
gpy_ssl_seal(struct gpy_ssl *self, const char *data, size_t len)
{
    size_t written = 0;
    if (GY_UNLIKELY(self->ssl == NULL))
        return gpy_ssl_calls_seal(self, data, len);
    return GY_LIKELY(self->lib->SSL_write_ex(self->ssl, data, len, &written) == 1) ? written : 0;
}

/* Plaintext: *got bytes with GPY_SSL_PULL_DATA. */
static inline enum gpy_ssl_pull
gpy_ssl_pull(struct gpy_ssl *self, char *into, size_t room, size_t *got)
{
    if (GY_LIKELY(self->ssl != NULL)) {
        int rc = self->lib->SSL_read_ex(self->ssl, into, room, got);
        if (GY_LIKELY(rc == 1))
            return GPY_SSL_PULL_DATA;
        if (GY_LIKELY(self->lib->SSL_get_error(self->ssl, rc) == GPY_OPENSSL_WANT_READ))
            return GPY_SSL_PULL_AGAIN;
    }
    return gpy_ssl_calls_pull(self, into, room, got);
}

/* Before records are made or opened: an error that somebody else left would be taken for ours. */
static inline void
gpy_ssl_forget_errors(struct gpy_ssl *self)
{
    if (GY_LIKELY(self->ssl != NULL) && GY_UNLIKELY(self->lib->ERR_peek_error() != 0))
        self->lib->ERR_clear_error();
}

#endif
