/* future.c: the life cycle of gyre.Future: creation, collection and the type itself.
 *
 * Base part: asyncio's struct.  Only its loop field is filled (so that base methods called by hand,
 * asyncio.Future.get_loop(f), do not report an uninitialised object); base tp_traverse, tp_clear
 * and tp_dealloc look after it, the instance dict and the weak references. */
#include "future.h"
#include "future_methods.h"
#include "task.h"

#include <stddef.h>

Py_ssize_t gpy_fut_offset;

/* ---- creation -------------------------------------------------------------------------------- */

static PyObject *
future_alloc(PyTypeObject *type, struct gpy_state *module)
{
    PyObject *self = type->tp_alloc(type, 0);
    if (self != NULL) {
        gpy_fut_of(self)->module = module;
        gpy_state_hold(module);
    }
    return self;
}

#if GPY_DICT_BEFORE_OBJECT
static PyObject *
future_take(struct gpy_state *module)
{
    return NULL;
}

static bool
future_keep(PyObject *self)
{
    return false;
}

static void
future_fit_dict(PyObject *self)
{
}

void
gpy_future_drop_spare_dicts(struct gpy_state *module)
{
}
#else
/* What asyncio.Future is large in 3.11; nothing is kept of another one. */
enum { BASE_BYTES = 128, BASE_BEGIN = sizeof(PyObject) + sizeof(PyObject *) };

/* A pending gyre.Future without a loop, its memory used before.  NULL: there is none. */
static PyObject *
future_take(struct gpy_state *module)
{
    PyObject *self = gpy_freelist_take(&module->free_futures, module->future_type);
    if (self != NULL) {
        struct gpy_fut *fut = gpy_fut_of(self);
        gpy_zero_words(fut, sizeof *fut);
        fut->module = module;
        gpy_state_hold(module);
        PyObject_GC_Track(self);
    }
    return self;
}

static PyObject **
future_dict(PyObject *self)
{
    return (PyObject **)(void *)((char *)self + Py_TYPE(self)->tp_dictoffset);
}

/* The interpreter of 3.11 looks up future.done and future.set_result anew each time, unless there
 * is a dict in which it need not look: an empty one, like all others that are empty.  It stays with
 * the memory of the future; only memory that was used before gets one, since many more futures than
 * the list holds would be a matter of memory. */
static void
future_fit_dict(PyObject *self)
{
    if (GY_UNLIKELY(*future_dict(self) == NULL)) {
        *future_dict(self) = PyDict_New();
        if (*future_dict(self) == NULL)
            PyErr_Clear();
    }
}

/* Of the memory in the free list, which is about to be given back. */
void
gpy_future_drop_spare_dicts(struct gpy_state *module)
{
    PyObject *self = module->free_futures.head;
    for (; self != NULL; self = *gpy_freelist_link(self))
        Py_CLEAR(*future_dict(self));
}

/* The base part behind the loop has nothing in it but, perhaps, the dict.  A sum, in which small
 * numbers and pointers cannot cancel out, needs no copy without the dict: to read several words at
 * once of which one has just been written takes longer than all the rest. */
static bool
base_is_empty(PyObject *self, PyObject *dict)
{
    typedef uintptr_t __attribute__((may_alias)) word;
    const word *words = (const word *)(const void *)((const char *)self + BASE_BEGIN);
    uintptr_t sum = 0;
    for (size_t i = 0; i < (BASE_BYTES - BASE_BEGIN) / sizeof(*words); i++)
        sum += words[i];
    return sum == (uintptr_t)dict;
}

/* Keeps the memory of a gyre.Future of which our part is empty and the base part, apart from the
 * loop, has never been written to: no attributes, no weak references, no asyncio.Future.method().
 */
static bool
future_keep(PyObject *self)
{
    struct gpy_fut *fut = gpy_fut_of(self);
    struct gpy_state *module = fut->module;
    PyTypeObject *type = Py_TYPE(self);
    if (type != module->future_type || fut->finalized ||
        module->free_futures.count >= module->free_futures.limit ||
        ((PyTypeObject *)module->asyncio_future)->tp_basicsize != BASE_BYTES)
        return false;
    PyObject *dict = *future_dict(self);
    if (GY_UNLIKELY(!base_is_empty(self, dict) ||
                    (dict != NULL && (Py_REFCNT(dict) != 1 || PyDict_GET_SIZE(dict) != 0))))
        return false;
    Py_CLEAR(*gpy_fut_loop_slot(fut));
    gpy_freelist_free(&module->free_futures, self);
    Py_DECREF(type);
    return true;
}
#endif

static PyObject *
future_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    struct gpy_state *module = gpy_state_of_type(type);
    return module ? future_alloc(type, module) : NULL;
}

/* A loop in debug mode wants to know where each future was made. */
static int
remember_origin(struct gpy_fut *fut)
{
    if (gpy_fut_direct(fut) != NULL)
        return 0; /* debug is off */
    PyObject *debug = PyObject_CallMethodNoArgs(gpy_fut_loop(fut), fut->module->str_get_debug);
    if (debug == NULL)
        return -1;
    int is_debug = PyObject_IsTrue(debug);
    Py_DECREF(debug);
    if (is_debug <= 0)
        return is_debug;
    if (gpy_is_finalizing()) /* traceback may be half torn down */
        return 0;
    fut->source_tb = PyObject_CallNoArgs(fut->module->extract_stack);
    return fut->source_tb != NULL ? 0 : -1;
}

int
gpy_fut_init(struct gpy_fut *fut, PyObject *loop)
{
    if (gpy_fut_loop(fut) != NULL && gpy_python_at_least(15, 0)) {
        PyErr_Format(PyExc_RuntimeError, "%s object is already initialized",
                     Py_TYPE(gpy_fut_object(fut))->tp_name);
        return -1;
    }
    gpy_fut_clear(fut); /* before 3.15 __init__ may be called again */
    if (fut->module->get_event_loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "gyre's module state is gone");
        return -1;
    }
    loop = loop == Py_None ? PyObject_CallNoArgs(fut->module->get_event_loop) : Py_NewRef(loop);
    if (loop == NULL)
        return -1;
    Py_XSETREF(*gpy_fut_loop_slot(fut), loop);
    fut->own_loop = gpy_loop_check(fut->module, loop);
    fut->state = GPY_FUT_PENDING;
    fut->log_tb = false;
    fut->blocking = false;
    return remember_origin(fut);
}

static int
future_tp_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"loop", NULL};
    PyObject *loop = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$O:Future", keywords, &loop))
        return -1;
    return gpy_fut_init(gpy_fut_of(self), loop);
}

static PyObject *
future_new(struct gpy_state *module, PyObject *loop, struct gpy_loop *own_or_null)
{
    PyObject *self = future_take(module);
    if (self == NULL)
        self = future_alloc(module->future_type, module);
    if (self == NULL)
        return NULL;
    struct gpy_fut *fut = gpy_fut_of(self);
    if (GY_LIKELY(own_or_null != NULL && gpy_loop_is_direct(own_or_null))) { /* debug is off */
        *gpy_fut_loop_slot(fut) = Py_NewRef(loop);
        fut->own_loop = own_or_null;
    } else if (gpy_fut_init(fut, loop) < 0) {
        Py_CLEAR(self);
    }
    return self;
}

PyObject *
gpy_future_new(struct gpy_state *module, PyObject *loop)
{
    return future_new(module, loop, gpy_loop_check(module, loop));
}

PyObject *
gpy_future_new_on(struct gpy_state *module, PyObject *loop, struct gpy_loop *own_or_null)
{
    bool used_before = module->free_futures.head != NULL;
    PyObject *self = future_new(module, loop, own_or_null);
    if (GY_LIKELY(self != NULL && used_before))
        future_fit_dict(self);
    return self;
}

/* ---- the end --------------------------------------------------------------------------------- */

void
gpy_fut_report(struct gpy_fut *fut, PyObject *context)
{
    if (fut->source_tb != NULL &&
        PyDict_SetItem(context, fut->module->str_source_traceback, fut->source_tb) < 0) {
        PyErr_WriteUnraisable(gpy_fut_object(fut));
        return;
    }
    PyObject *returned = PyObject_CallMethodOneArg(
        gpy_fut_loop(fut), fut->module->str_call_exception_handler, context);
    if (returned == NULL)
        PyErr_WriteUnraisable(gpy_fut_object(fut));
    Py_XDECREF(returned);
}

static PyObject *
unretrieved_context(struct gpy_fut *fut)
{
    struct gpy_state *module = fut->module;
    PyObject *self = gpy_fut_object(fut);
    PyObject *name = PyType_GetName(Py_TYPE(self));
    if (name == NULL)
        return NULL;
    PyObject *message = PyUnicode_FromFormat("%U exception was never retrieved", name);
    Py_DECREF(name);
    PyObject *context = message != NULL ? PyDict_New() : NULL;
    if (context != NULL && (PyDict_SetItem(context, module->str_message, message) < 0 ||
                            PyDict_SetItem(context, module->str_exception, fut->exception) < 0 ||
                            PyDict_SetItem(context, module->str_future, self) < 0))
        Py_CLEAR(context);
    Py_XDECREF(message);
    return context;
}

void
gpy_fut_finalize(struct gpy_fut *fut)
{
    if (!fut->log_tb || fut->exception == NULL || gpy_fut_loop(fut) == NULL)
        return;
    fut->log_tb = false;
    PyObject *context = unretrieved_context(fut);
    if (context == NULL) {
        PyErr_WriteUnraisable(gpy_fut_object(fut));
        return;
    }
    gpy_fut_report(fut, context);
    Py_DECREF(context);
}

static void
future_tp_finalize(PyObject *self)
{
    struct gpy_fut *fut = gpy_fut_of(self);
    fut->finalized = true;
    if (!fut->log_tb || fut->module->str_message == NULL) /* or: the module is being torn down */
        return;
    PyObject *raised = PyErr_Occurred() ? gpy_exc_take() : NULL;
    gpy_fut_finalize(fut);
    if (raised != NULL)
        gpy_exc_give(raised);
}

int
gpy_fut_traverse(struct gpy_fut *fut, visitproc visit, void *arg)
{
#if !GPY_ASYNCIO_TYPES_ARE_HEAP
    Py_VISIT(Py_TYPE(gpy_fut_object(fut)));
#endif
    Py_VISIT(fut->result);
    Py_VISIT(fut->exception);
    Py_VISIT(fut->exception_tb);
    Py_VISIT(fut->cancelled_exc);
    Py_VISIT(fut->cancel_msg);
    Py_VISIT(fut->source_tb);
    return gpy_callbacks_traverse(fut, visit, arg);
}

void
gpy_fut_clear(struct gpy_fut *fut)
{
    if (fut->first.callable != NULL || fut->more != NULL)
        gpy_callbacks_clear(fut);
    Py_CLEAR(fut->result);
    if (GY_LIKELY(((uintptr_t)fut->exception | (uintptr_t)fut->exception_tb |
                   (uintptr_t)fut->cancelled_exc | (uintptr_t)fut->cancel_msg |
                   (uintptr_t)fut->source_tb) == 0))
        return;
    Py_CLEAR(fut->exception);
    Py_CLEAR(fut->exception_tb);
    Py_CLEAR(fut->cancelled_exc);
    Py_CLEAR(fut->cancel_msg);
    Py_CLEAR(fut->source_tb);
}

static int
future_tp_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct gpy_fut *fut = gpy_fut_of(self);
    int rc = gpy_fut_traverse(fut, visit, arg);
    return rc != 0 ? rc : fut->module->base_future.tp_traverse(self, visit, arg);
}

static int
future_tp_clear(PyObject *self)
{
    struct gpy_fut *fut = gpy_fut_of(self);
    gpy_fut_clear(fut);
    fut->own_loop = NULL;
    return fut->module->base_future.tp_clear(self);
}

/* Untracked, and whoever calls this holds the module's state. */
static void
future_end(PyObject *self)
{
    struct gpy_fut *fut = gpy_fut_of(self);
    gpy_fut_clear(fut);
    if (future_keep(self))
        return;
#if GPY_ASYNCIO_TYPES_ARE_HEAP
    fut->module->base_future.tp_dealloc(self);
#else
    PyTypeObject *type = Py_TYPE(self);
    fut->module->base_future.tp_dealloc(self);
    Py_DECREF(type);
#endif
}

static void
future_tp_dealloc(PyObject *self)
{
    struct gpy_fut *fut = gpy_fut_of(self);
    struct gpy_state *module = fut->module;
    /* For a Python subclass subtype_dealloc() has called the finalizer already. */
    if (fut->log_tb && Py_IS_TYPE(self, module->future_type) &&
        PyObject_CallFinalizerFromDealloc(self) < 0)
        return;
    PyObject_GC_UnTrack(self);
    if (gpy_state_nest(module)) { /* the future's hold is released below: the state is there */
        future_end(self);
        gpy_state_unnest(module);
        gpy_state_release(module);
        return;
    }
    Py_TRASHCAN_BEGIN(self, future_tp_dealloc);
    future_end(self);
    gpy_state_release(module);
    Py_TRASHCAN_END;
}

static PyObject *
future_tp_repr(PyObject *self)
{
    struct gpy_fut *fut = gpy_fut_of(self);
    if (gpy_fut_check_alive(fut) < 0)
        return NULL;
    return PyObject_CallOneArg(fut->module->future_repr, self);
}

/* ---- the type -------------------------------------------------------------------------------- */

PyDoc_STRVAR(future_doc, "Future(*, loop=None)\n--\n\n"
                         "asyncio.Future in C, for gyre's loop and any other.");

static PyType_Slot future_slots[] = {
    {Py_tp_doc, (void *)future_doc},
    {Py_tp_new, future_tp_new},
    {Py_tp_init, future_tp_init},
    {Py_tp_finalize, future_tp_finalize},
    {Py_tp_dealloc, future_tp_dealloc},
    {Py_tp_traverse, future_tp_traverse},
    {Py_tp_clear, future_tp_clear},
    {Py_tp_repr, future_tp_repr},
    {Py_tp_iter, gpy_future_iter_new},
    {Py_am_await, gpy_future_iter_new},
    {Py_tp_methods, gpy_future_methods},
    {Py_tp_getset, gpy_future_getset},
    {0, NULL},
};

static const PyType_Spec future_spec = {
    .name = "gyre.Future",
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = future_slots,
};

/* Where our part begins: behind the larger of the two bases, aligned as malloc aligns. */
static int
place_own_part(struct gpy_state *module)
{
    PyTypeObject *future = (PyTypeObject *)module->asyncio_future;
    PyTypeObject *task = (PyTypeObject *)module->asyncio_task;
    Py_ssize_t base_bytes = Py_MAX(future->tp_basicsize, task->tp_basicsize);
    Py_ssize_t offset = (base_bytes + 15) & ~(Py_ssize_t)15;
    if (future->tp_itemsize != 0 || task->tp_itemsize != 0 ||
        (gpy_fut_offset != 0 && gpy_fut_offset != offset)) {
        PyErr_SetString(PyExc_ImportError, "gyre cannot extend this asyncio.Future and Task");
        return -1;
    }
    gpy_fut_offset = offset; /* the same in every interpreter of the process */
    return 0;
}

static int
lookup_asyncio(struct gpy_state *module)
{
    static const struct {
        size_t field;
        const char *module_name;
        const char *name;
    } wanted[] = {
        {offsetof(struct gpy_state, asyncio_future), "_asyncio", "Future"},
        {offsetof(struct gpy_state, asyncio_task), "_asyncio", "Task"},
        {offsetof(struct gpy_state, cancelled_error), "asyncio.exceptions", "CancelledError"},
        {offsetof(struct gpy_state, invalid_state_error), "asyncio.exceptions",
         "InvalidStateError"},
        {offsetof(struct gpy_state, future_repr), "asyncio.base_futures", "_future_repr"},
        {offsetof(struct gpy_state, extract_stack), "traceback", "extract_stack"},
        {offsetof(struct gpy_state, get_event_loop), "asyncio.events", GPY_GET_EVENT_LOOP},
    };
    for (size_t i = 0; i < Py_ARRAY_LENGTH(wanted); i++) {
        PyObject **slot = (PyObject **)(void *)((char *)module + wanted[i].field);
        if (gpy_import_into(slot, wanted[i].module_name, wanted[i].name) < 0)
            return -1;
    }
    return 0;
}

int
gpy_import_into(PyObject **slot, const char *module_name, const char *name)
{
    PyObject *imported = PyImport_ImportModule(module_name);
    if (imported == NULL)
        return -1;
    *slot = PyObject_GetAttrString(imported, name);
    Py_DECREF(imported);
    return *slot != NULL ? 0 : -1;
}

int
gpy_future_exec(PyObject *module_object, struct gpy_state *module)
{
    if (lookup_asyncio(module) < 0 || place_own_part(module) < 0)
        return -1;
    module->kwnames_context = PyTuple_Pack(1, module->str_context);
    if (module->kwnames_context == NULL)
        return -1;
    PyTypeObject *base = (PyTypeObject *)module->asyncio_future;
    module->base_future =
        (struct gpy_base_slots){base->tp_traverse, base->tp_clear, base->tp_dealloc};
    PyType_Spec spec = future_spec;
    spec.basicsize = (int)(gpy_fut_offset + (Py_ssize_t)sizeof(struct gpy_fut));
    module->future_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module_object, &spec, module->asyncio_future);
    if (module->future_type == NULL)
        return -1;
    return PyModule_AddType(module_object, module->future_type);
}
