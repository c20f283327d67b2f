/* ssl_engine.c: TLS through the methods of _ssl's objects, see ssl_engine.h. */
#include "ssl_engine.h"

#include <string.h>

/* object.name(view of our memory); new reference or NULL. */
static PyObject *
call_with_view(PyObject *object, PyObject *name, char *data, size_t len, int flags)
{
    PyObject *view = PyMemoryView_FromMemory(data, (Py_ssize_t)len, flags);
    PyObject *result = view ? PyObject_CallMethodOneArg(object, name, view) : NULL;
    Py_XDECREF(view);
    return result;
}

/* The number that is `result`; steals it.  0 with no exception left if there is none. */
static size_t
size_or_nothing(PyObject *result)
{
    size_t size = result ? PyLong_AsSize_t(result) : 0;
    Py_XDECREF(result);
    if (PyErr_Occurred()) {
        PyErr_Clear();
        return 0;
    }
    return size;
}

size_t
gpy_ssl_calls_pending(struct gpy_ssl *self, PyObject *bio)
{
    return size_or_nothing(PyObject_GetAttr(bio, self->state->str_pending));
}

size_t
gpy_ssl_calls_buffered(struct gpy_ssl *self)
{
    return size_or_nothing(PyObject_CallMethodNoArgs(self->ssl_socket, self->state->str_pending));
}

int
gpy_ssl_calls_put(struct gpy_ssl *self, const char *data, size_t len)
{
    PyObject *result =
        call_with_view(self->incoming, self->state->str_write, (char *)data, len, PyBUF_READ);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

int
gpy_ssl_calls_take(struct gpy_ssl *self, char *into, size_t room)
{
    PyObject *bytes = PyObject_CallMethod(self->outgoing, "read", "n", (Py_ssize_t)room);
    Py_ssize_t len = bytes ? PyBytes_GET_SIZE(bytes) : -1;
    if (len > 0)
        memcpy(into, PyBytes_AS_STRING(bytes), (size_t)len);
    Py_XDECREF(bytes);
    return (int)len;
}

size_t
gpy_ssl_calls_seal(struct gpy_ssl *self, const char *data, size_t len)
{
    return size_or_nothing(
        call_with_view(self->ssl_socket, self->state->str_write, (char *)data, len, PyBUF_READ));
}

enum gpy_ssl_pull
gpy_ssl_calls_pull(struct gpy_ssl *self, char *into, size_t room, size_t *got)
{
    PyObject *view = PyMemoryView_FromMemory(into, (Py_ssize_t)room, PyBUF_WRITE);
    PyObject *result =
        view ? PyObject_CallMethod(self->ssl_socket, "read", "nO", (Py_ssize_t)room, view) : NULL;
    Py_XDECREF(view);
    if (result != NULL) {
        size_t count = PyLong_AsSize_t(result);
        Py_DECREF(result);
        if (count == (size_t)-1 && PyErr_Occurred())
            return GPY_SSL_PULL_ERROR;
        *got = count;
        return count != 0 ? GPY_SSL_PULL_DATA : GPY_SSL_PULL_END;
    }
    if (!PyErr_ExceptionMatches(self->state->ssl_again_errors))
        return GPY_SSL_PULL_ERROR;
    PyErr_Clear();
    return GPY_SSL_PULL_AGAIN;
}
