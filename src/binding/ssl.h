/* ssl.h: TLS in C: the data path of asyncio's SSLProtocol and of its transport.
 *
 * gyre's TLS protocol is a subclass of asyncio's (python/gyre/_tls.py), with SSLCore, the type of
 * this file, in front of it.  Whatever happens once per connection stays asyncio's own Python, in
 * the version that runs: handshake, shutdown, time limits, state machine, messages.  SSLCore owns
 * the fields that both read and overrides what runs per packet:
 *   bytes in   the stream transport hands ciphertext over without a Python object (gpy_ssl_feed);
 *              OpenSSL reads it where it lies (ssl_pipe.h), and it is decrypted straight into the
 *              bytes object, or the protocol's buffer, that the application gets
 *   bytes out  records are made in memory of the loop's and leave from there by send(2); only what
 *              the socket does not take becomes an object
 * Each override handles the common case and otherwise calls asyncio's method.  Where OpenSSL cannot
 * be called directly (ssl_openssl.h) `ssl` is NULL, and _ssl's methods are called (ssl_engine.h).
 *
 * Owner: Python references.  Thread: the loop's. */
#ifndef GPY_SSL_H
#define GPY_SSL_H

#include "ssl_pipe.h"
#include "stream_transport.h"

/* One step of records: so much plaintext is encrypted before it leaves, and the memory BIOs never
 * grow much beyond it. */
enum {
    GPY_SSL_STEP_BYTES = 64 * 1024,
    GPY_SSL_FEED_BYTES = 32 * 1024,
    GPY_SSL_SCRATCH_BYTES = 72 * 1024, /* a step with the overhead of its records */
};

enum gpy_ssl_phase {
    GPY_SSL_OTHER, /* UNWRAPPED */
    GPY_SSL_HANDSHAKE,
    GPY_SSL_WRAPPED,
    GPY_SSL_FLUSHING,
    GPY_SSL_SHUTDOWN,
};

/* Where in a record the stream of ciphertext stands: only to know how much plaintext there will be.
 */
struct gpy_ssl_frame {
    uint32_t body_bytes; /* of the record            */
    uint32_t left_bytes; /* of its body, yet to come */
    uint8_t header[5];
    uint8_t header_bytes; /* that are there */
};

struct gpy_ssl {
    PyObject_HEAD
    struct gpy_state *state;
    const struct gpy_openssl *lib;
    void *ssl;            /* SSL*, alive as long as ssl_socket is; NULL: by calls (ssl_engine.h) */
    PyObject *ssl_object; /* _sslobj: ssl.SSLObject                         */
    PyObject *ssl_socket; /* its _ssl._SSLSocket; NULL: all is asyncio's    */
    PyObject *incoming;   /* _incoming: ssl.MemoryBIO                        */
    PyObject *outgoing;   /* _outgoing                                      */
    PyObject *loop;       /* _loop                                          */
    PyObject *transport;  /* _transport: below us                           */
    PyObject *app_protocol;
    PyObject *app_get_buffer;
    PyObject *app_buffer_updated;
    PyObject *backlog;    /* _write_backlog: a deque, as asyncio has it     */
    PyObject *phase_name; /* _state                                         */
    PyObject *weakreflist;
    Py_ssize_t backlog_bytes; /* _write_buffer_size                          */
    Py_ssize_t incoming_high;
    Py_ssize_t incoming_low;
    Py_ssize_t outgoing_high;
    Py_ssize_t outgoing_low;
    struct gpy_ssl_frame frame;
    struct gpy_ssl_pipe pipe;      /* of ssl                                                */
    struct gpy_loop *scratch_loop; /* whose scratch memory pipe.out is, or NULL             */
    uint8_t phase;                 /* enum gpy_ssl_phase, of phase_name */
    char app_is_buffer;
    char app_reading_paused;
    char app_writing_paused;
    char ssl_reading_paused;
    char ssl_writing_paused;
    bool watching; /* since _watch() until the next _sslobj                       */
    bool feeding;  /* inside gpy_ssl_feed: small records wait for its end */
};

/* The protocol if gpy_ssl_feed() may be called for it, else NULL. */
struct gpy_ssl *gpy_ssl_check(struct gpy_state *state, PyObject *protocol);

/* Ciphertext of the transport, whose protocol self is; calls the application in its context. */
void gpy_ssl_feed(struct gpy_ssl *self, struct gpy_transport *base, const char *data, size_t len);

/* ssl_read.c.  Looks at ciphertext that is on its way into the BIO: at most how many bytes the
 * records that it completes hold. */
size_t gpy_ssl_frame_walk(struct gpy_ssl_frame *frame, const char *data, size_t len);
/* 0, or -1 with an exception that is no Exception, or that asyncio's code raised. */
int gpy_ssl_read(struct gpy_ssl *self, const char *data, size_t len);

/* ssl_write.c */
PyObject *gpy_ssl_write(struct gpy_ssl *self, PyObject *data); /* bytes-like, not empty */
PyObject *gpy_ssl_write_appdata(struct gpy_ssl *self, PyObject *list);
/* Sends the records that wait, unless the transport below wants a pause; may call the application.
 * 0 or -1. */
int gpy_ssl_process_outgoing(struct gpy_ssl *self);
/* The same without a look at the water marks. */
int gpy_ssl_drain(struct gpy_ssl *self);
/* Gives the loop's scratch memory back; what is still there waits in the MemoryBIO.  0, or -1 with
 * MemoryError: it is lost. */
int gpy_ssl_close_pipe_slow(struct gpy_ssl *self);
static inline int
gpy_ssl_close_pipe(struct gpy_ssl *self)
{
    return self->scratch_loop != NULL ? gpy_ssl_close_pipe_slow(self) : 0;
}
Py_ssize_t gpy_ssl_write_buffer_size(struct gpy_ssl *self);

/* asyncio's own method, for what is rare.  New reference or NULL. */
PyObject *gpy_ssl_super(struct gpy_ssl *self, PyObject *name, PyObject *arg);
/* self._fatal_error(exc, 'Fatal error on SSL protocol') for the exception that is set, if it is an
 * Exception: 0; anything else stays set: -1. */
int gpy_ssl_fatal_error(struct gpy_ssl *self);

/* ssl_transport.c */
int gpy_ssl_transport_exec(PyObject *module, struct gpy_state *state);

int gpy_ssl_exec(PyObject *module, struct gpy_state *state);

#endif
