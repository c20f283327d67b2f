/* task_base.h: the part of a gyre.Task that asyncio laid out, and where its fields are.
 *
 * Coroutine, context and name of a task are kept in the base part alone: asyncio's own methods
 * called unbound (asyncio.Task.get_name(task)) and tools that read another process's memory look
 * there.  The offsets are not guessed: at import a real asyncio.Task is made of objects that we
 * know, and the fields are where these objects are found.  They are the same in every interpreter
 * of the process, hence plain globals. */
#ifndef GPY_TASK_BASE_H
#define GPY_TASK_BASE_H

#include "pycompat.h"
#include "state.h"

struct gpy_base_layout {
    Py_ssize_t coro; /* in the Task */
    Py_ssize_t context;
    Py_ssize_t name; /* a str; from 3.12 on also an int n, meaning Task-n */

    /* What follows is published by asyncio from 3.14 on, for tools outside the process. */
    bool is_published;            /* false: asyncio's functions must be called instead */
    Py_ssize_t node;              /* a struct gpy_task_node */
    Py_ssize_t is_task;           /* a char: 1 in a Task                                        */
    Py_ssize_t awaited_by;        /* the one who awaits this, or a set of them                  */
    Py_ssize_t awaited_by_is_set; /* a char                                                     */
    Py_ssize_t thread_loop;       /* in the thread state: the running loop                      */
    Py_ssize_t thread_task;       /* the task being stepped                                     */
    Py_ssize_t thread_tasks;      /* head of the list                                           */
};

extern struct gpy_base_layout gpy_base;

static inline PyObject **
gpy_base_slot(PyObject *object, Py_ssize_t offset)
{
    return (PyObject **)(void *)((char *)object + offset);
}

/* Finds the layout.  -1 and ImportError if this asyncio.Task keeps no coroutine, context or name.
 */
int gpy_task_base_exec(struct gpy_state *module);

#endif
