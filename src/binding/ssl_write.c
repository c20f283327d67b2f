/* ssl_write.c: from the application to the socket: _write_appdata() and _process_outgoing() in C.
 *
 * Records are made a step of plaintext at a time and leave from the loop's scratch memory by
 * send(2), one of its own from OpenSSL's.  While the transport below wants a pause they stay in
 * the BIO, as in asyncio.  Small records that are written while a feed is under way wait for its
 * end, so that a header and its body are one send(2); they count as sent, as far as anybody asks.
 * Thread: the loop's. */
#include "ssl_engine.h"

#include "pycompat.h"

#include <string.h>

enum { RECORD_BYTES_MAX = 16384 }; /* of plaintext */

Py_ssize_t
gpy_ssl_write_buffer_size(struct gpy_ssl *self)
{
    return (Py_ssize_t)gpy_ssl_outgoing(self) + self->backlog_bytes;
}

/* ---- records -> transport -----------------------------------------------------------------------
 */

static struct gpy_stream_transport *
stream_below(struct gpy_ssl *self)
{
    PyObject *transport = self->transport;
    return transport != NULL && Py_TYPE(transport) == self->state->stream_transport_type
               ? (struct gpy_stream_transport *)transport
               : NULL;
}

static bool
lost_below(struct gpy_ssl *self)
{
    struct gpy_stream_transport *stream = stream_below(self);
    return stream != NULL && stream->base.conn_lost != 0;
}

/* The loop's scratch memory, which nobody else uses from now on; NULL without an exception: there
 * is none, or what somebody has in it can be put nowhere else. */
static char *
take_scratch(struct gpy_loop *loop)
{
    if (GY_UNLIKELY(loop->ssl_scratch == NULL))
        loop->ssl_scratch = PyMem_Malloc(GPY_SSL_SCRATCH_BYTES);
    struct gpy_ssl *holder = loop->ssl_holder;
    if (holder != NULL) {
        if (gpy_ssl_pipe_spill(&holder->pipe) < 0)
            return NULL;
        holder->scratch_loop = NULL;
        loop->ssl_holder = NULL;
    }
    return loop->ssl_scratch;
}

/* Records are written to the scratch memory from here on, if nothing has to go before them. */
static void
open_pipe(struct gpy_ssl *self)
{
    struct gpy_stream_transport *stream = stream_below(self);
    if (self->ssl == NULL || self->pipe.spilled || self->scratch_loop != NULL || stream == NULL)
        return;
    struct gpy_loop *loop = stream->base.loop;
    self->pipe.out = take_scratch(loop);
    if (self->pipe.out == NULL)
        return;
    self->pipe.out_room = GPY_SSL_SCRATCH_BYTES;
    self->scratch_loop = loop;
    loop->ssl_holder = self;
}

int
gpy_ssl_close_pipe_slow(struct gpy_ssl *self)
{
    GY_ASSERT(self->scratch_loop->ssl_holder == self);
    int rc = gpy_ssl_pipe_spill(&self->pipe);
    self->scratch_loop->ssl_holder = NULL;
    self->scratch_loop = NULL;
    if (GY_LIKELY(rc == 0))
        return 0;
    self->pipe.out = NULL;
    self->pipe.out_bytes = 0;
    (void)PyErr_NoMemory();
    return -1;
}

/* One write to a stream transport of ours. */
static int
send_step(struct gpy_ssl *self, struct gpy_stream_transport *stream, bool first)
{
    size_t len = self->pipe.out_bytes;
    const char *data = self->pipe.out;
    if (GY_UNLIKELY(len == 0)) {
        char *scratch = take_scratch(stream->base.loop);
        int taken = scratch ? gpy_ssl_take(self, scratch, GPY_SSL_SCRATCH_BYTES) : -1;
        if (scratch == NULL)
            (void)PyErr_NoMemory();
        if (taken <= 0)
            return taken < 0 && PyErr_Occurred() ? -1 : 0;
        data = scratch;
        len = (size_t)taken;
    }
    self->pipe.out_bytes = 0;
    if (!first && stream->base.conn_lost)
        return 0;
    return gpy_stream_transport_send(stream, data, len, !self->feeding);
}

/* A transport that is not ours, or TLS in TLS. */
static GY_COLD int
write_otherwise(struct gpy_ssl *self, size_t len)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)len);
    PyObject *result = NULL;
    PyObject *transport = Py_NewRef(self->transport ? self->transport : Py_None);
    if (bytes != NULL && gpy_ssl_take(self, PyBytes_AS_STRING(bytes), len) == (int)len)
        result = PyObject_CallMethodOneArg(transport, self->state->str_write, bytes);
    Py_XDECREF(bytes);
    Py_DECREF(transport);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

/* Everything that waits.  To the transport it is one write: when that fails half-way, the rest
 * is no further write to a lost connection.  `first`: it is not the rest of a write itself. */
static int
send_all(struct gpy_ssl *self, bool first)
{
    size_t len;
    int rc = 0;
    while (rc == 0 && (len = gpy_ssl_outgoing(self)) != 0) {
        struct gpy_stream_transport *stream = stream_below(self);
        if (GY_UNLIKELY(stream == NULL) && (rc = gpy_ssl_close_pipe(self)) < 0)
            break;
        rc = stream != NULL ? send_step(self, stream, first)
                            : write_otherwise(self, len < (size_t)INT_MAX ? len : (size_t)INT_MAX);
        first = false;
    }
    return rc;
}

int
gpy_ssl_drain(struct gpy_ssl *self)
{
    return self->ssl_writing_paused ? 0 : send_all(self, true);
}

/* pause_writing() and resume_writing() of the application. */
static int
control_writing(struct gpy_ssl *self)
{
    Py_ssize_t size = gpy_ssl_write_buffer_size(self);
    if (GY_LIKELY(self->app_writing_paused ? size > self->outgoing_low
                                           : size < self->outgoing_high))
        return 0;
    PyObject *result = gpy_ssl_super(self, self->state->str__control_app_writing, NULL);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

int
gpy_ssl_process_outgoing(struct gpy_ssl *self)
{
    return gpy_ssl_drain(self) < 0 ? -1 : control_writing(self);
}

/* ---- plaintext -> records -----------------------------------------------------------------------
 */

/* One write(), or a writelines() of several objects. */
struct write {
    bool open;  /* records may leave at once                                         */
    bool begun; /* some have: all follow, as in asyncio's one write, even if the transport
                 * below is paused or lost by then                                     */
    bool waits; /* something went into the backlog                                   */
};

/* Makes records of data..len, in steps that leave at once.  How much OpenSSL took; less than len:
 * it wants to be asked again, or failed.  *rc is -1 with an exception of the sending. */
static size_t
encrypt(struct gpy_ssl *self, const char *data, size_t len, struct write *write, int *rc)
{
    size_t done = 0;
    *rc = 0;
    while (done < len && *rc == 0) {
        size_t step = len - done < GPY_SSL_STEP_BYTES ? len - done : GPY_SSL_STEP_BYTES;
        size_t written = gpy_ssl_seal(self, data + done, step);
        if (GY_UNLIKELY(written == 0))
            break;
        done += written;
        bool rest = write->begun && (self->ssl_writing_paused || lost_below(self));
        if (write->open && (done < len || rest)) {
            *rc = send_all(self, !write->begun);
            write->begun = true;
        }
    }
    return done;
}

/* OpenSSL did not take object[from:]: that waits in asyncio's backlog. */
static int
push_backlog(struct gpy_ssl *self, PyObject *object, const char *data, size_t from, size_t len)
{
    PyObject *rest = from == 0 ? Py_NewRef(object)
                               : PyBytes_FromStringAndSize(data + from, (Py_ssize_t)(len - from));
    PyObject *result = rest ? PyObject_CallMethod(self->backlog, "append", "O", rest) : NULL;
    Py_XDECREF(rest);
    if (result == NULL)
        return -1;
    Py_DECREF(result);
    self->backlog_bytes += (Py_ssize_t)(len - from);
    return 0;
}

/* Bytes, a bytearray or a flat memoryview of bytes: what len() and the buffer agree on. */
static bool
is_plain(PyObject *object)
{
    if (PyBytes_CheckExact(object) || PyByteArray_CheckExact(object))
        return true;
    if (!PyMemoryView_Check(object))
        return false;
    const Py_buffer *view = PyMemoryView_GET_BUFFER(object);
    return view->ndim == 1 && view->itemsize == 1 && PyBuffer_IsContiguous(view, 'C');
}

/* A record of its own that would leave by the next call anyway. */
static ssize_t
send_record(void *context, const char *data, size_t len)
{
    return gpy_stream_transport_try_send(context, data, len);
}

/* encrypt() of an object that is all of its write: records leave from OpenSSL's memory if there
 * will be only one, too large to wait for others. */
static size_t
encrypt_alone(struct gpy_ssl *self, const char *data, size_t len, struct write *write, int *rc)
{
    struct gpy_stream_transport *stream = stream_below(self);
    if (!write->open || self->ssl == NULL || stream == NULL || len <= GPY_HOLD_BYTES ||
        len > RECORD_BYTES_MAX)
        return encrypt(self, data, len, write, rc);
    Py_INCREF((PyObject *)stream);
    self->pipe.send = send_record;
    self->pipe.send_context = stream;
    self->pipe.send_min = GPY_HOLD_BYTES;
    self->pipe.send_error = 0;
    size_t done = encrypt(self, data, len, write, rc);
    self->pipe.send = NULL;
    if (GY_UNLIKELY(self->pipe.send_error < 0))
        gpy_stream_transport_send_failed(stream, self->pipe.send_error);
    Py_DECREF((PyObject *)stream);
    return done;
}

/* Encrypts one object, which is all of the write if `alone`. */
static int
write_object(struct gpy_ssl *self, PyObject *object, bool alone, struct write *write)
{
    Py_buffer view;
    int rc = 0;
    if (PyObject_GetBuffer(object, &view, PyBUF_SIMPLE) < 0)
        return -1;
    size_t len = (size_t)view.len;
    size_t done = 0;
    if (!write->waits)
        done = alone ? encrypt_alone(self, view.buf, len, write, &rc)
                     : encrypt(self, view.buf, len, write, &rc);
    if (rc == 0 && done < len) {
        write->waits = true;
        rc = push_backlog(self, object, view.buf, done, len);
    }
    PyBuffer_Release(&view);
    return rc;
}

/* What was written is in the BIO, or some of it in the backlog: on with it. */
static int
finish(struct gpy_ssl *self, bool waits)
{
    if (GY_UNLIKELY(waits)) {
        /* asks OpenSSL once more, which then says in _ssl's words what is wrong */
        PyObject *result = PyObject_CallMethodNoArgs((PyObject *)self, self->state->str__do_write);
        Py_XDECREF(result);
        return result ? 0 : -1;
    }
    if (self->feeding) {
        Py_ssize_t size = gpy_ssl_write_buffer_size(self);
        if (size <= GPY_HOLD_BYTES && size < self->outgoing_high && !self->app_writing_paused)
            return 0;
    }
    return gpy_ssl_process_outgoing(self);
}

/* The end of a write; inside a feed it is the feed that closes the pipe. */
static PyObject *
none_or_fatal(struct gpy_ssl *self, int rc)
{
    if (!self->feeding && gpy_ssl_close_pipe(self) < 0)
        rc = -1;
    if (GY_UNLIKELY(rc < 0) && gpy_ssl_fatal_error(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* True if records can be made at once: nothing waits, and asyncio would not refuse. */
static bool
can_encrypt(struct gpy_ssl *self)
{
    if (GY_UNLIKELY(self->ssl_socket == NULL || self->phase != GPY_SSL_WRAPPED ||
                    self->backlog == NULL))
        return false;
    Py_ssize_t waiting = PyObject_Size(self->backlog);
    if (GY_UNLIKELY(waiting < 0))
        PyErr_Clear();
    gpy_ssl_forget_errors(self);
    return waiting == 0;
}

PyObject *
gpy_ssl_write(struct gpy_ssl *self, PyObject *data)
{
    if (GY_UNLIKELY(!can_encrypt(self) || !is_plain(data))) {
        PyObject *list = PyTuple_Pack(1, data);
        PyObject *result = list ? gpy_ssl_super(self, self->state->str__write_appdata, list) : NULL;
        Py_XDECREF(list);
        return result;
    }
    struct write write = {.open = !self->ssl_writing_paused};
    if (write.open)
        open_pipe(self);
    int rc = write_object(self, data, true, &write);
    return none_or_fatal(self, rc < 0 ? rc : finish(self, write.waits));
}

PyObject *
gpy_ssl_write_appdata(struct gpy_ssl *self, PyObject *list)
{
    PyObject *items = PySequence_List(list);
    bool fits = items != NULL && can_encrypt(self);
    int rc = 0;
    if (items == NULL)
        return NULL;
    for (Py_ssize_t i = 0; fits && i < PyList_GET_SIZE(items); i++)
        fits = is_plain(PyList_GET_ITEM(items, i));
    if (!fits) {
        PyObject *result = gpy_ssl_super(self, self->state->str__write_appdata, items);
        Py_DECREF(items);
        return result;
    }
    struct write write = {.open = !self->ssl_writing_paused};
    if (write.open)
        open_pipe(self);
    for (Py_ssize_t i = 0; rc == 0 && i < PyList_GET_SIZE(items); i++)
        rc = write_object(self, PyList_GET_ITEM(items, i), false, &write);
    Py_DECREF(items);
    return none_or_fatal(self, rc < 0 ? rc : finish(self, write.waits));
}
