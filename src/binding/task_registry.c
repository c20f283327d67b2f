/* task_registry.c: asyncio's books, kept by asyncio's own functions.
 *
 * The functions are those of the C module _asyncio, looked up once: asyncio.tasks exports the same
 * ones, and what a test puts in their place there does not reach asyncio's C Task either. */
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

int
gpy_registry_add(struct gpy_task *task)
{
    return book(task->fut.module->register_task, gpy_task_object(task), NULL);
}

int
gpy_registry_discard(struct gpy_task *task)
{
#if GPY_HAS_AWAITED_BY
    return book(task->fut.module->unregister_task, gpy_task_object(task), NULL);
#else
    return 0; /* a WeakSet: all_tasks() leaves out what is done */
#endif
}

int
gpy_registry_enter(struct gpy_task *task)
{
    return book(task->fut.module->enter_task, task->fut.loop, gpy_task_object(task));
}

int
gpy_registry_leave(struct gpy_task *task)
{
    return book(task->fut.module->leave_task, task->fut.loop, gpy_task_object(task));
}

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

int
gpy_registry_await(struct gpy_task *task, PyObject *future)
{
#if GPY_HAS_AWAITED_BY
    return book(task->fut.module->add_to_awaited_by, future, gpy_task_object(task));
#else
    return 0;
#endif
}

int
gpy_registry_unawait(struct gpy_task *task, PyObject *future)
{
#if GPY_HAS_AWAITED_BY
    return book(task->fut.module->discard_from_awaited_by, future, gpy_task_object(task));
#else
    return 0;
#endif
}

int
gpy_registry_exec(struct gpy_state *module)
{
    if (gpy_import_into(&module->enter_task, "_asyncio", "_enter_task") < 0 ||
        gpy_import_into(&module->leave_task, "_asyncio", "_leave_task") < 0 ||
        gpy_import_into(&module->register_task, "_asyncio", "_register_task") < 0 ||
        gpy_import_into(&module->unregister_task, "_asyncio", "_unregister_task") < 0)
        return -1;
#if GPY_HAS_EAGER_TASKS
    if (gpy_import_into(&module->swap_current_task, "_asyncio", "_swap_current_task") < 0 ||
        gpy_import_into(&module->register_eager_task, "_asyncio", "_register_eager_task") < 0 ||
        gpy_import_into(&module->unregister_eager_task, "_asyncio", "_unregister_eager_task") < 0)
        return -1;
#endif
#if GPY_HAS_AWAITED_BY
    if (gpy_import_into(&module->add_to_awaited_by, "_asyncio", "future_add_to_awaited_by") < 0 ||
        gpy_import_into(&module->discard_from_awaited_by, "_asyncio",
                        "future_discard_from_awaited_by") < 0)
        return -1;
#endif
    return 0;
}
