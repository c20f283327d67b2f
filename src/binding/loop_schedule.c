/* loop_schedule.c: call_soon, call_later, call_at, call_soon_threadsafe, create_task,
 * create_future. */
#include "args.h"
#include "handle.h"
#include "loop.h"
#include "pycompat.h"

#include "future.h"
#include "task.h"

#include <math.h>

struct gpy_loop *
gpy_loop_direct(struct gpy_state *state, PyObject *object)
{
    struct gpy_loop *loop = gpy_loop_check(state, object);
    return loop != NULL && loop->direct ? loop : NULL;
}

bool
gpy_loop_is_direct(const struct gpy_loop *loop)
{
    return loop->direct;
}

int
gpy_loop_schedule(struct gpy_loop *loop, enum gpy_ready_tag tag, PyObject *owner, PyObject *a,
                  PyObject *b)
{
    return gpy_ready_push(&loop->ready, tag, owner, a, b);
}

int
gpy_loop_schedule_moved(struct gpy_loop *loop, enum gpy_ready_tag tag, PyObject *owner, PyObject *a)
{
    return gpy_ready_push_moved(&loop->ready, tag, owner, a);
}

static const struct gpy_leading call_soon_takes = {"call_soon", 1, {"callback"}, true};
static const struct gpy_leading call_soon_threadsafe_takes = {
    "call_soon_threadsafe", 1, {"callback"}, true};
static const struct gpy_leading call_later_takes = {"call_later", 2, {"delay", "callback"}, true};
static const struct gpy_leading call_at_takes = {"call_at", 2, {"when", "callback"}, true};

/* asyncio's two debug checks; _check_callback is inherited and words its own errors. */
static int
check_call(struct gpy_loop *self, PyObject *callback, const char *method, bool own_thread)
{
    if (gpy_loop_check_open(self) < 0)
        return -1;
    if (GY_LIKELY(!self->debug))
        return 0;
    if (own_thread && gpy_loop_check_thread(self) < 0)
        return -1;
    PyObject *result =
        PyObject_CallMethod((PyObject *)self, "_check_callback", "Os", callback, method);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

static struct gpy_handle *
push_handle(struct gpy_loop *self, PyTypeObject *type, const struct gpy_call *call)
{
    struct gpy_handle *handle =
        gpy_handle_new_untracked(self, type, call->args, (size_t)call->nargs, call->context);
    if (handle == NULL)
        return NULL;
    bool fresh = self->in_run && GPY_FRESH_HANDLES;
    if (fresh)
        handle->plain = type == self->state->handle_type && handle->nargs != HANDLE_ARGS_TUPLE &&
                        handle->source_traceback == NULL && PyContext_CheckExact(handle->context);
    else
        PyObject_GC_Track(handle);
    if (gpy_ready_push(&self->ready, fresh ? GPY_READY_FRESH_HANDLE : GPY_READY_HANDLE,
                       (PyObject *)handle, NULL, NULL) < 0)
        Py_CLEAR(handle);
    return handle;
}

static PyObject *
call_soon_named(struct gpy_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    struct gpy_call call;
    if (gpy_call_parse(&call, &call_soon_takes, args, nargs, kwnames) < 0 ||
        check_call(self, call.args[0], "call_soon", true) < 0)
        return NULL;
    return (PyObject *)push_handle(self, self->state->handle_type, &call);
}

static PyObject *
loop_call_soon(struct gpy_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    if (GY_UNLIKELY(!self->direct || kwnames != NULL || (size_t)nargs - 1 > HANDLE_ARGS_INLINE))
        return call_soon_named(self, args, nargs, kwnames);
    /* First, since it may run the collector, and that anything. */
    PyObject *context = PyContext_CopyCurrent();
    if (GY_UNLIKELY(context == NULL))
        return NULL;
    PyObject *handle;
    if (GY_LIKELY(GPY_FRESH_HANDLES && self->in_run && self->state->free_handles.head != NULL &&
                  self->ready.count != self->ready.capacity)) {
        handle = (PyObject *)gpy_handle_reuse(self, args, (size_t)nargs, context);
        gpy_ready_put_fresh(&self->ready, handle);
    } else {
        const struct gpy_call call = {args, nargs, context, {NULL}};
        handle = (PyObject *)push_handle(self, self->state->handle_type, &call);
        Py_DECREF(context);
    }
    return handle;
}

static PyObject *
loop_call_soon_threadsafe(struct gpy_loop *self, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames)
{
    struct gpy_call call;
    if (gpy_call_parse(&call, &call_soon_threadsafe_takes, args, nargs, kwnames) < 0 ||
        check_call(self, call.args[0], "call_soon_threadsafe", false) < 0)
        return NULL;
    PyTypeObject *type = self->state->threadsafe_handle_type; /* NULL before 3.14 */
    if (type == NULL)
        type = self->state->handle_type;
    struct gpy_handle *handle = push_handle(self, type, &call);
    if (handle != NULL)
        gy_wakeup_send(&self->core.wakeup);
    return (PyObject *)handle;
}

int64_t
gpy_when_to_ns(double when)
{
    if (isnan(when))
        return INT64_MIN; /* asyncio runs it at once */
    double exact = ceil(when * 1e9);
    if (exact >= 9.2e18)
        return GY_NS_NEVER;
    if (exact <= -9.2e18)
        return INT64_MIN;
    int64_t ns = (int64_t)exact;
    while ((double)ns / 1e9 < when) /* rounding of the product: at most a step or two */
        ns += ns > (INT64_C(1) << 53) ? ns >> 53 : 1;
    return ns;
}

static PyObject *
add_timer(struct gpy_loop *self, double when, const struct gpy_call *call)
{
    struct gpy_timer_handle *handle = (struct gpy_timer_handle *)gpy_handle_new(
        self, self->state->timer_handle_type, call->args + 1, (size_t)call->nargs - 1,
        call->context);
    if (handle == NULL)
        return NULL;
    handle->when = when;
    if (gy_timers_add(&self->core.timers, &handle->timer, gpy_when_to_ns(when)) < 0) {
        Py_DECREF(handle);
        return PyErr_NoMemory();
    }
    handle->handle.scheduled = true;
    return Py_NewRef((PyObject *)handle); /* one for the heap, one for the caller */
}

static PyObject *
loop_call_at(struct gpy_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    struct gpy_call call;
    if (gpy_call_parse(&call, &call_at_takes, args, nargs, kwnames) < 0)
        return NULL;
    if (call.args[0] == Py_None) {
        PyErr_SetString(PyExc_TypeError, "when cannot be None");
        return NULL;
    }
    double when = PyFloat_AsDouble(call.args[0]);
    if ((when == -1.0 && PyErr_Occurred()) || check_call(self, call.args[1], "call_at", true) < 0)
        return NULL;
    PyObject *timer = add_timer(self, when, &call);
    if (timer != NULL)
        ((struct gpy_handle *)timer)->when_is_int = PyLong_CheckExact(call.args[0]);
    return timer;
}

/* call_at() is a subclass's: it gets what asyncio's call_later() would pass it. */
static PyObject *
call_later_by_call_at(struct gpy_loop *self, double when, const struct gpy_call *call)
{
    PyObject *method = PyObject_GetAttr((PyObject *)self, self->state->str_call_at);
    PyObject *first = method ? PyFloat_FromDouble(when) : NULL;
    PyObject *result = NULL;
    size_t nargs = (size_t)call->nargs;
    PyObject **copy = first ? PyMem_New(PyObject *, nargs + 1) : NULL;
    if (copy != NULL) {
        memcpy(copy, call->args, nargs * sizeof(*copy));
        copy[0] = first;
        copy[nargs] = call->context ? call->context : Py_None;
        result = PyObject_Vectorcall(method, copy, nargs, self->state->kwnames_context);
        PyMem_Free(copy);
    } else if (first != NULL) {
        PyErr_NoMemory();
    }
    Py_XDECREF(first);
    Py_XDECREF(method);
    return result;
}

static PyObject *
loop_call_later(struct gpy_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    struct gpy_call call;
    if (gpy_call_parse(&call, &call_later_takes, args, nargs, kwnames) < 0)
        return NULL;
    if (call.args[0] == Py_None) {
        PyErr_SetString(PyExc_TypeError, "delay must not be None");
        return NULL;
    }
    double delay = PyFloat_AsDouble(call.args[0]);
    if ((delay == -1.0 && PyErr_Occurred()) ||
        check_call(self, call.args[1], "call_at", true) < 0) /* asyncio's words */
        return NULL;
    double now;
    if (GY_LIKELY(!self->time_overridden)) {
        now = (double)gy_loop_now_ns(&self->core) / 1e9;
    } else {
        PyObject *value = PyObject_CallMethodNoArgs((PyObject *)self, self->state->str_time);
        now = value ? PyFloat_AsDouble(value) : -1.0;
        Py_XDECREF(value);
        if (now == -1.0 && PyErr_Occurred())
            return NULL;
    }
    if (GY_UNLIKELY(self->overridden))
        return call_later_by_call_at(self, now + delay, &call);
    return add_timer(self, now + delay, &call);
}

static PyObject *
loop_time(struct gpy_loop *self, PyObject *Py_UNUSED(ignored))
{
    int64_t now_ns;
    if (GY_LIKELY(self->core_ready)) {
        now_ns = gy_loop_now_ns(&self->core);
    } else { /* asyncio answers on a closed loop too */
        struct timespec now;
        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        now_ns = now.tv_sec * GY_NS_PER_SECOND + now.tv_nsec;
    }
    return PyFloat_FromDouble((double)now_ns / 1e9);
}

static PyObject *
loop_create_future(struct gpy_loop *self, PyObject *Py_UNUSED(ignored))
{
    return gpy_future_new_on(self->state, (PyObject *)self, self);
}

/* With a task factory the inherited method decides: what a factory is given differs by version. */
static PyObject *
create_task_by_factory(struct gpy_loop *self, PyObject *const *args, Py_ssize_t nargs,
                       PyObject *kwnames)
{
    PyObject *stack[8];
    size_t total = (size_t)nargs + (kwnames ? (size_t)PyTuple_GET_SIZE(kwnames) : 0);
    if (total > 7) {
        PyErr_SetString(PyExc_TypeError, "create_task() got too many arguments");
        return NULL;
    }
    PyObject *method = PyObject_GetAttr(self->state->base_event_loop, self->state->str_create_task);
    if (method == NULL)
        return NULL;
    stack[0] = (PyObject *)self;
    memcpy(stack + 1, args, total * sizeof(*stack));
    PyObject *task = PyObject_Vectorcall(method, stack, (size_t)nargs + 1, kwnames);
    Py_DECREF(method);
    return task;
}

static PyObject *
loop_create_task(struct gpy_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    if (self->task_factory != NULL)
        return create_task_by_factory(self, args, nargs, kwnames);
    PyObject *coro = nargs == 1 ? args[0] : NULL;
    struct gpy_task_options options = {0};
    if (nargs > 1)
        goto bad_arguments;
    for (Py_ssize_t i = 0, n = kwnames ? PyTuple_GET_SIZE(kwnames) : 0; i < n; i++) {
        PyObject *key = PyTuple_GET_ITEM(kwnames, i);
        PyObject *value = args[nargs + i];
        if (PyUnicode_CompareWithASCIIString(key, "name") == 0)
            options.name = value == Py_None ? NULL : value;
        else if (PyUnicode_CompareWithASCIIString(key, "context") == 0)
            options.context = value == Py_None ? NULL : value;
        else if (GPY_CREATE_TASK_HAS_EAGER_START &&
                 PyUnicode_CompareWithASCIIString(key, "eager_start") == 0)
            options.eager_start = PyObject_IsTrue(value);
        else if (PyUnicode_CompareWithASCIIString(key, "coro") == 0 && coro == NULL)
            coro = value;
        else {
            PyErr_Format(PyExc_TypeError, "create_task() got an unexpected keyword argument %R",
                         key);
            return NULL;
        }
        if (options.eager_start < 0)
            return NULL;
    }
    if (coro == NULL)
        goto bad_arguments;
    if (gpy_loop_check_open(self) < 0)
        return NULL;
    return gpy_task_new(self->state, (PyObject *)self, coro, &options);

bad_arguments:
    PyErr_Format(PyExc_TypeError, "create_task() takes exactly one positional argument: coro");
    return NULL;
}

static PyObject *
loop_add_callback(struct gpy_loop *self, PyObject *handle)
{
    if (gpy_handle_check(self->state, handle)) {
        if (((struct gpy_handle *)handle)->cancelled)
            Py_RETURN_NONE;
    } else {
        PyObject *cancelled = PyObject_GetAttrString(handle, "_cancelled");
        int is_cancelled = cancelled ? PyObject_IsTrue(cancelled) : -1;
        Py_XDECREF(cancelled);
        if (is_cancelled != 0)
            return is_cancelled < 0 ? NULL : Py_NewRef(Py_None);
    }
    if (gpy_ready_push(&self->ready, GPY_READY_HANDLE, handle, NULL, NULL) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
loop_add_callback_signalsafe(struct gpy_loop *self, PyObject *handle)
{
    PyObject *result = loop_add_callback(self, handle);
    if (result != NULL && self->core_ready)
        gy_wakeup_send(&self->core.wakeup);
    return result;
}

static PyObject *
loop_write_to_self(struct gpy_loop *self, PyObject *Py_UNUSED(ignored))
{
    if (self->core_ready)
        gy_wakeup_send(&self->core.wakeup);
    Py_RETURN_NONE;
}

/* asyncio counts cancelled timers to clean its heap; ours removes them exactly. */
static PyObject *
loop_timer_handle_cancelled(struct gpy_loop *Py_UNUSED(self), PyObject *Py_UNUSED(handle))
{
    Py_RETURN_NONE;
}

int
gpy_loop_call_soon(struct gpy_loop *self, PyObject *callable, PyObject *arg, PyObject *context)
{
    if (GY_LIKELY(self->direct && arg != NULL && context != NULL))
        return gpy_ready_push(&self->ready, GPY_READY_CALLBACK, callable, arg, context);
    PyObject *method = PyObject_GetAttr((PyObject *)self, self->state->str_call_soon);
    if (method == NULL)
        return -1;
    PyObject *stack[4] = {NULL, callable, arg, NULL};
    size_t nargs = arg ? 2 : 1;
    stack[1 + nargs] = context ? context : Py_None;
    PyObject *handle = PyObject_Vectorcall(
        method, stack + 1, nargs | PY_VECTORCALL_ARGUMENTS_OFFSET, self->state->kwnames_context);
    Py_DECREF(method);
    Py_XDECREF(handle);
    return handle ? 0 : -1;
}

#if GPY_CREATE_TASK_PASSES_ANYTHING
#define CREATE_TASK_TAKES "create_task($self, coro, **kwargs)\n--\n\n"
#else
#define CREATE_TASK_TAKES "create_task($self, coro, *, name=None, context=None)\n--\n\n"
#endif

PyMethodDef gpy_loop_schedule_methods[] = {
    {"call_soon", GPY_METHOD(loop_call_soon),
     "call_soon($self, callback, *args, context=None)\n--\n\n"
     "Call a function in the loop's next turn."},
    {"call_soon_threadsafe", GPY_METHOD(loop_call_soon_threadsafe),
     "call_soon_threadsafe($self, callback, *args, context=None)\n--\n\n"
     "call_soon() from any thread; wakes the loop."},
    {"call_later", GPY_METHOD(loop_call_later),
     "call_later($self, delay, callback, *args, context=None)\n--\n\n"
     "Call a function after a delay in seconds."},
    {"call_at", GPY_METHOD(loop_call_at),
     "call_at($self, when, callback, *args, context=None)\n--\n\n"
     "Call a function when the loop's clock shows a time."},
    {"time", (PyCFunction)loop_time, METH_NOARGS,
     "time($self)\n--\n\nThe loop's clock, CLOCK_MONOTONIC in seconds."},
    {"create_future", (PyCFunction)loop_create_future, METH_NOARGS,
     "create_future($self)\n--\n\nA new gyre.Future."},
    {"create_task", GPY_METHOD(loop_create_task),
     CREATE_TASK_TAKES "Run a coroutine as a gyre.Task."},
    {"_add_callback", (PyCFunction)loop_add_callback, METH_O, NULL},
    {"_add_callback_signalsafe", (PyCFunction)loop_add_callback_signalsafe, METH_O, NULL},
    {"_write_to_self", (PyCFunction)loop_write_to_self, METH_NOARGS, NULL},
    {"_timer_handle_cancelled", (PyCFunction)loop_timer_handle_cancelled, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
