/* loop_call.c: running foreign code on behalf of the loop, and what happens to what it raises. */
#include "handle.h"
#include "loop.h"
#include "pycompat.h"

#include <stdarg.h>

bool
gpy_loop_keep_raised(struct gpy_loop *loop)
{
    if (!PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) &&
        !PyErr_ExceptionMatches(PyExc_SystemExit))
        return false;
    /* Of two in one event the later one leaves, with the earlier one as its context. */
    PyObject *exc = gpy_exc_take();
    if (loop->raised != NULL && loop->raised != exc)
        PyException_SetContext(exc, Py_NewRef(loop->raised));
    Py_XSETREF(loop->raised, exc);
    loop->core.interrupted = true;
    return true;
}

void
gpy_loop_restore_raised(struct gpy_loop *loop)
{
    loop->core.interrupted = false;
    PyObject *exc = loop->raised;
    loop->raised = NULL;
    if (exc != NULL)
        gpy_exc_give(exc);
}

static void
report_failed(struct gpy_loop *loop)
{
    if (!gpy_loop_keep_raised(loop))
        PyErr_WriteUnraisable((PyObject *)loop);
}

void
gpy_loop_report(struct gpy_loop *loop, const char *message, ...)
{
    PyObject *exc = PyErr_Occurred() ? gpy_exc_take() : NULL;
    PyObject *text = PyUnicode_FromString(message);
    PyObject *context = text ? PyDict_New() : NULL;
    bool ok = context != NULL && PyDict_SetItemString(context, "message", text) == 0;
    if (ok && exc != NULL)
        ok = PyDict_SetItemString(context, "exception", exc) == 0;
    va_list pairs;
    va_start(pairs, message);
    for (const char *key = va_arg(pairs, const char *); ok && key != NULL;
         key = va_arg(pairs, const char *)) {
        PyObject *value = va_arg(pairs, PyObject *);
        if (value != NULL)
            ok = PyDict_SetItemString(context, key, value) == 0;
    }
    va_end(pairs);
    PyObject *result = NULL;
    if (ok)
        result = PyObject_CallMethodOneArg((PyObject *)loop,
                                           loop->state->str_call_exception_handler, context);
    Py_XDECREF(context);
    Py_XDECREF(text);
    Py_XDECREF(exc);
    if (result == NULL)
        report_failed(loop);
    else
        Py_DECREF(result);
}

/* Debug mode: asyncio's own words for a callback that held the loop up. */
static void
log_if_slow(struct gpy_loop *loop, PyObject *what, int64_t started_ns)
{
    int64_t spent_ns = gy_loop_now_ns(&loop->core) - started_ns;
    PyObject *exc = PyErr_Occurred() ? gpy_exc_take() : NULL;
    double spent = (double)spent_ns / 1e9;
    double limit = PyFloat_AsDouble(loop->slow_callback_duration);
    PyObject *result = NULL;
    if (limit == -1.0 && PyErr_Occurred())
        report_failed(loop);
    else if (spent >= limit) {
        result = PyObject_CallFunction(loop->state->report_slow_callback, "Od", what, spent);
        if (result == NULL)
            report_failed(loop);
    }
    Py_XDECREF(result);
    if (exc != NULL)
        gpy_exc_give(exc);
}

int64_t
gpy_loop_watch_begin(struct gpy_loop *loop, PyObject *what)
{
    if (GY_LIKELY(!loop->debug))
        return -1;
    if (what != NULL && gpy_handle_check(loop->state, what)) {
        if (((struct gpy_handle *)what)->cancelled)
            return -1; /* it will not run */
        Py_XSETREF(loop->current_handle, Py_NewRef(what));
    }
    return gy_loop_now_ns(&loop->core);
}

void
gpy_loop_watch_end(struct gpy_loop *loop, PyObject *what, int64_t started_ns)
{
    if (GY_LIKELY(started_ns < 0))
        return;
    if (loop->debug && loop->core_ready)
        log_if_slow(loop, what, started_ns);
    if (loop->current_handle == what)
        Py_CLEAR(loop->current_handle);
}

void
gpy_loop_flush_dirty_slow(struct gpy_loop *loop)
{
    PyObject *exc = GY_UNLIKELY(PyErr_Occurred() != NULL) ? gpy_exc_take() : NULL;
    gy_loop_flush_dirty_slow(&loop->core);
    if (exc != NULL)
        gpy_exc_give(exc);
}

PyObject *
gpy_loop_call(struct gpy_loop *loop, PyObject *context, PyObject *what, PyObject *callable,
              PyObject *const *args, size_t nargs)
{
    int64_t started_ns = gpy_loop_watch_begin(loop, what);
    bool was_busy = loop->busy;
    loop->busy = true;
    PyObject *result = NULL;
    if (context == NULL) {
        result = PyObject_Vectorcall(callable, args, nargs, NULL);
    } else if (PyContext_Enter(context) == 0) {
        result = PyObject_Vectorcall(callable, args, nargs, NULL);
        if (PyContext_Exit(context) < 0)
            Py_CLEAR(result);
    }
    loop->busy = was_busy;
    gpy_loop_watch_end(loop, what, started_ns);
    gpy_loop_flush_dirty(loop);
    return result;
}

int
gpy_loop_check_open(struct gpy_loop *loop)
{
    if (GY_UNLIKELY(loop->closed || !loop->core_ready)) {
        PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
        return -1;
    }
    return 0;
}

int
gpy_loop_check_thread(struct gpy_loop *loop)
{
    if (!loop->debug || loop->thread_id == 0 || loop->thread_id == PyThread_get_thread_ident())
        return 0;
    PyErr_SetString(
        PyExc_RuntimeError,
        "Non-thread-safe operation invoked on an event loop other than the current one");
    return -1;
}

int64_t
gpy_loop_clock_ns(struct gpy_loop *loop)
{
    if (GY_LIKELY(!loop->time_overridden))
        return gy_loop_now_ns(&loop->core);
    PyObject *now = PyObject_CallMethodNoArgs((PyObject *)loop, loop->state->str_time);
    double seconds = now ? PyFloat_AsDouble(now) : -1.0;
    Py_XDECREF(now);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    return gpy_when_to_ns(seconds);
}
