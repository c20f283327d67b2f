/* ssl_pipe.h: the BIO that gyre puts between an SSL* and the MemoryBIOs of its SSLObject.
 *
 * Ciphertext that has come is read by OpenSSL where it lies, and records are written to where they
 * leave from: through the MemoryBIOs alone each byte would be copied once more in either direction.
 * What cannot be taken or given that way goes through the MemoryBIOs, in the same order: whatever
 * asyncio or _ssl put there or look for there is where they expect it.
 *
 * Owner: struct gpy_ssl, which it is part of; the SSL* reads and writes it until
 * gpy_ssl_pipe_detach().  Thread: the loop's, with the GIL.
 * Invariants: `in` is set only while the incoming MemoryBIO is empty, and during gpy_ssl_read();
 * `out` only during one write() or one feed; after `spilled` everything goes to the outgoing
 * MemoryBIO until that is empty. */
#ifndef GPY_SSL_PIPE_H
#define GPY_SSL_PIPE_H

#include "ssl_openssl.h"

#include "../core/base.h"

#include <sys/types.h>

/* Takes some of a record that need not be kept: how much; 0: nothing; -errno: it is lost, and the
 * sender knows.  Calls no Python. */
typedef ssize_t gpy_ssl_pipe_send_fn(void *context, const char *data, size_t len);

struct gpy_ssl_pipe {
    const struct gpy_openssl *lib;
    void *incoming; /* the BIOs of the two MemoryBIOs: one reference each, or NULL: detached */
    void *outgoing;
    const char *in; /* what is read next                                                     */
    size_t in_bytes;
    char *out; /* memory for records, or NULL                                                */
    size_t out_bytes;
    size_t out_room;
    gpy_ssl_pipe_send_fn *send; /* for records of send_min and more when nothing waits; or NULL */
    void *send_context;
    size_t send_min;
    int send_error; /* the last -errno of send                                                */
    bool stored;    /* the incoming MemoryBIO may have something                              */
    bool spilled;   /* the outgoing one may                                                   */
    bool retry;     /* the BIO's flags say so                                                 */
};

/* Puts the pipe, which is zero, before ssl's BIOs.  0, or -1 without an exception: nothing has
 * changed. */
int gpy_ssl_pipe_attach(struct gpy_ssl_pipe *pipe, const struct gpy_openssl *lib, void *ssl);
/* ssl has its MemoryBIOs again. */
void gpy_ssl_pipe_detach(struct gpy_ssl_pipe *pipe, void *ssl);

/* What is left of `in` waits in the incoming MemoryBIO.  0, or -1 without an exception: no memory.
 */
int gpy_ssl_pipe_keep_in(struct gpy_ssl_pipe *pipe);
/* What is in `out` waits in the outgoing MemoryBIO, and `out` is let go.  0, or -1: no memory, and
 * nothing has changed. */
int gpy_ssl_pipe_spill(struct gpy_ssl_pipe *pipe);

/* Bytes of ciphertext that OpenSSL has not taken. */
static inline size_t
gpy_ssl_pipe_incoming(struct gpy_ssl_pipe *pipe)
{
    if (GY_LIKELY(!pipe->stored))
        return pipe->in_bytes;
    size_t waiting = pipe->lib->BIO_ctrl_pending(pipe->incoming);
    pipe->stored = waiting != 0;
    return pipe->in_bytes + waiting;
}

/* Bytes of records that wait. */
static inline size_t
gpy_ssl_pipe_outgoing(struct gpy_ssl_pipe *pipe)
{
    if (GY_LIKELY(!pipe->spilled))
        return pipe->out_bytes;
    size_t waiting = pipe->lib->BIO_ctrl_pending(pipe->outgoing);
    pipe->spilled = waiting != 0;
    return pipe->out_bytes + waiting;
}

/* The three functions of the BIO. */
int gpy_ssl_pipe_read(void *bio, char *into, size_t room, size_t *got);
int gpy_ssl_pipe_write(void *bio, const char *data, size_t len, size_t *written);
long gpy_ssl_pipe_ctrl(void *bio, int command, long number, void *pointer);

#endif
