/* future_methods.c: what Python sees of a Future, and the part of it that Task shares.
 *
 * Every member of asyncio's types that reads state is overridden here or in task.c, because the
 * state of the base part never changes; tests/python/test_members.py keeps the list complete. */
#include "future_methods.h"
#include "task.h"

/* ---- queries --------------------------------------------------------------------------------- */

/* result() and exception() of an object whose __init__ never ran. */
static int
check_alive_for_outcome(struct gpy_fut *fut)
{
    if (gpy_fut_loop(fut) != NULL)
        return 0;
    PyErr_SetString(fut->module->invalid_state_error, "Future object is not initialized.");
    return -1;
}

PyObject *
gpy_fut_m_result(PyObject *self, PyObject *unused)
{
    struct gpy_fut *fut = gpy_fut_of(self);
    PyObject *outcome;
    if (check_alive_for_outcome(fut) < 0)
        return NULL;
    switch (gpy_fut_outcome(fut, &outcome)) {
    case 0:
        return outcome;
    case 1:
        PyErr_SetObject((PyObject *)Py_TYPE(outcome), outcome);
        Py_DECREF(outcome);
        return NULL;
    default:
        return NULL;
    }
}

PyObject *
gpy_fut_m_exception(PyObject *self, PyObject *unused)
{
    struct gpy_fut *fut = gpy_fut_of(self);
    if (check_alive_for_outcome(fut) < 0)
        return NULL;
    if (fut->state == GPY_FUT_CANCELLED)
        return gpy_fut_m_result(self, NULL);
    if (fut->state == GPY_FUT_PENDING) {
        PyErr_SetString(fut->module->invalid_state_error, "Exception is not set.");
        return NULL;
    }
    fut->log_tb = false;
    return Py_NewRef(fut->exception != NULL ? fut->exception : Py_None);
}

PyObject *
gpy_fut_m_done(PyObject *self, PyObject *unused)
{
    return PyBool_FromLong(gpy_fut_of(self)->state != GPY_FUT_PENDING);
}

PyObject *
gpy_fut_m_cancelled(PyObject *self, PyObject *unused)
{
    return PyBool_FromLong(gpy_fut_of(self)->state == GPY_FUT_CANCELLED);
}

PyObject *
gpy_fut_m_get_loop(PyObject *self, PyObject *unused)
{
    struct gpy_fut *fut = gpy_fut_of(self);
    return gpy_fut_check_alive(fut) < 0 ? NULL : Py_NewRef(gpy_fut_loop(fut));
}

PyObject *
gpy_fut_m_make_cancelled_error(PyObject *self, PyObject *unused)
{
    return gpy_fut_make_cancelled_error(gpy_fut_of(self));
}

/* ---- callbacks ------------------------------------------------------------------------------- */

/* The one keyword argument that a method takes, or its default.  Borrowed; NULL with TypeError. */
static PyObject *
parse_keyword(const char *function, PyObject *name, PyObject *const *values, PyObject *kwnames,
              PyObject *value)
{
    Py_ssize_t count = kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *given = PyTuple_GET_ITEM(kwnames, i);
        if (!PyUnicode_Check(given) || PyUnicode_Compare(given, name) != 0) {
            PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument %R", function,
                         given);
            return NULL;
        }
        value = values[i];
    }
    return value;
}

PyObject *
gpy_fut_m_add_done_callback(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames)
{
    struct gpy_fut *fut = gpy_fut_of(self);
    if (nargs != 1) {
        PyErr_Format(PyExc_TypeError,
                     "add_done_callback() takes exactly 1 positional argument (%zd given)", nargs);
        return NULL;
    }
    PyObject *context =
        parse_keyword("add_done_callback", fut->module->str_context, args + 1, kwnames, Py_None);
    if (context == NULL)
        return NULL;
    if (gpy_fut_loop(fut) == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "uninitialized Future object");
        return NULL;
    }
    context = context == Py_None ? PyContext_CopyCurrent() : Py_NewRef(context);
    if (context == NULL)
        return NULL;
    int rc = gpy_fut_add_callback(fut, args[0], context);
    Py_DECREF(context);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyObject *
gpy_fut_m_remove_done_callback(PyObject *self, PyObject *callable)
{
    struct gpy_fut *fut = gpy_fut_of(self);
    if (gpy_fut_check_alive(fut) < 0)
        return NULL;
    Py_ssize_t removed = gpy_fut_remove_callback(fut, callable);
    return removed < 0 ? NULL : PyLong_FromSsize_t(removed);
}

/* ---- Future alone ---------------------------------------------------------------------------- */

static PyObject *
future_set_result(PyObject *self, PyObject *result)
{
    if (gpy_fut_set_result(gpy_fut_of(self), result) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
future_set_exception(PyObject *self, PyObject *exception)
{
    if (gpy_fut_set_exception(gpy_fut_of(self), exception) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyObject *
gpy_fut_parse_cancel(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject *msg_name)
{
    if (nargs > 1 || (nargs == 1 && kwnames != NULL && PyTuple_GET_SIZE(kwnames) > 0)) {
        PyErr_SetString(PyExc_TypeError, "cancel() takes at most 1 argument");
        return NULL;
    }
    return nargs == 1 ? args[0] : parse_keyword("cancel", msg_name, args, kwnames, Py_None);
}

static PyObject *
future_cancel(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    struct gpy_fut *fut = gpy_fut_of(self);
    PyObject *msg = gpy_fut_parse_cancel(args, nargs, kwnames, fut->module->str_msg);
    if (msg == NULL || gpy_fut_check_alive(fut) < 0)
        return NULL;
    int cancelled = gpy_fut_cancel(fut, msg);
    return cancelled < 0 ? NULL : PyBool_FromLong(cancelled);
}

PyMethodDef gpy_future_methods[] = {
    GPY_FUT_METHODS,
    {"set_result", future_set_result, METH_O,
     PyDoc_STR("set_result($self, result, /)\n--\n\nMark the future done with this result; "
               "InvalidStateError if it was.")},
    {"set_exception", future_set_exception, METH_O,
     PyDoc_STR("set_exception($self, exception, /)\n--\n\nMark the future done with this "
               "exception; InvalidStateError if it was.")},
    {"cancel", GPY_FASTCALL_KEYWORDS(future_cancel),
     PyDoc_STR("cancel($self, /, msg=None)\n--\n\nCancel the future and schedule its callbacks; "
               "False if it "
               "was done.")},
    {NULL, NULL, 0, NULL},
};

/* ---- attributes ------------------------------------------------------------------------------ */

static PyObject *
value_or_none(PyObject *value)
{
    return Py_NewRef(value != NULL ? value : Py_None);
}

PyObject *
gpy_fut_get_state(PyObject *self, void *closure)
{
    struct gpy_fut *fut = gpy_fut_of(self);
    if (gpy_fut_check_alive(fut) < 0)
        return NULL;
    switch ((enum gpy_fut_state)fut->state) {
    case GPY_FUT_PENDING:
        return Py_NewRef(fut->module->str_PENDING);
    case GPY_FUT_CANCELLED:
        return Py_NewRef(fut->module->str_CANCELLED);
    case GPY_FUT_FINISHED:
        return Py_NewRef(fut->module->str_FINISHED);
    }
    Py_UNREACHABLE();
}

PyObject *
gpy_fut_get_blocking(PyObject *self, void *closure)
{
    struct gpy_fut *fut = gpy_fut_of(self);
    return PyBool_FromLong(gpy_fut_loop(fut) != NULL && fut->blocking);
}

static int
refuse_delete(PyObject *value)
{
    if (value != NULL)
        return 0;
    PyErr_SetString(PyExc_AttributeError, "cannot delete attribute");
    return -1;
}

int
gpy_fut_set_blocking(PyObject *self, PyObject *value, void *closure)
{
    struct gpy_fut *fut = gpy_fut_of(self);
    if (gpy_fut_check_alive(fut) < 0 || refuse_delete(value) < 0)
        return -1;
    int truth = PyObject_IsTrue(value);
    if (truth < 0)
        return -1;
    fut->blocking = truth;
    return 0;
}

PyObject *
gpy_fut_get_loop(PyObject *self, void *closure)
{
    return value_or_none(gpy_fut_loop(gpy_fut_of(self)));
}

PyObject *
gpy_fut_get_callbacks(PyObject *self, void *closure)
{
    struct gpy_fut *fut = gpy_fut_of(self);
    return gpy_fut_check_alive(fut) < 0 ? NULL : gpy_fut_list_callbacks(fut);
}

PyObject *
gpy_fut_get_result(PyObject *self, void *closure)
{
    return value_or_none(gpy_fut_of(self)->result);
}

PyObject *
gpy_fut_get_exception(PyObject *self, void *closure)
{
    return value_or_none(gpy_fut_of(self)->exception);
}

PyObject *
gpy_fut_get_log_traceback(PyObject *self, void *closure)
{
    return PyBool_FromLong(gpy_fut_of(self)->log_tb);
}

int
gpy_fut_set_log_traceback(PyObject *self, PyObject *value, void *closure)
{
    if (refuse_delete(value) < 0)
        return -1;
    int truth = PyObject_IsTrue(value);
    if (truth < 0)
        return -1;
    if (truth) {
        PyErr_SetString(PyExc_ValueError, "_log_traceback can only be set to False");
        return -1;
    }
    gpy_fut_of(self)->log_tb = false;
    return 0;
}

PyObject *
gpy_fut_get_source_traceback(PyObject *self, void *closure)
{
    return value_or_none(gpy_fut_of(self)->source_tb);
}

PyObject *
gpy_fut_get_cancel_message(PyObject *self, void *closure)
{
    return value_or_none(gpy_fut_of(self)->cancel_msg);
}

int
gpy_fut_set_cancel_message(PyObject *self, PyObject *value, void *closure)
{
    if (refuse_delete(value) < 0)
        return -1;
    Py_XSETREF(gpy_fut_of(self)->cancel_msg, Py_NewRef(value));
    return 0;
}

PyGetSetDef gpy_future_getset[] = {
    GPY_FUT_GETSET,
    {NULL},
};
