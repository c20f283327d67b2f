/* dgram_transport_send.c: sendto().
 *
 * A datagram leaves at once when nothing is queued before it; what has to wait is a reference to a
 * bytes object or a snapshot.  An address that is not numeric ("foreign") is left to sock.sendto().
 * Thread: the loop's.  Invariants: the queue holds one reference per datagram until the core
 * releases it; a transport whose queue is not empty is pinned; an error of this very datagram goes
 * to error_received() before sendto() returns, and what that raises is sendto()'s. */
#include "dgram_transport_impl.h"

#include "errors.h"
#include "pycompat.h"
#include "sockaddr.h"

#include <errno.h>
#include <string.h>

static const char fatal_message[] = "Fatal write error on datagram transport";

/* One call of sendto(). */
struct outgoing {
    PyObject *data; /* what the user gave */
    const char *bytes;
    size_t len;
    PyObject *address;
};

/* ---- errors ------------------------------------------------------------------------------------
 */

/* As asyncio: the protocol is told inside of sendto(), and its exceptions are the caller's. */
static PyObject *
tell_error(struct gpy_dgram_transport *self, PyObject *exc)
{
    PyObject *protocol = self->base.protocol;
    if (protocol == NULL)
        Py_RETURN_NONE;
    Py_INCREF(protocol);
    PyObject *result =
        PyObject_CallMethodOneArg(protocol, self->base.state->str_error_received, exc);
    Py_DECREF(protocol);
    if (result == NULL)
        return NULL;
    Py_DECREF(result);
    Py_RETURN_NONE;
}

static GY_COLD PyObject *
send_failed(struct gpy_dgram_transport *self, int err)
{
    if ((self->dgram.flags & GY_DGRAM_CLOSING) != 0)
        Py_RETURN_NONE; /* it ended while what was before was sent */
    PyObject *exc = gpy_oserror_new(err);
    if (exc == NULL)
        return NULL;
    PyObject *result = tell_error(self, exc);
    Py_DECREF(exc);
    return result;
}

/* The exception that is set, as asyncio treats what a socket raises. */
static GY_COLD PyObject *
raised(struct gpy_dgram_transport *self)
{
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) || PyErr_ExceptionMatches(PyExc_SystemExit))
        return NULL;
    if (!PyErr_ExceptionMatches(PyExc_OSError)) {
        gpy_transport_fatal_error(&self->base, fatal_message);
        Py_RETURN_NONE;
    }
    PyObject *exc = gpy_exc_take();
    PyObject *result = tell_error(self, exc);
    Py_DECREF(exc);
    return result;
}

/* ---- queueing ----------------------------------------------------------------------------------
 */

/* Takes over `owner`, NULL with an exception included.  to NULL: foreign. */
static PyObject *
push(struct gpy_dgram_transport *self, const struct outgoing *out, PyObject *owner,
     const struct gy_address *to)
{
    struct gpy_transport *base = &self->base;
    if (owner == NULL)
        return NULL;
    struct gy_datagram datagram = {.len = out->len, .owner = owner};
    if (to != NULL)
        datagram.data = PyBytes_AS_STRING(owner);
    gpy_transport_pin(base);
    int err = gy_dgram_push(&self->dgram, &datagram, to);
    if (GY_LIKELY(err == 0))
        return gpy_none_or_error(gpy_transport_maybe_pause(base));
    Py_DECREF(owner);
    return err == -ENOMEM ? PyErr_NoMemory() : Py_NewRef(Py_None);
}

static PyObject *
immutable(const struct outgoing *out)
{
    if (GY_LIKELY(PyBytes_CheckExact(out->data)))
        return Py_NewRef(out->data);
    return PyBytes_FromStringAndSize(out->bytes, (Py_ssize_t)out->len);
}

/* ---- addresses ---------------------------------------------------------------------------------
 */

/* True if the object can never stand for another address. */
static bool
is_constant(PyObject *address)
{
    if (!PyTuple_CheckExact(address))
        return false;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(address); i++) {
        PyObject *item = PyTuple_GET_ITEM(address, i);
        if (!PyUnicode_CheckExact(item) && !PyLong_CheckExact(item))
            return false;
    }
    return true;
}

/* 1: *to is set; 0: foreign; -1: an exception. */
static int
find_target(struct gpy_dgram_transport *self, PyObject *address, struct gy_address *to)
{
    if (self->connected || (self->has_peer && address == Py_None)) {
        to->len = 0;
        return 1;
    }
    if (gpy_peers_find(self->peers, address, to))
        return 1;
    if (address == self->last_to) {
        to->len = self->last_target.len;
        memcpy(&to->storage, &self->last_target.storage, to->len);
        return 1;
    }
    int known = gpy_sockaddr_parse(self->family, address, &to->storage, &to->len);
    if (known > 0 && is_constant(address)) {
        self->last_target = *to;
        Py_XSETREF(self->last_to, Py_NewRef(address));
    }
    return known;
}

/* ---- sending -----------------------------------------------------------------------------------
 */

static PyObject *
send_numeric(struct gpy_dgram_transport *self, const struct outgoing *out,
             const struct gy_address *to)
{
    ssize_t sent = gy_dgram_try_send(&self->dgram, out->bytes, out->len, to, self->base.loop->busy);
    if (GY_LIKELY(sent >= 0))
        Py_RETURN_NONE;
    if (sent != -EAGAIN)
        return send_failed(self, (int)sent);
    return push(self, out, immutable(out), to);
}

static PyObject *
call_sendto(struct gpy_dgram_transport *self, PyObject *data, PyObject *address)
{
    PyObject *stack[3] = {self->base.sock, data, address};
    if (self->base.sock == NULL) {
        PyErr_SetString(PyExc_OSError, "the socket is closed");
        return NULL;
    }
    Py_INCREF(stack[0]);
    PyObject *result = PyObject_VectorcallMethod(self->base.state->str_sendto, stack,
                                                 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_DECREF(stack[0]);
    return result;
}

/* The address is not numeric: the socket module looks at it. */
static GY_COLD PyObject *
send_foreign(struct gpy_dgram_transport *self, const struct outgoing *out)
{
    struct gy_dgram *dgram = &self->dgram;
    gy_dgram_flush(dgram);
    if (dgram->count == 0 && (dgram->flags & GY_DGRAM_FULL) == 0) {
        PyObject *result = call_sendto(self, out->data, out->address);
        if (result != NULL) {
            Py_DECREF(result);
            Py_RETURN_NONE;
        }
        if (!PyErr_ExceptionMatches(PyExc_BlockingIOError) &&
            !PyErr_ExceptionMatches(PyExc_InterruptedError))
            return raised(self);
        PyErr_Clear();
        if (!self->base.core_ended)
            gy_dgram_wait_for_room(dgram);
    }
    PyObject *data = immutable(out);
    PyObject *owner = data ? PyTuple_Pack(2, data, out->address) : NULL;
    Py_XDECREF(data);
    return push(self, out, owner, NULL);
}

ssize_t
gpy_dgram_transport_send_foreign(struct gy_dgram *dgram, void *owner)
{
    struct gpy_dgram_transport *self = gpy_dgram_transport_of(dgram);
    PyObject *both = Py_NewRef((PyObject *)owner); /* an abort() in there empties the queue */
    PyObject *result = call_sendto(self, PyTuple_GET_ITEM(both, 0), PyTuple_GET_ITEM(both, 1));
    Py_DECREF(both);
    if (result == NULL)
        return gpy_dgram_transport_call_failed(self, fatal_message);
    Py_DECREF(result);
    return 0;
}

static PyObject *
send_bytes(struct gpy_dgram_transport *self, const struct outgoing *out)
{
    struct gy_address to;
    if (GY_UNLIKELY(!gpy_transport_owns_fd(&self->base)))
        return send_failed(self, -EBADF);
    int known = find_target(self, out->address, &to);
    if (GY_LIKELY(known > 0))
        return send_numeric(self, out, &to);
    return known < 0 ? raised(self) : send_foreign(self, out);
}

/* ---- the method --------------------------------------------------------------------------------
 */

static GY_COLD PyObject *
refuse_type(PyObject *data)
{
    PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(data), "__name__");
    if (name != NULL)
        PyErr_Format(PyExc_TypeError, "data argument must be a bytes-like object, not %R", name);
    Py_XDECREF(name);
    return NULL;
}

/* With remote_addr, no other address may be given.  0 or -1. */
static int
check_address(struct gpy_dgram_transport *self, PyObject **address)
{
    int same = *address == Py_None || *address == self->address
                   ? 1
                   : PyObject_RichCompareBool(*address, self->address, Py_EQ);
    if (same == 0)
        PyErr_Format(PyExc_ValueError, "Invalid address: must be None or %S", self->address);
    *address = self->address;
    return same > 0 ? 0 : -1;
}

static PyObject *
transport_sendto(struct gpy_dgram_transport *self, PyObject *data, PyObject *address)
{
    struct outgoing out = {.data = data, .address = address};
    bool is_bytes = PyBytes_CheckExact(data);
    if (GY_UNLIKELY(!is_bytes && !PyBytes_Check(data) && !PyByteArray_Check(data) &&
                    !PyMemoryView_Check(data)))
        return refuse_type(data);
    if (!GPY_SENDS_EMPTY_DATAGRAMS) {
        Py_ssize_t len = PyObject_Size(data);
        if (len <= 0)
            return gpy_none_or_error((int)len);
    }
    if (self->address != NULL && check_address(self, &out.address) < 0)
        return NULL;
    if (GY_UNLIKELY(self->base.core_ended || (self->dgram.flags & GY_DGRAM_CLOSING) != 0 ||
                    (self->base.conn_lost && self->address != NULL)))
        return gpy_none_or_error(gpy_transport_late_write(&self->base));
    if (GY_LIKELY(is_bytes)) {
        out.bytes = PyBytes_AS_STRING(data);
        out.len = (size_t)PyBytes_GET_SIZE(data);
        return send_bytes(self, &out);
    }
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return raised(self);
    out.bytes = view.buf;
    out.len = (size_t)view.len;
    PyObject *result = send_bytes(self, &out);
    PyBuffer_Release(&view);
    return result;
}

/* sendto(data, addr=None) with something named or missing. */
static GY_COLD PyObject *
sendto_named(struct gpy_dgram_transport *self, PyObject *const *args, Py_ssize_t nargs,
             PyObject *kwnames)
{
    PyObject *data = nargs > 0 ? args[0] : NULL;
    PyObject *address = nargs > 1 ? args[1] : NULL;
    Py_ssize_t keywords = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
    for (Py_ssize_t i = 0; i < keywords; i++) {
        PyObject *key = PyTuple_GET_ITEM(kwnames, i);
        if (data == NULL && PyUnicode_CompareWithASCIIString(key, "data") == 0)
            data = args[nargs + i];
        else if (address == NULL && PyUnicode_CompareWithASCIIString(key, "addr") == 0)
            address = args[nargs + i];
        else
            return PyErr_Format(PyExc_TypeError, "sendto() got an unexpected keyword argument %R",
                                key);
    }
    if (data == NULL || nargs > 2) {
        PyErr_SetString(PyExc_TypeError, "sendto() takes data and an optional addr");
        return NULL;
    }
    return transport_sendto(self, data, address ? address : Py_None);
}

PyObject *
gpy_dgram_transport_sendto(struct gpy_dgram_transport *self, PyObject *const *args,
                           Py_ssize_t nargs, PyObject *kwnames)
{
    bool was_called = self->called;
    PyObject *result;
    self->called = true;
    if (GY_LIKELY(kwnames == NULL && (nargs == 1 || nargs == 2)))
        result = transport_sendto(self, args[0], nargs == 2 ? args[1] : Py_None);
    else
        result = sendto_named(self, args, nargs, kwnames);
    self->called = was_called;
    return result;
}
