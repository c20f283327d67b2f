/* ssl_pipe.c: see ssl_pipe.h.
 *
 * OpenSSL calls the functions from within SSL_read(), SSL_write() and the handshake; they call
 * nothing but OpenSSL's BIO functions and pipe->send. */
#include "ssl_pipe.h"

#include <limits.h>
#include <string.h>

/* From openssl/bio.h; they are part of its binary interface. */
enum {
    BIO_FLAGS_READ = 0x01,
    BIO_FLAGS_RWS = 0x07,
    BIO_FLAGS_SHOULD_RETRY = 0x08,
    CTRL_EOF = 2,
    CTRL_PENDING = 10,
    CTRL_FLUSH = 11,
    CTRL_DUP = 12,
};

static int
put(struct gpy_ssl_pipe *pipe, void *bio, const char *data, size_t len)
{
    while (len != 0) {
        int part = len < INT_MAX ? (int)len : INT_MAX;
        if (pipe->lib->BIO_write(bio, data, part) != part)
            return -1;
        data += part;
        len -= (size_t)part;
    }
    return 0;
}

/* ---- the BIO ------------------------------------------------------------------------------------
 */

/* From the MemoryBIO: what came earlier, its end, or "nothing yet". */
static GY_COLD int
read_stored(struct gpy_ssl_pipe *pipe, void *bio, char *into, size_t room, size_t *got)
{
    int count = pipe->lib->BIO_read(pipe->incoming, into, room < INT_MAX ? (int)room : INT_MAX);
    pipe->retry = count <= 0 && pipe->lib->BIO_test_flags(pipe->incoming, BIO_FLAGS_SHOULD_RETRY);
    if (pipe->retry)
        pipe->lib->BIO_set_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY);
    *got = count > 0 ? (size_t)count : 0;
    return count > 0 ? 1 : count;
}

int
gpy_ssl_pipe_read(void *bio, char *into, size_t room, size_t *got)
{
    struct gpy_ssl_pipe *pipe = gpy_openssl_bio_data(bio);
    if (GY_UNLIKELY(pipe->retry))
        pipe->lib->BIO_clear_flags(bio, BIO_FLAGS_RWS | BIO_FLAGS_SHOULD_RETRY);
    pipe->retry = false;
    if (GY_UNLIKELY(pipe->in_bytes == 0))
        return read_stored(pipe, bio, into, room, got);
    size_t part = room < pipe->in_bytes ? room : pipe->in_bytes;
    memcpy(into, pipe->in, part);
    pipe->in += part;
    pipe->in_bytes -= part;
    *got = part;
    return 1;
}

/* All of it, or -1: no memory. */
static int
write_some(struct gpy_ssl_pipe *pipe, const char *data, size_t len)
{
    if (GY_UNLIKELY(pipe->spilled || pipe->out == NULL || len > pipe->out_room - pipe->out_bytes)) {
        if (gpy_ssl_pipe_spill(pipe) < 0)
            return -1;
        pipe->spilled = true;
        return put(pipe, pipe->outgoing, data, len);
    }
    memcpy(pipe->out + pipe->out_bytes, data, len);
    pipe->out_bytes += len;
    return 0;
}

int
gpy_ssl_pipe_write(void *bio, const char *data, size_t len, size_t *written)
{
    struct gpy_ssl_pipe *pipe = gpy_openssl_bio_data(bio);
    size_t done = 0;
    *written = len;
    if (pipe->send != NULL && len >= pipe->send_min && pipe->out_bytes == 0 && !pipe->spilled) {
        ssize_t sent = pipe->send(pipe->send_context, data, len);
        if (GY_UNLIKELY(sent < 0)) {
            pipe->send_error = (int)sent;
            return 1;
        }
        done = (size_t)sent;
    }
    if (done < len && write_some(pipe, data + done, len - done) < 0) {
        *written = 0;
        return -1;
    }
    return 1;
}

long
gpy_ssl_pipe_ctrl(void *bio, int command, long number, void *pointer)
{
    struct gpy_ssl_pipe *pipe;
    switch (command) {
    case CTRL_FLUSH:
    case CTRL_DUP:
        return 1;
    case CTRL_EOF:
        pipe = gpy_openssl_bio_data(bio);
        return pipe->in_bytes == 0 ? pipe->lib->BIO_ctrl(pipe->incoming, command, number, pointer)
                                   : 0;
    case CTRL_PENDING:
        pipe = gpy_openssl_bio_data(bio);
        return (long)(pipe->in_bytes + pipe->lib->BIO_ctrl_pending(pipe->incoming));
    default: /* kernel TLS, of which there are several questions per record, among others */
        return 0;
    }
}

/* ---- the owner's half ---------------------------------------------------------------------------
 */

int
gpy_ssl_pipe_attach(struct gpy_ssl_pipe *pipe, const struct gpy_openssl *lib, void *ssl)
{
    void *incoming = lib->SSL_get_rbio(ssl), *outgoing = lib->SSL_get_wbio(ssl);
    void *bio = incoming && outgoing ? lib->BIO_new(lib->pipe_method) : NULL;
    if (bio == NULL)
        return -1;
    *pipe = (struct gpy_ssl_pipe){.lib = lib, .incoming = incoming, .outgoing = outgoing};
    lib->BIO_set_data(bio, pipe);
    lib->BIO_set_init(bio, 1);
    /* ours, and one for each of the two places that the SSL has it in */
    (void)lib->BIO_up_ref(incoming);
    (void)lib->BIO_up_ref(outgoing);
    (void)lib->BIO_up_ref(bio);
    lib->SSL_set0_rbio(ssl, bio);
    lib->SSL_set0_wbio(ssl, bio);
    return 0;
}

void
gpy_ssl_pipe_detach(struct gpy_ssl_pipe *pipe, void *ssl)
{
    (void)gpy_ssl_pipe_keep_in(pipe);
    (void)gpy_ssl_pipe_spill(pipe);
    pipe->lib->SSL_set0_rbio(ssl, pipe->incoming); /* which take our references */
    pipe->lib->SSL_set0_wbio(ssl, pipe->outgoing);
    pipe->incoming = pipe->outgoing = NULL;
}

int
gpy_ssl_pipe_keep_in(struct gpy_ssl_pipe *pipe)
{
    size_t len = pipe->in_bytes;
    if (GY_LIKELY(len == 0))
        return 0;
    pipe->in_bytes = 0;
    pipe->stored = true;
    return put(pipe, pipe->incoming, pipe->in, len);
}

int
gpy_ssl_pipe_spill(struct gpy_ssl_pipe *pipe)
{
    if (pipe->out_bytes != 0) {
        pipe->spilled = true;
        if (put(pipe, pipe->outgoing, pipe->out, pipe->out_bytes) < 0)
            return -1;
    }
    pipe->out = NULL;
    pipe->out_bytes = 0;
    return 0;
}
