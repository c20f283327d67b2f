/* task_base.c: finds the fields of asyncio.Task by looking at one. */
#define _GNU_SOURCE
#include "task_base.h"
#include "future.h"

#include <dlfcn.h>
#include <string.h>

struct gpy_base_layout gpy_base;

/* A pending asyncio.Task whose parts we hold, on a loop that never runs it. */
struct specimen {
    PyObject *loop;
    PyObject *coro;
    PyObject *context;
    PyObject *name;
    PyObject *task;
};

/* Calls function(**{keyword: value ...}); a small eval without source text. */
static PyObject *
call_with_keywords(PyObject *function, PyObject *args, PyObject *kwargs)
{
    PyObject *result =
        args != NULL && kwargs != NULL ? PyObject_Call(function, args, kwargs) : NULL;
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return result;
}

/* get_debug() is bool(): False.  call_soon(step, context=...) is functools.partial: nothing runs.
 */
static PyObject *
loop_that_never_runs(void)
{
    PyObject *namespace_type = NULL, *partial = NULL, *loop = NULL;
    if (gpy_import_into(&namespace_type, "types", "SimpleNamespace") == 0 &&
        gpy_import_into(&partial, "functools", "partial") == 0)
        loop = call_with_keywords(
            namespace_type, PyTuple_New(0),
            Py_BuildValue("{sOsO}", "get_debug", &PyBool_Type, "call_soon", partial));
    Py_XDECREF(namespace_type);
    Py_XDECREF(partial);
    return loop;
}

static PyObject *
task_on(struct gpy_state *module, const struct specimen *parts)
{
    return call_with_keywords(module->asyncio_task, PyTuple_Pack(1, parts->coro),
                              Py_BuildValue("{sOsOsO}", "loop", parts->loop, "context",
                                            parts->context, "name", parts->name));
}

static int
specimen_init(struct specimen *out, struct gpy_state *module)
{
    PyObject *sleep = NULL;
    if (gpy_import_into(&sleep, "asyncio.tasks", "sleep") < 0)
        return -1;
    out->coro = PyObject_CallFunction(sleep, "i", 0);
    Py_DECREF(sleep);
    out->loop = loop_that_never_runs();
    out->context = PyContext_New();
    out->name = PyUnicode_FromString("gyre's specimen of asyncio.Task");
    if (out->coro == NULL || out->loop == NULL || out->context == NULL || out->name == NULL)
        return -1;
    out->task = task_on(module, out);
    return out->task == NULL ? -1
                             : PyObject_SetAttrString(out->task, "_log_destroy_pending", Py_False);
}

static void
specimen_deinit(struct specimen *specimen)
{
    Py_CLEAR(specimen->task);
    if (specimen->coro != NULL) { /* close it, or it complains that nobody awaited it */
        PyObject *raised = PyErr_Occurred() ? gpy_exc_take() : NULL;
        PyObject *closed = PyObject_CallMethod(specimen->coro, "close", NULL);
        if (closed == NULL)
            PyErr_Clear();
        Py_XDECREF(closed);
        if (raised != NULL)
            gpy_exc_give(raised);
    }
    Py_CLEAR(specimen->coro);
    Py_CLEAR(specimen->loop);
    Py_CLEAR(specimen->context);
    Py_CLEAR(specimen->name);
}

/* The only pointer field of the object that refers to `value`: its offset, or -1. */
static Py_ssize_t
find_field(PyObject *object, PyObject *value)
{
    Py_ssize_t found = -1;
    Py_ssize_t end = Py_TYPE(object)->tp_basicsize;
    for (Py_ssize_t at = (Py_ssize_t)sizeof(PyObject); at < end; at += (Py_ssize_t)sizeof(void *)) {
        if (*gpy_base_slot(object, at) != value)
            continue;
        if (found >= 0)
            return -1;
        found = at;
    }
    return found;
}

static int
find_private_fields(const struct specimen *specimen)
{
    Py_ssize_t loop = find_field(specimen->task, specimen->loop);
    gpy_base.coro = find_field(specimen->task, specimen->coro);
    gpy_base.context = find_field(specimen->task, specimen->context);
    gpy_base.name = find_field(specimen->task, specimen->name);
    if (loop == (Py_ssize_t)sizeof(PyObject) && gpy_base.coro > 0 && gpy_base.context > 0 &&
        gpy_base.name > 0)
        return 0;
    PyErr_SetString(PyExc_ImportError,
                    "gyre does not recognise the asyncio.Task of this Python: no loop, coroutine, "
                    "context or name where it was put");
    return -1;
}

/* ---- the counter behind Task-n --------------------------------------------------------------- */

/* asyncio counts in its module state, from 3.12 on.  Two tasks without a name get n and n + 1; the
 * word that goes along is the counter.  It is put back.  Not found: gyre counts for itself. */
static int
find_name_counter(struct gpy_state *module, struct specimen *specimen, PyObject *asyncio)
{
#if GPY_TASK_NAME_MAY_BE_INT
    PyModuleDef *def = PyModule_GetDef(asyncio);
    uint64_t *words = PyModule_GetState(asyncio);
    size_t count = def != NULL && words != NULL ? (size_t)def->m_size / sizeof(*words) : 0;
    uint64_t *found = NULL;
    if (count == 0)
        return 0;
    uint64_t *before = PyMem_Malloc(count * sizeof(*before));
    if (before == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(before, words, count * sizeof(*before));
    const struct specimen unnamed = {specimen->loop, specimen->coro, specimen->context, Py_None,
                                     NULL};
    PyObject *task = task_on(module, &unnamed);
    for (size_t i = 0; task != NULL && i < count; i++) {
        PyObject *number = *gpy_base_slot(task, gpy_base.name);
        if (words[i] != before[i] + 1 || !PyLong_CheckExact(number) ||
            PyLong_AsUnsignedLongLongMask(number) != words[i])
            continue;
        found = &words[i];
        *found = before[i]; /* the next task is to get this number */
        break;
    }
    PyMem_Free(before);
    if (task == NULL)
        return -1;
    int rc = PyObject_SetAttrString(task, "_log_destroy_pending", Py_False);
    Py_DECREF(task);
    if (found != NULL)
        module->task_names = found;
    return rc;
#else
    return 0;
#endif
}

/* ---- what asyncio publishes ------------------------------------------------------------------ */

#if GPY_HAS_AWAITED_BY && !defined(Py_GIL_DISABLED)
/* The table that asyncio lays down for debuggers and profilers, as 3.14 and 3.15 have it. */
struct published {
    uint64_t task_bytes;
    uint64_t task_name;
    uint64_t task_awaited_by;
    uint64_t task_is_task;
    uint64_t task_awaited_by_is_set;
    uint64_t task_coro;
    uint64_t task_node;
    uint64_t interpreter_bytes;
    uint64_t interpreter_tasks_head;
    uint64_t thread_bytes;
    uint64_t thread_running_loop;
    uint64_t thread_running_task;
    uint64_t thread_tasks_head;
};

/* The last field of asyncio's module state points to the table, which must lie in the same shared
 * object as the module's definition.  NULL: not there. */
static const struct published *
find_published(PyObject *asyncio)
{
    PyModuleDef *def = PyModule_GetDef(asyncio);
    char *state = PyModule_GetState(asyncio);
    if (def == NULL || state == NULL || def->m_size < (Py_ssize_t)sizeof(void *))
        return NULL;
    const struct published *table;
    memcpy(&table, state + def->m_size - sizeof(table), sizeof(table));
    Dl_info table_file, def_file;
    if (table == NULL || ((uintptr_t)table & 7u) != 0 || dladdr(table, &table_file) == 0 ||
        dladdr(def, &def_file) == 0 || table_file.dli_fbase != def_file.dli_fbase)
        return NULL;
    return table;
}

static bool
pointer_fits(uint64_t offset, uint64_t bytes)
{
    return offset >= sizeof(PyObject) && offset % sizeof(void *) == 0 &&
           offset <= bytes - sizeof(void *);
}

/* Does the table agree with what we see, and may its offsets be followed at all? */
static bool
published_is_plausible(const struct published *table, PyTypeObject *task)
{
    uint64_t bytes = table->task_bytes;
    return bytes == (uint64_t)task->tp_basicsize && table->task_coro == (uint64_t)gpy_base.coro &&
           table->task_name == (uint64_t)gpy_base.name &&
           pointer_fits(table->task_awaited_by, bytes) && pointer_fits(table->task_node, bytes) &&
           table->task_is_task < bytes && table->task_awaited_by_is_set < bytes &&
           table->thread_bytes >= sizeof(PyThreadState) && table->thread_bytes < 65536 &&
           pointer_fits(table->thread_running_loop, table->thread_bytes) &&
           pointer_fits(table->thread_running_task, table->thread_bytes) &&
           pointer_fits(table->thread_tasks_head, table->thread_bytes - sizeof(void *));
}

static void
copy_published(const struct published *table)
{
    gpy_base.node = (Py_ssize_t)table->task_node;
    gpy_base.is_task = (Py_ssize_t)table->task_is_task;
    gpy_base.awaited_by = (Py_ssize_t)table->task_awaited_by;
    gpy_base.awaited_by_is_set = (Py_ssize_t)table->task_awaited_by_is_set;
    gpy_base.thread_loop = (Py_ssize_t)table->thread_running_loop;
    gpy_base.thread_task = (Py_ssize_t)table->thread_running_task;
    gpy_base.thread_tasks = (Py_ssize_t)table->thread_tasks_head;
}

/* The specimen has just been registered: it is the last of this thread's list. */
static bool
list_agrees(PyObject *task)
{
    char *thread = (char *)PyThreadState_Get();
    struct gpy_task_node *node = (void *)((char *)task + gpy_base.node);
    struct gpy_task_node *head = (void *)(thread + gpy_base.thread_tasks);
    return node->next == head && head->prev == node && ((char *)task)[gpy_base.is_task] == 1;
}

/* Lets asyncio's functions write and looks whether they wrote where we shall.  1, 0 or -1. */
static int
awaited_by_agrees(struct gpy_state *module, PyObject *task)
{
    PyObject *done = PyObject_CallFunctionObjArgs(module->add_to_awaited_by, task, task, NULL);
    if (done == NULL)
        return -1;
    Py_DECREF(done);
    bool agrees = *gpy_base_slot(task, gpy_base.awaited_by) == task &&
                  ((char *)task)[gpy_base.awaited_by_is_set] == 0;
    done = PyObject_CallFunctionObjArgs(module->discard_from_awaited_by, task, task, NULL);
    if (done == NULL)
        return -1;
    Py_DECREF(done);
    return agrees && *gpy_base_slot(task, gpy_base.awaited_by) == NULL;
}

/* _swap_current_task(loop, *current), the previous one in its place.  0 or -1. */
static int
swap_current(struct gpy_state *module, PyObject *loop, PyObject **current)
{
    PyObject *previous =
        PyObject_CallFunctionObjArgs(module->swap_current_task, loop, *current, NULL);
    if (previous == NULL)
        return -1;
    Py_SETREF(*current, previous);
    return 0;
}

/* The same for the running loop and the current task, which may be those of the code that imports
 * us and are put back.  1, 0 or -1. */
static int
thread_agrees(struct gpy_state *module, const struct specimen *specimen, PyObject *asyncio)
{
    PyObject *thread = (PyObject *)(void *)PyThreadState_Get();
    PyObject *running = PyObject_CallMethod(asyncio, "_get_running_loop", NULL);
    PyObject *set = running != NULL
                        ? PyObject_CallMethod(asyncio, "_set_running_loop", "O", specimen->loop)
                        : NULL;
    if (set == NULL) {
        Py_XDECREF(running);
        return -1;
    }
    Py_DECREF(set);
    PyObject *current = Py_NewRef(specimen->task);
    bool agrees = false;
    int rc = swap_current(module, specimen->loop, &current);
    if (rc == 0) {
        agrees = *gpy_base_slot(thread, gpy_base.thread_loop) == specimen->loop &&
                 *gpy_base_slot(thread, gpy_base.thread_task) == specimen->task;
        rc = swap_current(module, specimen->loop, &current);
    }
    Py_DECREF(current);
    PyObject *raised = rc < 0 ? gpy_exc_take() : NULL;
    set = PyObject_CallMethod(asyncio, "_set_running_loop", "O", running);
    Py_DECREF(running);
    if (raised != NULL)
        gpy_exc_chain(raised);
    if (set == NULL || rc < 0) {
        Py_XDECREF(set);
        return -1;
    }
    Py_DECREF(set);
    return agrees;
}

static int
find_published_fields(struct gpy_state *module, const struct specimen *specimen, PyObject *asyncio)
{
    const struct published *table = find_published(asyncio);
    if (table == NULL || !published_is_plausible(table, (PyTypeObject *)module->asyncio_task))
        return 0;
    copy_published(table);
    if (!list_agrees(specimen->task))
        return 0;
    int agrees = awaited_by_agrees(module, specimen->task);
    if (agrees > 0)
        agrees = thread_agrees(module, specimen, asyncio);
    gpy_base.is_published = agrees > 0;
    return agrees < 0 ? -1 : 0;
}
#else
static int
find_published_fields(struct gpy_state *module, const struct specimen *specimen, PyObject *asyncio)
{
    return 0;
}
#endif

int
gpy_task_base_exec(struct gpy_state *module)
{
    struct specimen specimen = {NULL, NULL, NULL, NULL, NULL};
    PyObject *asyncio = PyImport_ImportModule("_asyncio");
    if (asyncio == NULL)
        return -1;
    module->task_names = &module->own_task_names;
    int rc = specimen_init(&specimen, module);
    if (rc == 0)
        rc = find_private_fields(&specimen);
    if (rc == 0) /* before any other task is made: the specimen must be the last in the list */
        rc = find_published_fields(module, &specimen, asyncio);
    if (rc == 0)
        rc = find_name_counter(module, &specimen, asyncio);
    specimen_deinit(&specimen);
    Py_DECREF(asyncio);
    return rc;
}
