/* task_registry.c: asyncio's books, kept where asyncio keeps them.
 *
 * The plain way is to call the functions of _asyncio, looked up once (asyncio.tasks exports the
 * same ones; what a test puts in their place there does not reach asyncio's C Task either).  They
 * stay the way for whatever is not the usual case, so that checks and error messages are asyncio's.
 * The usual case is written directly: 3.14 and later   fields of the thread state, and a list whose
 * node is in the task's base part, if task_base.c could verify where they are; before           the
 * dict _current_tasks. */
#include "task_registry.h"

static int
book(PyObject *function, PyObject *a, PyObject *b)
{
    PyObject *args[3] = {NULL, a, b};
    size_t count = b != NULL ? 2 : 1;
    PyObject *returned =
        PyObject_Vectorcall(function, args + 1, count | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (returned == NULL)
        return -1;
    Py_DECREF(returned);
    return 0;
}

static int
enter_by_call(struct gpy_task *task, PyObject *loop)
{
    return book(task->fut.module->enter_task, loop, gpy_task_object(task));
}

static int
leave_by_call(struct gpy_task *task, PyObject *loop)
{
    return book(task->fut.module->leave_task, loop, gpy_task_object(task));
}

#if GPY_HAS_AWAITED_BY
/* ---- 3.14 and later -------------------------------------------------------------------------- */

static PyObject **
thread_slot(Py_ssize_t offset)
{
    return gpy_base_slot((PyObject *)(void *)PyThreadState_GetUnchecked(), offset);
}

static struct gpy_base_node *
task_node(struct gpy_task *task)
{
    return (void *)((char *)gpy_task_object(task) + gpy_base.node);
}

int
gpy_registry_add(struct gpy_task *task)
{
    if (!gpy_base.is_published)
        return book(task->fut.module->register_task, gpy_task_object(task), NULL);
    struct gpy_base_node *node = task_node(task);
    struct gpy_base_node *head = (void *)thread_slot(gpy_base.thread_tasks);
    if (node->next != NULL)
        return 0;
    node->next = head;
    node->prev = head->prev;
    head->prev->next = node;
    head->prev = node;
    return 0;
}

int
gpy_registry_discard(struct gpy_task *task)
{
    if (!gpy_base.is_published)
        return book(task->fut.module->unregister_task, gpy_task_object(task), NULL);
    struct gpy_base_node *node = task_node(task);
    if (node->next == NULL)
        return 0;
    node->next->prev = node->prev;
    node->prev->next = node->next;
    node->next = node->prev = NULL;
    return 0;
}

void
gpy_registry_mark(struct gpy_task *task)
{
    if (gpy_base.is_published)
        ((char *)gpy_task_object(task))[gpy_base.is_task] = 1;
}

int
gpy_registry_enter(struct gpy_task *task, PyObject *loop)
{
    if (!gpy_base.is_published || *thread_slot(gpy_base.thread_loop) != loop)
        return enter_by_call(task, loop);
    PyObject **current = thread_slot(gpy_base.thread_task);
    if (*current != NULL)
        return enter_by_call(task, loop);
    *current = Py_NewRef(gpy_task_object(task));
    return 0;
}

int
gpy_registry_leave(struct gpy_task *task, PyObject *loop)
{
    PyObject *self = gpy_task_object(task);
    if (!gpy_base.is_published || *thread_slot(gpy_base.thread_loop) != loop)
        return leave_by_call(task, loop);
    PyObject **current = thread_slot(gpy_base.thread_task);
    if (*current != self)
        return leave_by_call(task, loop);
    *current = NULL;
    Py_DECREF(self); /* the caller has another one */
    return 0;
}

/* Is there room for a single waiter in the future's own field?  Only of our exact types is it known
 * that they have one. */
static bool
has_awaited_by_field(struct gpy_task *task, PyObject *future)
{
    return gpy_base.is_published && gpy_future_check(task->fut.module, future) &&
           ((char *)future)[gpy_base.awaited_by_is_set] == 0;
}

int
gpy_registry_await(struct gpy_task *task, PyObject *future)
{
    PyObject *self = gpy_task_object(task);
    if (has_awaited_by_field(task, future) && *gpy_base_slot(future, gpy_base.awaited_by) == NULL) {
        *gpy_base_slot(future, gpy_base.awaited_by) = Py_NewRef(self);
        return 0;
    }
    return book(task->fut.module->add_to_awaited_by, future, self);
}

int
gpy_registry_unawait(struct gpy_task *task, PyObject *future)
{
    PyObject *self = gpy_task_object(task);
    if (has_awaited_by_field(task, future) && *gpy_base_slot(future, gpy_base.awaited_by) == self) {
        *gpy_base_slot(future, gpy_base.awaited_by) = NULL;
        Py_DECREF(self); /* the caller has another one */
        return 0;
    }
    return book(task->fut.module->discard_from_awaited_by, future, self);
}

#else
/* ---- before 3.14 ----------------------------------------------------------------------------- */

int
gpy_registry_add(struct gpy_task *task)
{
    return book(task->fut.module->register_task, gpy_task_object(task), NULL);
}

int
gpy_registry_discard(struct gpy_task *task)
{
    return 0; /* a WeakSet: all_tasks() leaves out what is done */
}

void
gpy_registry_mark(struct gpy_task *task)
{
}

int
gpy_registry_enter(struct gpy_task *task, PyObject *loop)
{
    PyObject *tasks = task->fut.module->current_tasks;
    Py_ssize_t before = PyDict_GET_SIZE(tasks);
    PyObject *current = PyDict_SetDefault(tasks, loop, gpy_task_object(task));
    if (current == NULL)
        return -1;
    /* It was there already: this task or another one of the loop is being stepped. */
    return PyDict_GET_SIZE(tasks) == before ? enter_by_call(task, loop) : 0;
}

int
gpy_registry_leave(struct gpy_task *task, PyObject *loop)
{
    PyObject *tasks = task->fut.module->current_tasks;
    if (PyDict_GetItemWithError(tasks, loop) != gpy_task_object(task))
        return PyErr_Occurred() ? -1 : leave_by_call(task, loop);
    return PyDict_DelItem(tasks, loop);
}

int
gpy_registry_await(struct gpy_task *task, PyObject *future)
{
    return 0;
}

int
gpy_registry_unawait(struct gpy_task *task, PyObject *future)
{
    return 0;
}
#endif

/* ---- eager start ----------------------------------------------------------------------------- */

#if GPY_HAS_EAGER_TASKS
PyObject *
gpy_registry_swap_current(struct gpy_state *module, PyObject *loop, PyObject *task)
{
    PyObject *args[3] = {NULL, loop, task};
    return PyObject_Vectorcall(module->swap_current_task, args + 1,
                               2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

int
gpy_registry_add_eager(struct gpy_task *task)
{
    return book(task->fut.module->register_eager_task, gpy_task_object(task), NULL);
}

int
gpy_registry_discard_eager(struct gpy_task *task)
{
    return book(task->fut.module->unregister_eager_task, gpy_task_object(task), NULL);
}
#endif

/* ---- import ---------------------------------------------------------------------------------- */

int
gpy_registry_exec(struct gpy_state *module)
{
    const struct {
        PyObject **slot;
        const char *name;
    } wanted[] = {
        {&module->enter_task, "_enter_task"},
        {&module->leave_task, "_leave_task"},
        {&module->register_task, "_register_task"},
        {&module->unregister_task, "_unregister_task"},
#if GPY_HAS_EAGER_TASKS
        {&module->swap_current_task, "_swap_current_task"},
        {&module->register_eager_task, "_register_eager_task"},
        {&module->unregister_eager_task, "_unregister_eager_task"},
#endif
#if GPY_HAS_AWAITED_BY
        {&module->add_to_awaited_by, "future_add_to_awaited_by"},
        {&module->discard_from_awaited_by, "future_discard_from_awaited_by"},
#else
        {&module->current_tasks, "_current_tasks"},
#endif
    };
    for (size_t i = 0; i < Py_ARRAY_LENGTH(wanted); i++) {
        if (gpy_import_into(wanted[i].slot, "_asyncio", wanted[i].name) < 0)
            return -1;
    }
    return 0;
}
