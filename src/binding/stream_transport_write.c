/* stream_transport_write.c: everything of a stream transport that sends.
 *
 * Purpose: write(), writelines(), write_eof(), the empty-buffer waiter of sendfile.  A write leaves
 * at once by send(2) when nothing is queued before it; small ones are held until the running
 * callback ends; what the socket does not take is a segment that references the bytes object (or a
 * snapshot of a mutable buffer).
 * Thread: the loop's.  Invariants: the queue holds one reference per segment until on_release; a
 * transport whose queue is not empty is pinned. */
#include "stream_transport.h"

#include "errors.h"
#include "future.h"
#include "pycompat.h"

#include <errno.h>
#include <string.h>

/* ---- what the core calls ----------------------------------------------------------------------
 */

void
gpy_stream_transport_on_release(struct gy_stream *stream, void *owner)
{
    GY_UNUSED(stream);
    Py_DECREF((PyObject *)owner);
}

/* The result or the error of the empty-buffer waiter; it may have been cancelled. */
static void
settle_empty_waiter(struct gpy_stream_transport *self, PyObject *exc)
{
    struct gpy_state *state = self->base.state;
    PyObject *waiter = self->empty_waiter;
    if (waiter == NULL)
        return;
    Py_INCREF(waiter);
    int done = gpy_future_is_done(state, waiter);
    if (done == 0)
        done = exc ? gpy_future_set_exception(state, waiter, exc)
                   : gpy_future_set_result(state, waiter, Py_None);
    if (done < 0 && !gpy_loop_keep_raised(self->base.loop))
        PyErr_WriteUnraisable((PyObject *)self);
    Py_DECREF(waiter);
}

void
gpy_stream_transport_fail_empty_waiter(struct gpy_stream_transport *self, PyObject *exc)
{
    GY_ASSERT(exc != NULL);
    settle_empty_waiter(self, exc);
}

void
gpy_stream_transport_on_drained(struct gy_stream *stream)
{
    struct gpy_stream_transport *self = gpy_stream_transport_of(stream);
    struct gpy_transport *base = &self->base;
    if (base->conn_lost)
        return;
    gpy_transport_maybe_resume(base); /* may write */
    if (base->conn_lost || gy_stream_queued(stream) != 0)
        return;
    settle_empty_waiter(self, NULL);
    if (base->closing && gpy_stream_transport_lose(self, NULL) < 0 &&
        !gpy_loop_keep_raised(base->loop))
        PyErr_WriteUnraisable((PyObject *)self);
}

/* ---- sending ------------------------------------------------------------------------------------
 */

/* The socket refused: as asyncio, the transport fails inside write(), which itself returns. */
static GY_COLD void
write_failed(struct gpy_stream_transport *self, int err)
{
    if (gpy_oserror_raise(err) == NULL)
        gpy_transport_fatal_error(&self->base, "Fatal write error on socket transport");
}

void
gpy_stream_transport_flush(struct gpy_stream_transport *self)
{
    if (self->base.core_ended || gy_stream_queued(&self->stream) == 0)
        return;
    if (!gy_op_is_idle(&self->stream.send_op))
        return; /* the kernel has it */
    gy_stream_flush(&self->stream);
    if (GY_UNLIKELY(self->stream.error < 0 && !self->base.conn_lost))
        write_failed(self, self->stream.error);
}

/* Queues one segment; `owner` is what data points into.  0, or -1 with MemoryError. */
static int
push(struct gpy_stream_transport *self, const char *data, size_t len, PyObject *owner)
{
    struct gy_segment segment = {data, len, owner};
    int err = gy_stream_write(&self->stream, &segment);
    if (GY_LIKELY(err == 0)) {
        Py_INCREF(owner);
        gpy_transport_pin(&self->base);
        return 0;
    }
    if (err == -ENOMEM) {
        (void)PyErr_NoMemory();
        return -1;
    }
    return 0; /* the stream is broken: its error is on the way */
}

/* data..len, which lies inside `object` (NULL: in memory that is used again), is queued as a
 * reference to bytes or as a snapshot. */
static int
push_object(struct gpy_stream_transport *self, PyObject *object, const char *data, size_t len)
{
    if (GY_LIKELY(object != NULL && PyBytes_CheckExact(object)))
        return push(self, data, len, object);
    PyObject *snapshot = PyBytes_FromStringAndSize(data, (Py_ssize_t)len);
    if (snapshot == NULL)
        return -1;
    int rc = push(self, PyBytes_AS_STRING(snapshot), len, snapshot);
    Py_DECREF(snapshot);
    return rc;
}

/* Sends or queues len > 0 bytes; `hold`: only queues.  0, or -1 with an exception. */
static int
send_or_hold(struct gpy_stream_transport *self, PyObject *object, const char *data, size_t len,
             bool hold)
{
    struct gpy_transport *base = &self->base;
    struct gy_stream *stream = &self->stream;
    size_t queued = gy_stream_queued(stream);

    if (GY_UNLIKELY(!gpy_transport_owns_fd(base))) {
        write_failed(self, -EBADF);
        return 0;
    }
    if (queued == 0 && !hold) {
        ssize_t sent = gy_stream_try_write(stream, data, len);
        if (GY_UNLIKELY(sent < 0)) {
            write_failed(self, (int)sent);
            return 0;
        }
        if (GY_LIKELY((size_t)sent == len))
            return 0;
        data += sent;
        len -= (size_t)sent;
        if (push_object(self, object, data, len) < 0)
            return -1;
        if (!base->loop
                 ->busy) /* nobody else would hand it to the kernel before the next callback */
            gy_stream_flush(stream);
    } else {
        if (push_object(self, object, data, len) < 0)
            return -1;
        if (!hold)
            gpy_stream_transport_flush(self);
    }
    return base->conn_lost ? 0 : gpy_transport_maybe_pause(base);
}

static int
send_bytes(struct gpy_stream_transport *self, PyObject *object, const char *data, size_t len)
{
    size_t queued = gy_stream_queued(&self->stream);
    bool hold = self->base.loop->busy && queued + len <= GPY_HOLD_BYTES;
    return send_or_hold(self, object, data, len, hold);
}

/* A buffer that is not contiguous is written as its bytes. */
static PyObject *
contiguous_copy(PyObject *data)
{
    if (!PyErr_ExceptionMatches(PyExc_BufferError))
        return NULL;
    PyErr_Clear();
    return PyBytes_FromObject(data);
}

static int
write_buffer(struct gpy_stream_transport *self, PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        PyObject *copy = contiguous_copy(data);
        if (copy == NULL)
            return -1;
        int copied = PyBytes_GET_SIZE(copy) == 0 ? 0
                                                 : send_bytes(self, copy, PyBytes_AS_STRING(copy),
                                                              (size_t)PyBytes_GET_SIZE(copy));
        Py_DECREF(copy);
        return copied;
    }
    int rc = view.len == 0 ? 0 : send_bytes(self, data, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    return rc;
}

/* 0, or -1: what asyncio raises when writing is over. */
static int
check_writable(struct gpy_stream_transport *self, const char *method)
{
    if (GY_LIKELY(!self->eof && self->empty_waiter == NULL))
        return 0;
    if (self->eof)
        PyErr_Format(PyExc_RuntimeError, "Cannot call %s() after write_eof()", method);
    else
        PyErr_Format(PyExc_RuntimeError, "unable to %s; sendfile is in progress", method);
    return -1;
}

ssize_t
gpy_stream_transport_try_send(struct gpy_stream_transport *self, const char *data, size_t len)
{
    struct gpy_transport *base = &self->base;
    if (self->eof || self->empty_waiter != NULL || base->conn_lost || base->core_ended ||
        gy_stream_queued(&self->stream) != 0 || !gpy_transport_owns_fd(base))
        return 0;
    return gy_stream_try_write(&self->stream, data, len);
}

void
gpy_stream_transport_send_failed(struct gpy_stream_transport *self, int err)
{
    if (!self->base.conn_lost)
        write_failed(self, err);
}

int
gpy_stream_transport_send(struct gpy_stream_transport *self, const char *data, size_t len,
                          bool may_hold)
{
    if (check_writable(self, "write") < 0)
        return -1;
    if (GY_UNLIKELY(self->base.conn_lost || self->base.core_ended))
        return gpy_transport_late_write(&self->base);
    return may_hold ? send_bytes(self, NULL, data, len)
                    : send_or_hold(self, NULL, data, len, false);
}

static GY_COLD PyObject *
refuse_type(PyObject *data)
{
    PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(data), "__name__");
    if (name != NULL)
        PyErr_Format(PyExc_TypeError, "data argument must be " GPY_DATA_ARGUMENT ", not %R", name);
    Py_XDECREF(name);
    return NULL;
}

PyObject *
gpy_stream_transport_write(struct gpy_stream_transport *self, PyObject *data)
{
    bool is_bytes = PyBytes_CheckExact(data);
    if (GY_UNLIKELY(!is_bytes && !PyBytes_Check(data) && !PyByteArray_Check(data) &&
                    !PyMemoryView_Check(data)))
        return refuse_type(data);
    if (check_writable(self, "write") < 0)
        return NULL;
    if (GY_UNLIKELY(self->base.conn_lost || self->base.core_ended)) {
        Py_ssize_t len = PyObject_Size(data);
        if (len < 0)
            return NULL;
        return gpy_none_or_error(len ? gpy_transport_late_write(&self->base) : 0);
    }
    if (GY_LIKELY(is_bytes)) {
        if (PyBytes_GET_SIZE(data) == 0)
            Py_RETURN_NONE;
        return gpy_none_or_error(
            send_bytes(self, data, PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data)));
    }
    return gpy_none_or_error(write_buffer(self, data));
}

/* ---- writelines ---------------------------------------------------------------------------------
 */

/* The error that b"".join(items) has. */
static GY_COLD void
join_instead(PyObject *items)
{
    PyErr_Clear();
    PyObject *empty = PyBytes_FromStringAndSize(NULL, 0);
    PyObject *joined = empty ? PyObject_CallMethod(empty, "join", "O", items) : NULL;
    Py_XDECREF(empty);
    Py_XDECREF(joined);
    if (joined != NULL)
        PyErr_SetString(PyExc_TypeError, "a bytes-like object is required");
}

/* The items as bytes objects, those that are not being snapshots.  New list or NULL. */
static PyObject *
items_as_bytes(PyObject *list)
{
    PyObject *items = PySequence_List(list);
    for (Py_ssize_t i = 0; items != NULL && i < PyList_GET_SIZE(items); i++) {
        PyObject *item = PyList_GET_ITEM(items, i);
        if (PyBytes_CheckExact(item))
            continue;
        /* memoryview has asyncio's words for what is no buffer at all */
        PyObject *view = PyMemoryView_FromObject(item);
        PyObject *bytes = view ? PyBytes_FromObject(view) : NULL;
        Py_XDECREF(view);
        if (bytes == NULL && GPY_WRITELINES_JOINS)
            join_instead(items);
        if (bytes == NULL || PyList_SetItem(items, i, bytes) < 0)
            Py_CLEAR(items);
    }
    return items;
}

/* Queues all of them and sends what may not wait.  0 or -1. */
static int
send_items(struct gpy_stream_transport *self, PyObject *items)
{
    int rc = 0;
    for (Py_ssize_t i = 0; rc == 0 && i < PyList_GET_SIZE(items); i++) {
        PyObject *item = PyList_GET_ITEM(items, i);
        if (PyBytes_GET_SIZE(item) != 0)
            rc = push(self, PyBytes_AS_STRING(item), (size_t)PyBytes_GET_SIZE(item), item);
    }
    if (!self->base.loop->busy || gy_stream_queued(&self->stream) > GPY_HOLD_BYTES)
        gpy_stream_transport_flush(self);
    if (rc == 0 && !self->base.conn_lost)
        rc = gpy_transport_maybe_pause(&self->base);
    return rc;
}

PyObject *
gpy_stream_transport_writelines(struct gpy_stream_transport *self, PyObject *list)
{
    if (!GPY_WRITELINES_JOINS && check_writable(self, "writelines") < 0)
        return NULL;
    PyObject *items = items_as_bytes(list);
    if (items == NULL)
        return NULL;
    if (GPY_WRITELINES_JOINS && check_writable(self, "write") < 0) {
        Py_DECREF(items);
        return NULL;
    }
    int rc = 0;
    if (PyList_GET_SIZE(items) == 0) {
        rc = 0;
    } else if (self->base.conn_lost || self->base.core_ended) {
        rc = gpy_transport_late_write(&self->base);
    } else if (GY_LIKELY(gpy_transport_owns_fd(&self->base))) {
        rc = send_items(self, items);
    } else {
        write_failed(self, -EBADF);
    }
    Py_DECREF(items);
    return gpy_none_or_error(rc);
}

/* ---- the end of writing, and sendfile's door
 * ------------------------------------------------------ */

PyObject *
gpy_stream_transport_write_eof(struct gpy_stream_transport *self, PyObject *Py_UNUSED(ignored))
{
    if (!self->base.closing && !self->eof) {
        self->eof = true;
        if (!self->base.core_ended) {
            gpy_stream_transport_flush(self);
            int err = self->base.conn_lost ? 0 : gy_stream_shutdown_write(&self->stream);
            if (err < 0)
                return gpy_oserror_raise(err);
        }
    }
    Py_RETURN_NONE;
}

PyObject *
gpy_stream_transport_make_empty_waiter(struct gpy_stream_transport *self,
                                       PyObject *Py_UNUSED(ignored))
{
    if (self->empty_waiter != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Empty waiter is already set");
        return NULL;
    }
    gpy_stream_transport_flush(self);
    self->empty_waiter =
        PyObject_CallMethodNoArgs((PyObject *)self->base.loop, self->base.state->str_create_future);
    if (self->empty_waiter == NULL)
        return NULL;
    PyObject *waiter = Py_NewRef(self->empty_waiter);
    if (self->base.core_ended || gy_stream_queued(&self->stream) == 0)
        settle_empty_waiter(self, NULL);
    return waiter;
}

PyObject *
gpy_stream_transport_reset_empty_waiter(struct gpy_stream_transport *self,
                                        PyObject *Py_UNUSED(ignored))
{
    Py_CLEAR(self->empty_waiter);
    Py_RETURN_NONE;
}

/* asyncio's private `_buffer`: what is not sent, here a copy. */
PyObject *
gpy_stream_transport_buffer_get(struct gpy_stream_transport *self, void *Py_UNUSED(closure))
{
    PyObject *buffer = PyByteArray_FromStringAndSize(NULL, 0);
    struct iovec iov[GY_SENDQ_IOV_MAX];
    if (buffer == NULL || self->base.core_ended)
        return buffer;
    gpy_stream_transport_flush(self);
    unsigned count = gy_sendq_iovec(&self->stream.queue, iov, GY_SENDQ_IOV_MAX);
    for (unsigned i = 0; i < count; i++) {
        Py_ssize_t old = PyByteArray_GET_SIZE(buffer);
        if (PyByteArray_Resize(buffer, old + (Py_ssize_t)iov[i].iov_len) < 0) {
            Py_DECREF(buffer);
            return NULL;
        }
        memcpy(PyByteArray_AS_STRING(buffer) + old, iov[i].iov_base, iov[i].iov_len);
    }
    return buffer;
}
