/* handle.c: Handle and TimerHandle; see handle.h. */
#include "handle.h"
#include "call.h"
#include "pycompat.h"

#include <pythread.h>
#include <structmember.h>

static PyObject *
handle_args(struct gpy_handle *self)
{
    if (self->nargs == HANDLE_ARGS_TUPLE)
        return Py_NewRef(self->slots[1]);
    PyObject *args = PyTuple_New(self->nargs);
    if (args == NULL)
        return NULL;
    for (Py_ssize_t i = 0; i < self->nargs; i++)
        PyTuple_SET_ITEM(args, i, Py_NewRef(self->slots[1 + i]));
    return args;
}

static int
handle_store_args(struct gpy_handle *self, PyObject *const *args, size_t nargs)
{
    if (nargs <= HANDLE_ARGS_INLINE) {
        for (size_t i = 0; i < nargs; i++)
            self->slots[1 + i] = Py_NewRef(args[i]);
        self->nargs = (uint8_t)nargs;
        return 0;
    }
    PyObject *tuple = PyTuple_New((Py_ssize_t)nargs);
    if (tuple == NULL)
        return -1;
    for (size_t i = 0; i < nargs; i++)
        PyTuple_SET_ITEM(tuple, (Py_ssize_t)i, Py_NewRef(args[i]));
    self->slots[1] = tuple;
    self->nargs = HANDLE_ARGS_TUPLE;
    return 0;
}

/* asyncio keeps the stack of the caller in debug mode. */
static int
handle_store_traceback(struct gpy_handle *self)
{
    self->source_traceback = PyObject_CallNoArgs(self->loop->state->extract_stack);
    return self->source_traceback ? 0 : -1;
}

/* Not tracked; its flags say what its type is.  What few handles have is NULL: they come to the
 * free lists like this. */
static inline struct gpy_handle *
handle_alloc(struct gpy_state *state, PyTypeObject *type)
{
    bool is_timer = type == state->timer_handle_type;
    PyObject *object = NULL;
    if (is_timer)
        object = gpy_freelist_take(&state->free_timer_handles, type);
    else if (GY_LIKELY(type == state->handle_type))
        object = gpy_freelist_take(&state->free_handles, type);
    if (GY_UNLIKELY(object == NULL))
        object = gpy_freelist_new_untracked(type);
    struct gpy_handle *self = (struct gpy_handle *)(void *)object;
    if (self == NULL)
        return NULL;
    self->is_timer = is_timer;
    self->is_threadsafe = !is_timer && type != state->handle_type;
    if (is_timer)
        gy_timer_init(&((struct gpy_timer_handle *)self)->timer, GY_TIMER_HOST);
    return self;
}

struct gpy_handle *
gpy_handle_new(struct gpy_loop *loop, PyTypeObject *type, PyObject *const *call, size_t ncall,
               PyObject *context)
{
    struct gpy_handle *self = gpy_handle_new_untracked(loop, type, call, ncall, context);
    if (self != NULL)
        PyObject_GC_Track(self);
    return self;
}

struct gpy_handle *
gpy_handle_new_untracked(struct gpy_loop *loop, PyTypeObject *type, PyObject *const *call,
                         size_t ncall, PyObject *context)
{
    struct gpy_handle *self = handle_alloc(loop->state, type);
    if (self == NULL)
        return NULL;
    self->loop = (struct gpy_loop *)Py_NewRef((PyObject *)loop);
    self->callback = Py_NewRef(call[0]);
    self->context = context ? Py_NewRef(context) : PyContext_CopyCurrent();
    if (self->context == NULL || handle_store_args(self, call + 1, ncall - 1) < 0 ||
        (loop->debug && handle_store_traceback(self) < 0)) {
        Py_DECREF(self);
        return NULL;
    }
    return self;
}

/* asyncio.events.Handle words its report by version: gyre._report follows the version at hand. */
int
gpy_handle_report(struct gpy_handle *self)
{
    struct gpy_loop *loop = self->loop;
    if (gpy_loop_keep_raised(loop))
        return -1;
    PyObject *exc = gpy_exc_take();
    PyObject *result = PyObject_CallFunctionObjArgs(loop->state->report_callback_failed,
                                                    (PyObject *)self, exc, NULL);
    Py_DECREF(exc);
    if (result == NULL) {
        if (gpy_loop_keep_raised(loop))
            return -1;
        PyErr_WriteUnraisable((PyObject *)self);
        return 0;
    }
    Py_DECREF(result);
    return 0;
}

/* A context that is not contextvars.Context but has run(): asyncio takes it, so do we. */
static GY_COLD int
run_in_foreign_context(struct gpy_handle *self)
{
    PyObject *run = PyObject_GetAttrString(self->context, "run");
    PyObject *first = run ? PyTuple_Pack(1, self->callback) : NULL;
    PyObject *rest = first ? handle_args(self) : NULL;
    PyObject *args = rest ? PySequence_Concat(first, rest) : NULL;
    PyObject *result = args ? PyObject_Call(run, args, NULL) : NULL;
    Py_XDECREF(args);
    Py_XDECREF(rest);
    Py_XDECREF(first);
    Py_XDECREF(run);
    if (result == NULL)
        return gpy_handle_report(self);
    Py_DECREF(result);
    return 0;
}

static int
handle_call(struct gpy_handle *self)
{
    if (GY_UNLIKELY(!PyContext_CheckExact(self->context)))
        return run_in_foreign_context(self);
    PyObject *context = Py_NewRef(self->context);
    PyObject *callback = Py_NewRef(self->callback);
    PyObject *result = NULL;
    if (PyContext_Enter(context) == 0) {
        if (GY_LIKELY(self->nargs != HANDLE_ARGS_TUPLE)) {
            /* On our stack: cancel() inside the callback empties the slots. */
            PyObject *stack[1 + HANDLE_ARGS_INLINE];
            size_t nargs = self->nargs;
            for (size_t i = 1; i <= nargs; i++)
                stack[i] = Py_NewRef(self->slots[i]);
            result = gpy_call(callback, stack + 1, nargs | PY_VECTORCALL_ARGUMENTS_OFFSET);
            for (size_t i = 1; i <= nargs; i++)
                Py_DECREF(stack[i]);
        } else {
            PyObject *args = Py_NewRef(self->slots[1]);
            result = PyObject_Call(callback, args, NULL);
            Py_DECREF(args);
        }
        if (PyContext_Exit(context) < 0)
            Py_CLEAR(result);
    }
    Py_DECREF(context);
    Py_DECREF(callback);
    if (GY_LIKELY(result != NULL)) {
        Py_DECREF(result);
        return 0;
    }
    return gpy_handle_report(self);
}

/* Under the GIL the flags alone say who runs what; the lock is only there to sleep on. */
static GY_COLD int
run_threadsafe(struct gpy_threadsafe_handle *self)
{
    self->running_thread = PyThread_get_thread_ident();
    if (self->ended != NULL) /* _run() was called before, by somebody else */
        self->ended_held = PyThread_acquire_lock(self->ended, NOWAIT_LOCK) == PY_LOCK_ACQUIRED;
    int rc = handle_call(&self->handle);
    self->running_thread = 0;
    if (self->ended_held) {
        self->ended_held = false;
        PyThread_release_lock(self->ended);
    }
    return rc;
}

/* Another thread that runs the callback ends it first.  0, or -1 with MemoryError. */
static GY_COLD int
wait_for_end(struct gpy_threadsafe_handle *self)
{
    unsigned long me = PyThread_get_thread_ident();
    while (self->running_thread != 0 && self->running_thread != me) {
        if (self->ended == NULL) {
            self->ended = PyThread_allocate_lock();
            if (self->ended == NULL) {
                (void)PyErr_NoMemory();
                return -1;
            }
            self->ended_held = PyThread_acquire_lock(self->ended, NOWAIT_LOCK) == PY_LOCK_ACQUIRED;
        }
        Py_BEGIN_ALLOW_THREADS(void)
        PyThread_acquire_lock(self->ended, WAIT_LOCK);
        PyThread_release_lock(self->ended); /* for the next one that waits */
        Py_END_ALLOW_THREADS
    }
    return 0;
}

int
gpy_handle_run(struct gpy_handle *self)
{
    if (self->cancelled || self->callback == NULL)
        return 0;
    if (GY_UNLIKELY(self->is_threadsafe))
        return run_threadsafe((struct gpy_threadsafe_handle *)self);
    return handle_call(self);
}

static void
handle_clear_call(struct gpy_handle *self)
{
    size_t used = self->nargs == HANDLE_ARGS_TUPLE ? 1 : self->nargs;
    self->nargs = 0;
    Py_CLEAR(self->callback);
    for (size_t i = 1; i <= used; i++)
        Py_CLEAR(self->slots[i]);
}

void
gpy_handle_cancel(struct gpy_handle *self)
{
    if (self->cancelled)
        return;
    self->cancelled = true;
    self->plain = false;
    if (self->loop != NULL && self->loop->debug) {
        /* Its repr would lose the callback: keep it, as asyncio does.  A failing repr is no reason
         * not to cancel. */
        self->repr = PyObject_Repr((PyObject *)self);
        if (self->repr == NULL)
            PyErr_Clear();
    }
    if (self->is_timer) {
        struct gpy_timer_handle *timer = (struct gpy_timer_handle *)self;
        if (gy_timer_is_set(&timer->timer)) {
            gy_timers_remove(&self->loop->core.timers, &timer->timer);
            self->scheduled = false;
            handle_clear_call(self);
            Py_DECREF(self); /* the heap's reference; the caller holds its own */
            return;
        }
    }
    handle_clear_call(self);
}

static PyObject *
handle_cancel(struct gpy_handle *self, PyObject *Py_UNUSED(ignored))
{
    if (self->is_threadsafe && wait_for_end((struct gpy_threadsafe_handle *)self) < 0)
        return NULL;
    Py_INCREF(self);
    gpy_handle_cancel(self);
    Py_DECREF(self);
    Py_RETURN_NONE;
}

static PyObject *
handle_cancelled(struct gpy_handle *self, PyObject *Py_UNUSED(ignored))
{
    if (self->is_threadsafe && wait_for_end((struct gpy_threadsafe_handle *)self) < 0)
        return NULL;
    return PyBool_FromLong(self->cancelled);
}

static PyObject *
handle_run(struct gpy_handle *self, PyObject *Py_UNUSED(ignored))
{
    if (gpy_handle_run(self) < 0) {
        gpy_loop_restore_raised(self->loop);
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
handle_get_context(struct gpy_handle *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(self->context);
}

/* asyncio keeps the caller's object: an int stays an int, in the repr too. */
static PyObject *
timer_when(const struct gpy_timer_handle *self)
{
    return self->handle.when_is_int ? PyLong_FromDouble(self->when)
                                    : PyFloat_FromDouble(self->when);
}

static PyObject *
handle_when(struct gpy_timer_handle *self, PyObject *Py_UNUSED(ignored))
{
    return timer_when(self);
}

/* asyncio words repr by version; its pure functions read only attributes that ours has too. */
static PyObject *
handle_call_asyncio(struct gpy_handle *self, const char *function)
{
    struct gpy_state *state = self->loop->state;
    PyObject *type = self->is_timer ? state->asyncio_timer_handle_type : state->asyncio_handle_type;
    return PyObject_CallMethod(type, function, "O", (PyObject *)self);
}

static PyObject *
handle_repr(struct gpy_handle *self)
{
    if (self->repr != NULL)
        return Py_NewRef(self->repr);
    if (self->loop == NULL)
        return PyUnicode_FromString("<Handle>");
    return handle_call_asyncio(self, "__repr__");
}

static PyObject *
handle_repr_info(struct gpy_handle *self, PyObject *Py_UNUSED(ignored))
{
    return handle_call_asyncio(self, "_repr_info");
}

/* As asyncio.TimerHandle: ordered by time; equal if everything that makes them up is equal. */
static PyObject *
timer_handle_equal(struct gpy_timer_handle *a, struct gpy_timer_handle *b)
{
    if (a == b)
        Py_RETURN_TRUE;
    if (a->when != b->when || a->handle.cancelled != b->handle.cancelled)
        Py_RETURN_FALSE;
    PyObject *callback_a = a->handle.callback ? a->handle.callback : Py_None;
    PyObject *callback_b = b->handle.callback ? b->handle.callback : Py_None;
    int same = PyObject_RichCompareBool(callback_a, callback_b, Py_EQ);
    if (same <= 0)
        return same < 0 ? NULL : Py_NewRef(Py_False);
    PyObject *args_a = handle_args(&a->handle);
    PyObject *args_b = args_a ? handle_args(&b->handle) : NULL;
    PyObject *result = args_b ? PyObject_RichCompare(args_a, args_b, Py_EQ) : NULL;
    Py_XDECREF(args_a);
    Py_XDECREF(args_b);
    return result;
}

static PyObject *
timer_handle_richcompare(PyObject *self, PyObject *other, int op)
{
    if (!Py_IS_TYPE(other, Py_TYPE(self)))
        Py_RETURN_NOTIMPLEMENTED;
    struct gpy_timer_handle *a = (struct gpy_timer_handle *)self;
    struct gpy_timer_handle *b = (struct gpy_timer_handle *)other;
    if (op == Py_LT)
        return PyBool_FromLong(a->when < b->when);
    if (op == Py_GT)
        return PyBool_FromLong(a->when > b->when);
    PyObject *equal = timer_handle_equal(a, b);
    if (equal == NULL || op == Py_EQ)
        return equal;
    bool is_equal = equal == Py_True;
    Py_DECREF(equal);
    if (op == Py_NE)
        return PyBool_FromLong(!is_equal);
    if (op == Py_LE)
        return PyBool_FromLong(a->when < b->when || is_equal);
    return PyBool_FromLong(a->when > b->when || is_equal);
}

static Py_hash_t
timer_handle_hash(struct gpy_timer_handle *self)
{
    PyObject *when = PyFloat_FromDouble(self->when);
    Py_hash_t hash = when ? PyObject_Hash(when) : -1;
    Py_XDECREF(when);
    return hash;
}

static PyObject *
handle_get_class(struct gpy_handle *self, void *Py_UNUSED(closure))
{
    if (self->loop == NULL)
        return Py_NewRef((PyObject *)Py_TYPE(self));
    struct gpy_state *state = self->loop->state;
    if (self->is_threadsafe)
        return Py_NewRef(state->asyncio_threadsafe_handle_type);
    return Py_NewRef(self->is_timer ? state->asyncio_timer_handle_type
                                    : state->asyncio_handle_type);
}

static PyObject *
handle_get_callback(struct gpy_handle *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->callback ? self->callback : Py_None);
}

static PyObject *
handle_get_args(struct gpy_handle *self, void *Py_UNUSED(closure))
{
    return self->callback ? handle_args(self) : Py_NewRef(Py_None);
}

static PyObject *
handle_get_loop(struct gpy_handle *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->loop ? (PyObject *)self->loop : Py_None);
}

static PyObject *
handle_get_flag(struct gpy_handle *self, void *offset)
{
    return PyBool_FromLong(*(bool *)((char *)self + (uintptr_t)offset));
}

static PyObject *
handle_get_object(struct gpy_handle *self, void *offset)
{
    PyObject *value = *(PyObject **)((char *)self + (uintptr_t)offset);
    return Py_NewRef(value ? value : Py_None);
}

/* call_soon in asyncio's own debug code trims the traceback it finds here: it must be settable. */
static int
handle_set_object(struct gpy_handle *self, PyObject *value, void *offset)
{
    PyObject **field = (PyObject **)((char *)self + (uintptr_t)offset);
    self->plain = false;
    Py_XSETREF(*field, value == Py_None ? NULL : Py_XNewRef(value));
    return 0;
}

#define OFFSET(field) (void *)offsetof(struct gpy_handle, field)
static PyGetSetDef handle_getset[] = {
    {"__class__", (getter)handle_get_class, NULL, NULL, NULL},
    {"_callback", (getter)handle_get_callback, NULL, NULL, NULL},
    {"_args", (getter)handle_get_args, NULL, NULL, NULL},
    {"_loop", (getter)handle_get_loop, NULL, NULL, NULL},
    {"_cancelled", (getter)handle_get_flag, NULL, NULL, OFFSET(cancelled)},
    {"_context", (getter)handle_get_object, NULL, NULL, OFFSET(context)},
    {"_source_traceback", (getter)handle_get_object, (setter)handle_set_object, NULL,
     OFFSET(source_traceback)},
    {"_repr", (getter)handle_get_object, (setter)handle_set_object, NULL, OFFSET(repr)},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyObject *
timer_handle_get_when(struct gpy_timer_handle *self, void *Py_UNUSED(closure))
{
    return timer_when(self);
}

static PyGetSetDef timer_handle_getset[] = {
    {"_when", (getter)timer_handle_get_when, NULL, NULL, NULL},
    {"_scheduled", (getter)handle_get_flag, NULL, NULL, OFFSET(scheduled)},
    {NULL, NULL, NULL, NULL, NULL},
};

/* In each type's own table: what is inherited is called more slowly, see loop_own_methods(). */
#define HANDLE_METHODS                                                                             \
    {"cancel", (PyCFunction)handle_cancel, METH_NOARGS,                                            \
     "cancel($self)\n--\n\nKeep the callback from being called."},                                 \
        {"cancelled", (PyCFunction)handle_cancelled, METH_NOARGS,                                  \
         "cancelled($self)\n--\n\nTrue after cancel()."},                                          \
    {                                                                                              \
        "get_context", (PyCFunction)handle_get_context, METH_NOARGS,                               \
            "get_context($self)\n--\n\nThe callback's Context."                                    \
    }

static PyMethodDef handle_methods[] = {
    HANDLE_METHODS,
    {"_run", (PyCFunction)handle_run, METH_NOARGS, NULL},
    {"_repr_info", (PyCFunction)handle_repr_info, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef timer_handle_methods[] = {
    HANDLE_METHODS,
    {"when", (PyCFunction)handle_when, METH_NOARGS,
     "when($self)\n--\n\nThe time, on the loop's clock, in seconds."},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef threadsafe_handle_methods[] = {
    HANDLE_METHODS,
    {NULL, NULL, 0, NULL},
};

static PyMemberDef handle_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct gpy_handle, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static int
handle_traverse(struct gpy_handle *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->loop);
    Py_VISIT(self->callback);
    Py_VISIT(self->context);
    size_t used = self->nargs == HANDLE_ARGS_TUPLE ? 1 : self->nargs;
    for (size_t i = 1; i <= used; i++)
        Py_VISIT(self->slots[i]);
    Py_VISIT(self->source_traceback);
    Py_VISIT(self->repr); /* settable: anything */
    return 0;
}

static int
handle_clear(struct gpy_handle *self)
{
    /* A timer in the heap is referenced by the heap: the loop's clear lets go of it first. */
    handle_clear_call(self);
    Py_CLEAR(self->context);
    Py_CLEAR(self->source_traceback);
    Py_CLEAR(self->repr);
    Py_CLEAR(self->loop);
    return 0;
}

static void
handle_free(struct gpy_handle *self, struct gpy_state *state)
{
    PyTypeObject *type = Py_TYPE(self);
    bool is_timer = self->is_timer;
    /* No state: the collector has cleared the handle. */
    if (state == NULL || (type != state->handle_type && !is_timer)) {
        type->tp_free(self);
        return;
    }
    self->nargs = 0;
    self->cancelled = self->scheduled = self->when_is_int = false;
    self->source_traceback = self->repr = NULL;
    gpy_freelist_free(is_timer ? &state->free_timer_handles : &state->free_handles,
                      (PyObject *)self);
}

/* Nobody can look at the fields any more: they keep what they let go of. */
static void
handle_end(struct gpy_handle *self, struct gpy_state *state)
{
    PyTypeObject *type = Py_TYPE(self);
    if (GY_UNLIKELY(self->weakrefs != NULL))
        PyObject_ClearWeakRefs((PyObject *)self);
    if (GY_UNLIKELY(self->is_threadsafe) && ((struct gpy_threadsafe_handle *)self)->ended != NULL)
        PyThread_free_lock(((struct gpy_threadsafe_handle *)self)->ended);
    size_t used = GY_UNLIKELY(self->nargs == HANDLE_ARGS_TUPLE) ? 1 : self->nargs;
    Py_XDECREF(self->callback);
    for (size_t i = 1; i <= used; i++)
        Py_XDECREF(self->slots[i]);
    Py_XDECREF(self->context);
    Py_XDECREF(self->source_traceback);
    Py_XDECREF(self->repr);
    Py_XDECREF((PyObject *)self->loop);
    handle_free(self, state);
    Py_DECREF(type);
}

/* Arguments may be handles whose arguments are handles: the chain may be longer than the stack. */
static void
handle_dealloc(struct gpy_handle *self)
{
    struct gpy_state *state = self->loop != NULL ? self->loop->state : NULL;
    PyObject_GC_UnTrack(self);
    if (GY_LIKELY(state != NULL)) {
        gpy_state_hold(state); /* the loop may go, and with it the last user */
        if (gpy_state_nest(state)) {
            handle_end(self, state);
            gpy_state_unnest(state);
            gpy_state_release(state);
            return;
        }
    }
    Py_TRASHCAN_BEGIN(self, handle_dealloc);
    handle_end(self, state);
    Py_TRASHCAN_END;
    if (state != NULL)
        gpy_state_release(state);
}

#ifdef Py_REF_DEBUG /* a debug build of Python knows the sum of all references: drop each by name  \
                     */
enum { REFERENCES_ARE_COUNTED = true };
#else
enum { REFERENCES_ARE_COUNTED = false };
#endif

/* handle_end() of a plain handle that nobody has but the caller, in a loop that runs: it is not the
 * last user of the state. */
static inline void
handle_end_plain(struct gpy_handle *self)
{
    struct gpy_state *state = self->loop->state;
    Py_DECREF(self->callback);
    for (size_t i = 1, used = self->nargs; i <= used; i++)
        Py_DECREF(self->slots[i]);
    self->nargs = 0;
    Py_DECREF(self->context);
    Py_DECREF((PyObject *)self->loop);
    PyTypeObject *type = Py_TYPE(self);
    gpy_freelist_free(&state->free_handles, (PyObject *)self);
    Py_DECREF(type);
}

/* The end of gpy_handle_run_fresh() where somebody besides the queue has the handle, or had. */
static __attribute__((noinline)) int
end_fresh(struct gpy_handle *self, int rc)
{
    gpy_ready_track_survivor((PyObject *)self);
    Py_DECREF(self);
    return rc;
}

int
gpy_handle_run_known(struct gpy_handle *self)
{
    return end_fresh(self, gpy_handle_run(self));
}

/* A handle that only the queue had: most are, since who calls call_soon() rarely keeps what it
 * returns.  Nobody can cancel it or look at it while it runs: the queue has let go of it, and the
 * collector does not know it. */
int
gpy_handle_run_fresh(struct gpy_handle *self)
{
    if (GY_UNLIKELY(Py_REFCNT(self) != 1 || !self->plain || self->weakrefs != NULL))
        return gpy_handle_run_known(self);
    PyObject *result = NULL;
    if (GY_LIKELY(PyContext_Enter(self->context) == 0)) {
        result =
            gpy_call(self->callback, self->slots + 1, self->nargs | PY_VECTORCALL_ARGUMENTS_OFFSET);
        if (GY_UNLIKELY(PyContext_Exit(self->context) < 0))
            Py_CLEAR(result);
    }
    if (GY_UNLIKELY(result == NULL))
        return end_fresh(self, gpy_handle_report(self));
    Py_DECREF(result);
    GY_ASSERT(Py_REFCNT(self) == 1 && self->plain && self->weakrefs == NULL);
    if (REFERENCES_ARE_COUNTED)
        return end_fresh(self, 0);
    handle_end_plain(self);
    return 0;
}

static PyType_Slot handle_slots[] = {
    {Py_tp_doc, "What call_soon() returns: asyncio.Handle of a gyre loop."},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_traverse, handle_traverse},
    {Py_tp_clear, handle_clear},
    {Py_tp_repr, handle_repr},
    {Py_tp_methods, handle_methods},
    {Py_tp_getset, handle_getset},
    {Py_tp_members, handle_members},
    {0, NULL},
};

static PyType_Spec handle_spec = {
    .name = "gyre._gyre.Handle",
    .basicsize = sizeof(struct gpy_handle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = handle_slots,
};

static PyType_Slot timer_handle_slots[] = {
    {Py_tp_doc, "What call_later() and call_at() return: asyncio.TimerHandle of a gyre loop."},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_traverse, handle_traverse},
    {Py_tp_clear, handle_clear},
    {Py_tp_richcompare, timer_handle_richcompare},
    {Py_tp_hash, timer_handle_hash},
    {Py_tp_methods, timer_handle_methods},
    {Py_tp_getset, timer_handle_getset},
    {0, NULL},
};

static PyType_Spec timer_handle_spec = {
    .name = "gyre._gyre.TimerHandle",
    .basicsize = sizeof(struct gpy_timer_handle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = timer_handle_slots,
};

static PyType_Slot threadsafe_handle_slots[] = {
    {Py_tp_doc, "What call_soon_threadsafe() returns: asyncio's handle of that kind."},
    {Py_tp_dealloc, handle_dealloc},
    {Py_tp_traverse, handle_traverse},
    {Py_tp_clear, handle_clear},
    {Py_tp_methods, threadsafe_handle_methods},
    {0, NULL},
};

static PyType_Spec threadsafe_handle_spec = {
    .name = "gyre._gyre.ThreadSafeHandle",
    .basicsize = sizeof(struct gpy_threadsafe_handle),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = threadsafe_handle_slots,
};

/* From 3.14 on; before it, call_soon_threadsafe() returns a Handle. */
static int
threadsafe_handle_exec(PyObject *module, struct gpy_state *state, PyObject *events)
{
    if (!PyObject_HasAttrString(events, "_ThreadSafeHandle"))
        return 0;
    state->asyncio_threadsafe_handle_type = PyObject_GetAttrString(events, "_ThreadSafeHandle");
    state->threadsafe_handle_type = (PyTypeObject *)PyType_FromModuleAndSpec(
        module, &threadsafe_handle_spec, (PyObject *)state->handle_type);
    return state->asyncio_threadsafe_handle_type && state->threadsafe_handle_type ? 0 : -1;
}

int
gpy_handle_exec(PyObject *module, struct gpy_state *state)
{
    PyObject *events = PyImport_ImportModule("asyncio.events");
    if (events == NULL)
        return -1;
    state->asyncio_handle_type = PyObject_GetAttrString(events, "Handle");
    state->asyncio_timer_handle_type = PyObject_GetAttrString(events, "TimerHandle");
    if (state->asyncio_handle_type == NULL || state->asyncio_timer_handle_type == NULL)
        goto fail;
    state->handle_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &handle_spec, NULL);
    if (state->handle_type == NULL || threadsafe_handle_exec(module, state, events) < 0)
        goto fail;
    Py_DECREF(events);
    state->timer_handle_type = (PyTypeObject *)PyType_FromModuleAndSpec(
        module, &timer_handle_spec, (PyObject *)state->handle_type);
    return state->timer_handle_type ? 0 : -1;

fail:
    Py_DECREF(events);
    return -1;
}
