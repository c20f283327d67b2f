/* task_registry.c: asyncio's books, kept where asyncio keeps them.
 *
 * The plain way is to call the functions of _asyncio, looked up once (asyncio.tasks exports the
 * same ones; what a test puts in their place there does not reach asyncio's C Task either).  They
 * stay the way for whatever is not the usual case, so that checks and error messages are asyncio's.
 * The usual case is written directly: 3.14 and later   fields of the thread state, and a list whose
 * node is in the task's base part, if task_base.c could verify where they are; before           the
 * dict _current_tasks. */
#include "task_registry.h"

#include <stddef.h>

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

static void
node_append(struct gpy_task_node *head, struct gpy_task_node *node)
{
    if (node->next != NULL)
        return;
    node->next = head;
    node->prev = head->prev;
    head->prev->next = node;
    head->prev = node;
}

static void
node_remove(struct gpy_task_node *node)
{
    if (node->next == NULL)
        return;
    node->next->prev = node->prev;
    node->prev->next = node->next;
    node->next = node->prev = NULL;
}

#if GPY_HAS_AWAITED_BY
/* ---- 3.14 and later -------------------------------------------------------------------------- */

static PyObject **
thread_slot(Py_ssize_t offset)
{
    return gpy_base_slot((PyObject *)(void *)PyThreadState_GetUnchecked(), offset);
}

static struct gpy_task_node *
task_node(struct gpy_task *task)
{
    return (void *)((char *)gpy_task_object(task) + gpy_base.node);
}

int
gpy_registry_add(struct gpy_task *task)
{
    if (!gpy_base.is_published)
        return book(task->fut.module->register_task, gpy_task_object(task), NULL);
    node_append((void *)thread_slot(gpy_base.thread_tasks), task_node(task));
    return 0;
}

int
gpy_registry_discard(struct gpy_task *task)
{
    if (!gpy_base.is_published)
        return book(task->fut.module->unregister_task, gpy_task_object(task), NULL);
    node_remove(task_node(task));
    return 0;
}

void
gpy_registry_forget(struct gpy_task *task)
{
    /* the base part's tp_dealloc does it */
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

int
gpy_registry_enter_next(struct gpy_task *task, PyObject *loop, struct gpy_current_task *current)
{
    return gpy_registry_enter(task, loop); /* two words: nothing to put off */
}

int
gpy_registry_leave_next(struct gpy_task *task, PyObject *loop, struct gpy_current_task *current)
{
    return gpy_registry_leave(task, loop);
}

void
gpy_task_settle_slowly(struct gpy_state *module, struct gpy_current_task *current)
{
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
    struct gpy_state *module = task->fut.module;
    if (!module->lists_tasks)
        return book(module->register_task, gpy_task_object(task), NULL);
    node_append(&module->live_tasks, &task->node);
    return 0;
}

int
gpy_registry_discard(struct gpy_task *task)
{
    node_remove(&task->node); /* asyncio's set may keep it: all_tasks() leaves out what is done */
    return 0;
}

void
gpy_registry_forget(struct gpy_task *task)
{
    node_remove(&task->node);
}

static Py_ssize_t
live_count(const struct gpy_task_node *head)
{
    Py_ssize_t count = 0;
    for (const struct gpy_task_node *node = head->next; node != head; node = node->next)
        count++;
    return count;
}

/* The tasks of the list as a Python list.  Making it may run the collector, and with it anything:
 * the room is made first and the list counted again. */
static PyObject *
live_tasks(PyObject *module_object, PyObject *unused)
{
    struct gpy_task_node *head = &gpy_state_of_module(module_object)->live_tasks;
    Py_ssize_t room = live_count(head);
    PyObject *list = PyList_New(room);
    while (list != NULL && live_count(head) > room) {
        Py_DECREF(list);
        room = live_count(head);
        list = PyList_New(room);
    }
    if (list == NULL)
        return NULL;
    Py_ssize_t count = 0;
    for (struct gpy_task_node *node = head->next; node != head; node = node->next) {
        struct gpy_task *task = (void *)((char *)node - offsetof(struct gpy_task, node));
        PyObject *self = gpy_task_object(task);
        if (Py_REFCNT(self) > 0) /* not in the middle of its deallocation */
            PyList_SET_ITEM(list, count++, Py_NewRef(self));
    }
    if (count < room && PyList_SetSlice(list, count, room, NULL) < 0)
        Py_CLEAR(list);
    return list;
}

static PyObject *
forget_task(PyObject *module_object, PyObject *object)
{
    struct gpy_state *module = gpy_state_of_module(module_object);
    if (PyObject_TypeCheck(object, module->task_type))
        gpy_registry_forget(gpy_task_of(object));
    Py_RETURN_NONE;
}

static PyMethodDef live_tasks_def = {"_live_tasks", live_tasks, METH_NOARGS, NULL};
static PyMethodDef forget_task_def = {"_forget_task", forget_task, METH_O, NULL};

/* Asks asyncio's set to look at our list.  If that set is not what we know, tasks are added to it.
 */
static int
adopt_task_set(PyObject *module_object, struct gpy_state *module)
{
    PyObject *adopt = NULL, *tasks = NULL, *done = NULL;
    module->live_tasks.next = module->live_tasks.prev = &module->live_tasks;
    PyObject *live = PyCFunction_New(&live_tasks_def, module_object);
    PyObject *forget = PyCFunction_New(&forget_task_def, module_object);
    if (live != NULL && forget != NULL && gpy_import_into(&adopt, "gyre._tasks", "adopt") == 0 &&
        gpy_import_into(&tasks, "_asyncio", GPY_ASYNCIO_TASK_SET) == 0)
        done = PyObject_CallFunctionObjArgs(adopt, tasks, live, forget, NULL);
    Py_XDECREF(adopt);
    Py_XDECREF(tasks);
    Py_XDECREF(live);
    Py_XDECREF(forget);
    module->lists_tasks = done != NULL;
    Py_XDECREF(done);
    if (done != NULL)
        return 0;
    if (!PyErr_ExceptionMatches(PyExc_TypeError) && !PyErr_ExceptionMatches(PyExc_AttributeError))
        return -1;
    PyErr_Clear();
    return 0;
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
gpy_registry_enter_next(struct gpy_task *task, PyObject *loop, struct gpy_current_task *current)
{
    PyObject *tasks = task->fut.module->current_tasks;
    PyObject *self = gpy_task_object(task);
    if (current->task == NULL || current->version != gpy_dict_version(tasks)) {
        gpy_task_settle(task->fut.module, current);
        if (gpy_registry_enter(task, loop) < 0)
            return -1;
    } else if (current->task != self) {
        if (PyDict_SetItem(tasks, loop, self) < 0)
            return -1;
    }
    current->task = self;
    current->version = gpy_dict_version(tasks);
    return 0;
}

/* A task that is done leaves at once: it dies with its last reference, not when the next one is
 * stepped. */
int
gpy_registry_leave_next(struct gpy_task *task, PyObject *loop, struct gpy_current_task *current)
{
    PyObject *tasks = task->fut.module->current_tasks;
    if (current->task == gpy_task_object(task) && current->version == gpy_dict_version(tasks)) {
        if (task->fut.state == GPY_FUT_PENDING)
            return 0;
        current->task = NULL;
        return PyDict_DelItem(tasks, loop);
    }
    current->task = NULL;
    return gpy_registry_leave(task, loop);
}

void
gpy_task_settle_slowly(struct gpy_state *module, struct gpy_current_task *current)
{
    PyObject *exc = PyErr_Occurred() ? gpy_exc_take() : NULL;
    PyObject *tasks = module->current_tasks;
    PyObject *task = current->task;
    current->task = NULL;
    if ((current->version == gpy_dict_version(tasks) ||
         PyDict_GetItemWithError(tasks, current->loop) == task) &&
        PyDict_DelItem(tasks, current->loop) < 0)
        PyErr_WriteUnraisable(current->loop);
    if (exc != NULL)
        gpy_exc_give(exc);
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
gpy_registry_exec(PyObject *module_object, struct gpy_state *module)
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
#if GPY_HAS_AWAITED_BY
    return 0;
#else
    return adopt_task_set(module_object, module);
#endif
}
