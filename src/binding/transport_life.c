/* transport_life.c: from connection_made() to the end of the memory: what is the same for streams,
 * pipes and datagram sockets.
 *
 * Thread: the loop's.  Invariants: connection_made() is scheduled before reading starts and before
 * the waiter is told, as in asyncio; a transport that dies has let the core's half go. */
#include "transport.h"

#include "future.h"
#include "pycompat.h"

/* ---- birth -------------------------------------------------------------------------------------
 */

int
gpy_transport_schedule_start(struct gpy_transport *self, PyObject *waiter)
{
    struct gpy_state *state = self->state;
    PyObject *made = PyObject_GetAttr(self->protocol, state->str_connection_made);
    PyObject *begin = made ? PyObject_GetAttr((PyObject *)self, state->str__begin) : NULL;
    int rc = -1;
    if (begin != NULL)
        rc = gpy_loop_call_soon(self->loop, made, (PyObject *)self, self->context);
    if (rc == 0)
        rc = gpy_loop_call_soon(self->loop, begin, waiter, self->context);
    Py_XDECREF(made);
    Py_XDECREF(begin);
    return rc;
}

PyObject *
gpy_transport_begin(struct gpy_transport *self, bool reads, PyObject *waiter)
{
    if (reads && !self->core_ended) {
        gpy_transport_pin(self);
        self->ops->resume(self);
    }
    if (waiter != Py_None) {
        int over = gpy_future_cancelled(self->state, waiter);
        if (over < 0 || (over == 0 && gpy_future_set_result(self->state, waiter, Py_None) < 0))
            return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- the end -----------------------------------------------------------------------------------
 */

int
gpy_transport_schedule_lost(struct gpy_transport *self, PyObject *exc)
{
    PyObject *method = PyObject_GetAttr((PyObject *)self, self->state->str__call_connection_lost);
    if (method == NULL)
        return -1;
    int rc = gpy_loop_call_soon(self->loop, method, exc ? exc : Py_None, self->context);
    Py_DECREF(method);
    return rc;
}

PyObject *
gpy_transport_tell_lost(struct gpy_transport *self, PyObject *exc)
{
    self->conn_lost = self->conn_lost ? self->conn_lost : 1;
    self->closing = true;
    if (self->protocol == NULL)
        Py_RETURN_NONE;
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *result = PyObject_CallMethodOneArg(protocol, self->state->str_connection_lost, exc);
    Py_DECREF(protocol);
    return result;
}

/* Not the loop's thread: the loop does it, as the end of any connection. */
static void
drop_in_the_loop(struct gpy_transport *self)
{
    PyObject *method = PyObject_GetAttr((PyObject *)self, self->state->str__call_connection_lost);
    PyObject *handle = method ? PyObject_CallMethod((PyObject *)self->loop, "call_soon_threadsafe",
                                                    "OO", method, Py_None)
                              : NULL;
    if (handle == NULL)
        PyErr_WriteUnraisable((PyObject *)self);
    Py_XDECREF(handle);
    Py_XDECREF(method);
}

void
gpy_transport_drop(struct gpy_transport *self)
{
    unsigned long thread = self->loop->thread_id;
    /* What was collected with it may have closed it, or written, in a finaliser of its own: then it
     * lives on until that is done. */
    if (self->closing || !gpy_loop_member_is_at_rest(&self->member))
        return;
    Py_CLEAR(self->protocol); /* it hears nothing more, as in asyncio */
    if (thread != 0 && thread != PyThread_get_thread_ident()) {
        drop_in_the_loop(self);
        return;
    }
    self->closing = true;
    self->conn_lost = self->conn_lost ? self->conn_lost : 1;
    self->ended = true;
    self->ops->drop(self);
}

void
gpy_transport_finalize(struct gpy_transport *self, bool warns)
{
    PyObject *exc = PyErr_Occurred() ? gpy_exc_take() : NULL;
    if (warns && !self->ended &&
        PyErr_ResourceWarning((PyObject *)self, 1, "unclosed transport %R", self) < 0)
        PyErr_WriteUnraisable((PyObject *)self);
    if (gpy_transport_leave_server(self) < 0)
        PyErr_WriteUnraisable((PyObject *)self);
    if (!self->core_ended) { /* else it may be half made, without ops */
        if (self->member.pinned != NULL)
            gpy_transport_drop(self);
        else
            self->ops->abandon(self);
    }
    if (exc != NULL)
        gpy_exc_give(exc);
}

bool
gpy_transport_dealloc_begin(struct gpy_transport *self)
{
    if (PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0)
        return false;
    PyObject_GC_UnTrack(self);
    if (self->weakreflist != NULL)
        PyObject_ClearWeakRefs((PyObject *)self);
    GY_ASSERT(self->core_ended);
    return true;
}

void
gpy_transport_dealloc_end(struct gpy_transport *self)
{
    PyTypeObject *type = Py_TYPE(self);
    gpy_transport_clear(self);
    Py_XDECREF((PyObject *)self->loop);
    type->tp_free(self);
    Py_DECREF(type);
}

/* ---- methods -----------------------------------------------------------------------------------
 */

PyObject *
gpy_transport_is_reading(struct gpy_transport *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(!self->closing && !self->paused);
}

PyObject *
gpy_transport_pause_reading(struct gpy_transport *self, PyObject *Py_UNUSED(ignored))
{
    if (!self->closing && !self->paused) {
        self->paused = true;
        if (!self->core_ended)
            self->ops->pause(self);
        gpy_transport_debug(self, "%r pauses reading", NULL, NULL);
    }
    Py_RETURN_NONE;
}

PyObject *
gpy_transport_resume_reading(struct gpy_transport *self, PyObject *Py_UNUSED(ignored))
{
    if (!self->closing && self->paused) {
        if (gpy_loop_check_open(self->loop) < 0)
            return NULL;
        self->paused = false;
        if (!self->core_ended) {
            gpy_transport_pin(self);
            self->ops->resume(self);
        }
        gpy_transport_debug(self, "%r resumes reading", NULL, NULL);
    }
    Py_RETURN_NONE;
}

PyObject *
gpy_transport_abort(struct gpy_transport *self, PyObject *Py_UNUSED(ignored))
{
    return gpy_none_or_error(self->ops->force_close(self, NULL));
}

PyObject *
gpy_transport_force_close(struct gpy_transport *self, PyObject *exc)
{
    return gpy_none_or_error(self->ops->force_close(self, exc));
}

PyObject *
gpy_transport_can_write_eof(struct gpy_transport *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_TRUE;
}

/* ---- types -------------------------------------------------------------------------------------
 */

/* transport.h: our struct continues asyncio's, whose fields are five slots or fewer. */
static int
check_base(PyObject *base)
{
    if (PyType_Check(base) &&
        ((PyTypeObject *)base)->tp_basicsize <= (Py_ssize_t)offsetof(struct gpy_transport, ops))
        return 0;
    PyErr_SetString(PyExc_ImportError,
                    "asyncio's transports of this Python has fields that gyre does not know");
    return -1;
}

static PyObject *
find_bases(const char *base, const char *second_base)
{
    PyObject *transports = PyImport_ImportModule("asyncio.transports");
    PyObject *first = transports ? PyObject_GetAttrString(transports, base) : NULL;
    PyObject *second =
        first && second_base ? PyObject_GetAttrString(transports, second_base) : NULL;
    PyObject *bases = NULL;
    if (first != NULL && (second != NULL || second_base == NULL) && check_base(first) == 0)
        bases = second ? PyTuple_Pack(2, first, second) : PyTuple_Pack(1, first);
    Py_XDECREF(transports);
    Py_XDECREF(first);
    Py_XDECREF(second);
    return bases;
}

PyTypeObject *
gpy_transport_type_new(PyObject *module, PyType_Spec *spec, const char *base,
                       const char *second_base)
{
    PyObject *bases = find_bases(base, second_base);
    PyObject *type = bases ? PyType_FromModuleAndSpec(module, spec, bases) : NULL;
    Py_XDECREF(bases);
    if (type != NULL && PyModule_AddType(module, (PyTypeObject *)type) < 0)
        Py_CLEAR(type);
    return (PyTypeObject *)type;
}
