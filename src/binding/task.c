/* task.c: gyre.Task as Python sees it: constructor, methods, attributes, collection, type.
 *
 * What a step does is in task_step.c; what asyncio knows of tasks, in task_registry.c. */
#include "task.h"
#include "future_methods.h"
#include "task_registry.h"

/* ---- creation -------------------------------------------------------------------------------- */

enum { COROUTINE_TYPES_MAX = 128 }; /* bound of the cache of types that passed iscoroutine() */

static PyObject *
task_alloc(PyTypeObject *type, struct gpy_state *module)
{
    PyObject *self = type->tp_alloc(type, 0);
    if (self != NULL) {
        gpy_fut_of(self)->module = module;
        gpy_fut_of(self)->is_task = true;
        gpy_state_hold(module);
        gpy_registry_mark(gpy_task_of(self));
    }
    return self;
}

static PyObject *
task_tp_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    struct gpy_state *module = gpy_state_of_type(type);
    return module ? task_alloc(type, module) : NULL;
}

/* asyncio.iscoroutine(), which is an isinstance() with an abstract class, once per type. */
static int
is_coroutine(struct gpy_state *module, PyObject *coro)
{
    if (PyCoro_CheckExact(coro))
        return 1;
    PyObject *type = (PyObject *)Py_TYPE(coro);
    int known = PySet_Contains(module->coroutine_types, type);
    if (known != 0)
        return known;
    PyObject *answer = PyObject_CallOneArg(module->iscoroutine, coro);
    if (answer == NULL)
        return -1;
    int yes = PyObject_IsTrue(answer);
    Py_DECREF(answer);
    if (yes > 0 && PySet_GET_SIZE(module->coroutine_types) < COROUTINE_TYPES_MAX &&
        PySet_Add(module->coroutine_types, type) < 0)
        return -1;
    return yes;
}

static int
task_set_name(struct gpy_task *task, PyObject *name)
{
    if (name == NULL || name == Py_None) {
        task->name_number = ++*task->fut.module->task_names;
        name = GPY_TASK_NAME_MAY_BE_INT ? PyLong_FromUnsignedLongLong(task->name_number) : NULL;
    } else {
        name = PyUnicode_CheckExact(name) ? Py_NewRef(name) : PyObject_Str(name);
    }
    if (name == NULL && PyErr_Occurred())
        return -1;
    Py_XSETREF(*gpy_task_slot(task, gpy_base.name), name);
    return 0;
}

#if GPY_HAS_EAGER_TASKS
/* 1 if the loop runs now, 0 or -1. */
static int
loop_is_running(struct gpy_task *task)
{
    PyObject *answer =
        PyObject_CallMethodNoArgs(gpy_fut_loop(&task->fut), task->fut.module->str_is_running);
    if (answer == NULL)
        return -1;
    int running = PyObject_IsTrue(answer);
    Py_DECREF(answer);
    return running;
}
#endif

static int
task_start(struct gpy_task *task, int eager_start)
{
#if GPY_HAS_EAGER_TASKS
    if (eager_start) {
        int running = loop_is_running(task);
        if (running < 0)
            return -1;
        if (running > 0) {
            if (gpy_task_start_eagerly(task) == 0)
                return 0;
            task->log_destroy_pending = false; /* the caller has the exception */
            return -1;
        }
    }
#endif
    if (gpy_task_schedule_step(task, NULL) < 0)
        return -1;
    return gpy_registry_add(task);
}

static int
task_init(struct gpy_task *task, PyObject *loop, PyObject *coro,
          const struct gpy_task_options *options)
{
    if (gpy_fut_init(&task->fut, loop) < 0)
        return -1;
    task->log_destroy_pending = false; /* until there is something that could be destroyed */
    int is_coro = is_coroutine(task->fut.module, coro);
    if (is_coro <= 0) {
        if (is_coro == 0)
            PyErr_Format(PyExc_TypeError, "a coroutine was expected, got %R", coro);
        return -1;
    }
    PyObject *context = options->context == NULL || options->context == Py_None
                            ? PyContext_CopyCurrent()
                            : Py_NewRef(options->context);
    if (context == NULL)
        return -1;
    if (!PyContext_CheckExact(context) && gpy_python_at_least(15, 0)) {
        PyErr_Format(PyExc_TypeError, "a contextvars.Context was expected, got %s",
                     Py_TYPE(context)->tp_name);
        Py_DECREF(context);
        return -1;
    }
    Py_XSETREF(*gpy_task_slot(task, gpy_base.context), context);
    Py_CLEAR(task->fut_waiter);
    task->must_cancel = false;
    task->cancels_requested = 0;
    Py_XSETREF(*gpy_task_slot(task, gpy_base.coro), Py_NewRef(coro));
    if (task_set_name(task, options->name) < 0)
        return -1;
    task->log_destroy_pending = true;
    return task_start(task, options->eager_start);
}

static int
task_tp_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {
        "coro", "loop", "name", "context", GPY_HAS_EAGER_TASKS ? "eager_start" : NULL, NULL};
    struct gpy_task_options options = {NULL, NULL, 0};
    PyObject *coro, *loop = Py_None;
    const char *format = GPY_HAS_EAGER_TASKS ? "O|$OOOp:Task" : "O|$OOO:Task";
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, format, keywords, &coro, &loop, &options.name,
                                     &options.context, &options.eager_start))
        return -1;
    return task_init(gpy_task_of(self), loop, coro, &options);
}

PyObject *
gpy_task_new(struct gpy_state *module, PyObject *loop, PyObject *coro,
             const struct gpy_task_options *options)
{
    PyObject *self = task_alloc(module->task_type, module);
    if (self != NULL && task_init(gpy_task_of(self), loop, coro, options) < 0)
        Py_CLEAR(self);
    return self;
}

/* ---- the end --------------------------------------------------------------------------------- */

int
gpy_task_finished(struct gpy_fut *fut)
{
    return gpy_registry_discard((struct gpy_task *)(void *)fut);
}

static bool
destroyed_pending(const struct gpy_task *task)
{
    return task->log_destroy_pending && task->fut.state == GPY_FUT_PENDING &&
           gpy_fut_loop(&task->fut) != NULL;
}

static void
report_destroyed_pending(struct gpy_task *task)
{
    struct gpy_state *module = task->fut.module;
    PyObject *message = PyUnicode_FromString("Task was destroyed but it is pending!");
    PyObject *context = message != NULL ? PyDict_New() : NULL;
    if (context == NULL || PyDict_SetItem(context, module->str_task, gpy_task_object(task)) < 0 ||
        PyDict_SetItem(context, module->str_message, message) < 0)
        PyErr_WriteUnraisable(NULL);
    else
        gpy_fut_report(&task->fut, context);
    Py_XDECREF(context);
    Py_XDECREF(message);
}

static void
task_tp_finalize(PyObject *self)
{
    struct gpy_task *task = gpy_task_of(self);
    gpy_registry_forget(task); /* whoever keeps it from now on: no loop will step it again */
    if (task->fut.module->str_message == NULL) /* the module is being torn down */
        return;
    if (!task->fut.log_tb && !destroyed_pending(task))
        return;
    PyObject *raised = PyErr_Occurred() ? gpy_exc_take() : NULL;
    if (destroyed_pending(task))
        report_destroyed_pending(task);
    gpy_fut_finalize(&task->fut);
    if (raised != NULL)
        gpy_exc_give(raised);
}

static int
task_tp_traverse(PyObject *self, visitproc visit, void *arg)
{
    struct gpy_task *task = gpy_task_of(self);
    Py_VISIT(task->fut_waiter);
    int rc = gpy_fut_traverse(&task->fut, visit, arg);
    return rc != 0 ? rc : task->fut.module->base_task.tp_traverse(self, visit, arg);
}

static void
task_clear(struct gpy_task *task)
{
    gpy_fut_clear(&task->fut);
    Py_CLEAR(task->fut_waiter);
}

static int
task_tp_clear(PyObject *self)
{
    struct gpy_task *task = gpy_task_of(self);
    gpy_registry_forget(task);
    task_clear(task);
    task->fut.own_loop = NULL;
    return task->fut.module->base_task.tp_clear(self);
}

/* Untracked, and whoever calls this holds the module's state. */
static void
task_end(PyObject *self)
{
    struct gpy_task *task = gpy_task_of(self);
    task_clear(task);
#if GPY_ASYNCIO_TYPES_ARE_HEAP
    task->fut.module->base_task.tp_dealloc(self);
#else
    PyTypeObject *type = Py_TYPE(self);
    task->fut.module->base_task.tp_dealloc(self);
    Py_DECREF(type);
#endif
}

static void
task_tp_dealloc(PyObject *self)
{
    struct gpy_task *task = gpy_task_of(self);
    struct gpy_state *module = task->fut.module;
    /* For a Python subclass subtype_dealloc() has called the finalizer already. */
    if ((task->fut.log_tb || destroyed_pending(task)) && Py_IS_TYPE(self, module->task_type) &&
        PyObject_CallFinalizerFromDealloc(self) < 0)
        return;
    PyObject_GC_UnTrack(self);
    gpy_registry_forget(task);
    if (gpy_state_nest(module)) {
        task_end(self);
        gpy_state_unnest(module);
        gpy_state_release(module);
        return;
    }
    Py_TRASHCAN_BEGIN(self, task_tp_dealloc);
    task_end(self);
    gpy_state_release(module);
    Py_TRASHCAN_END;
}

static PyObject *
task_tp_repr(PyObject *self)
{
    struct gpy_task *task = gpy_task_of(self);
    if (gpy_fut_check_alive(&task->fut) < 0)
        return NULL;
    if (gpy_task_coro(task) == NULL &&
        !GPY_HAS_EAGER_TASKS) /* asyncio's own asserts that there is one */
        return PyUnicode_FromFormat("<%s object at %p>", Py_TYPE(self)->tp_name, self);
    return PyObject_CallOneArg(task->fut.module->task_repr, self);
}

/* ---- methods --------------------------------------------------------------------------------- */

static PyObject *
task_m_cancel(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    struct gpy_task *task = gpy_task_of(self);
    PyObject *msg = gpy_fut_parse_cancel(args, nargs, kwnames, task->fut.module->str_msg);
    if (msg == NULL || gpy_fut_check_alive(&task->fut) < 0)
        return NULL;
    int cancelled = gpy_task_cancel(task, msg);
    return cancelled < 0 ? NULL : PyBool_FromLong(cancelled);
}

static PyObject *
task_m_cancelling(PyObject *self, PyObject *unused)
{
    return PyLong_FromLong(gpy_task_of(self)->cancels_requested);
}

static PyObject *
task_m_uncancel(PyObject *self, PyObject *unused)
{
    struct gpy_task *task = gpy_task_of(self);
    if (task->cancels_requested > 0) {
        task->cancels_requested--;
        if (task->cancels_requested == 0 && gpy_python_at_least(13, 0))
            task->must_cancel = false;
    }
    return PyLong_FromLong(task->cancels_requested);
}

static PyObject *
refuse(const char *operation)
{
    PyErr_Format(PyExc_RuntimeError, "Task does not support %s operation", operation);
    return NULL;
}

static PyObject *
task_m_set_result(PyObject *self, PyObject *unused)
{
    return refuse("set_result");
}

static PyObject *
task_m_set_exception(PyObject *self, PyObject *unused)
{
    return refuse("set_exception");
}

static PyObject *
task_m_get_stack(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"limit", NULL};
    PyObject *limit = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$O:get_stack", keywords, &limit))
        return NULL;
    return PyObject_CallFunctionObjArgs(gpy_fut_of(self)->module->task_get_stack, self, limit,
                                        NULL);
}

static PyObject *
task_m_print_stack(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"limit", "file", NULL};
    PyObject *limit = Py_None, *file = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$OO:print_stack", keywords, &limit, &file))
        return NULL;
    return PyObject_CallFunctionObjArgs(gpy_fut_of(self)->module->task_print_stack, self, limit,
                                        file, NULL);
}

static PyObject *
object_or_none(PyObject *object)
{
    return Py_NewRef(object != NULL ? object : Py_None);
}

static PyObject *
task_m_get_coro(PyObject *self, PyObject *unused)
{
    return object_or_none(gpy_task_coro(gpy_task_of(self)));
}

#if GPY_TASK_HAS_GET_CONTEXT
static PyObject *
task_m_get_context(PyObject *self, PyObject *unused)
{
    return object_or_none(gpy_task_context(gpy_task_of(self)));
}
#endif

static PyObject *
task_m_get_name(PyObject *self, PyObject *unused)
{
    struct gpy_task *task = gpy_task_of(self);
    PyObject *name = gpy_task_name(task);
    if (name == NULL || PyLong_CheckExact(name)) {
        if (task->name_number == 0) /* __init__ never ran */
            Py_RETURN_NONE;
        name = PyUnicode_FromFormat("Task-%llu", (unsigned long long)task->name_number);
        if (name == NULL)
            return NULL;
        Py_XSETREF(*gpy_task_slot(task, gpy_base.name), name);
    }
    return Py_NewRef(name);
}

static PyObject *
task_m_set_name(PyObject *self, PyObject *value)
{
    PyObject *name = PyUnicode_CheckExact(value) ? Py_NewRef(value) : PyObject_Str(value);
    if (name == NULL)
        return NULL;
    Py_XSETREF(*gpy_task_slot(gpy_task_of(self), gpy_base.name), name);
    Py_RETURN_NONE;
}

static PyMethodDef task_methods[] = {
    GPY_FUT_METHODS,
    {"cancel", GPY_FASTCALL_KEYWORDS(task_m_cancel),
     PyDoc_STR(
         "cancel($self, /, msg=None)\n--\n\nAsk the task to end: CancelledError is raised where it "
         "waits.  False if it was done.")},
    {"cancelling", task_m_cancelling, METH_NOARGS,
     PyDoc_STR("cancelling($self, /)\n--\n\nReturn how many cancel() requests have not been taken "
               "back.")},
    {"uncancel", task_m_uncancel, METH_NOARGS,
     PyDoc_STR(
         "uncancel($self, /)\n--\n\nTake one cancel() request back and return how many are left.")},
    {"set_result", task_m_set_result, METH_O,
     PyDoc_STR("set_result($self, result, /)\n--\n\nNot for tasks: RuntimeError.")},
    {"set_exception", task_m_set_exception, METH_O,
     PyDoc_STR("set_exception($self, exception, /)\n--\n\nNot for tasks: RuntimeError.")},
    {"get_stack", (PyCFunction)(void (*)(void))task_m_get_stack, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR("get_stack($self, /, *, limit=None)\n--\n\nReturn the frames where the task is "
               "suspended, or "
               "those of its exception.")},
    {"print_stack", (PyCFunction)(void (*)(void))task_m_print_stack, METH_VARARGS | METH_KEYWORDS,
     PyDoc_STR(
         "print_stack($self, /, *, limit=None, file=None)\n--\n\nPrint what get_stack() returns.")},
    {"get_coro", task_m_get_coro, METH_NOARGS,
     PyDoc_STR("get_coro($self, /)\n--\n\nReturn the coroutine.")},
#if GPY_TASK_HAS_GET_CONTEXT
    {"get_context", task_m_get_context, METH_NOARGS,
     PyDoc_STR("get_context($self, /)\n--\n\nReturn the contextvars.Context that the coroutine "
               "runs in.")},
#endif
    {"get_name", task_m_get_name, METH_NOARGS,
     PyDoc_STR("get_name($self, /)\n--\n\nReturn the name of the task.")},
    {"set_name", task_m_set_name, METH_O,
     PyDoc_STR("set_name($self, value, /)\n--\n\nGive the task another name.")},
    {NULL, NULL, 0, NULL},
};

/* ---- attributes ------------------------------------------------------------------------------ */

static PyObject *
task_get_log_destroy_pending(PyObject *self, void *closure)
{
    return PyBool_FromLong(gpy_task_of(self)->log_destroy_pending);
}

static int
task_set_log_destroy_pending(PyObject *self, PyObject *value, void *closure)
{
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "cannot delete attribute");
        return -1;
    }
    int truth = PyObject_IsTrue(value);
    if (truth < 0)
        return -1;
    gpy_task_of(self)->log_destroy_pending = truth;
    return 0;
}

static PyObject *
task_get_must_cancel(PyObject *self, void *closure)
{
    return PyBool_FromLong(gpy_task_of(self)->must_cancel);
}

static PyObject *
task_get_coro(PyObject *self, void *closure)
{
    return object_or_none(gpy_task_coro(gpy_task_of(self)));
}

static PyObject *
task_get_fut_waiter(PyObject *self, void *closure)
{
    return object_or_none(gpy_task_of(self)->fut_waiter);
}

static PyGetSetDef task_getset[] = {
    GPY_FUT_GETSET,
    {"_log_destroy_pending", task_get_log_destroy_pending, task_set_log_destroy_pending},
    {"_must_cancel", task_get_must_cancel},
    {"_coro", task_get_coro},
    {"_fut_waiter", task_get_fut_waiter},
    {NULL},
};

/* ---- the type -------------------------------------------------------------------------------- */

PyDoc_STRVAR(task_doc, "Task(coro, *, loop=None, name=None, context=None"
#if GPY_HAS_EAGER_TASKS
                       ", eager_start=False"
#endif
                       ")\n--\n\nasyncio.Task in C, for gyre's loop and any other.");

static PyType_Slot task_slots[] = {
    {Py_tp_doc, (void *)task_doc},
    {Py_tp_new, task_tp_new},
    {Py_tp_init, task_tp_init},
    {Py_tp_finalize, task_tp_finalize},
    {Py_tp_dealloc, task_tp_dealloc},
    {Py_tp_traverse, task_tp_traverse},
    {Py_tp_clear, task_tp_clear},
    {Py_tp_repr, task_tp_repr},
    {Py_tp_iter, gpy_future_iter_new},
    {Py_am_await, gpy_future_iter_new},
    {Py_tp_methods, task_methods},
    {Py_tp_getset, task_getset},
    {0, NULL},
};

static const PyType_Spec task_spec = {
    .name = "gyre.Task",
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = task_slots,
};

int
gpy_task_exec(PyObject *module_object, struct gpy_state *module)
{
    if (gpy_import_into(&module->task_repr, "asyncio.base_tasks", "_task_repr") < 0 ||
        gpy_import_into(&module->task_get_stack, "asyncio.base_tasks", "_task_get_stack") < 0 ||
        gpy_import_into(&module->task_print_stack, "asyncio.base_tasks", "_task_print_stack") < 0 ||
        gpy_import_into(&module->iscoroutine, "asyncio.coroutines", "iscoroutine") < 0 ||
        gpy_registry_exec(module_object, module) < 0 || gpy_task_base_exec(module) < 0)
        return -1;
    module->coroutine_types = PySet_New(NULL);
    if (module->coroutine_types == NULL)
        return -1;
    PyTypeObject *base = (PyTypeObject *)module->asyncio_task;
    module->base_task =
        (struct gpy_base_slots){base->tp_traverse, base->tp_clear, base->tp_dealloc};
    PyType_Spec spec = task_spec;
    spec.basicsize = (int)(gpy_fut_offset + (Py_ssize_t)sizeof(struct gpy_task));
    module->task_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module_object, &spec, module->asyncio_task);
    if (module->task_type == NULL)
        return -1;
    return PyModule_AddType(module_object, module->task_type);
}
