/* sock_calls.c: see sock_calls.h.  Thread: the loop's. */
#include "sock_calls.h"

#include "../core/base.h"
#include "coro_method.h"
#include "sock.h"

static const struct {
    const char *name;
    enum gpy_coro_call call;
    PyObject *(*begin)(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs);
} calls[] = {
    {"sock_recv", GPY_SOCK_CALL_RECV, gpy_loop_sock_recv},
    {"sock_recv_into", GPY_SOCK_CALL_RECV_INTO, gpy_loop_sock_recv_into},
    {"sock_sendall", GPY_SOCK_CALL_SENDALL, gpy_loop_sock_sendall},
};

static bool
is_plain(struct gpy_coro *self)
{
    struct gpy_state *state = self->state;
    struct gpy_loop *loop = gpy_loop_check(state, self->owner);
    return loop != NULL && !loop->debug &&
           Py_IS_TYPE(self->sock, (PyTypeObject *)state->socket_class);
}

PySendResult
gpy_sock_call_step(struct gpy_coro *self, PyObject **result)
{
    PyObject *args[] = {self->owner, self->sock, self->argument};
    PyObject *found;
    if (GY_LIKELY(is_plain(self))) {
        found =
            calls[self->call - GPY_SOCK_CALLS].begin((struct gpy_loop *)self->owner, args + 1, 2);
        if (found != NULL && !Py_IS_TYPE(found, self->state->sockop_type)) {
            *result = found;
            return PYGEN_RETURN;
        }
    } else {
        found = PyObject_Vectorcall(self->function, args, Py_ARRAY_LENGTH(args), NULL);
    }
    if (found == NULL)
        return PYGEN_ERROR;
    PySendResult status = gpy_coro_hand_over(self, found, result);
    Py_DECREF(found);
    return status;
}

static PyObject *
method_vectorcall(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    struct gpy_coro_method *self = (struct gpy_coro_method *)callable;
    if (GY_UNLIKELY(kwnames != NULL || PyVectorcall_NARGS(nargsf) != 3))
        return PyObject_Vectorcall(self->function, args, nargsf, kwnames);
    struct gpy_coro_job job = {.call = (enum gpy_coro_call)self->kind,
                               .owner = args[0],
                               .function = self->function,
                               .argument = args[2],
                               .sock = args[1]};
    return gpy_coro_new(self->state, &job);
}

PyObject *
gpy_sock_method(PyObject *module, PyObject *function)
{
    struct gpy_state *state = gpy_state_of_module(module);
    PyObject *name = PyObject_GetAttrString(function, "__name__");
    if (name == NULL)
        return NULL;
    PyObject *method = NULL;
    for (size_t i = 0; method == NULL && i < Py_ARRAY_LENGTH(calls); i++)
        if (PyUnicode_Check(name) && PyUnicode_CompareWithASCIIString(name, calls[i].name) == 0)
            method =
                gpy_coro_method_new(state, method_vectorcall, function, (uint8_t)calls[i].call);
    if (method == NULL && !PyErr_Occurred())
        PyErr_Format(PyExc_ValueError, "no short cut for %R", name);
    Py_DECREF(name);
    return method;
}
