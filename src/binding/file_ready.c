/* file_ready.c: an awaitable that has its result: `await` goes on at once, without the loop.
 * Nothing but its value; it can be awaited once. */
#include "file.h"
#include "future.h"

struct ready {
    PyObject_HEAD
    PyObject *value; /* NULL once it was taken */
};

static struct ready *
ready_of(PyObject *self)
{
    return (struct ready *)(void *)self;
}

PyObject *
gpy_file_ready(struct gpy_state *state, PyObject *value)
{
    if (GY_UNLIKELY(value == NULL))
        return NULL;
    struct ready *self = PyObject_New(struct ready, state->file_ready_type);
    if (self == NULL) {
        Py_DECREF(value);
        return NULL;
    }
    self->value = value;
    return (PyObject *)self;
}

static PySendResult
ready_am_send(PyObject *self, PyObject *unused, PyObject **result)
{
    *result = ready_of(self)->value;
    ready_of(self)->value = NULL;
    if (GY_LIKELY(*result != NULL))
        return PYGEN_RETURN;
    PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited file operation");
    return PYGEN_ERROR;
}

static PyObject *
ready_iternext(PyObject *self)
{
    PyObject *result;
    if (ready_am_send(self, Py_None, &result) == PYGEN_RETURN) {
        gpy_raise_stop_iteration(result);
        Py_DECREF(result);
    }
    return NULL;
}

static PyObject *
ready_send(PyObject *self, PyObject *value)
{
    return ready_iternext(self);
}

static PyObject *
ready_close(PyObject *self, PyObject *unused)
{
    Py_CLEAR(ready_of(self)->value);
    Py_RETURN_NONE;
}

static PyObject *
ready_throw(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (gpy_throw(args, nargs) == 0)
        Py_CLEAR(ready_of(self)->value);
    return NULL;
}

static void
ready_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(ready_of(self)->value);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyMethodDef ready_methods[] = {
    {"send", ready_send, METH_O, PyDoc_STR("End with the result; the value is ignored.")},
    {"throw", (PyCFunction)(void (*)(void))ready_throw, METH_FASTCALL,
     PyDoc_STR("Raise the exception.")},
    {"close", ready_close, METH_NOARGS, PyDoc_STR("Drop the result.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot ready_slots[] = {
    {Py_tp_doc, "The result of a file operation that needed no waiting."},
    {Py_tp_dealloc, ready_dealloc},
    {Py_am_await, PyObject_SelfIter},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, ready_iternext},
    {Py_am_send, ready_am_send},
    {Py_tp_methods, ready_methods},
    {0, NULL},
};

static PyType_Spec ready_spec = {
    .name = "gyre._gyre.Ready",
    .basicsize = sizeof(struct ready),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = ready_slots,
};

int
gpy_file_ready_exec(PyObject *module, struct gpy_state *state)
{
    state->file_ready_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &ready_spec, NULL);
    return state->file_ready_type != NULL ? 0 : -1;
}
