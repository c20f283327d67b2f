/* protocol.c: see protocol.h.  Thread: the loop's. */
#include "protocol.h"

#include "pycompat.h"

int
gpy_protocol_kind_of(struct gpy_state *state, PyObject *protocol)
{
    int buffered = PyObject_IsInstance(protocol, state->buffered_protocol);
    if (buffered != 0)
        return buffered < 0 ? -1 : GPY_PROTOCOL_BUFFER;
    if (!PyObject_HasAttr(protocol, state->str_data_received) &&
        PyObject_HasAttr(protocol, state->str_get_buffer))
        return GPY_PROTOCOL_BUFFER;
    return GPY_PROTOCOL_DATA;
}

/* Debug mode: names the method in the log; keeps the exception that is set. */
static GY_COLD void
watch_end(struct gpy_loop *loop, PyObject *protocol, PyObject *name, int64_t started_ns)
{
    PyObject *exc = PyErr_Occurred() ? gpy_exc_take() : NULL;
    PyObject *method = PyObject_GetAttr(protocol, name);
    if (method == NULL)
        PyErr_Clear();
    gpy_loop_watch_end(loop, method ? method : protocol, started_ns);
    Py_XDECREF(method);
    if (exc != NULL)
        gpy_exc_give(exc);
}

PyObject *
gpy_protocol_call(struct gpy_loop *loop, PyObject *context, PyObject *protocol, PyObject *name,
                  PyObject *arg)
{
    PyObject *stack[2] = {protocol, arg};
    size_t nargs = (arg ? 2 : 1) | PY_VECTORCALL_ARGUMENTS_OFFSET;
    int64_t started_ns = gpy_loop_watch_begin(loop, NULL);
    bool was_busy = loop->busy;
    PyObject *result = NULL;

    Py_INCREF(protocol); /* set_protocol() inside the call may drop the transport's reference */
    loop->busy = true;
    if (GY_LIKELY(PyContext_Enter(context) == 0)) {
        result = PyObject_VectorcallMethod(name, stack, nargs, NULL);
        if (GY_UNLIKELY(PyContext_Exit(context) < 0))
            Py_CLEAR(result);
    }
    loop->busy = was_busy;
    if (GY_UNLIKELY(started_ns >= 0))
        watch_end(loop, protocol, name, started_ns);
    Py_DECREF(protocol);
    if (GY_LIKELY(loop->core_ready))
        gy_loop_flush_dirty(&loop->core);
    return result;
}
