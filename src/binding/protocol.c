/* protocol.c: see protocol.h.  Thread: the loop's. */
#include "protocol.h"

#include "pycompat.h"
#include "ssl.h"

int
gpy_protocol_kind_of(struct gpy_state *state, PyObject *protocol)
{
    if ((PyObject *)Py_TYPE(protocol) == state->asyncio_stream_protocol)
        return GPY_PROTOCOL_DATA; /* it inherits from asyncio.Protocol: not worth a look */
    if (gpy_ssl_check(state, protocol) != NULL)
        return GPY_PROTOCOL_TLS;
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

int
gpy_protocol_enter(struct gpy_loop *loop, PyObject *context, struct gpy_protocol_frame *frame)
{
    frame->started_ns = gpy_loop_watch_begin(loop, NULL);
    frame->was_busy = loop->busy;
    loop->busy = true;
    frame->entered = GY_LIKELY(PyContext_Enter(context) == 0);
    return frame->entered ? 0 : -1;
}

int
gpy_protocol_leave(struct gpy_loop *loop, PyObject *context, struct gpy_protocol_frame *frame,
                   PyObject *protocol, PyObject *name)
{
    int rc = frame->entered ? PyContext_Exit(context) : 0;
    loop->busy = frame->was_busy;
    if (GY_UNLIKELY(frame->started_ns >= 0))
        watch_end(loop, protocol, name, frame->started_ns);
    if (GY_LIKELY(loop->core_ready))
        gpy_loop_flush_dirty(loop);
    return rc;
}

/* stack[0] is the protocol, nargs counts it. */
static inline PyObject *
call(struct gpy_loop *loop, PyObject *context, PyObject *name, PyObject *const *stack, size_t nargs)
{
    PyObject *protocol = stack[0];
    struct gpy_protocol_frame frame;
    PyObject *result = NULL;

    Py_INCREF(protocol); /* set_protocol() inside the call may drop the transport's reference */
    if (GY_LIKELY(gpy_protocol_enter(loop, context, &frame) == 0))
        result =
            PyObject_VectorcallMethod(name, stack, nargs | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (GY_UNLIKELY(gpy_protocol_leave(loop, context, &frame, protocol, name) < 0))
        Py_CLEAR(result);
    Py_DECREF(protocol);
    return result;
}

PyObject *
gpy_protocol_call(struct gpy_loop *loop, PyObject *context, PyObject *protocol, PyObject *name,
                  PyObject *arg)
{
    PyObject *stack[2] = {protocol, arg};
    return call(loop, context, name, stack, arg ? 2 : 1);
}

PyObject *
gpy_protocol_call_datagram(struct gpy_loop *loop, PyObject *context, PyObject *protocol,
                           PyObject *data, PyObject *address)
{
    PyObject *stack[3] = {protocol, data, address};
    return call(loop, context, loop->state->str_datagram_received, stack, 3);
}
