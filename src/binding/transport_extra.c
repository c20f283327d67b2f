/* transport_extra.c: get_extra_info(), and the socket object over a transport's descriptor.
 *
 * An accepted connection has no socket object and no names until somebody asks.  'socket' is made
 * over our own descriptor and detached just before that is closed, so that there is one owner.
 * Thread: the loop's. */
#include "transport.h"

#include "pycompat.h"
#include "sockaddr.h"

#include <sys/stat.h>

/* Where CPython keeps the descriptor of a socket object; used only for objects whose fileno() was
 * seen to agree with it. */
static int
sock_fd_at_its_place(PyObject *sock)
{
    return *(const int *)((const char *)sock + sizeof(PyObject));
}

static int
sock_fileno(PyObject *sock, PyObject *name)
{
    PyObject *number = PyObject_CallMethodNoArgs(sock, name);
    long fd = number ? PyLong_AsLong(number) : -1;
    Py_XDECREF(number);
    if (fd == -1 && PyErr_Occurred())
        PyErr_Clear();
    return (int)fd;
}

void
gpy_transport_hold_sock(struct gpy_transport *self, PyObject *sock)
{
    GY_ASSERT(self->sock == NULL);
    struct stat status;
    self->sock = Py_NewRef(sock);
    self->inode = fstat(self->fd, &status) == 0 ? status.st_ino : 0;
    PyTypeObject *base = (PyTypeObject *)self->state->socket_base;
    self->sock_is_plain = PyObject_TypeCheck(sock, base) &&
                          (size_t)base->tp_basicsize >= sizeof(PyObject) + sizeof(int) &&
                          sock_fd_at_its_place(sock) == self->fd;
}

bool
gpy_transport_owns_fd(struct gpy_transport *self)
{
    if (self->fd_gone)
        return false;
    if (self->sock == NULL)
        return true;
    if (GY_LIKELY(self->sock_is_plain))
        return sock_fd_at_its_place(self->sock) == self->fd;
    return sock_fileno(self->sock, self->state->str_fileno) == self->fd;
}

bool
gpy_transport_fd_is_ours(struct gpy_transport *self)
{
    struct stat status;
    if (!gpy_transport_owns_fd(self))
        return false;
    return self->inode == 0 || (fstat(self->fd, &status) == 0 && status.st_ino == self->inode);
}

/* The socket object, made if need be.  Borrowed; NULL: an exception is set, or (without one) the
 * descriptor is gone and nobody ever asked before. */
static PyObject *
sock_borrow(struct gpy_transport *self)
{
    if (self->sock != NULL || self->fd_gone)
        return self->sock;
    PyObject *args = PyTuple_New(0);
    PyObject *kwargs = args ? Py_BuildValue("{s:i}", "fileno", (int)self->fd) : NULL;
    PyObject *sock = kwargs ? PyObject_Call(self->state->socket_class, args, kwargs) : NULL;
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    if (sock == NULL)
        return NULL;
    gpy_transport_hold_sock(self, sock);
    Py_DECREF(sock);
    return self->sock;
}

static PyObject *
make_socket_info(struct gpy_transport *self)
{
    PyObject *sock = sock_borrow(self);
    return sock ? PyObject_CallOneArg(self->state->transport_socket, sock) : NULL;
}

/* Names are mostly literals.  Those are interned, as is what they are compared with: two of them
 * are one object, or differ. */
static bool
same_name(PyObject *name, PyObject *wanted)
{
    return name == wanted ||
           (!PyUnicode_CHECK_INTERNED(name) && PyUnicode_Compare(name, wanted) == 0);
}

/* What asyncio fills in when it makes a transport.  New reference; NULL: an exception is set, or
 * (without one) `name` is none of these or it is too late. */
static PyObject *
make_info(struct gpy_transport *self, PyObject *name)
{
    struct gpy_state *state = self->state;
    if (self->fd_gone && self->sock == NULL)
        return NULL;
    if (same_name(name, state->str_socket))
        return make_socket_info(self);
    if (self->fd_gone)
        return NULL;
    if (same_name(name, state->str_peername))
        return gpy_sockaddr_peer(self->fd);
    if (same_name(name, state->str_sockname))
        return gpy_sockaddr_local(self->fd);
    return NULL;
}

/* extra[name].  New reference, or NULL: an exception is set, or (without one) it is not in there.
 */
static PyObject *
find_info(PyObject *extra, PyObject *name)
{
    if (GY_LIKELY(PyDict_CheckExact(extra) && PyUnicode_CheckExact(name)))
        return Py_XNewRef(PyDict_GetItemWithError(extra, name));
    PyObject *value = PyObject_GetItem(extra, name);
    if (value == NULL && PyErr_ExceptionMatches(PyExc_KeyError))
        PyErr_Clear();
    return value;
}

/* extra[name], filled in on first request.  New reference, or NULL with or without an exception. */
static PyObject *
info(struct gpy_transport *self, PyObject *name)
{
    if (self->extra == NULL && (self->extra = PyDict_New()) == NULL)
        return NULL;
    PyObject *extra = Py_NewRef(self->extra);
    PyObject *value = find_info(extra, name);
    if (value == NULL && !PyErr_Occurred()) {
        value = PyUnicode_Check(name) ? make_info(self, name) : NULL;
        if (value != NULL && PyObject_SetItem(extra, name, value) < 0)
            Py_CLEAR(value);
    }
    Py_DECREF(extra);
    return value;
}

PyObject *
gpy_transport_get_extra_info(struct gpy_transport *self, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *kwnames)
{
    PyObject *name = nargs > 0 ? args[0] : NULL;
    PyObject *fallback = nargs > 1 ? args[1] : NULL;
    Py_ssize_t keywords = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
    for (Py_ssize_t i = 0; i < keywords; i++) {
        PyObject *key = PyTuple_GET_ITEM(kwnames, i);
        if (name == NULL && PyUnicode_CompareWithASCIIString(key, "name") == 0)
            name = args[nargs + i];
        else if (fallback == NULL && PyUnicode_CompareWithASCIIString(key, "default") == 0)
            fallback = args[nargs + i];
        else
            return PyErr_Format(PyExc_TypeError,
                                "get_extra_info() got an unexpected keyword argument %R", key);
    }
    if (name == NULL || nargs > 2) {
        PyErr_SetString(PyExc_TypeError, "get_extra_info() takes a name and an optional default");
        return NULL;
    }
    /* Who looks at the socket finds in it what was written before. */
    if (PyUnicode_Check(name) && same_name(name, self->state->str_socket))
        self->ops->flush(self);
    PyObject *value = info(self, name);
    if (value != NULL || PyErr_Occurred())
        return value;
    return Py_NewRef(fallback ? fallback : Py_None);
}

PyObject *
gpy_transport_extra_get(struct gpy_transport *self, void *Py_UNUSED(closure))
{
    PyObject *names[] = {self->state->str_socket, self->state->str_sockname,
                         self->state->str_peername};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        PyObject *value = info(self, names[i]);
        if (value == NULL && PyErr_Occurred())
            return NULL;
        Py_XDECREF(value);
    }
    return Py_NewRef(self->extra);
}

int
gpy_transport_extra_set(struct gpy_transport *self, PyObject *value, void *Py_UNUSED(closure))
{
    Py_XSETREF(self->extra, Py_XNewRef(value));
    return 0;
}

PyObject *
gpy_transport_sock_get(struct gpy_transport *self, void *Py_UNUSED(closure))
{
    PyObject *sock = self->ended ? NULL : sock_borrow(self);
    if (sock == NULL)
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    /* asyncio's are in non-blocking mode, and sock_sendfile() asks for it. */
    PyObject *result = PyObject_CallMethod(sock, "setblocking", "O", Py_False);
    Py_XDECREF(result);
    return result ? Py_NewRef(sock) : NULL;
}

/* Somebody besides the loop holds the transport. */
static bool
is_held(const struct gpy_transport *self)
{
    Py_ssize_t loops = (self->member.pinned != NULL) + (self->losing ? 1 : 0);
    return Py_REFCNT((PyObject *)(uintptr_t)self) > loops;
}

/* A socket object gives its descriptor away.  What is only like one (a mock, whose fileno() is any
 * number) is closed by its own close(), as asyncio does, and then its number is not ours. */
static bool
take_from_sock(struct gpy_transport *self)
{
    PyObject *number = PyObject_CallMethodNoArgs(self->sock, self->state->str_detach);
    bool given = number != NULL && PyLong_Check(number);
    if (number == NULL)
        PyErr_WriteUnraisable((PyObject *)self);
    Py_XDECREF(number);
    if (given)
        return true;
    PyObject *closed = PyObject_CallMethodNoArgs(self->sock, self->state->str_close);
    if (closed == NULL)
        PyErr_WriteUnraisable((PyObject *)self);
    Py_XDECREF(closed);
    return false;
}

bool
gpy_transport_detach(struct gpy_transport *self)
{
    if (self->fd_gone)
        return false;
    PyObject *exc = PyErr_Occurred() ? gpy_exc_take() : NULL;
    bool owned = gpy_transport_fd_is_ours(self);
    /* asyncio knows the names from the start: whoever still holds the transport may ask later. */
    if (owned && is_held(self)) {
        PyObject *names[] = {self->state->str_sockname, self->state->str_peername};
        for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
            PyObject *value = info(self, names[i]);
            if (value == NULL)
                PyErr_Clear();
            Py_XDECREF(value);
        }
    }
    /* If the number is a stranger's by now, the object must not close it either. */
    if (self->sock != NULL && gpy_transport_owns_fd(self) && !take_from_sock(self))
        owned = false;
    self->fd_gone = true;
    gpy_transport_forget_fd(self);
    if (exc != NULL)
        gpy_exc_give(exc);
    return owned;
}
