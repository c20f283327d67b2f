/* task_registry.h: asyncio's books: which tasks there are, which one runs, who awaits whom.
 *
 * all_tasks(), current_task(), call graphs and `python -m asyncio ps` see our tasks as they see
 * asyncio's own.  How the books are kept differs between versions; only task_registry.c knows. */
#ifndef GPY_TASK_REGISTRY_H
#define GPY_TASK_REGISTRY_H

#include "task.h"

int gpy_registry_exec(PyObject *module_object, struct gpy_state *module);

/* A new task: marks its base part for tools that read another process's memory. */
void gpy_registry_mark(struct gpy_task *task);

/* A task that waits for its first step; forgotten when it is done (discard) or when its memory goes
 * (forget, which cannot fail). */
int gpy_registry_add(struct gpy_task *task);
int gpy_registry_discard(struct gpy_task *task);
void gpy_registry_forget(struct gpy_task *task);

/* _enter_task() and _leave_task(): RuntimeError if another task of this loop is being stepped, or
 * if this one is not.  The caller holds references to both across the step, and passes the same
 * loop. */
int gpy_registry_enter(struct gpy_task *task, PyObject *loop);
int gpy_registry_leave(struct gpy_task *task, PyObject *loop);

/* The same for steps in a row of the loop current->loop: leaving may be put off, see schedule.h. */
int gpy_registry_enter_next(struct gpy_task *task, PyObject *loop,
                            struct gpy_current_task *current);
int gpy_registry_leave_next(struct gpy_task *task, PyObject *loop,
                            struct gpy_current_task *current);

/* Eager start, 3.12 and later: the task that was current before (or None).  New reference. */
PyObject *gpy_registry_swap_current(struct gpy_state *module, PyObject *loop, PyObject *task);
int gpy_registry_add_eager(struct gpy_task *task);
int gpy_registry_discard_eager(struct gpy_task *task);

/* `task` starts or stops waiting for `future` (any object); nothing before 3.14. */
int gpy_registry_await(struct gpy_task *task, PyObject *future);
int gpy_registry_unawait(struct gpy_task *task, PyObject *future);

#endif
