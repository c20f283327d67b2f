/* future_state.c: how a Future or Task becomes done, and what its outcome is.
 *
 * PENDING -> FINISHED (result or exception) or CANCELLED, once; then the callbacks go to the loop.
 * The callables are never run from here: the loop runs them in a later turn. */
#include "future.h"
#include "task.h"

int
gpy_fut_check_alive(struct gpy_fut *fut)
{
    if (gpy_fut_loop(fut) != NULL)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "Future object is not initialized.");
    return -1;
}

/* The state has changed: asyncio forgets a task at this very point, then the waiters are told. */
static int
fut_done(struct gpy_fut *fut, enum gpy_fut_state state)
{
    fut->state = (uint8_t)state;
    if (fut->is_task && gpy_task_finished(fut) < 0)
        return -1;
    return gpy_fut_schedule_callbacks(fut);
}

static int
check_settable(struct gpy_fut *fut)
{
    if (gpy_fut_check_alive(fut) < 0)
        return -1;
    if (fut->state == GPY_FUT_PENDING)
        return 0;
    PyErr_SetString(fut->module->invalid_state_error, "invalid state");
    return -1;
}

int
gpy_fut_set_result(struct gpy_fut *fut, PyObject *result)
{
    if (check_settable(fut) < 0)
        return -1;
    fut->result = Py_NewRef(result);
    return fut_done(fut, GPY_FUT_FINISHED);
}

/* A StopIteration cannot travel through a coroutine: refused before 3.11.8 and 3.12.2, wrapped
 * since.  Steals `exc`; new reference or NULL. */
static PyObject *
stop_iteration_wrap(PyObject *exc)
{
    static const char message[] =
        "StopIteration interacts badly with generators and cannot be raised into a Future";
    bool wraps =
        gpy_python_at_least(12, 2) || (gpy_python_at_least(11, 8) && !gpy_python_at_least(12, 0));
    if (!wraps) {
        Py_DECREF(exc);
        PyErr_SetString(PyExc_TypeError, message);
        return NULL;
    }
    PyObject *text = PyUnicode_FromString(message);
    PyObject *wrapper = text ? PyObject_CallOneArg(PyExc_RuntimeError, text) : NULL;
    Py_XDECREF(text);
    if (wrapper == NULL) {
        Py_DECREF(exc);
        return NULL;
    }
    PyException_SetCause(wrapper, Py_NewRef(exc));
    PyException_SetContext(wrapper, exc);
    return wrapper;
}

/* What set_exception(value) stores: an instance.  New reference or NULL. */
static PyObject *
exception_instance(PyObject *value)
{
    PyObject *exc = PyExceptionClass_Check(value) ? PyObject_CallNoArgs(value) : Py_NewRef(value);
    if (exc == NULL)
        return NULL;
    if (!PyExceptionInstance_Check(exc)) {
        Py_DECREF(exc);
        PyErr_SetString(PyExc_TypeError, "invalid exception object");
        return NULL;
    }
    if (PyObject_TypeCheck(exc, (PyTypeObject *)PyExc_StopIteration))
        return stop_iteration_wrap(exc);
    return exc;
}

int
gpy_fut_set_exception(struct gpy_fut *fut, PyObject *value)
{
    if (check_settable(fut) < 0)
        return -1;
    PyObject *exc = exception_instance(value);
    if (exc == NULL)
        return -1;
    if (check_settable(fut) < 0) { /* the exception's __init__ was foreign code */
        Py_DECREF(exc);
        return -1;
    }
    fut->exception = exc;
    fut->exception_tb = PyException_GetTraceback(exc);
    if (fut_done(fut, GPY_FUT_FINISHED) < 0)
        return -1;
    fut->log_tb = true;
    return 0;
}

int
gpy_fut_cancel(struct gpy_fut *fut, PyObject *msg_or_null)
{
    fut->log_tb = false;
    if (fut->state != GPY_FUT_PENDING)
        return 0;
    Py_XSETREF(fut->cancel_msg, Py_XNewRef(msg_or_null));
    return fut_done(fut, GPY_FUT_CANCELLED) < 0 ? -1 : 1;
}

PyObject *
gpy_fut_make_cancelled_error(struct gpy_fut *fut)
{
    PyObject *exc = fut->cancelled_exc;
    if (exc != NULL) { /* the reference moves to the caller */
        fut->cancelled_exc = NULL;
        return exc;
    }
    PyObject *msg = fut->cancel_msg;
    if (msg == NULL || msg == Py_None)
        return PyObject_CallNoArgs(fut->module->cancelled_error);
    return PyObject_CallOneArg(fut->module->cancelled_error, msg);
}

int
gpy_fut_outcome(struct gpy_fut *fut, PyObject **out)
{
    switch ((enum gpy_fut_state)fut->state) {
    case GPY_FUT_FINISHED:
        break;
    case GPY_FUT_CANCELLED:
        *out = gpy_fut_make_cancelled_error(fut);
        return *out != NULL ? 1 : -1;
    case GPY_FUT_PENDING:
        PyErr_SetString(fut->module->invalid_state_error, "Result is not set.");
        return -1;
    }
    fut->log_tb = false;
    if (fut->exception == NULL) {
        *out = Py_NewRef(fut->result != NULL ? fut->result : Py_None);
        return 0;
    }
    /* Each raise lengthens the traceback: start again from the one that was set. */
    PyObject *traceback = fut->exception_tb != NULL ? fut->exception_tb : Py_None;
    if (PyException_SetTraceback(fut->exception, traceback) < 0)
        return -1;
    *out = Py_NewRef(fut->exception);
    return 1;
}

/* ---- for the loop, sockets and transports ---------------------------------------------------- */

static int
none_or_error(PyObject *returned)
{
    if (returned == NULL)
        return -1;
    Py_DECREF(returned);
    return 0;
}

static int
truth_or_error(PyObject *returned)
{
    if (returned == NULL)
        return -1;
    int truth = PyObject_IsTrue(returned);
    Py_DECREF(returned);
    return truth;
}

int
gpy_future_set_result(struct gpy_state *module, PyObject *future, PyObject *result)
{
    if (Py_IS_TYPE(future, module->future_type))
        return gpy_fut_set_result(gpy_fut_of(future), result);
    return none_or_error(PyObject_CallMethodOneArg(future, module->str_set_result, result));
}

int
gpy_future_set_exception(struct gpy_state *module, PyObject *future, PyObject *exception)
{
    if (Py_IS_TYPE(future, module->future_type))
        return gpy_fut_set_exception(gpy_fut_of(future), exception);
    return none_or_error(PyObject_CallMethodOneArg(future, module->str_set_exception, exception));
}

int
gpy_future_is_done(struct gpy_state *module, PyObject *future)
{
    if (gpy_future_check(module, future))
        return gpy_fut_of(future)->state != GPY_FUT_PENDING;
    return truth_or_error(PyObject_CallMethodNoArgs(future, module->str_done));
}

int
gpy_future_cancelled(struct gpy_state *module, PyObject *future)
{
    if (gpy_future_check(module, future))
        return gpy_fut_of(future)->state == GPY_FUT_CANCELLED;
    return truth_or_error(PyObject_CallMethodNoArgs(future, module->str_cancelled));
}
