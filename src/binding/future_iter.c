/* future_iter.c: the iterator behind `await future` (and `yield from future`).
 *
 * It yields the future once, marked as blocking, for the Task that drives the coroutine, and then
 * returns the result or raises.  A coroutine is resumed through tp_iternext, another C stepper
 * through am_send; send(), throw() and close() are for Python code that drives by hand. */
#include "future.h"

struct gpy_future_iter {
    PyObject_HEAD
    struct gpy_state *module; /* held: the memory goes back there */
    PyObject *future;         /* NULL once it has returned, raised or been closed */
};

static struct gpy_future_iter *
iter_of(PyObject *self)
{
    return (struct gpy_future_iter *)(void *)self;
}

PyObject *
gpy_future_iter_new(PyObject *future)
{
    struct gpy_fut *fut = gpy_fut_of(future);
    if (gpy_fut_check_alive(fut) < 0)
        return NULL;
    struct gpy_state *module = fut->module;
    PyObject *self = gpy_freelist_alloc(&module->free_future_iters, module->future_iter_type,
                                        sizeof(struct gpy_future_iter));
    if (self == NULL)
        return NULL;
    gpy_state_hold(module);
    iter_of(self)->module = module;
    iter_of(self)->future = Py_NewRef(future);
    return self;
}

static PySendResult
iter_am_send(PyObject *self, PyObject *unused, PyObject **result)
{
    struct gpy_future_iter *it = iter_of(self);
    *result = NULL;
    if (it->future == NULL) {
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    }
    struct gpy_fut *fut = gpy_fut_of(it->future);
    if (fut->state == GPY_FUT_PENDING) {
        if (!fut->blocking) {
            fut->blocking = true;
            *result = Py_NewRef(it->future);
            return PYGEN_NEXT;
        }
        PyErr_SetString(PyExc_RuntimeError, "await wasn't used with future");
        return PYGEN_ERROR;
    }
    PyObject *future = it->future;
    PyObject *outcome;
    it->future = NULL;
    if (GY_LIKELY(gpy_fut_has_result(fut))) {
        *result = Py_NewRef(fut->result);
        Py_DECREF(future);
        return PYGEN_RETURN;
    }
    int kind = gpy_fut_outcome(fut, &outcome);
    Py_DECREF(future);
    if (kind == 0) {
        *result = outcome;
        return PYGEN_RETURN;
    }
    if (kind == 1) {
        PyErr_SetObject((PyObject *)Py_TYPE(outcome), outcome);
        Py_DECREF(outcome);
    }
    return PYGEN_ERROR;
}

/* A tuple or an exception would be taken for the arguments of StopIteration: those need an instance
 * made by hand. */
void
gpy_raise_stop_iteration(PyObject *value)
{
    if (!PyTuple_Check(value) && !PyExceptionInstance_Check(value)) {
        PyErr_SetObject(PyExc_StopIteration, value);
        return;
    }
    PyObject *exc = PyObject_CallOneArg(PyExc_StopIteration, value);
    if (exc != NULL) {
        PyErr_SetObject(PyExc_StopIteration, exc);
        Py_DECREF(exc);
    }
}

static PyObject *
iter_tp_iternext(PyObject *self)
{
    PyObject *result;
    switch (iter_am_send(self, Py_None, &result)) {
    case PYGEN_NEXT:
        return result;
    case PYGEN_RETURN:
        if (result != Py_None) /* NULL without an exception is StopIteration(None) */
            gpy_raise_stop_iteration(result);
        Py_DECREF(result);
        return NULL;
    case PYGEN_ERROR:
        return NULL;
    }
    Py_UNREACHABLE();
}

static PyObject *
iter_send(PyObject *self, PyObject *value)
{
    PyObject *result = iter_tp_iternext(self);
    if (result == NULL && !PyErr_Occurred())
        PyErr_SetNone(PyExc_StopIteration);
    return result;
}

static PyObject *
iter_close(PyObject *self, PyObject *unused)
{
    Py_CLEAR(iter_of(self)->future);
    Py_RETURN_NONE;
}

/* throw(exception) or the old throw(type[, value[, traceback]]): what is to be raised.
 * New reference to an instance, or NULL. */
static PyObject *
throw_instance(PyObject *type, PyObject *value)
{
    if (PyExceptionInstance_Check(type)) {
        if (value == NULL || value == Py_None)
            return Py_NewRef(type);
        PyErr_SetString(PyExc_TypeError, "instance exception may not have a separate value");
        return NULL;
    }
    if (!PyExceptionClass_Check(type)) {
        PyErr_Format(PyExc_TypeError,
                     "exceptions must be classes or instances deriving from BaseException, not %s",
                     Py_TYPE(type)->tp_name);
        return NULL;
    }
    if (value == NULL || value == Py_None)
        return PyObject_CallNoArgs(type);
    if (PyObject_TypeCheck(value, (PyTypeObject *)type))
        return Py_NewRef(value);
    return PyTuple_Check(value) ? PyObject_CallObject(type, value)
                                : PyObject_CallOneArg(type, value);
}

int
gpy_throw(PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 1 || nargs > 3) {
        PyErr_Format(PyExc_TypeError, "throw() takes from 1 to 3 arguments (%zd given)", nargs);
        return -1;
    }
    if (GPY_THROW_IS_SINGLE_ARG && nargs > 1 &&
        PyErr_WarnEx(PyExc_DeprecationWarning,
                     "the (type, exc, tb) signature of throw() is deprecated, use the single-arg "
                     "signature instead.",
                     1) < 0)
        return -1;
    PyObject *traceback = nargs == 3 && args[2] != Py_None ? args[2] : NULL;
    if (traceback != NULL && !PyTraceBack_Check(traceback)) {
        PyErr_SetString(PyExc_TypeError, "throw() third argument must be a traceback");
        return -1;
    }
    PyObject *exc = throw_instance(args[0], nargs > 1 ? args[1] : NULL);
    if (exc == NULL)
        return -1;
    if (!PyExceptionInstance_Check(exc)) { /* a class whose __new__ returns something else */
        PyErr_SetString(PyExc_TypeError, "exceptions must derive from BaseException");
        Py_DECREF(exc);
        return -1;
    }
    if (traceback != NULL)
        (void)PyException_SetTraceback(exc, traceback);
    gpy_exc_give(exc);
    return 0;
}

static PyObject *
iter_throw(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (gpy_throw(args, nargs) == 0)
        Py_CLEAR(iter_of(self)->future);
    return NULL;
}

static int
iter_tp_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(iter_of(self)->future);
    return 0;
}

static int
iter_tp_clear(PyObject *self)
{
    Py_CLEAR(iter_of(self)->future);
    return 0;
}

static void
iter_tp_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    struct gpy_state *module = iter_of(self)->module;
    PyObject_GC_UnTrack(self);
    (void)iter_tp_clear(self);
    gpy_freelist_free(&module->free_future_iters, self);
    Py_DECREF(type);
    gpy_state_release(module);
}

static PyMethodDef iter_methods[] = {
    {"send", iter_send, METH_O, PyDoc_STR("Go on; the value is ignored.")},
    {"throw", (PyCFunction)(void (*)(void))iter_throw, METH_FASTCALL,
     PyDoc_STR("Stop waiting and raise the exception.")},
    {"close", iter_close, METH_NOARGS, PyDoc_STR("Stop waiting.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot iter_slots[] = {
    {Py_tp_dealloc, iter_tp_dealloc},   {Py_tp_traverse, iter_tp_traverse},
    {Py_tp_clear, iter_tp_clear},       {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, iter_tp_iternext}, {Py_am_send, iter_am_send},
    {Py_tp_methods, iter_methods},      {0, NULL},
};

static PyType_Spec iter_spec = {
    .name = "gyre._gyre.FutureIter",
    .basicsize = sizeof(struct gpy_future_iter),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = iter_slots,
};

int
gpy_future_iter_exec(PyObject *module_object, struct gpy_state *module)
{
    module->future_iter_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module_object, &iter_spec, NULL);
    return module->future_iter_type != NULL ? 0 : -1;
}
