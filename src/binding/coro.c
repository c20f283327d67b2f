/* coro.c: see coro.h; what each call does is in stream_calls.c and sock_calls.c.
 *
 * Here is what all coroutines have: send, throw, close, the end, and waiting for the intake's
 * future or for another awaitable.
 * Invariants: `waiting` is set exactly in WAITING and DELEGATING; a coroutine that is DONE has let
 * go of everything. */
#include "coro.h"

#include "../core/base.h"
#include "future.h"
#include "pycompat.h"
#include "sock_calls.h"
#include "stream_calls.h"

#include <frameobject.h>
#include <stddef.h>
#include <structmember.h>

/* ---- life --------------------------------------------------------------------------------------
 */

PyObject *
gpy_coro_new(struct gpy_state *state, const struct gpy_coro_job *job)
{
    PyTypeObject *type = state->coro_type;
    PyObject *memory = gpy_freelist_take(&state->free_coros, type);
    struct gpy_coro *self =
        memory ? (struct gpy_coro *)memory : PyObject_GC_New(struct gpy_coro, type);
    if (self == NULL)
        return NULL;
    self->state = state;
    gpy_state_hold(state);
    self->owner = Py_NewRef(job->owner);
    self->function = Py_NewRef(job->function);
    self->intake = (struct gpy_intake *)Py_XNewRef((PyObject *)job->intake);
    self->argument = Py_XNewRef(job->argument);
    self->sock = Py_XNewRef(job->sock);
    self->waiting = NULL;
    self->weakreflist = NULL;
    self->count = job->count;
    self->offset = 0;
    self->call = (uint8_t)job->call;
    self->phase = GPY_CORO_CREATED;
    self->running = false;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

static void
finish(struct gpy_coro *self)
{
    self->phase = GPY_CORO_DONE;
    Py_CLEAR(self->waiting);
    Py_CLEAR(self->argument);
    Py_CLEAR(self->sock);
    PyObject *owner = self->owner;
    PyObject *intake = (PyObject *)self->intake;
    self->owner = NULL;
    self->intake = NULL;
    Py_XDECREF(intake);
    Py_XDECREF(owner);
}

/* The `finally: self._waiter = None` of _wait_for_data(). */
static void
end_wait(struct gpy_coro *self)
{
    if (self->intake == NULL)
        return;
    Py_CLEAR(self->intake->waiter);
    if (GY_UNLIKELY(self->intake->orphaned)) {
        PyObject *raised = PyErr_Occurred() ? gpy_exc_take() : NULL;
        if (PyObject_SetAttr(self->owner, self->state->str__waiter, Py_None) < 0)
            PyErr_WriteUnraisable(self->owner);
        if (raised != NULL)
            gpy_exc_give(raised);
    }
}

/* ---- waiting -----------------------------------------------------------------------------------
 */

/* What `await object` goes on with: an iterator.  New reference. */
static PyObject *
iterator_of(PyObject *object)
{
    if (PyCoro_CheckExact(object))
        return Py_NewRef(object);
    PyAsyncMethods *methods = Py_TYPE(object)->tp_as_async;
    if (methods != NULL && methods->am_await != NULL)
        return methods->am_await(object);
    PyErr_Format(PyExc_TypeError, "object %.100s can't be used in 'await' expression",
                 Py_TYPE(object)->tp_name);
    return NULL;
}

PySendResult
gpy_coro_delegate(struct gpy_coro *self, PyObject *awaitable, PyObject **result)
{
    self->waiting = iterator_of(awaitable);
    if (self->waiting == NULL)
        return PYGEN_ERROR;
    self->phase = GPY_CORO_DELEGATING;
    PySendResult status = PyIter_Send(self->waiting, Py_None, result);
    if (status != PYGEN_NEXT)
        Py_CLEAR(self->waiting);
    return status;
}

PySendResult
gpy_coro_hand_over(struct gpy_coro *self, PyObject *awaitable, PyObject **result)
{
    PySendResult status = gpy_coro_delegate(self, awaitable, result);
    if (status == PYGEN_NEXT)
        self->phase = GPY_CORO_HANDED;
    return status;
}

/* loop.create_future() */
static PyObject *
create_future(struct gpy_state *state, PyObject *object)
{
    struct gpy_loop *loop = gpy_loop_direct(state, object);
    if (GY_LIKELY(loop != NULL && !loop->future_overridden))
        return gpy_future_new(state, object);
    return PyObject_CallMethodNoArgs(object, state->str_create_future);
}

/* The loop's futures are not ours. */
static GY_COLD PySendResult
wait_for_other(struct gpy_coro *self, PyObject *future, PyObject **result)
{
    Py_INCREF(future);
    PySendResult status = gpy_coro_delegate(self, future, result);
    Py_DECREF(future);
    if (status == PYGEN_NEXT)
        return status;
    if (status == PYGEN_RETURN)
        Py_CLEAR(*result);
    end_wait(self);
    return status;
}

PySendResult
gpy_stream_wait(struct gpy_coro *self, const char *method, PyObject **result)
{
    struct gpy_intake *intake = self->intake;
    if (intake->waiter != NULL) {
        PyErr_Format(PyExc_RuntimeError,
                     "%s() called while another coroutine is already waiting for incoming data",
                     method);
        return PYGEN_ERROR;
    }
    if (intake->eof) {
        PyErr_SetString(PyExc_AssertionError, "_wait_for_data after EOF");
        return PYGEN_ERROR;
    }
    if (intake->paused && gpy_intake_resume(intake) < 0) /* or it would wait for ever */
        return PYGEN_ERROR;
    PyObject *future = create_future(self->state, intake->loop);
    if (future == NULL)
        return PYGEN_ERROR;
    Py_XSETREF(intake->waiter, future);
    if (GY_UNLIKELY(!gpy_future_check(self->state, future)))
        return wait_for_other(self, future, result);
    gpy_fut_of(future)->blocking = true;
    self->waiting = Py_NewRef(future);
    self->phase = GPY_CORO_WAITING;
    *result = Py_NewRef(future);
    return PYGEN_NEXT;
}

/* ---- stepping ----------------------------------------------------------------------------------
 */

/* The reader has let go of its intake while we waited: asyncio's own method starts anew. */
static GY_COLD PySendResult
start_anew(struct gpy_coro *self, PyObject **result)
{
    PyObject *args[2] = {self->owner, NULL};
    PyObject *count = NULL;
    size_t nargs = 1;
    if (self->call == GPY_STREAM_READ || self->call == GPY_STREAM_READEXACTLY) {
        count = PyLong_FromSsize_t(self->count);
        if (count == NULL)
            return PYGEN_ERROR;
        args[nargs++] = count;
    } else if (self->call == GPY_STREAM_READUNTIL) {
        args[nargs++] = self->argument;
    }
    PyObject *coro = PyObject_Vectorcall(self->function, args, nargs, NULL);
    Py_XDECREF(count);
    if (coro == NULL)
        return PYGEN_ERROR;
    PySendResult status = gpy_coro_hand_over(self, coro, result);
    Py_DECREF(coro);
    return status;
}

static PySendResult
call_step(struct gpy_coro *self, PyObject **result)
{
    return self->call < GPY_SOCK_CALLS ? gpy_stream_call_step(self, result)
                                       : gpy_sock_call_step(self, result);
}

/* A wait is over, with an exception if `status` says so: goes on with the call, until it waits
 * again or ends. */
static PySendResult
go_on(struct gpy_coro *self, PySendResult status, PyObject **result)
{
    if (GY_UNLIKELY(self->intake != NULL && self->intake->orphaned)) {
        if (status != PYGEN_ERROR)
            status = start_anew(self, result);
        if (status != PYGEN_NEXT)
            finish(self);
        return status;
    }
    if (status != PYGEN_ERROR)
        status = call_step(self, result);
    if (status == PYGEN_ERROR && self->call == GPY_STREAM_READLINE)
        status = gpy_stream_line_failed(self, result);
    if (status != PYGEN_NEXT)
        finish(self);
    return status;
}

/* Our future is done: its outcome. */
static PySendResult
woken(struct gpy_coro *self)
{
    struct gpy_fut *fut = gpy_fut_of(self->waiting);
    PyObject *outcome;
    PyObject *future = self->waiting;
    self->waiting = NULL;
    end_wait(self);
    int kind = gpy_fut_outcome(fut, &outcome);
    Py_DECREF(future);
    if (kind == 1)
        PyErr_SetObject((PyObject *)Py_TYPE(outcome), outcome);
    if (kind >= 0)
        Py_DECREF(outcome);
    return kind == 0 ? PYGEN_RETURN : PYGEN_ERROR;
}

static PySendResult
advance(struct gpy_coro *self, PyObject *value, PyObject **result)
{
    PySendResult status = PYGEN_RETURN;
    switch ((enum gpy_coro_phase)self->phase) {
    case GPY_CORO_CREATED:
        if (value != Py_None) {
            PyErr_SetString(PyExc_TypeError,
                            "can't send non-None value to a just-started coroutine");
            return PYGEN_ERROR;
        }
        self->phase = GPY_CORO_RUNNING;
        break;
    case GPY_CORO_WAITING:
        if (gpy_fut_of(self->waiting)->state == GPY_FUT_PENDING) {
            PyErr_SetString(PyExc_RuntimeError, "coroutine is being awaited already");
            return PYGEN_ERROR;
        }
        status = woken(self);
        break;
    case GPY_CORO_DELEGATING:
        status = PyIter_Send(self->waiting, value, result);
        if (status == PYGEN_NEXT)
            return status;
        Py_CLEAR(self->waiting);
        if (status == PYGEN_RETURN)
            Py_CLEAR(*result);
        end_wait(self);
        break;
    case GPY_CORO_HANDED:
        status = PyIter_Send(self->waiting, value, result);
        if (status != PYGEN_NEXT)
            finish(self);
        return status;
    case GPY_CORO_RUNNING:
    case GPY_CORO_SLEEPING:
        break;
    case GPY_CORO_DONE:
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return PYGEN_ERROR;
    }
    return go_on(self, status, result);
}

static bool
is_entered(struct gpy_coro *self)
{
    if (GY_LIKELY(!self->running))
        return false;
    PyErr_SetString(PyExc_ValueError, "coroutine already executing");
    return true;
}

/* The end of a step.  As PEP 479 has it, a StopIteration that is no return does not get out. */
static PySendResult
leave(struct gpy_coro *self, PySendResult status)
{
    self->running = false;
    Py_DECREF(self);
    if (GY_LIKELY(status != PYGEN_ERROR) || !PyErr_ExceptionMatches(PyExc_StopIteration))
        return status;
    PyObject *cause = gpy_exc_take();
    PyErr_SetString(PyExc_RuntimeError, "coroutine raised StopIteration");
    PyObject *exc = gpy_exc_take();
    PyException_SetCause(exc, Py_NewRef(cause));
    PyException_SetContext(exc, cause);
    gpy_exc_give(exc);
    return status;
}

static PySendResult
coro_am_send(struct gpy_coro *self, PyObject *value, PyObject **result)
{
    *result = NULL;
    if (is_entered(self))
        return PYGEN_ERROR;
    self->running = true;
    Py_INCREF(self);
    return leave(self, advance(self, value, result));
}

/* As tp_iternext and throw() say it. */
static PyObject *
as_iterator(PySendResult status, PyObject *result)
{
    if (status == PYGEN_RETURN) {
        if (result == Py_None) /* the argument of StopIteration may be left out */
            PyErr_SetNone(PyExc_StopIteration);
        else
            gpy_raise_stop_iteration(result);
        Py_DECREF(result);
    }
    return status == PYGEN_NEXT ? result : NULL;
}

static PyObject *
coro_iternext(struct gpy_coro *self)
{
    PyObject *result;
    PySendResult status = coro_am_send(self, Py_None, &result);
    if (status == PYGEN_RETURN && result == Py_None) { /* NULL alone is StopIteration(None) */
        Py_DECREF(result);
        return NULL;
    }
    return as_iterator(status, result);
}

static PyObject *
coro_send(struct gpy_coro *self, PyObject *value)
{
    PyObject *result;
    PySendResult status = coro_am_send(self, value, &result);
    return as_iterator(status, result);
}

/* What another awaitable makes of an exception that is thrown into it.  Steals `exc`. */
static PySendResult
delegate_throw(struct gpy_coro *self, PyObject *exc, PyObject **result)
{
    PyObject *method = PyObject_GetAttr(self->waiting, self->state->str_throw);
    if (method == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
            Py_DECREF(exc);
            return PYGEN_ERROR;
        }
        PyErr_Clear();
        gpy_exc_give(exc);
        return PYGEN_ERROR;
    }
    *result = PyObject_CallOneArg(method, exc);
    Py_DECREF(method);
    Py_DECREF(exc);
    if (*result != NULL)
        return PYGEN_NEXT;
    if (!PyErr_ExceptionMatches(PyExc_StopIteration))
        return PYGEN_ERROR;
    PyObject *stop = gpy_exc_take();
    PyObject *returned = ((PyStopIterationObject *)(void *)stop)->value;
    *result = Py_NewRef(returned != NULL ? returned : Py_None);
    Py_DECREF(stop);
    return PYGEN_RETURN;
}

/* Steals `exc`, which goes in where the coroutine stands. */
static PySendResult
throw_into(struct gpy_coro *self, PyObject *exc, PyObject **result)
{
    PySendResult status = PYGEN_ERROR;
    switch ((enum gpy_coro_phase)self->phase) {
    case GPY_CORO_DELEGATING:
        status = delegate_throw(self, exc, result);
        if (status == PYGEN_NEXT)
            return status;
        if (status == PYGEN_RETURN)
            Py_CLEAR(*result);
        Py_CLEAR(self->waiting);
        end_wait(self);
        break;
    case GPY_CORO_HANDED:
        status = delegate_throw(self, exc, result);
        if (status != PYGEN_NEXT)
            finish(self);
        return status;
    case GPY_CORO_WAITING:
        Py_CLEAR(self->waiting);
        end_wait(self);
        gpy_exc_give(exc);
        break;
    case GPY_CORO_DONE:
        Py_DECREF(exc);
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return PYGEN_ERROR;
    case GPY_CORO_CREATED:
        gpy_exc_give(exc);
        finish(self);
        return PYGEN_ERROR;
    case GPY_CORO_RUNNING:
    case GPY_CORO_SLEEPING:
        gpy_exc_give(exc);
        break;
    }
    return go_on(self, status, result);
}

static PyObject *
coro_throw(struct gpy_coro *self, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *result = NULL;
    if (is_entered(self) || gpy_throw(args, nargs) < 0)
        return NULL;
    PyObject *exc = gpy_exc_take();
    self->running = true;
    Py_INCREF(self);
    PySendResult status = leave(self, throw_into(self, exc, &result));
    return as_iterator(status, result);
}

static PyObject *
coro_close(struct gpy_coro *self, PyObject *Py_UNUSED(ignored))
{
    if (self->phase == GPY_CORO_CREATED || self->phase == GPY_CORO_DONE) {
        if (!is_entered(self))
            finish(self);
        return self->running ? NULL : Py_NewRef(Py_None);
    }
    PyObject *result = NULL;
    if (is_entered(self))
        return NULL;
    PyObject *exc = PyObject_CallNoArgs(PyExc_GeneratorExit);
    if (exc == NULL)
        return NULL;
    self->running = true;
    PySendResult status = throw_into(self, exc, &result);
    self->running = false;
    Py_XDECREF(result);
    if (status == PYGEN_NEXT) {
        PyErr_SetString(PyExc_RuntimeError, "coroutine ignored GeneratorExit");
        return NULL;
    }
    if (status == PYGEN_ERROR) {
        if (!PyErr_ExceptionMatches(PyExc_GeneratorExit) &&
            !PyErr_ExceptionMatches(PyExc_StopIteration))
            return NULL;
        PyErr_Clear();
    }
    Py_RETURN_NONE;
}

/* A coroutine is no iterable, except for `yield from` in a generator that types.coroutine() made:
 * the interpreter knows its own coroutines there, and asks ours for an iterator. */
static PyObject *
coro_iter(struct gpy_coro *self)
{
    PyFrameObject *frame = PyEval_GetFrame(); /* borrowed */
    PyCodeObject *code = frame ? PyFrame_GetCode(frame) : NULL;
    bool may = code != NULL && (code->co_flags & CO_ITERABLE_COROUTINE) != 0;
    Py_XDECREF((PyObject *)code);
    if (may)
        return Py_NewRef((PyObject *)self);
    PyErr_SetString(PyExc_TypeError, "'coroutine' object is not iterable");
    return NULL;
}

/* ---- __await__() -------------------------------------------------------------------------------
 *
 * `await coro` steps the coroutine itself.  Who calls __await__() gets, as from any coroutine, an
 * object that can be iterated over (`yield from` wants that), which a coroutine cannot. */

struct gpy_coro_await {
    PyObject_HEAD
    struct gpy_coro *coro;
};

static PyObject *
coro_await(struct gpy_coro *self, PyObject *Py_UNUSED(ignored))
{
    PyTypeObject *type = self->state->coro_await_type;
    struct gpy_coro_await *made = (struct gpy_coro_await *)type->tp_alloc(type, 0);
    if (made != NULL)
        made->coro = (struct gpy_coro *)Py_NewRef((PyObject *)self);
    return (PyObject *)made;
}

static PyObject *
await_iternext(struct gpy_coro_await *self)
{
    return coro_iternext(self->coro);
}

static PyObject *
await_send(struct gpy_coro_await *self, PyObject *value)
{
    return coro_send(self->coro, value);
}

static PyObject *
await_throw(struct gpy_coro_await *self, PyObject *const *args, Py_ssize_t nargs)
{
    return coro_throw(self->coro, args, nargs);
}

static PyObject *
await_close(struct gpy_coro_await *self, PyObject *ignored)
{
    return coro_close(self->coro, ignored);
}

static int
await_traverse(struct gpy_coro_await *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)self->coro);
    return 0;
}

static void
await_dealloc(struct gpy_coro_await *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF((PyObject *)self->coro);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef await_methods[] = {
    {"send", (PyCFunction)await_send, METH_O, "send(arg) -> send 'arg' into coroutine."},
    {"throw", (PyCFunction)(void (*)(void))await_throw, METH_FASTCALL,
     "throw(value)\n\nRaise exception in coroutine."},
    {"close", (PyCFunction)await_close, METH_NOARGS,
     "close() -> raise GeneratorExit inside coroutine."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot await_slots[] = {
    {Py_tp_doc, "What a Coroutine's __await__() returns."},
    {Py_tp_traverse, await_traverse}, /* no clear: the coroutine has one */
    {Py_tp_dealloc, await_dealloc},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, await_iternext},
    {Py_tp_methods, await_methods},
    {0, NULL},
};

static PyType_Spec await_spec = {
    .name = "gyre._gyre.CoroutineAwait",
    .basicsize = sizeof(struct gpy_coro_await),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = await_slots,
};

/* ---- the type ----------------------------------------------------------------------------------
 */

static void
coro_finalize(struct gpy_coro *self)
{
    if (self->phase == GPY_CORO_DONE)
        return;
    PyObject *raised = PyErr_Occurred() ? gpy_exc_take() : NULL;
    if (self->phase == GPY_CORO_CREATED) {
        PyObject *name = PyObject_GetAttrString(self->function, "__qualname__");
        if (name == NULL ||
            PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine '%U' was never awaited", name) < 0)
            PyErr_WriteUnraisable((PyObject *)self);
        Py_XDECREF(name);
        finish(self);
    } else {
        PyObject *closed = coro_close(self, NULL);
        if (closed == NULL)
            PyErr_WriteUnraisable((PyObject *)self);
        Py_XDECREF(closed);
    }
    if (raised != NULL)
        gpy_exc_give(raised);
}

static int
coro_traverse(struct gpy_coro *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->owner);
    Py_VISIT(self->function);
    Py_VISIT((PyObject *)self->intake);
    Py_VISIT(self->argument);
    Py_VISIT(self->sock);
    Py_VISIT(self->waiting);
    return 0;
}

static int
coro_clear(struct gpy_coro *self)
{
    finish(self);
    Py_CLEAR(self->function);
    return 0;
}

static void
coro_dealloc(struct gpy_coro *self)
{
    PyTypeObject *type = Py_TYPE(self);
    struct gpy_state *state = self->state;
    if (self->phase != GPY_CORO_DONE && PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0)
        return;
    PyObject_GC_UnTrack(self);
    if (GY_UNLIKELY(self->weakreflist != NULL))
        PyObject_ClearWeakRefs((PyObject *)self);
    (void)coro_clear(self);
    if (GY_UNLIKELY(PyObject_GC_IsFinalized((PyObject *)self)))
        PyObject_GC_Del(self); /* the memory keeps that mark, and the next would have no end */
    else
        gpy_freelist_free(&state->free_coros, (PyObject *)self);
    Py_DECREF(type);
    gpy_state_release(state);
}

static PyObject *
coro_repr(struct gpy_coro *self)
{
    PyObject *name = PyObject_GetAttrString(self->function, "__qualname__");
    if (name == NULL)
        return NULL;
    PyObject *text = PyUnicode_FromFormat("<coroutine object %U at %p>", name, (void *)self);
    Py_DECREF(name);
    return text;
}

static PyObject *
coro_get_class(struct gpy_coro *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    return Py_NewRef((PyObject *)&PyCoro_Type);
}

static PyObject *
coro_get_name(struct gpy_coro *self, void *attribute)
{
    return PyObject_GetAttrString(self->function, attribute);
}

static PyObject *
coro_get_running(struct gpy_coro *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->running);
}

static PyObject *
coro_get_suspended(struct gpy_coro *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(!self->running && self->phase != GPY_CORO_CREATED &&
                           self->phase != GPY_CORO_DONE);
}

#if GPY_COROUTINES_HAVE_STATE
static PyObject *
coro_get_state(struct gpy_coro *self, void *Py_UNUSED(closure))
{
    const char *name = "CORO_SUSPENDED";
    if (self->running)
        name = "CORO_RUNNING";
    else if (self->phase == GPY_CORO_CREATED)
        name = "CORO_CREATED";
    else if (self->phase == GPY_CORO_DONE)
        name = "CORO_CLOSED";
    return PyUnicode_FromString(name);
}
#endif

static PyObject *
coro_get_none(struct gpy_coro *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    Py_RETURN_NONE;
}

static PyMethodDef coro_methods[] = {
    {"send", (PyCFunction)coro_send, METH_O, "send(arg) -> send 'arg' into coroutine."},
    {"throw", (PyCFunction)(void (*)(void))coro_throw, METH_FASTCALL,
     "throw(value)\n\nRaise exception in coroutine."},
    {"close", (PyCFunction)coro_close, METH_NOARGS,
     "close() -> raise GeneratorExit inside coroutine."},
    {"__await__", (PyCFunction)coro_await, METH_NOARGS | METH_COEXIST,
     "Return an iterator to be used in await expression."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef coro_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct gpy_coro, weakreflist), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* What the coroutine of asyncio has while it is not at its end: a frame, whose line is that of the
 * `async def`.  For tracebacks of tasks and inspect; made when it is asked for. */
static PyObject *
coro_get_frame(struct gpy_coro *self, void *Py_UNUSED(closure))
{
    if (self->phase == GPY_CORO_DONE)
        Py_RETURN_NONE;
    PyObject *code = PyFunction_GetCode(self->function);
    PyObject *globals = code ? PyFunction_GetGlobals(self->function) : NULL;
    if (globals == NULL)
        return NULL;
    return (PyObject *)PyFrame_New(PyThreadState_Get(), (PyCodeObject *)code, globals, NULL);
}

static PyObject *
coro_get_code(struct gpy_coro *self, void *Py_UNUSED(closure))
{
    return Py_XNewRef(PyFunction_GetCode(self->function));
}

static PyObject *
coro_get_await(struct gpy_coro *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->waiting != NULL ? self->waiting : Py_None);
}

static PyGetSetDef coro_getset[] = {
    {"__class__", (getter)coro_get_class, NULL, NULL, NULL},
    {"__name__", (getter)coro_get_name, NULL, NULL, "__name__"},
    {"__qualname__", (getter)coro_get_name, NULL, NULL, "__qualname__"},
    {"cr_running", (getter)coro_get_running, NULL, NULL, NULL},
    {"cr_suspended", (getter)coro_get_suspended, NULL, NULL, NULL},
#if GPY_COROUTINES_HAVE_STATE
    {"cr_state", (getter)coro_get_state, NULL, NULL, NULL},
#endif
    {"cr_frame", (getter)coro_get_frame, NULL, NULL, NULL},
    {"cr_code", (getter)coro_get_code, NULL, NULL, NULL},
    {"cr_await", (getter)coro_get_await, NULL, NULL, NULL},
    {"cr_origin", (getter)coro_get_none, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot coro_slots[] = {
    {Py_tp_doc, "A coroutine of a stream or of the loop."},
    {Py_tp_traverse, coro_traverse},
    {Py_tp_clear, coro_clear},
    {Py_tp_finalize, coro_finalize},
    {Py_tp_dealloc, coro_dealloc},
    {Py_tp_repr, coro_repr},
    {Py_tp_iter, coro_iter},
    {Py_tp_iternext, coro_iternext},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, coro_am_send},
    {Py_tp_methods, coro_methods},
    {Py_tp_members, coro_members},
    {Py_tp_getset, coro_getset},
    {0, NULL},
};

static PyType_Spec coro_spec = {
    .name = "gyre._gyre.Coroutine",
    .basicsize = sizeof(struct gpy_coro),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = coro_slots,
};

int
gpy_coro_exec(PyObject *module, struct gpy_state *state)
{
    state->coro_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &coro_spec, NULL);
    state->coro_await_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &await_spec, NULL);
    if (state->coro_type == NULL || state->coro_await_type == NULL)
        return -1;
    /* The slot stays; collections.abc.Iterable asks for the name. */
    PyTypeObject *type = state->coro_type;
    if (PyDict_DelItemString(type->tp_dict, "__iter__") < 0)
        return -1;
    PyType_Modified(type);
    return 0;
}
