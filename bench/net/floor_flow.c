/* floor_flow.c: one connection of the floor. See floor.c and floor.h.
 *
 * An edge is used up by a receive that takes less than it could; so a message is one receive and
 * one call of the program. While the socket has not taken all that was written, nothing is
 * received. */
#include "floor.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

/* What is received into one object: as much as asyncio would, or what the messages need. */
enum { SMALL_BYTES = 4096, ROOM_BYTES_MAX = 256 * 1024 };

static unsigned char small[SMALL_BYTES];

/* ---- sending ---- */

int
floor_watch(int epoll_fd, int operation, int fd, uint32_t events, void *data)
{
    struct epoll_event event = {.events = events, .data.ptr = data};
    if (epoll_ctl(epoll_fd, operation, fd, &event) == 0)
        return 0;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* How much the socket took. An error counts as all: the next receive tells of it. */
static size_t
take(int fd, const char *data, size_t size)
{
    size_t sent = 0;
    while (sent < size) {
        ssize_t done = send(fd, data + sent, size - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (done < 0)
            return errno == EAGAIN ? sent : size;
        sent += (size_t)done;
    }
    return sent;
}

int
floor_flow_keep(struct floor_flow *self, const char *data, size_t size)
{
    PyObject *more = PyBytes_FromStringAndSize(data, (Py_ssize_t)size);
    if (more == NULL)
        return -1;
    if (self->rest != NULL) {
        PyBytes_ConcatAndDel(&self->rest, more);
        return self->rest == NULL ? -1 : 0;
    }
    self->rest = more;
    self->rest_sent = 0;
    return floor_watch(self->epoll_fd, EPOLL_CTL_MOD, self->fd, FLOOR_EVENTS | EPOLLOUT, self);
}

static int
flow_send(struct floor_flow *self, const char *data, size_t size)
{
    size_t sent = 0;
    if (self->held && floor_sends_run() < 0) /* that goes first */
        return -1;
    if (self->rest == NULL)
        sent = take(self->fd, data, size);
    return sent == size ? 0 : floor_flow_keep(self, data + sent, size - sent);
}

/* There is room again. */
static int
flow_flush(struct floor_flow *self)
{
    size_t size = (size_t)PyBytes_GET_SIZE(self->rest);
    const char *data = PyBytes_AS_STRING(self->rest);
    self->rest_sent += take(self->fd, data + self->rest_sent, size - self->rest_sent);
    if (self->rest_sent < size)
        return 0;
    Py_CLEAR(self->rest);
    return floor_watch(self->epoll_fd, EPOLL_CTL_MOD, self->fd, FLOOR_EVENTS, self);
}

static PyObject *
flow_write(PyObject *op, PyObject *data)
{
    struct floor_flow *self = (struct floor_flow *)op;
    if (PyBytes_CheckExact(data)) {
        if (self->rest == NULL && floor_sends_wanted((size_t)PyBytes_GET_SIZE(data)))
            return floor_sends_add(self, data) < 0 ? NULL : Py_NewRef(Py_None);
        if (flow_send(self, PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data)) < 0)
            return NULL;
        Py_RETURN_NONE;
    }
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    int rc = flow_send(self, view.buf, (size_t)view.len);
    PyBuffer_Release(&view);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- receiving ---- */

/* Messages that fill what there was to fill get four times as much the next time, and small ones
 * less: so a message is one receive, and the object is never much larger than the message. */
static void
flow_resize(struct floor_flow *self, size_t got)
{
    if (got == self->room && self->room < ROOM_BYTES_MAX)
        self->room *= 4;
    else if (got < self->room / 8 && self->room > SMALL_BYTES)
        self->room /= 4;
}

static void
flow_used(struct floor_flow *self, ssize_t got, size_t asked)
{
    if (got < 0 || ((size_t)got < asked && !self->hung_up))
        self->readable = false;
}

/* A new object, empty at the end of the stream and after an error; NULL with `*again` when there is
 * nothing to be had, or with an exception. */
static PyObject *
flow_receive(struct floor_flow *self, bool *again)
{
    size_t room = self->room;
    PyObject *data = NULL;
    char *into = (char *)small;
    if (room > SMALL_BYTES) {
        data = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)room);
        if (data == NULL)
            return NULL;
        into = PyBytes_AS_STRING(data);
    }
    ssize_t got = recv(self->fd, into, room, MSG_DONTWAIT);
    flow_used(self, got, room);
    if (got < 0 && errno == EAGAIN) {
        Py_XDECREF(data);
        *again = true;
        return NULL;
    }
    if (got < 0)
        got = 0;
    flow_resize(self, (size_t)got);
    if (data == NULL)
        return PyBytes_FromStringAndSize((char *)small, got);
    if ((size_t)got < room)
        _PyBytes_Resize(&data, got); /* NULL, with an exception, if it fails */
    return data;
}

/* ---- the calls into Python ---- */

/* These return 1 as long as the connection is wanted, 0, or -1 with an exception. */

static int
call_one(PyObject *callable, PyObject *argument)
{
    PyObject *stack[] = {NULL, argument};
    PyObject *result =
        PyObject_Vectorcall(callable, stack + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (result == NULL)
        return -1;
    Py_DECREF(result);
    return 1;
}

static int
call_protocol(struct floor_flow *self)
{
    bool again = false;
    PyObject *data = flow_receive(self, &again);
    if (data == NULL)
        return again ? 1 : -1;
    int rc = PyBytes_GET_SIZE(data) == 0 ? 0 : call_one(self->call, data);
    Py_DECREF(data);
    return rc;
}

static int
call_buffered(struct floor_flow *self)
{
    Py_buffer view;
    PyObject *hint = PyLong_FromLong(-1); /* a small integer: no allocation */
    PyObject *buffer = PyObject_CallOneArg(self->buffer, hint);
    Py_DECREF(hint);
    if (buffer == NULL)
        return -1;
    int rc = PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE);
    Py_DECREF(buffer);
    if (rc < 0)
        return -1;
    ssize_t got = recv(self->fd, view.buf, (size_t)view.len, MSG_DONTWAIT);
    bool again = got < 0 && errno == EAGAIN;
    flow_used(self, got, (size_t)view.len);
    PyBuffer_Release(&view);
    if (got <= 0)
        return again;
    PyObject *count = PyLong_FromSsize_t(got);
    if (count == NULL)
        return -1;
    rc = call_one(self->call, count);
    Py_DECREF(count);
    return rc;
}

static int
resume(struct floor_flow *self)
{
    PyObject *result;
    PySendResult sent = PyIter_Send(self->call, Py_None, &result);
    if (sent == PYGEN_ERROR)
        return -1;
    Py_DECREF(result);
    return sent == PYGEN_NEXT;
}

static int
call_coroutine(struct floor_flow *self)
{
    bool again = false;
    self->data = flow_receive(self, &again);
    if (self->data == NULL)
        return again ? 1 : -1;
    return resume(self);
}

/* ---- what a coroutine sees ---- */

/* Both are awaited at once, so one object can be what is awaited. */
static PyObject *
wait_for_data(PyObject *op)
{
    ((struct floor_flow *)op)->waits_for = FLOOR_FOR_DATA;
    return Py_NewRef(op);
}

static PyObject *
wait_for_room(PyObject *op)
{
    ((struct floor_flow *)op)->waits_for = FLOOR_FOR_ROOM;
    return Py_NewRef(op);
}

static PyObject *
flow_read(PyObject *op, PyObject *Py_UNUSED(size))
{
    return wait_for_data(op);
}

static PyObject *
flow_drain(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    return wait_for_room(op);
}

static PyObject *
flow_sock_recv(PyObject *op, PyObject *const *Py_UNUSED(args), Py_ssize_t Py_UNUSED(count))
{
    return wait_for_data(op);
}

static PyObject *
flow_sock_sendall(PyObject *op, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "sock_sendall(sock, data)");
        return NULL;
    }
    PyObject *none = flow_write(op, args[1]);
    if (none == NULL)
        return NULL;
    Py_DECREF(none);
    return wait_for_room(op);
}

static PySendResult
flow_am_send(PyObject *op, PyObject *Py_UNUSED(value), PyObject **result)
{
    struct floor_flow *self = (struct floor_flow *)op;
    if (self->waits_for == FLOOR_FOR_DATA && self->data != NULL) {
        *result = self->data;
        self->data = NULL;
        return PYGEN_RETURN;
    }
    *result = Py_NewRef(Py_None);
    if (self->waits_for == FLOOR_FOR_ROOM && self->rest == NULL)
        return PYGEN_RETURN;
    return PYGEN_NEXT;
}

/* Only so that it counts as an iterator: the interpreter asks am_send. */
static PyObject *
flow_next(PyObject *op)
{
    PyObject *result;
    if (flow_am_send(op, Py_None, &result) == PYGEN_NEXT)
        return result;
    PyErr_SetObject(PyExc_StopIteration, result);
    Py_DECREF(result);
    return NULL;
}

/* ---- connections ---- */

static void
flow_drop(struct floor_flow *self)
{
    Py_CLEAR(self->call);
    Py_CLEAR(self->buffer);
    Py_CLEAR(self->data);
    Py_CLEAR(self->rest);
}

void
floor_flow_close(struct floor_flow *self)
{
    if (self->held && floor_sends_run() < 0)
        PyErr_Clear(); /* it was the last of it */
    close(self->fd);
    flow_drop(self);
    Py_DECREF(self);
}

static void
flow_dealloc(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    flow_drop((struct floor_flow *)op);
    type->tp_free(op);
    Py_DECREF(type);
}

int
floor_flow_connect(struct floor_flow *self, PyObject *make, enum floor_kind kind)
{
    self->room = SMALL_BYTES;
    if (kind == FLOOR_COROUTINE) {
        self->call = PyObject_CallOneArg(make, (PyObject *)self);
        return self->call == NULL ? -1 : resume(self);
    }
    bool buffered = kind == FLOOR_BUFFERED;
    PyObject *protocol = PyObject_CallNoArgs(make);
    if (protocol == NULL)
        return -1;
    PyObject *none = PyObject_CallMethod(protocol, "connection_made", "O", self);
    Py_XDECREF(none);
    if (none != NULL)
        self->call =
            PyObject_GetAttrString(protocol, buffered ? "buffer_updated" : "data_received");
    if (self->call != NULL && buffered)
        self->buffer = PyObject_GetAttrString(protocol, "get_buffer");
    Py_DECREF(protocol);
    return self->call == NULL || (buffered && self->buffer == NULL) ? -1 : 1;
}

static int
flow_read_on(struct floor_flow *self, enum floor_kind kind)
{
    switch (kind) {
    case FLOOR_PROTOCOL:
        return call_protocol(self);
    case FLOOR_BUFFERED:
        return call_buffered(self);
    case FLOOR_COROUTINE:
        return call_coroutine(self);
    }
    Py_UNREACHABLE();
}

int
floor_flow_ready(struct floor_flow *self, enum floor_kind kind, uint32_t events)
{
    int rc = 1;
    if ((events & ~(uint32_t)EPOLLOUT) != 0)
        self->readable = true;
    if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0)
        self->hung_up = true;
    if (self->rest != NULL && flow_flush(self) < 0)
        return -1;
    if (self->rest == NULL && kind == FLOOR_COROUTINE && self->waits_for == FLOOR_FOR_ROOM)
        rc = resume(self);
    while (rc > 0 && self->readable && self->rest == NULL)
        rc = flow_read_on(self, kind);
    return rc;
}

/* ---- the type ---- */

static PyMethodDef flow_methods[] = {
    {"write", flow_write, METH_O, NULL},
    {"read", flow_read, METH_O, NULL},
    {"drain", flow_drain, METH_NOARGS, NULL},
    {"sock_recv", (PyCFunction)(void (*)(void))flow_sock_recv, METH_FASTCALL, NULL},
    {"sock_sendall", (PyCFunction)(void (*)(void))flow_sock_sendall, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot flow_slots[] = {
    {Py_tp_dealloc, flow_dealloc},
    {Py_tp_methods, flow_methods},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, flow_am_send},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, flow_next},
    {0, NULL},
};

/* Not tracked by the garbage collector: the end of the connection breaks the cycle. */
PyType_Spec floor_flow_spec = {
    .name = "floor.Flow",
    .basicsize = sizeof(struct floor_flow),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = flow_slots,
};
