/* task.h: gyre.Task, the object that drives a coroutine one step at a time.
 *
 * A task that is not done is in exactly one of three places: a step or wakeup of it is queued at
 * its loop; or it waits (fut_waiter is set and that future holds it as a callback); or it is being
 * stepped right now.  Thread: the loop's. */
#ifndef GPY_TASK_H
#define GPY_TASK_H

#include "future.h"
#include "task_base.h"

/* Coroutine, context and name are in the base part (task_base.h). */
struct gpy_task {
    struct gpy_fut fut;    /* first: a Task is a future                             */
    PyObject *fut_waiter;  /* what it awaits, if it does                            */
    uint64_t name_number;  /* while the name is not there: Task-n, 0 before __init__ */
    int cancels_requested; /* cancel() minus uncancel()                            */
    bool must_cancel;      /* the next step throws CancelledError                  */
    bool log_destroy_pending;
#if !GPY_HAS_AWAITED_BY
    struct gpy_task_node node; /* in module->live_tasks; from 3.14 on the base part has one */
#endif
};

static inline struct gpy_task *
gpy_task_of(PyObject *object)
{
    return (struct gpy_task *)(void *)gpy_fut_of(object);
}

static inline PyObject *
gpy_task_object(struct gpy_task *task)
{
    return gpy_fut_object(&task->fut);
}

static inline PyObject **
gpy_task_slot(struct gpy_task *task, Py_ssize_t offset)
{
    return gpy_base_slot(gpy_task_object(task), offset);
}

/* NULL before __init__, and after an eager start that finished.  Borrowed, like the next two. */
static inline PyObject *
gpy_task_coro(struct gpy_task *task)
{
    return *gpy_task_slot(task, gpy_base.coro);
}

static inline PyObject *
gpy_task_context(struct gpy_task *task)
{
    return *gpy_task_slot(task, gpy_base.context);
}

/* A str; an int n that means Task-n; or NULL, for which name_number says n. */
static inline PyObject *
gpy_task_name(struct gpy_task *task)
{
    return *gpy_task_slot(task, gpy_base.name);
}

/* ---- for the loop ---------------------------------------------------------------------------- */

struct gpy_task_options {
    PyObject *name;    /* NULL or None: Task-n                                          */
    PyObject *context; /* NULL or None: a copy of the current one                       */
    int eager_start;   /* run the first step now, if the loop is running (3.12 and later) */
};

/* What loop.create_task() does without a task factory.  New reference. */
PyObject *gpy_task_new(struct gpy_state *module, PyObject *loop, PyObject *coro,
                       const struct gpy_task_options *options);

/* Run a GPY_READY_TASK_STEP or GPY_READY_TASK_WAKE entry, in the task's context and as the current
 * task.  0; or -1 with an exception that the loop treats as one that left a Handle's callback:
 * KeyboardInterrupt and SystemExit end the run, others go to the exception handler. */
int gpy_task_run_step(struct gpy_state *module, struct gpy_current_task *current, PyObject *task,
                      PyObject *exc_or_null);
int gpy_task_run_wakeup(struct gpy_state *module, struct gpy_current_task *current, PyObject *task,
                        PyObject *future);

/* Before any code but the two above runs: no task is the loop's current one any more.  Keeps the
 * exception that is set. */
void gpy_task_settle_slowly(struct gpy_state *module, struct gpy_current_task *current);
static inline void
gpy_task_settle(struct gpy_state *module, struct gpy_current_task *current)
{
    if (current->task != NULL)
        gpy_task_settle_slowly(module, current);
}

/* ---- shared by the files of Future and Task -------------------------------------------------- */

int gpy_task_exec(PyObject *module_object, struct gpy_state *module);

/* task_step.c */
PyObject *gpy_task_step_new(PyObject *task); /* callable, __self__ is the task: step(exc=None)    */
PyObject *gpy_task_wakeup_new(PyObject *task); /* callable, __self__ is the task: wakeup(future)  */
int gpy_task_schedule_step(struct gpy_task *task, PyObject *exc_or_null);
int gpy_task_start_eagerly(struct gpy_task *task);
int gpy_task_cancel(struct gpy_task *task, PyObject *msg); /* 1, 0 if it was done, or -1          */
/* The context of a task, or None if the collector has cleared it.  Borrowed. */
static inline PyObject *
gpy_task_context_borrow(PyObject *task)
{
    PyObject *context = gpy_task_context(gpy_task_of(task));
    return context != NULL ? context : Py_None;
}
int gpy_task_finished(struct gpy_fut *fut); /* it has just become done: asyncio may forget it     */

#endif
