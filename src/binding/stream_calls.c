/* stream_calls.c: StreamReader.read(), readexactly(), readuntil(), readline() and
 * StreamWriter.drain(), as asyncio/streams.py has them, cut at their waits.
 *
 * Each function goes from where the coroutine stands to its next wait (PYGEN_NEXT, the phase says
 * what for) or to its end. */
#include "stream_calls.h"

#include "../core/base.h"
#include "pycompat.h"
#include "stream_transport.h"
#include "streams.h"

/* `raise exc` */
static PySendResult
raise_object(PyObject *exc)
{
    if (PyExceptionInstance_Check(exc))
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
    else if (PyExceptionClass_Check(exc))
        PyErr_SetNone(exc);
    else
        PyErr_SetString(PyExc_TypeError, "exceptions must derive from BaseException");
    return PYGEN_ERROR;
}

static PySendResult
return_object(PyObject *object, PyObject **result)
{
    *result = object;
    return object != NULL ? PYGEN_RETURN : PYGEN_ERROR;
}

static PySendResult
return_empty(PyObject **result)
{
    return return_object(PyBytes_FromStringAndSize(NULL, 0), result);
}

/* The oldest `count` bytes, and the transport may go on. */
static PySendResult
return_data(struct gpy_coro *self, Py_ssize_t count, PyObject **result)
{
    PyObject *data = gpy_intake_take(self->intake, count);
    if (data != NULL && gpy_intake_maybe_resume(self->intake) < 0)
        Py_CLEAR(data);
    return return_object(data, result);
}

/* raise IncompleteReadError(<all there is>, expected) */
static PySendResult
raise_incomplete(struct gpy_coro *self, PyObject *expected)
{
    PyObject *type = self->state->incomplete_read_error;
    PyObject *partial = gpy_intake_take(self->intake, gpy_intake_len(self->intake));
    PyObject *exc =
        partial && expected ? PyObject_CallFunctionObjArgs(type, partial, expected, NULL) : NULL;
    Py_XDECREF(partial);
    if (exc != NULL)
        (void)raise_object(exc);
    Py_XDECREF(exc);
    return PYGEN_ERROR;
}

static PySendResult
raise_overrun(struct gpy_coro *self, const char *message, Py_ssize_t consumed)
{
    PyObject *exc =
        PyObject_CallFunction(self->state->limit_overrun_error, "sn", message, consumed);
    if (exc != NULL)
        (void)raise_object(exc);
    Py_XDECREF(exc);
    return PYGEN_ERROR;
}

/* ---- reading -----------------------------------------------------------------------------------
 */

static PySendResult
read_step(struct gpy_coro *self, PyObject **result)
{
    struct gpy_intake *intake = self->intake;
    if (self->phase == GPY_CORO_RUNNING) {
        if (intake->exception != NULL)
            return raise_object(intake->exception);
        if (self->count == 0)
            return return_empty(result);
        if (gpy_intake_len(intake) == 0 && !intake->eof) {
            PySendResult status = gpy_stream_wait(self, "read", result);
            if (status != PYGEN_RETURN)
                return status;
        }
    }
    return return_data(self, self->count, result);
}

static PySendResult
readexactly_step(struct gpy_coro *self, PyObject **result)
{
    struct gpy_intake *intake = self->intake;
    if (self->phase == GPY_CORO_RUNNING) {
        if (self->count < 0) {
            PyErr_SetString(PyExc_ValueError, "readexactly size can not be less than zero");
            return PYGEN_ERROR;
        }
        if (intake->exception != NULL)
            return raise_object(intake->exception);
        if (self->count == 0)
            return return_empty(result);
    }
    while (gpy_intake_len(intake) < self->count) {
        if (intake->eof) {
            PyObject *expected = PyLong_FromSsize_t(self->count);
            PySendResult status = raise_incomplete(self, expected);
            Py_XDECREF(expected);
            return status;
        }
        PySendResult status = gpy_stream_wait(self, "readexactly", result);
        if (status != PYGEN_RETURN)
            return status;
    }
    return return_data(self, self->count, result);
}

static PySendResult
readuntil_step(struct gpy_coro *self, PyObject **result)
{
    struct gpy_intake *intake = self->intake;
    Py_ssize_t separator_len = PyBytes_GET_SIZE(self->argument);
    if (self->phase == GPY_CORO_RUNNING && intake->exception != NULL)
        return raise_object(intake->exception);
    for (;;) {
        Py_ssize_t len = gpy_intake_len(intake);
        if (len - self->offset >= separator_len) {
            Py_ssize_t found = gpy_intake_find(intake, self->argument, self->offset);
            if (found < -1)
                return PYGEN_ERROR;
            if (found > intake->limit)
                return raise_overrun(self, "Separator is found, but chunk is longer than limit",
                                     found);
            if (found >= 0)
                return return_data(self, found + separator_len, result);
            self->offset = len + 1 - separator_len;
            if (self->offset > intake->limit)
                return raise_overrun(self, "Separator is not found, and chunk exceed the limit",
                                     self->offset);
        }
        if (intake->eof)
            return raise_incomplete(self, Py_None);
        PySendResult status = gpy_stream_wait(self, "readuntil", result);
        if (status != PYGEN_RETURN)
            return status;
    }
}

/* A line that is too long: it goes, up to its end if that is there, and so does the exception.
 * Steals `exc`. */
static PySendResult
drop_line(struct gpy_coro *self, PyObject *exc)
{
    struct gpy_intake *intake = self->intake;
    PyObject *consumed = PyObject_GetAttrString(exc, "consumed");
    PyObject *args = consumed ? PyObject_GetAttrString(exc, "args") : NULL;
    PyObject *message = args ? PySequence_GetItem(args, 0) : NULL;
    Py_ssize_t count = consumed ? PyLong_AsSsize_t(consumed) : -1;
    Py_ssize_t len = gpy_intake_len(intake);
    PyObject *gone = NULL;
    if (message != NULL && !PyErr_Occurred()) {
        bool ends =
            count >= 0 && count < len && gpy_intake_find(intake, self->argument, count) == count;
        gone = gpy_intake_take(intake, ends ? count + 1 : len);
    }
    if (gone != NULL && gpy_intake_maybe_resume(intake) == 0) {
        PyObject *error = PyObject_CallOneArg(PyExc_ValueError, message);
        if (error != NULL) {
            PyException_SetContext(error, Py_NewRef(exc));
            gpy_exc_give(error);
        }
    }
    Py_XDECREF(gone);
    Py_XDECREF(consumed);
    Py_XDECREF(args);
    Py_XDECREF(message);
    Py_DECREF(exc);
    return PYGEN_ERROR;
}

PySendResult
gpy_stream_line_failed(struct gpy_coro *self, PyObject **result)
{
    struct gpy_state *state = self->state;
    if (PyErr_ExceptionMatches(state->incomplete_read_error)) {
        PyObject *exc = gpy_exc_take();
        PyObject *partial = PyObject_GetAttrString(exc, "partial");
        Py_DECREF(exc);
        return return_object(partial, result);
    }
    if (PyErr_ExceptionMatches(state->limit_overrun_error))
        return drop_line(self, gpy_exc_take());
    return PYGEN_ERROR;
}

/* ---- drain() -----------------------------------------------------------------------------------
 */

/* What reader.exception() returns.  New reference. */
static PyObject *
reader_exception(struct gpy_state *state, PyObject *reader)
{
    bool untouched;
    struct gpy_intake *intake = gpy_intake_of(state, reader, &untouched);
    if (GY_LIKELY(intake != NULL && untouched && gpy_streams_pristine(state)))
        return Py_NewRef(intake->exception != NULL ? intake->exception : Py_None);
    return PyObject_CallMethodNoArgs(reader, state->str_exception);
}

/* transport.is_closing(): 1, 0 or -1 */
static int
transport_is_closing(struct gpy_state *state, PyObject *transport)
{
    PyObject *closing = PyObject_CallMethodNoArgs(transport, state->str_is_closing);
    int truth = closing ? PyObject_IsTrue(closing) : -1;
    Py_XDECREF(closing);
    return truth;
}

/* await protocol._drain_helper(); asyncio's own is not called when it would return at once. */
static PySendResult
drain_helper(struct gpy_coro *self, PyObject **result)
{
    struct gpy_state *state = self->state;
    PyObject *protocol = PyObject_GetAttr(self->owner, state->str__protocol);
    if (protocol == NULL)
        return PYGEN_ERROR;
    if (GY_LIKELY(gpy_streams_drained(state, protocol, NULL))) {
        Py_DECREF(protocol);
        return return_object(Py_NewRef(Py_None), result);
    }
    PyObject *helper = PyObject_CallMethodNoArgs(protocol, state->str__drain_helper);
    Py_DECREF(protocol);
    if (helper == NULL)
        return PYGEN_ERROR;
    PySendResult status = gpy_coro_delegate(self, helper, result);
    Py_DECREF(helper);
    if (status == PYGEN_RETURN)
        Py_SETREF(*result, Py_NewRef(Py_None));
    return status;
}

static PySendResult
drain_begin(struct gpy_coro *self, PyObject **result)
{
    struct gpy_state *state = self->state;
    PyObject *reader = PyObject_GetAttr(self->owner, state->str__reader);
    if (reader == NULL)
        return PYGEN_ERROR;
    PyObject *exc = reader != Py_None ? reader_exception(state, reader) : Py_NewRef(Py_None);
    Py_DECREF(reader);
    if (exc != Py_None) {
        if (exc != NULL)
            (void)raise_object(exc);
        Py_XDECREF(exc);
        return PYGEN_ERROR;
    }
    Py_DECREF(exc);
    PyObject *transport = PyObject_GetAttr(self->owner, state->str__transport);
    int closing = transport ? transport_is_closing(state, transport) : -1;
    Py_XDECREF(transport);
    if (closing < 0)
        return PYGEN_ERROR;
    if (closing == 0)
        return drain_helper(self, result);
    self->phase = GPY_CORO_SLEEPING; /* so that connection_lost() may be called */
    *result = Py_NewRef(Py_None);
    return PYGEN_NEXT;
}

/* What drain() asks a writer for, from its __dict__.  The intake remembers, so that the next one
 * looks up the reader only.  false: not a plain writer of a plain transport. */
static bool
find_drain(struct gpy_state *state, struct gpy_intake *intake, PyObject *dict)
{
    uint64_t version = gpy_attributes_version(dict);
    if (GY_LIKELY(version != 0 && version == intake->writer_version))
        return true;
    PyObject *transport = PyDict_GetItemWithError(dict, state->str__transport);
    PyObject *protocol = PyDict_GetItemWithError(dict, state->str__protocol);
    intake->writer_version = 0;
    if (transport == NULL || protocol == NULL ||
        !Py_IS_TYPE(transport, state->stream_transport_type))
        return false;
    intake->writer_transport = transport;
    intake->writer_protocol = protocol;
    intake->writer_version = version;
    return true;
}

/* drain() would return at once: reader and transport are as they should be, the protocol is not
 * paused.  false: it has to be asked one by one.  Never fails. */
static bool
nothing_to_drain(struct gpy_state *state, PyObject *writer)
{
    bool untouched = false, nothing = false;
    PyObject *dict = gpy_streams_pristine(state) ? PyObject_GenericGetDict(writer, NULL) : NULL;
    PyObject *reader = dict ? PyDict_GetItemWithError(dict, state->str__reader) : NULL;
    struct gpy_intake *intake = reader ? gpy_intake_of(state, reader, &untouched) : NULL;
    if (intake != NULL && untouched && intake->exception == NULL &&
        find_drain(state, intake, dict)) {
        struct gpy_transport *base =
            &((struct gpy_stream_transport *)intake->writer_transport)->base;
        nothing = base->instance_dict == NULL && !base->closing &&
                  gpy_streams_drained(state, intake->writer_protocol, intake);
    }
    PyErr_Clear();
    Py_XDECREF(dict);
    return nothing;
}

static PySendResult
drain_step(struct gpy_coro *self, PyObject **result)
{
    if (self->phase == GPY_CORO_RUNNING)
        return GY_LIKELY(nothing_to_drain(self->state, self->owner))
                   ? return_object(Py_NewRef(Py_None), result)
                   : drain_begin(self, result);
    if (self->phase == GPY_CORO_SLEEPING)
        return drain_helper(self, result);
    return return_object(Py_NewRef(Py_None), result); /* the helper has returned */
}

PySendResult
gpy_stream_call_step(struct gpy_coro *self, PyObject **result)
{
    switch ((enum gpy_coro_call)self->call) {
    case GPY_STREAM_READ:
        return read_step(self, result);
    case GPY_STREAM_READEXACTLY:
        return readexactly_step(self, result);
    case GPY_STREAM_READUNTIL:
    case GPY_STREAM_READLINE:
        return readuntil_step(self, result);
    case GPY_STREAM_DRAIN:
        return drain_step(self, result);
    case GPY_SOCK_CALL_RECV:
    case GPY_SOCK_CALL_RECV_INTO:
    case GPY_SOCK_CALL_SENDALL:
        break;
    }
    Py_UNREACHABLE();
}
