/* stream_transport.h: the transport over a connected stream socket (core: struct gy_stream).
 *
 * stream_transport.c has its life, its Python methods and its type; _read.c what the core calls
 * when bytes, an end or an error came; _write.c everything that sends. Thread: the loop's. */
#ifndef GPY_STREAM_TRANSPORT_H
#define GPY_STREAM_TRANSPORT_H

#include "transport.h"

#include "../core/stream.h"

/* Writes up to this much together wait for the end of the running callback, so that a header and
 * its body are one send(2). */
enum { GPY_HOLD_BYTES = 4096 };

struct gpy_stream_transport {
    struct gpy_transport base;
    struct gy_stream stream;
    PyObject *empty_waiter; /* sendfile waits for an empty buffer: a future, or NULL           */
    Py_buffer *view;        /* BufferedProtocol: allocated; view->obj is set during a recv(2)  */
    PyObject *into;         /* the bytes object that the running recv(2) fills, or NULL        */
    uint32_t recv_hint;     /* how large the next one is made; 0: the loop's scratch memory    */
    uint16_t recv_largest;  /* KiB, rounded up, of the messages in a row that were smaller     */
    uint8_t recv_smaller;   /* how many they are                                               */
    bool eof;               /* write_eof() was called                                          */
};

/* With the collector's head one size class of pymalloc; the next class is 16 bytes more for each
 * connection, and beyond 512 comes malloc(). */
#if UINTPTR_MAX == UINT64_MAX && !defined(Py_GIL_DISABLED)
_Static_assert(sizeof(struct gpy_stream_transport) <= 464 - 16, "memory of an idle connection");
#endif

static inline struct gpy_stream_transport *
gpy_stream_transport_of(struct gy_stream *stream)
{
    return container_of(stream, struct gpy_stream_transport, stream);
}

static inline struct gpy_stream_transport *
gpy_stream_transport_of_base(struct gpy_transport *base)
{
    return container_of(base, struct gpy_stream_transport, base);
}

/* A transport over parts->fd, which it owns from here on if this succeeds; nothing is scheduled
 * yet.
 */
struct gpy_stream_transport *gpy_stream_transport_new(struct gpy_loop *loop,
                                                      const struct gpy_transport_parts *parts);
/* Schedules connection_made(), then the start of reading and the result of `waiter` (NULL: none).
 * 0 or -1. */
int gpy_stream_transport_start(struct gpy_stream_transport *self, PyObject *waiter);
/* Before the start, if the socket is not TCP: a short read does not mean that it is empty. */
void gpy_stream_transport_not_tcp(struct gpy_stream_transport *self);
/* For a transport that was never started: closes it without a word. */
void gpy_stream_transport_discard(struct gpy_stream_transport *self);

/* transport.close().  0 or -1. */
int gpy_stream_transport_close(struct gpy_stream_transport *self);
/* Schedules connection_lost(exc) unless it is already; exc NULL: None.  0 or -1. */
int gpy_stream_transport_lose(struct gpy_stream_transport *self, PyObject *exc);

extern const struct gy_stream_host gpy_stream_transport_host;

/* stream_transport_read.c */
bool gpy_stream_transport_on_buffer(struct gy_stream *stream, void **data, size_t *len);
void gpy_stream_transport_on_data(struct gy_stream *stream, void *data, size_t len);
void gpy_stream_transport_on_unused(struct gy_stream *stream);
void gpy_stream_transport_on_eof(struct gy_stream *stream);
void gpy_stream_transport_on_error(struct gy_stream *stream, int err);
void gpy_stream_transport_release_view(struct gpy_stream_transport *self);

/* stream_transport_write.c */
void gpy_stream_transport_on_drained(struct gy_stream *stream);
void gpy_stream_transport_on_release(struct gy_stream *stream, void *owner);
PyObject *gpy_stream_transport_write(struct gpy_stream_transport *self, PyObject *data);
PyObject *gpy_stream_transport_writelines(struct gpy_stream_transport *self, PyObject *list);
PyObject *gpy_stream_transport_write_eof(struct gpy_stream_transport *self, PyObject *ignored);
PyObject *gpy_stream_transport_make_empty_waiter(struct gpy_stream_transport *self,
                                                 PyObject *ignored);
PyObject *gpy_stream_transport_reset_empty_waiter(struct gpy_stream_transport *self,
                                                  PyObject *ignored);
PyObject *gpy_stream_transport_buffer_get(struct gpy_stream_transport *self, void *closure);
/* The waiter's error, if there is a waiter that is not done. */
void gpy_stream_transport_fail_empty_waiter(struct gpy_stream_transport *self, PyObject *exc);
/* write() of memory that is used again; may_hold: a little waits for the end of the callback.  What
 * a transport that is lost does not take is dropped.  0 or -1 with an exception. */
int gpy_stream_transport_send(struct gpy_stream_transport *self, const char *data, size_t len,
                              bool may_hold);
/* One attempt to send what could not wait: how much of it the socket took, 0 if any of it has to go
 * through gpy_stream_transport_send(), -errno after which gpy_stream_transport_send_failed() has to
 * be called.  Runs nobody's code. */
ssize_t gpy_stream_transport_try_send(struct gpy_stream_transport *self, const char *data,
                                      size_t len);
void gpy_stream_transport_send_failed(struct gpy_stream_transport *self, int err);
/* What is held back leaves now, as far as the socket takes it. */
void gpy_stream_transport_flush(struct gpy_stream_transport *self);

/* The loop's method (listener.h lists it). */
PyObject *gpy_loop_make_socket_transport(struct gpy_loop *loop, PyObject *args, PyObject *kwargs);

int gpy_stream_transport_exec(PyObject *module, struct gpy_state *state);

#endif
