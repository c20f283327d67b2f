/* pipe_transport_io.c: bytes, ends and errors of pipe transports, in both directions.
 *
 * Purpose: the two hosts of the core's stream, and write().  What asyncio does with an exception of
 * the protocol differs from socket transports: it is reported, and the transport goes on.
 * Thread: the loop's.  Invariants: nothing is delivered after connection_lost was scheduled; the
 * queue holds one reference per segment until on_release; a transport whose queue is not empty is
 * pinned. */
#include "pipe_transport.h"

#include "errors.h"
#include "pycompat.h"

#include <errno.h>
#include <fcntl.h>

/* What can only be KeyboardInterrupt, SystemExit or a lack of memory leaves the loop. */
static void
keep_or_write(struct gpy_pipe_transport *self)
{
    if (!gpy_loop_keep_raised(self->base.loop))
        PyErr_WriteUnraisable((PyObject *)self);
}

static void
lose(struct gpy_pipe_transport *self, PyObject *exc)
{
    if (gpy_pipe_transport_lose(self, exc) < 0)
        keep_or_write(self);
}

/* A pipe through which much goes gets room for some more blocks: fewer changes between the two
 * processes.  Not earlier, so that one that is merely full still pushes back at 64 KiB.  The system
 * may refuse it: it limits what a user's pipes take together. */
static void
was_full(struct gpy_pipe_transport *self)
{
    enum { FULL_TO_GROW = 4, PIPE_BYTES = 256 * 1024 };
    if (GY_LIKELY(self->full >= FULL_TO_GROW) || ++self->full < FULL_TO_GROW || !self->is_fifo)
        return;
    int size = fcntl(self->base.fd, F_GETPIPE_SZ);
    if (size > 0 && size < PIPE_BYTES)
        (void)fcntl(self->base.fd, F_SETPIPE_SZ, PIPE_BYTES);
}

/* ---- reading ---------------------------------------------------------------------------------
 */

/* asyncio is silent about EIO alone: it is how a terminal hangs up. */
static GY_COLD void
read_failed(struct gpy_pipe_transport *self, int err)
{
    struct gpy_transport *base = &self->base;
    static const char message[] = "Fatal read error on pipe transport";
    PyObject *exc = gpy_oserror_new(err);
    if (exc == NULL) {
        keep_or_write(self);
        return;
    }
    gpy_exc_give(Py_NewRef(exc));
    if (err == -EIO)
        gpy_transport_fatal_error(base, message);
    else
        gpy_loop_report(base->loop, message, "transport", self, "protocol", base->protocol, NULL);
    lose(self, exc);
    Py_DECREF(exc);
}

/* What a pipe holds: a busy one is read straight into a bytes object of this size.  Small reads go
 * through the loop's scratch memory: a copy is cheaper than to cut such an object down. */
enum { BLOCK_BYTES = 64 * 1024, LARGE_BYTES = 16 * 1024 };

static bool
reader_on_buffer(struct gy_stream *stream, void **data, size_t *len)
{
    struct gpy_pipe_transport *self = gpy_pipe_transport_of(stream);
    if (GY_UNLIKELY(self->base.closing))
        return false;
    if (GY_UNLIKELY(!gpy_pipe_transport_owns_fd(self))) {
        read_failed(self, -EBADF);
        return false;
    }
    if (!self->reads_large)
        return true; /* the loop's scratch memory */
    if (self->block == NULL)
        self->block = PyBytes_FromStringAndSize(NULL, BLOCK_BYTES);
    if (self->block == NULL) {
        PyErr_Clear();
        return true;
    }
    *data = PyBytes_AS_STRING(self->block);
    *len = BLOCK_BYTES;
    return true;
}

/* The bytes object of what was read.  New reference or NULL. */
static PyObject *
take_bytes(struct gpy_pipe_transport *self, const void *data, size_t len)
{
    PyObject *bytes;
    self->reads_large = len >= LARGE_BYTES;
    if (len >= BLOCK_BYTES)
        was_full(self);
    if (self->block == NULL || data != PyBytes_AS_STRING(self->block))
        return PyBytes_FromStringAndSize(data, (Py_ssize_t)len);
    bytes = self->block;
    self->block = NULL;
    if (len != BLOCK_BYTES)
        (void)_PyBytes_Resize(&bytes, (Py_ssize_t)len); /* NULL if it fails */
    return bytes;
}

static void
reader_on_data(struct gy_stream *stream, void *data, size_t len)
{
    struct gpy_pipe_transport *self = gpy_pipe_transport_of(stream);
    struct gpy_transport *base = &self->base;
    if (GY_UNLIKELY(base->closing || base->protocol == NULL))
        return;
    PyObject *bytes = take_bytes(self, data, len);
    PyObject *result = bytes ? gpy_protocol_call(base->loop, base->context, base->protocol,
                                                 base->state->str_data_received, bytes)
                             : NULL;
    Py_XDECREF(bytes);
    if (GY_UNLIKELY(result == NULL) && !gpy_loop_keep_raised(base->loop))
        gpy_loop_report(base->loop, "Exception in callback protocol.data_received()", "transport",
                        self, "protocol", base->protocol, NULL);
    Py_XDECREF(result);
}

static void
reader_on_eof(struct gy_stream *stream)
{
    struct gpy_pipe_transport *self = gpy_pipe_transport_of(stream);
    struct gpy_transport *base = &self->base;
    if (base->closing || base->protocol == NULL)
        return;
    Py_CLEAR(self->block);
    gpy_transport_info(base, "%r was closed by peer");
    PyObject *method = PyObject_GetAttr(base->protocol, base->state->str_eof_received);
    int rc = method ? gpy_loop_call_soon(base->loop, method, NULL, base->context) : -1;
    Py_XDECREF(method);
    if (rc < 0)
        keep_or_write(self);
    lose(self, NULL);
}

static void
reader_on_error(struct gy_stream *stream, int err)
{
    struct gpy_pipe_transport *self = gpy_pipe_transport_of(stream);
    if (!self->base.conn_lost)
        read_failed(self, err);
}

static void
reader_on_drained(struct gy_stream *stream)
{
    GY_UNUSED(stream);
}

static void
on_release(struct gy_stream *stream, void *owner)
{
    GY_UNUSED(stream);
    Py_DECREF((PyObject *)owner);
}

const struct gy_stream_host gpy_pipe_reader_host = {
    .buffer = reader_on_buffer,
    .data = reader_on_data,
    .eof = reader_on_eof,
    .error = reader_on_error,
    .drained = reader_on_drained,
    .release = on_release,
    .detach = gpy_pipe_transport_on_detach,
    .closed = gpy_pipe_transport_on_closed,
};

/* ---- writing ---------------------------------------------------------------------------------
 */

static GY_COLD void
write_failed(struct gpy_pipe_transport *self, int err)
{
    self->lost_writes++;
    if (gpy_oserror_raise(err) == NULL)
        gpy_transport_fatal_error(&self->base, "Fatal write error on pipe transport");
}

static bool
writer_on_buffer(struct gy_stream *stream, void **Py_UNUSED(data), size_t *Py_UNUSED(len))
{
    GY_UNUSED(stream);
    return false; /* it only watches */
}

static void
writer_on_data(struct gy_stream *stream, void *Py_UNUSED(data), size_t Py_UNUSED(len))
{
    GY_UNUSED(stream);
}

/* Nobody will read any more; or, on a socket, the peer has sent something: asyncio's rule. */
static void
writer_on_eof(struct gy_stream *stream)
{
    struct gpy_pipe_transport *self = gpy_pipe_transport_of(stream);
    struct gpy_transport *base = &self->base;
    if (base->conn_lost)
        return;
    gpy_transport_info(base, "%r was closed by peer");
    if (gy_stream_queued(stream) == 0) {
        lose(self, NULL);
        return;
    }
    PyObject *exc = PyObject_CallNoArgs(PyExc_BrokenPipeError);
    if (exc == NULL)
        keep_or_write(self);
    lose(self, exc);
    Py_XDECREF(exc);
}

static void
writer_on_error(struct gy_stream *stream, int err)
{
    struct gpy_pipe_transport *self = gpy_pipe_transport_of(stream);
    if (!self->base.conn_lost)
        write_failed(self, err);
}

static void
writer_on_drained(struct gy_stream *stream)
{
    struct gpy_pipe_transport *self = gpy_pipe_transport_of(stream);
    struct gpy_transport *base = &self->base;
    if (base->conn_lost)
        return;
    if (gpy_pipe_transport_owns_fd(self))
        was_full(self);
    gpy_transport_maybe_resume(base); /* may write */
    if (base->closing && !base->conn_lost && gy_stream_queued(stream) == 0)
        lose(self, NULL);
}

const struct gy_stream_host gpy_pipe_writer_host = {
    .buffer = writer_on_buffer,
    .data = writer_on_data,
    .eof = writer_on_eof,
    .error = writer_on_error,
    .drained = writer_on_drained,
    .release = on_release,
    .detach = gpy_pipe_transport_on_detach,
    .closed = gpy_pipe_transport_on_closed,
};

/* data..len, which lies inside `object`, is queued as a reference to bytes or as a snapshot.  0 or
 * -1. */
static int
push(struct gpy_pipe_transport *self, PyObject *object, const char *data, size_t len)
{
    PyObject *owner = PyBytes_CheckExact(object) ? Py_NewRef(object)
                                                 : PyBytes_FromStringAndSize(data, (Py_ssize_t)len);
    if (owner == NULL)
        return -1;
    struct gy_segment segment = {owner == object ? data : PyBytes_AS_STRING(owner), len, owner};
    int err = gy_stream_write(&self->stream, &segment);
    if (GY_LIKELY(err == 0)) {
        gpy_transport_pin(&self->base);
        return 0;
    }
    Py_DECREF(owner);
    if (err != -ENOMEM)
        return 0; /* the stream is broken: its error is on the way */
    (void)PyErr_NoMemory();
    return -1;
}

/* len > 0 bytes: what the pipe takes at once, the rest later.  0, or -1 with an exception. */
static int
write_bytes(struct gpy_pipe_transport *self, PyObject *object, const char *data, size_t len)
{
    struct gpy_transport *base = &self->base;
    struct gy_stream *stream = &self->stream;

    if (GY_UNLIKELY(!gpy_pipe_transport_owns_fd(self))) {
        write_failed(self, -EBADF);
        return 0;
    }
    if (gy_stream_queued(stream) == 0) {
        ssize_t written = gy_stream_try_write(stream, data, len);
        if (GY_UNLIKELY(written < 0)) {
            write_failed(self, (int)written);
            return 0;
        }
        data += written;
        len -= (size_t)written;
        if (len == 0)
            return 0;
    }
    if (push(self, object, data, len) < 0)
        return -1;
    if (!base->loop->busy) /* nobody else would wait for room before the next callback */
        gy_stream_flush(stream);
    return base->conn_lost ? 0 : gpy_transport_maybe_pause(base);
}

/* A write after the end: counted, and logged from the sixth on, as asyncio does.  0 or -1. */
static GY_COLD int
ignored_write(struct gpy_pipe_transport *self)
{
    PyObject *result = Py_NewRef(Py_None);
    if (self->lost_writes >= GPY_LOG_THRESHOLD_FOR_CONNLOST_WRITES)
        Py_SETREF(result, PyObject_CallMethod(self->base.state->asyncio_logger, "warning", "s",
                                              "pipe closed by peer or os.write(pipe, data) raised "
                                              "exception."));
    if (self->lost_writes < UINT32_MAX)
        self->lost_writes++;
    Py_XDECREF(result);
    return result ? 0 : -1;
}

PyObject *
gpy_pipe_transport_write(struct gpy_pipe_transport *self, PyObject *data)
{
    Py_buffer view;
    int rc = 0;
    if (GY_UNLIKELY(!PyBytes_Check(data) && !PyByteArray_Check(data) &&
                    !PyMemoryView_Check(data))) {
        PyErr_Format(PyExc_AssertionError, "%R", data); /* asyncio asserts it */
        return NULL;
    }
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    if (view.len != 0) {
        if (GY_UNLIKELY(self->base.closing || self->base.core_ended))
            rc = ignored_write(self);
        else
            rc = write_bytes(self, data, view.buf, (size_t)view.len);
    }
    PyBuffer_Release(&view);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyObject *
gpy_pipe_transport_write_eof(struct gpy_pipe_transport *self, PyObject *Py_UNUSED(ignored))
{
    struct gpy_transport *base = &self->base;
    if (!base->closing && !self->base.core_ended) { /* else the loop's close() has closed it */
        base->closing = true;
        if (gy_stream_queued(&self->stream) == 0 && gpy_pipe_transport_lose(self, NULL) < 0)
            return NULL;
    }
    Py_RETURN_NONE;
}
