/* loop.c: LoopCore, its life cycle and the fields that BaseEventLoop's Python code and C share.
 *
 * The descriptors below stand before BaseEventLoop in the MRO: `self._stopping = True` in inherited
 * Python sets the C field that the turn reads.  One truth, no copies. */
#include "loop.h"
#include "backend.h"
#include "file.h"
#include "handle.h"
#include "pycompat.h"
#include "tcp.h"

#include "../core/stream.h"
#include "../core/sys.h"

#include <string.h>

/* ---- creation
 * ------------------------------------------------------------------------------------------------
 */

static int
create_core(struct gpy_loop *self, PyObject *backend)
{
    if (gpy_backend_init_core(self, backend) < 0)
        return -1;
    self->core_ready = true;
    gpy_loop_readers_init(self);
    gpy_loop_signals_init(self);
    return 0;
}

/* One of the policies, which end with NULL, the first of them by default: its index, or -1 with an
 * exception. */
static int
choose_policy(const char *name, PyObject *value, const char *const choices[])
{
    if (value == NULL || value == Py_None)
        return 0;
    if (!PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "%s must be a str or None, not %.100s", name,
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    for (int i = 0; choices[i] != NULL; i++)
        if (PyUnicode_CompareWithASCIIString(value, choices[i]) == 0)
            return i;
    PyErr_Format(PyExc_ValueError, "unknown %s policy %R: choose '%s' or '%s'%s%s%s", name, value,
                 choices[0], choices[1], choices[2] ? ", or '" : "", choices[2] ? choices[2] : "",
                 choices[2] ? "'" : "");
    return -1;
}

/* How new TCP streams receive, and how all streams send; multishot falls back to poll where the
 * kernel or the environment lacks it. */
static int
choose_policies(struct gpy_loop *self, PyObject *receive, PyObject *send)
{
    static const char *const receives[] = {"poll", "multishot", NULL};
    static const char *const sends[] = {"adaptive", "immediate", "batched", NULL};
    int multishot = choose_policy("receive", receive, receives);
    int way = multishot < 0 ? -1 : choose_policy("send", send, sends);
    if (way < 0)
        return -1;
    self->recv_policy = multishot ? GY_RECV_MULTISHOT : GY_RECV_POLL;
    self->send_policy = (uint8_t)way;
    return 0;
}

/* Microseconds; None: GY_SPIN_DEFAULT_NS at most, and only while it pays. */
static int
choose_busy_poll(PyObject *busy_poll, int64_t *limit_ns, bool *always)
{
    *always = busy_poll != NULL && busy_poll != Py_None;
    *limit_ns = GY_SPIN_DEFAULT_NS;
    if (!*always)
        return 0;
    double us = PyFloat_AsDouble(busy_poll);
    if (us == -1.0 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_TypeError,
                         "busy_poll must be a number of microseconds or None, not %.100s",
                         Py_TYPE(busy_poll)->tp_name);
        return -1;
    }
    if (!(us >= 0.0 && us * 1e3 <= GY_SPIN_MAX_NS)) {
        PyErr_Format(PyExc_ValueError, "busy_poll must be from 0 to %d microseconds, not %R",
                     GY_SPIN_MAX_NS / 1000, busy_poll);
        return -1;
    }
    *limit_ns = (int64_t)(us * 1e3);
    return 0;
}

/* The same method of C, whichever of the two types its descriptor belongs to (loop_own_methods())?
 */
static bool
is_same_method(PyObject *mine, PyObject *theirs)
{
    return mine == theirs ||
           (mine != NULL && theirs != NULL && Py_IS_TYPE(mine, &PyMethodDescr_Type) &&
            Py_IS_TYPE(theirs, &PyMethodDescr_Type) &&
            ((PyMethodDescrObject *)(void *)mine)->d_method ==
                ((PyMethodDescrObject *)(void *)theirs)->d_method);
}

/* Which of the methods that C may bypass are somebody else's: a subclass's or the instance's own.
 */
static int
method_is_overridden(struct gpy_loop *self, PyObject *name, bool *overridden)
{
    PyTypeObject *type = Py_TYPE(self);
    if (type != self->state->loop_type) {
        PyObject *mine = PyObject_GetAttr((PyObject *)self->state->loop_type, name);
        PyObject *theirs = mine ? PyObject_GetAttr((PyObject *)type, name) : NULL;
        *overridden |= !is_same_method(mine, theirs);
        Py_XDECREF(mine);
        Py_XDECREF(theirs);
        if (theirs == NULL)
            return -1;
    }
    PyObject *dict = PyObject_GenericGetDict((PyObject *)self, NULL);
    if (dict == NULL) { /* a LoopCore that was not subclassed has none */
        PyErr_Clear();
        return 0;
    }
    int there = PyDict_Contains(dict, name);
    Py_DECREF(dict);
    *overridden |= there > 0;
    return there < 0 ? -1 : 0;
}

static int
find_overrides(struct gpy_loop *self)
{
    struct gpy_state *state = self->state;
    bool overridden = false, time_overridden = false, future_overridden = false;
    if (method_is_overridden(self, state->str_call_soon, &overridden) < 0 ||
        method_is_overridden(self, state->str_call_at, &overridden) < 0 ||
        method_is_overridden(self, state->str_create_task, &overridden) < 0 ||
        method_is_overridden(self, state->str_time, &time_overridden) < 0 ||
        method_is_overridden(self, state->str_create_future, &future_overridden) < 0)
        return -1;
    self->future_overridden = future_overridden;
    self->overridden = overridden;
    self->time_overridden = time_overridden;
    gpy_loop_update_direct(self);
    return 0;
}

void
gpy_loop_update_direct(struct gpy_loop *self)
{
    self->direct = self->core_ready && !self->closed && !self->overridden && !self->debug;
}

static PyObject *
loop_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    struct gpy_state *state = gpy_state_of_type(type);
    struct gpy_loop *self = state ? (struct gpy_loop *)type->tp_alloc(type, 0) : NULL;
    if (self == NULL)
        return NULL;
    self->state = state;
    gpy_state_hold(state);
    self->signal_fds[0] = self->signal_fds[1] = -1;
    gy_list_init(&self->members);
    self->slow_callback_duration = PyFloat_FromDouble(0.1);
    if (self->slow_callback_duration == NULL)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static int
import_pair(const char *module_name, const char *first, PyObject **first_out, const char *second,
            PyObject **second_out)
{
    PyObject *module = PyImport_ImportModule(module_name);
    if (module == NULL)
        return -1;
    Py_XSETREF(*first_out, PyObject_GetAttrString(module, first));
    Py_XSETREF(*second_out, *first_out ? PyObject_GetAttrString(module, second) : NULL);
    Py_DECREF(module);
    return *second_out ? 0 : -1;
}

/* With the first loop, not when they are first needed, and the things themselves, not their
 * modules: the collector may close a loop when nothing can be imported any more and the modules
 * that are left have been emptied. */
static int
import_helpers(struct gpy_state *state)
{
    if (state->ready_view != NULL && state->report_slow_callback != NULL)
        return 0;
    if (import_pair("gyre._views", "ReadyView", &state->ready_view, "ScheduledView",
                    &state->scheduled_view) < 0)
        return -1;
    return import_pair("gyre._report", "callback_failed", &state->report_callback_failed,
                       "slow_callback", &state->report_slow_callback);
}

static int
loop_init(struct gpy_loop *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"backend",     "receive",   "send", "busy_poll",
                            "udp_offload", "heap_trim", NULL};
    PyObject *backend = NULL, *receive = NULL, *send = NULL, *busy_poll = NULL;
    int udp_offload = 1, heap_trim = 1;
    int64_t spin_ns;
    bool spin_always;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$OOOOpp:LoopCore", names, &backend, &receive,
                                     &send, &busy_poll, &udp_offload, &heap_trim))
        return -1;
    self->udp_offload = udp_offload;
    if (self->core_ready || self->closed) {
        PyErr_SetString(PyExc_RuntimeError, "this loop was initialized before");
        return -1;
    }
    if (import_helpers(self->state) < 0 || choose_policies(self, receive, send) < 0 ||
        choose_busy_poll(busy_poll, &spin_ns, &spin_always) < 0 || create_core(self, backend) < 0)
        return -1;
    gy_spin_init(&self->core.spin, spin_ns, spin_always);
    gy_heap_init(&self->core.heap, heap_trim && gy_sys_trims_heap());
    gy_ballast_init(&self->core.ballast, heap_trim && gy_sys_trims_heap());
    self->core.ring_sends = self->send_policy == GPY_SEND_BATCHED;
    self->core.hold.wanted = self->send_policy == GPY_SEND_ADAPTIVE;
    return find_overrides(self);
}

/* Names of attributes are interned, unless somebody calls __setattr__() by hand. */
static inline bool
is_name(PyObject *name, PyObject *known)
{
    return name == known ||
           (GY_UNLIKELY(!PyUnicode_CHECK_INTERNED(name)) && PyUnicode_Compare(name, known) == 0);
}

/* `loop.call_soon = something` on the instance ends the fast paths. */
static int
loop_setattro(struct gpy_loop *self, PyObject *name, PyObject *value)
{
    struct gpy_state *state = self->state;
    if (PyObject_GenericSetAttr((PyObject *)self, name, value) < 0)
        return -1;
    if (!is_name(name, state->str_call_soon) && !is_name(name, state->str_call_at) &&
        !is_name(name, state->str_create_task) && !is_name(name, state->str_time) &&
        !is_name(name, state->str_create_future))
        return 0;
    return find_overrides(self);
}

/* ---- the end
 * -------------------------------------------------------------------------------------------------
 */

/* Ends everything that belongs to the kernel; nothing is in flight outside a run.  Idempotent. */
static void
loop_close_core(struct gpy_loop *self)
{
    if (!self->core_ready)
        return;
    while (!gy_list_empty(&self->members)) {
        struct gpy_loop_member *member =
            container_of(self->members.next, struct gpy_loop_member, link);
        gy_list_remove(&member->link);
        member->ops->abandon(member);
    }
    gpy_tcp_close(self);
    gpy_loop_timers_clear(self);
    self->core_ready = false;
    gpy_loop_update_direct(self);
    (void)gy_pollset_close(&self->readers);
    gpy_loop_signals_close(self);
    gy_loop_close(&self->core);
    gpy_loop_readers_clear(self);
    for (unsigned i = 0; i < GPY_FILE_SPARES; i++)
        Py_CLEAR(self->file_spares[i]);
    Py_CLEAR(self->sock_spare);
}

static PyObject *
loop_close_core_method(struct gpy_loop *self, PyObject *Py_UNUSED(ignored))
{
    if (self->in_run) {
        PyErr_SetString(PyExc_RuntimeError, "Cannot close a running event loop");
        return NULL;
    }
    loop_close_core(self);
    Py_RETURN_NONE;
}

static int
loop_traverse(struct gpy_loop *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    int rc = gpy_ready_traverse(&self->ready, visit, arg);
    if (rc == 0)
        rc = gpy_ready_traverse(&self->due, visit, arg);
    if (rc == 0 && self->core_ready)
        rc = gpy_loop_timers_traverse(self, visit, arg);
    if (rc == 0)
        rc = gpy_loop_readers_traverse(self, visit, arg);
    if (rc != 0)
        return rc;
    for (struct gy_list *node = self->members.next; node && node != &self->members;
         node = node->next) {
        struct gpy_loop_member *member = container_of(node, struct gpy_loop_member, link);
        if (!gpy_loop_member_is_at_rest(member))
            Py_VISIT(member->pinned);
    }
    Py_VISIT(self->slow_callback_duration);
    Py_VISIT(self->task_factory);
    Py_VISIT(self->raised);
    Py_VISIT(self->current_handle);
    return 0;
}

static int
loop_clear(struct gpy_loop *self)
{
    loop_close_core(self);
    gpy_ready_free(&self->ready);
    gpy_ready_free(&self->due);
    gpy_loop_readers_clear(self);
    Py_CLEAR(self->slow_callback_duration);
    Py_CLEAR(self->task_factory);
    Py_CLEAR(self->raised);
    Py_CLEAR(self->current_handle);
    Py_CLEAR(self->previous_wakeup_fd);
    PyMem_Free(self->ssl_scratch);
    self->ssl_scratch = NULL;
    return 0;
}

static void
loop_dealloc(struct gpy_loop *self)
{
    PyTypeObject *type = Py_TYPE(self);
    struct gpy_state *state = self->state;
    PyObject_GC_UnTrack(self);
    (void)loop_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
    gpy_state_release(state);
}

/* ---- shared fields
 * ------------------------------------------------------------------------------------------- */

#define OFFSET(field) (void *)offsetof(struct gpy_loop, field)

static PyObject *
get_flag(struct gpy_loop *self, void *offset)
{
    return PyBool_FromLong(*(bool *)((char *)self + (uintptr_t)offset));
}

static int
set_flag(struct gpy_loop *self, PyObject *value, void *offset)
{
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "cannot delete a field of the loop");
        return -1;
    }
    int truth = PyObject_IsTrue(value);
    if (truth < 0)
        return -1;
    *(bool *)((char *)self + (uintptr_t)offset) = truth;
    gpy_loop_update_direct(self);
    return 0;
}

static PyObject *
get_thread_id(struct gpy_loop *self, void *Py_UNUSED(closure))
{
    return self->thread_id ? PyLong_FromUnsignedLong(self->thread_id) : Py_NewRef(Py_None);
}

static int
set_thread_id(struct gpy_loop *self, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == NULL || value == Py_None) {
        self->thread_id = 0;
        return 0;
    }
    unsigned long thread_id = PyLong_AsUnsignedLong(value);
    if (thread_id == (unsigned long)-1 && PyErr_Occurred())
        return -1;
    self->thread_id = thread_id;
    return 0;
}

static PyObject *
get_object(struct gpy_loop *self, void *offset)
{
    PyObject *value = *(PyObject **)((char *)self + (uintptr_t)offset);
    return Py_NewRef(value ? value : Py_None);
}

static int
set_object(struct gpy_loop *self, PyObject *value, void *offset)
{
    PyObject **field = (PyObject **)((char *)self + (uintptr_t)offset);
    Py_XSETREF(*field, value == Py_None ? NULL : Py_XNewRef(value));
    return 0;
}

static int
set_slow_callback_duration(struct gpy_loop *self, PyObject *value, void *offset)
{
    if (value == NULL || value == Py_None) {
        PyErr_SetString(PyExc_TypeError, "slow_callback_duration must be a number of seconds");
        return -1;
    }
    return set_object(self, value, offset);
}

/* The views of gyre/_views.py, made anew for each look: _ready and _scheduled are for debuggers and
 * tests. */
static PyObject *
get_view(struct gpy_loop *self, void *offset)
{
    PyObject *view_class = *(PyObject **)((char *)self->state + (uintptr_t)offset);
    if (view_class == NULL) {
        PyErr_SetString(PyExc_AttributeError, "this loop was never initialized");
        return NULL;
    }
    return PyObject_CallOneArg(view_class, (PyObject *)self);
}

/* BaseEventLoop.__init__ assigns its own containers, which stay unused. */
static int
ignore_assignment(struct gpy_loop *Py_UNUSED(self), PyObject *Py_UNUSED(value),
                  void *Py_UNUSED(closure))
{
    return 0;
}

static PyObject *
get_backend(struct gpy_loop *self, void *Py_UNUSED(closure))
{
    if (!self->core_ready)
        Py_RETURN_NONE;
    return PyUnicode_FromString(self->core.ring->ops->name);
}

static PyGetSetDef loop_getset[] = {
    {"_stopping", (getter)get_flag, (setter)set_flag, NULL, OFFSET(stopping)},
    {"_forever", (getter)get_flag, (setter)set_flag, NULL, OFFSET(forever)},
    {"_debug", (getter)get_flag, (setter)set_flag, NULL, OFFSET(debug)},
    {"_closed", (getter)get_flag, (setter)set_flag, NULL, OFFSET(closed)},
    {"_thread_id", (getter)get_thread_id, (setter)set_thread_id, NULL, NULL},
    {"_task_factory", (getter)get_object, (setter)set_object, NULL, OFFSET(task_factory)},
    {"slow_callback_duration", (getter)get_object, (setter)set_slow_callback_duration,
     "Debug mode logs callbacks that take longer than this many seconds.",
     OFFSET(slow_callback_duration)},
    {"_current_handle", (getter)get_object, (setter)set_object, NULL, OFFSET(current_handle)},
    {"_ready", (getter)get_view, (setter)ignore_assignment, NULL,
     (void *)offsetof(struct gpy_state, ready_view)},
    {"_scheduled", (getter)get_view, (setter)ignore_assignment, NULL,
     (void *)offsetof(struct gpy_state, scheduled_view)},
    {"backend", (getter)get_backend, NULL,
     "The kernel interface in use, 'io_uring' or 'epoll'; None after close().", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyObject *
loop_is_running(struct gpy_loop *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->thread_id != 0);
}

static PyObject *
loop_is_closed(struct gpy_loop *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->closed);
}

static PyObject *
loop_get_debug(struct gpy_loop *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->debug);
}

/* ---- counters
 * ------------------------------------------------------------------------------------------------
 */

static PyObject *
loop_stats(struct gpy_loop *self, PyObject *Py_UNUSED(ignored))
{
    if (gpy_loop_check_open(self) < 0)
        return NULL;
    const struct gy_loop *core = &self->core;
    const struct gy_ring_counters *ring = &core->ring->counters;
    const struct {
        const char *name;
        uint64_t value;
    } fields[] = {
        {"turns", core->turn},
        {"enters", ring->enters},
        {"submissions", ring->sqes},
        {"events", ring->events},
        {"overflows", ring->overflows},
        {"controls", ring->controls},
        {"waits", core->counters.waits},
        {"spins", core->spin.looks},
        {"spins_found", core->spin.found},
        {"spin_ns", core->spin.spent_ns},
        {"heap_trims", core->heap.trims},
        {"ballasts", core->ballast.placed},
        {"ballast_held", core->ballast.block != NULL},
        {"ops_submitted", core->counters.ops_submitted},
        {"ops_landed", core->counters.ops_landed},
        {"ops_in_flight", core->inflight},
        {"cancels", core->counters.cancels},
        {"live", core->live},
        {"recv_calls", core->counters.recv_calls},
        {"send_calls", core->counters.send_calls},
        {"send_ops", core->counters.send_ops},
        {"sends_held", core->counters.sends_held},
        {"fixed_ops", core->counters.fixed_ops},
        {"bytes_in", core->counters.bytes_in},
        {"bytes_out", core->counters.bytes_out},
        {"accepted", core->counters.accepted},
        {"buffers_leased", core->buffers.leased},
        {"buffers_exhausted", core->buffers.exhausted},
        {"wakeups", atomic_load(&core->wakeup.sent)},
        {"timers", core->timers.count},
        {"ready", self->ready.count},
    };
    PyObject *dict = PyDict_New();
    for (size_t i = 0; dict != NULL && i < sizeof fields / sizeof *fields; i++) {
        PyObject *value = PyLong_FromUnsignedLongLong(fields[i].value);
        if (value == NULL || PyDict_SetItemString(dict, fields[i].name, value) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(value);
    }
    return dict;
}

static int
add_method(PyTypeObject *type, PyMethodDef *method)
{
    PyObject *descriptor = PyDescr_NewMethod(type, method);
    if (descriptor == NULL)
        return -1;
    int rc = PyObject_SetAttrString((PyObject *)type, method->ml_name, descriptor);
    Py_DECREF(descriptor);
    return rc;
}

/* The methods of the other loop_*.c files. */
static PyMethodDef *const method_tables[] = {
    gpy_loop_schedule_methods, gpy_loop_reader_methods, gpy_loop_view_methods,
    gpy_loop_tcp_methods,      gpy_loop_file_methods,
};

static int
add_methods(PyTypeObject *type)
{
    for (size_t i = 0; i < Py_ARRAY_LENGTH(method_tables); i++)
        for (PyMethodDef *method = method_tables[i]; method->ml_name != NULL; method++)
            if (add_method(type, method) < 0)
                return -1;
    return 0;
}

/* 1 if `type` has this method from LoopCore, 0 or -1. */
static int
inherits_method(PyTypeObject *core, PyTypeObject *type, const char *name)
{
    PyObject *mine = PyObject_GetAttrString((PyObject *)core, name);
    PyObject *theirs = mine ? PyObject_GetAttrString((PyObject *)type, name) : NULL;
    int same = theirs != NULL ? mine == theirs : -1;
    Py_XDECREF(mine);
    Py_XDECREF(theirs);
    return same;
}

/* The interpreter calls a method directly only where the descriptor names the object's very type,
 * not a base of it: a class of which many calls are expected gets descriptors of its own. */
static PyObject *
loop_own_methods(PyObject *class, PyObject *Py_UNUSED(ignored))
{
    PyTypeObject *type = (PyTypeObject *)(void *)class;
    struct gpy_state *state = gpy_state_of_type(type);
    if (state == NULL)
        return NULL;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(method_tables); i++) {
        for (PyMethodDef *method = method_tables[i]; method->ml_name != NULL; method++) {
            int inherits = inherits_method(state->loop_type, type, method->ml_name);
            if (inherits < 0 || (inherits > 0 && add_method(type, method) < 0))
                return NULL;
        }
    }
    Py_RETURN_NONE;
}

/* _watch_signals(there are handlers) */
static PyObject *
loop_watch_signals(struct gpy_loop *self, PyObject *flag)
{
    int truth = PyObject_IsTrue(flag);
    if (truth < 0)
        return NULL;
    self->signals_watched = truth != 0;
    /* The main thread may add a handler to a loop that another thread runs: its signals come there.
     */
    if (self->in_run && self->thread_id == PyThread_get_thread_ident())
        gpy_loop_signals_begin(self);
    Py_RETURN_NONE;
}

static PyMethodDef loop_methods[] = {
    {"_own_methods", loop_own_methods, METH_NOARGS | METH_CLASS, NULL},
    {"_run_once", (PyCFunction)gpy_loop_run_once, METH_NOARGS, NULL},
    {"_close_core", (PyCFunction)loop_close_core_method, METH_NOARGS, NULL},
    {"_watch_signals", (PyCFunction)loop_watch_signals, METH_O, NULL},
    {"is_running", (PyCFunction)loop_is_running, METH_NOARGS,
     "is_running($self)\n--\n\nTrue while the loop runs."},
    {"is_closed", (PyCFunction)loop_is_closed, METH_NOARGS,
     "is_closed($self)\n--\n\nTrue after close()."},
    {"get_debug", (PyCFunction)loop_get_debug, METH_NOARGS,
     "get_debug($self)\n--\n\nTrue in debug mode."},
    {"stats", (PyCFunction)loop_stats, METH_NOARGS,
     "stats($self)\n--\n\nAlways-on counters since the loop was created, as a dict of integers."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot loop_slots[] = {
    {Py_tp_doc, "The C half of gyre.Loop; use gyre.Loop."},
    {Py_tp_new, loop_new},
    {Py_tp_init, loop_init},
    {Py_tp_dealloc, loop_dealloc},
    {Py_tp_traverse, loop_traverse},
    {Py_tp_clear, loop_clear},
    {Py_tp_setattro, loop_setattro},
    {Py_tp_methods, loop_methods},
    {Py_tp_getset, loop_getset},
    {0, NULL},
};

static PyType_Spec loop_spec = {
    .name = "gyre._gyre.LoopCore",
    .basicsize = sizeof(struct gpy_loop),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = loop_slots,
};

struct gpy_loop *
gpy_loop_check(struct gpy_state *state, PyObject *object)
{
    return PyObject_TypeCheck(object, state->loop_type) ? (struct gpy_loop *)object : NULL;
}

static int
find_imports(struct gpy_state *state)
{
    PyObject *base_events = PyImport_ImportModule("asyncio.base_events");
    if (base_events == NULL)
        return -1;
    state->base_event_loop = PyObject_GetAttrString(base_events, "BaseEventLoop");
    Py_DECREF(base_events);
    PyObject *signal = state->base_event_loop ? PyImport_ImportModule("signal") : NULL;
    if (signal == NULL)
        return -1;
    state->signal_set_wakeup_fd = PyObject_GetAttrString(signal, "set_wakeup_fd");
    Py_DECREF(signal);
    if (state->kwnames_context == NULL)
        state->kwnames_context = Py_BuildValue("(s)", "context");
    state->kwnames_warn_on_full_buffer = Py_BuildValue("(s)", "warn_on_full_buffer");
    return state->signal_set_wakeup_fd && state->kwnames_context &&
                   state->kwnames_warn_on_full_buffer
               ? 0
               : -1;
}

int
gpy_loop_exec(PyObject *module, struct gpy_state *state)
{
    if (find_imports(state) < 0)
        return -1;
    state->loop_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &loop_spec, NULL);
    if (state->loop_type == NULL || add_methods(state->loop_type) < 0)
        return -1;
    return PyModule_AddType(module, state->loop_type);
}
