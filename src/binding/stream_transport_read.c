/* stream_transport_read.c: bytes, ends and errors on their way up to the protocol.
 *
 * Purpose: the half of gy_stream_host that receives.  Thread: the loop's, from gy_loop_reap.
 * Invariants: nothing is delivered after connection_lost was scheduled; the buffer that a
 * BufferedProtocol named is exported for the time of one recv(2) only; every exception of the
 * protocol ends in gpy_transport_fatal_error(). */
#include "stream_transport.h"

#include "errors.h"
#include "pycompat.h"
#include "ssl.h"
#include "streams.h"

#include <errno.h>
#include <string.h>

/* ---- where the next bytes go ------------------------------------------------------------------
 */

/* Messages of this size and more are received straight into the bytes object that the protocol
 * gets.  It is made as large as the last ones and a little more, so that one recv(2) shows that
 * there is no more; the little is less than what the allocator would split off. */
enum { DIRECT_BYTES_MIN = 8192, DIRECT_BYTES_MORE = 8, SMALLER_IN_A_ROW = 8 };

void
gpy_stream_transport_release_view(struct gpy_stream_transport *self)
{
    Py_CLEAR(self->into);
    if (self->view != NULL && self->view->obj != NULL)
        PyBuffer_Release(self->view); /* sets obj to NULL */
}

/* Asks the protocol for its buffer.  False: nothing may be read now (it failed, closed or paused).
 * True with *data unset: another protocol took over.  `feeding`: the bytes are here already, so
 * that a pause comes too late for them. */
static bool
view_buffer(struct gpy_stream_transport *self, bool feeding, void **data, size_t *len)
{
    struct gpy_transport *base = &self->base;
    PyObject *hint = PyLong_FromLong(-1);
    PyObject *buffer = hint ? gpy_protocol_call(base->loop, base->context, base->protocol,
                                                base->state->str_get_buffer, hint)
                            : NULL;
    Py_XDECREF(hint);
    Py_ssize_t count = buffer ? PyObject_Size(buffer) : -1;
    if (count == 0)
        PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
    if (count <= 0) {
        Py_XDECREF(buffer);
        gpy_transport_fatal_error(base, "Fatal error: protocol.get_buffer() call failed.");
        return false;
    }
    /* get_buffer() may have paused, closed or put another protocol in place. */
    bool stopped = base->conn_lost || base->closing || (base->paused && !feeding);
    if (GY_UNLIKELY(stopped || base->kind != GPY_PROTOCOL_BUFFER || self->view == NULL)) {
        Py_DECREF(buffer);
        return !stopped;
    }
    gpy_stream_transport_release_view(self);
    int rc = PyObject_GetBuffer(buffer, self->view, PyBUF_WRITABLE);
    if (rc < 0) /* as socket.recv_into() says it, which is what asyncio calls */
        PyErr_Format(PyExc_TypeError,
                     "recv_into() argument 1 must be read-write bytes-like object, not %.50s",
                     Py_TYPE(buffer)->tp_name);
    Py_DECREF(buffer); /* the view holds it */
    if (rc < 0) {
        self->view->obj = NULL;
        gpy_transport_fatal_error(base, "Fatal read error on socket transport");
        return false;
    }
    *data = self->view->buf;
    *len = (size_t)self->view->len;
    return true;
}

/* A new bytes object for what comes, if the last message was large. */
static bool
own_buffer(struct gpy_stream_transport *self, void **data, size_t *len)
{
    GY_ASSERT(self->into == NULL);
    if (self->recv_hint == 0)
        return true; /* the loop's scratch memory; bytes are made of it */
    self->into = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)self->recv_hint + DIRECT_BYTES_MORE);
    if (self->into == NULL) {
        PyErr_Clear();
        return true;
    }
    *data = PyBytes_AS_STRING(self->into);
    *len = (size_t)PyBytes_GET_SIZE(self->into);
    return true;
}

/* len bytes have come: how much room the next message gets.  One that filled its room may have been
 * cut: twice as much.  Less only after several smaller ones, for a message that happens to come in
 * two pieces says nothing of the next, which would be cut. */
static void
set_hint(struct gpy_stream_transport *self, size_t len)
{
    size_t hint = self->recv_hint;
    if (len < hint) {
        uint16_t kib = (uint16_t)((len + 1023) / 1024);
        self->recv_largest = Py_MAX(kib, self->recv_largest);
        if (++self->recv_smaller < SMALLER_IN_A_ROW)
            return;
        if (kib < self->recv_largest)
            len = self->recv_largest * (size_t)1024;
    } else if (hint != 0 && len >= hint + DIRECT_BYTES_MORE) {
        len = 2 * hint;
    }
    if (len < DIRECT_BYTES_MIN)
        len = 0;
    self->recv_hint = (uint32_t)Py_MIN(len, (size_t)(GY_RECV_BYTES_MAX - DIRECT_BYTES_MORE));
    self->recv_largest = 0;
    self->recv_smaller = 0;
}

/* The bytes that came, if they are in an object already; NULL without an exception: they are in
 * memory of the core's. */
static PyObject *
take_bytes(struct gpy_stream_transport *self, const void *data, size_t len)
{
    PyObject *bytes = self->into;
    self->into = NULL;
    if (len >= DIRECT_BYTES_MIN || self->recv_hint != 0)
        set_hint(self, len);
    if (bytes == NULL)
        return NULL;
    if (data != PyBytes_AS_STRING(bytes) || len < (size_t)PyBytes_GET_SIZE(bytes) / 2)
        Py_SETREF(bytes, PyBytes_FromStringAndSize(data, (Py_ssize_t)len));
    else if (len < (size_t)PyBytes_GET_SIZE(bytes))
        gpy_bytes_cut(&bytes, (Py_ssize_t)len);
    return bytes;
}

bool
gpy_stream_transport_on_buffer(struct gy_stream *stream, void **data, size_t *len)
{
    struct gpy_stream_transport *self = gpy_stream_transport_of(stream);
    struct gpy_transport *base = &self->base;
    if (GY_UNLIKELY(base->conn_lost || base->closing))
        return false;
    if (GY_UNLIKELY(!gpy_transport_owns_fd(base))) {
        (void)gpy_oserror_raise(-EBADF);
        gpy_transport_fatal_error(base, "Fatal read error on socket transport");
        return false;
    }
    if (base->kind == GPY_PROTOCOL_DATA)
        return own_buffer(self, data, len);
    if (base->kind != GPY_PROTOCOL_BUFFER)
        return true; /* the loop's scratch memory: what TLS reads is not kept */
    return view_buffer(self, false, data, len);
}

/* ---- bytes -------------------------------------------------------------------------------------
 */

/* The protocol is a plain StreamReaderProtocol: what its data_received() would do.  False: call it.
 * bytes_or_null: an object that has the same. */
static bool
feed_stream(struct gpy_transport *base, PyObject *bytes_or_null, const void *data, size_t len)
{
    struct gpy_intake *intake = gpy_streams_intake(base->state, base->protocol);
    if (intake == NULL)
        return false;
    int rc = bytes_or_null != NULL ? gpy_intake_feed(intake, bytes_or_null)
                                   : gpy_intake_feed_memory(intake, data, len);
    Py_DECREF((PyObject *)intake);
    if (GY_UNLIKELY(rc < 0))
        gpy_transport_fatal_error(base, "Fatal error: protocol.data_received() call failed.");
    return true;
}

static void
data_received(struct gpy_stream_transport *self, const void *data, size_t len)
{
    struct gpy_transport *base = &self->base;
    PyObject *result = NULL;
    PyObject *bytes = take_bytes(self, data, len);
    bool failed = bytes == NULL && PyErr_Occurred() != NULL;
    if (!failed && base->loop->direct && feed_stream(base, bytes, data, len)) {
        Py_XDECREF(bytes);
        return;
    }
    if (bytes == NULL && !failed)
        bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)len);
    if (bytes != NULL)
        result = gpy_protocol_call(base->loop, base->context, base->protocol,
                                   base->state->str_data_received, bytes);
    Py_XDECREF(bytes);
    if (GY_UNLIKELY(result == NULL))
        gpy_transport_fatal_error(base, "Fatal error: protocol.data_received() call failed.");
    Py_XDECREF(result);
}

static void
buffer_updated(struct gpy_transport *base, size_t len)
{
    PyObject *count = PyLong_FromSize_t(len);
    PyObject *result = count ? gpy_protocol_call(base->loop, base->context, base->protocol,
                                                 base->state->str_buffer_updated, count)
                             : NULL;
    Py_XDECREF(count);
    if (GY_UNLIKELY(result == NULL))
        gpy_transport_fatal_error(base, "Fatal error: protocol.buffer_updated() call failed.");
    Py_XDECREF(result);
}

/* Bytes that lie in memory of ours go to a BufferedProtocol by copies into its buffers. */
static void
feed_buffered(struct gpy_stream_transport *self, const char *data, size_t len)
{
    struct gpy_transport *base = &self->base;
    while (len != 0 && !base->conn_lost && !base->closing) {
        void *into = NULL;
        size_t room = 0;
        if (base->kind == GPY_PROTOCOL_TLS) {
            gpy_ssl_feed((struct gpy_ssl *)base->protocol, base, data, len);
            return;
        }
        if (base->kind == GPY_PROTOCOL_DATA) {
            data_received(self, data, len);
            return;
        }
        if (!view_buffer(self, true, &into, &room))
            return;
        if (into == NULL)
            continue;
        size_t part = len < room ? len : room;
        memcpy(into, data, part);
        gpy_stream_transport_release_view(self);
        data += part;
        len -= part;
        buffer_updated(base, part);
    }
}

void
gpy_stream_transport_on_data(struct gy_stream *stream, void *data, size_t len)
{
    struct gpy_stream_transport *self = gpy_stream_transport_of(stream);
    struct gpy_transport *base = &self->base;
    if (GY_LIKELY(base->kind == GPY_PROTOCOL_DATA && !base->conn_lost && base->protocol != NULL)) {
        data_received(self, data, len);
        return;
    }
    bool in_view = self->view != NULL && self->view->obj != NULL && data == self->view->buf;
    gpy_stream_transport_release_view(self);
    if (GY_UNLIKELY(base->conn_lost || base->protocol == NULL))
        return;
    if (base->kind == GPY_PROTOCOL_TLS)
        gpy_ssl_feed((struct gpy_ssl *)base->protocol, base, data, len);
    else if (in_view)
        buffer_updated(base, len);
    else
        feed_buffered(self, data, len);
}

/* recv(2) had nothing for the memory that buffer() named. */
void
gpy_stream_transport_on_unused(struct gy_stream *stream)
{
    gpy_stream_transport_release_view(gpy_stream_transport_of(stream));
}

/* ---- ends --------------------------------------------------------------------------------------
 */

void
gpy_stream_transport_on_eof(struct gy_stream *stream)
{
    struct gpy_stream_transport *self = gpy_stream_transport_of(stream);
    struct gpy_transport *base = &self->base;
    gpy_stream_transport_release_view(self);
    if (base->conn_lost || base->protocol == NULL)
        return;
    gpy_transport_debug(base, "%r received EOF", NULL, NULL);
    PyObject *result = gpy_protocol_call(base->loop, base->context, base->protocol,
                                         base->state->str_eof_received, NULL);
    int keep_open = result ? PyObject_IsTrue(result) : -1;
    Py_XDECREF(result);
    if (keep_open < 0 && gpy_loop_keep_raised(base->loop))
        keep_open = 0; /* asyncio would call it again; the end comes only once here */
    if (keep_open < 0) {
        gpy_transport_fatal_error(base, "Fatal error: protocol.eof_received() call failed.");
        return;
    }
    if (!keep_open && gpy_stream_transport_close(self) < 0 && !gpy_loop_keep_raised(base->loop))
        PyErr_WriteUnraisable((PyObject *)self);
}

void
gpy_stream_transport_on_error(struct gy_stream *stream, int err)
{
    struct gpy_stream_transport *self = gpy_stream_transport_of(stream);
    struct gpy_transport *base = &self->base;
    gpy_stream_transport_release_view(self);
    if (base->conn_lost)
        return; /* write() met the error first */
    PyObject *exc = gpy_oserror_new(err);
    if (exc == NULL) {
        gpy_transport_fatal_error(base, "Fatal error on socket transport");
        return;
    }
    gpy_stream_transport_fail_empty_waiter(self, exc);
    gpy_exc_give(exc);
    gpy_transport_fatal_error(base, base->paused || base->closing
                                        ? "Fatal write error on socket transport"
                                        : "Fatal read error on socket transport");
}
