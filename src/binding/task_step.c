/* task_step.c: one step of a coroutine, and everything that can come of it.
 *
 *   run_step, run_wakeup      the loop's entries: enter the task's context
 *     task_wakeup             look at the future that is done: go on, or throw its exception
 *       task_step             make it the current task
 *         task_advance        send or throw
 *           task_returned, task_raised, task_yielded
 *
 * A coroutine is never resumed from inside set_result() or cancel(): there is always one hop
 * through the loop's queue.  What a task yields wrongly is thrown into it by a later step, too.
 * Exceptions of the coroutine end the task; -1 means that something else must leave the loop's
 * callback: KeyboardInterrupt, SystemExit, or a call that asyncio would report. */
#include "task.h"
#include "call.h"
#include "task_registry.h"

#include "../core/base.h"

/* ---- callables for loops that are not ours ----------------------------------------------------
 */

static int task_step(struct gpy_task *task, PyObject *exc_or_null,
                     struct gpy_current_task *current);
static int task_wakeup(struct gpy_task *task, PyObject *future, struct gpy_current_task *current);

static PyObject *
step_call(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs > 1) {
        PyErr_SetString(PyExc_TypeError, "task_step() takes at most 1 argument");
        return NULL;
    }
    if (task_step(gpy_task_of(self), nargs == 1 && args[0] != Py_None ? args[0] : NULL, NULL) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
wakeup_call(PyObject *self, PyObject *future)
{
    if (task_wakeup(gpy_task_of(self), future, NULL) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Built-in functions bound to the task: their __self__ and __qualname__ are what debug output
 * shows, and two of the same task are equal. */
static PyMethodDef step_def = {"task_step", (PyCFunction)(void (*)(void))step_call, METH_FASTCALL,
                               NULL};
static PyMethodDef wakeup_def = {"task_wakeup", wakeup_call, METH_O, NULL};

PyObject *
gpy_task_wakeup_new(PyObject *task)
{
    return PyCFunction_New(&wakeup_def, task);
}

PyObject *
gpy_task_step_new(PyObject *task)
{
    return PyCFunction_New(&step_def, task);
}

int
gpy_task_schedule_step(struct gpy_task *task, PyObject *exc_or_null)
{
    struct gpy_fut *fut = &task->fut;
    PyObject *self = gpy_task_object(task);
    /* Before 3.15 a context may be anything that has run(): only a Handle can use it then. */
    struct gpy_loop *direct = gpy_fut_direct(fut);
    if (direct != NULL && PyContext_CheckExact(gpy_task_context_borrow(self)))
        return gpy_loop_schedule(direct, GPY_READY_TASK_STEP, self, exc_or_null, NULL);
    PyObject *step = gpy_task_step_new(self);
    if (step == NULL)
        return -1;
    int rc = gpy_call_soon(fut->module, gpy_fut_loop(fut), step, exc_or_null,
                           gpy_task_context_borrow(self));
    Py_DECREF(step);
    return rc;
}

/* ---- what a task waits for ------------------------------------------------------------------- */

/* cancel() of what the task awaits; not for an exact gyre.Task.  1, 0 or -1. */
static int
waiter_cancel(struct gpy_task *task, PyObject *msg)
{
    struct gpy_state *module = task->fut.module;
    PyObject *waiter = Py_NewRef(task->fut_waiter);
    int rc;
    if (Py_IS_TYPE(waiter, module->future_type)) {
        rc = gpy_fut_cancel(gpy_fut_of(waiter), msg);
    } else {
        PyObject *cancelled = PyObject_CallMethodOneArg(waiter, module->str_cancel, msg);
        rc = cancelled != NULL ? PyObject_IsTrue(cancelled) : -1;
        Py_XDECREF(cancelled);
    }
    Py_DECREF(waiter);
    return rc;
}

static int
request_cancel(struct gpy_task *task, PyObject *msg)
{
    task->must_cancel = true;
    Py_XSETREF(task->fut.cancel_msg, Py_NewRef(msg));
    return 1;
}

/* Tasks that await tasks are walked in a loop, not by recursion: a chain may be longer than the C
 * stack.  A ring of them has no end; Brent's method finds it: `mark` stays put for twice as many
 * links each time, until the walk meets it. */
int
gpy_task_cancel(struct gpy_task *task, PyObject *msg)
{
    struct gpy_task *parent = NULL;
    struct gpy_task *mark = NULL;
    size_t links = 0, links_max = 1;
    for (;;) {
        task->fut.log_tb = false;
        if (task->fut.state != GPY_FUT_PENDING)
            return parent != NULL ? request_cancel(parent, msg) : 0;
        task->cancels_requested++;
        if (task->fut_waiter == NULL)
            return request_cancel(task, msg);
        if (!Py_IS_TYPE(task->fut_waiter, task->fut.module->task_type))
            break;
        if (task == mark) {
            PyErr_SetString(PyExc_RecursionError, "cannot cancel tasks that await each other");
            return -1;
        }
        if (++links == links_max) {
            mark = task;
            links = 0;
            links_max *= 2;
        }
        parent = task;
        task = gpy_task_of(task->fut_waiter);
    }
    PyObject *self = Py_NewRef(gpy_task_object(task)); /* cancel() of a foreign future: any code */
    int rc = waiter_cancel(task, msg);
    if (rc == 0)
        rc = request_cancel(task, msg);
    Py_DECREF(self);
    return rc;
}

/* The task has just started to wait.  Was it cancelled during the step that led here? */
static int
pass_on_cancel(struct gpy_task *task)
{
    if (!task->must_cancel)
        return 0;
    PyObject *msg = Py_NewRef(task->fut.cancel_msg != NULL ? task->fut.cancel_msg : Py_None);
    int cancelled;
    if (Py_IS_TYPE(task->fut_waiter, task->fut.module->task_type))
        cancelled = gpy_task_cancel(gpy_task_of(task->fut_waiter), msg);
    else
        cancelled = waiter_cancel(task, msg);
    Py_DECREF(msg);
    if (cancelled > 0)
        task->must_cancel = false;
    return cancelled < 0 ? -1 : 0;
}

/* ---- what a step can end in ------------------------------------------------------------------ */

/* A RuntimeError for the coroutine itself, thrown by the next step.  Steals `message`. */
static int
throw_soon(struct gpy_task *task, PyObject *message)
{
    if (message == NULL)
        return -1;
    PyObject *exc = PyObject_CallOneArg(PyExc_RuntimeError, message);
    Py_DECREF(message);
    if (exc == NULL)
        return -1;
    int rc = gpy_task_schedule_step(task, exc);
    Py_DECREF(exc);
    return rc;
}

static int
throw_self_await(struct gpy_task *task)
{
    return throw_soon(
        task, PyUnicode_FromFormat("Task cannot await on itself: %R", gpy_task_object(task)));
}

static int
throw_other_loop(struct gpy_task *task, PyObject *future)
{
    return throw_soon(task,
                      PyUnicode_FromFormat("Task %R got Future %R attached to a different loop",
                                           gpy_task_object(task), future));
}

static int
throw_not_awaited(struct gpy_task *task, PyObject *future)
{
    return throw_soon(task, PyUnicode_FromFormat("yield was used instead of yield from in task %R "
                                                 "with %R",
                                                 gpy_task_object(task), future));
}

/* The coroutine awaits one of our exact types: no attribute of it needs to be looked up. */
static int
await_ours(struct gpy_task *task, PyObject *future)
{
    struct gpy_fut *fut = gpy_fut_of(future);
    if (future == gpy_task_object(task))
        return throw_self_await(task);
    if (gpy_fut_loop(fut) != gpy_fut_loop(&task->fut))
        return throw_other_loop(task, future);
    if (!fut->blocking)
        return throw_not_awaited(task, future);
    fut->blocking = false;
    if (gpy_registry_await(task, future) < 0 ||
        gpy_fut_add_callback(fut, gpy_task_object(task), NULL) < 0)
        return -1;
    Py_XSETREF(task->fut_waiter, Py_NewRef(future));
    return pass_on_cancel(task);
}

/* future.get_loop(), or future._loop of old duck types.  New reference. */
static PyObject *
foreign_loop(struct gpy_state *module, PyObject *future)
{
    PyObject *get_loop = PyObject_GetAttr(future, module->str_get_loop);
    if (get_loop == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError))
            return NULL;
        PyErr_Clear();
        return PyObject_GetAttr(future, module->str__loop);
    }
    PyObject *loop = PyObject_CallNoArgs(get_loop);
    Py_DECREF(get_loop);
    return loop;
}

/* future.add_done_callback(wakeup, context=context) */
static int
foreign_add_wakeup(struct gpy_task *task, PyObject *future)
{
    struct gpy_state *module = task->fut.module;
    PyObject *self = gpy_task_object(task);
    PyObject *wakeup = gpy_task_wakeup_new(self);
    if (wakeup == NULL)
        return -1;
    PyObject *args[4] = {NULL, future, wakeup, gpy_task_context_borrow(self)};
    PyObject *added =
        PyObject_VectorcallMethod(module->str_add_done_callback, args + 1,
                                  2 | PY_VECTORCALL_ARGUMENTS_OFFSET, module->kwnames_context);
    Py_DECREF(wakeup);
    if (added == NULL)
        return -1;
    Py_DECREF(added);
    return 0;
}

/* The coroutine yielded something with _asyncio_future_blocking: any other future. */
static int
await_foreign(struct gpy_task *task, PyObject *future, PyObject *blocking_flag)
{
    struct gpy_state *module = task->fut.module;
    int blocking = PyObject_IsTrue(blocking_flag);
    if (blocking < 0)
        return -1;
    PyObject *loop = foreign_loop(module, future);
    if (loop == NULL)
        return -1;
    bool same_loop = loop == gpy_fut_loop(&task->fut);
    Py_DECREF(loop);
    if (!same_loop)
        return throw_other_loop(task, future);
    if (!blocking)
        return throw_not_awaited(task, future);
    if (future == gpy_task_object(task))
        return throw_self_await(task);
    if (gpy_registry_await(task, future) < 0 ||
        PyObject_SetAttr(future, module->str__asyncio_future_blocking, Py_False) < 0 ||
        foreign_add_wakeup(task, future) < 0)
        return -1;
    Py_XSETREF(task->fut_waiter, Py_NewRef(future));
    return pass_on_cancel(task);
}

static int
yielded_object(struct gpy_task *task, PyObject *yielded)
{
    struct gpy_state *module = task->fut.module;
    PyObject *flag = PyObject_GetAttr(yielded, module->str__asyncio_future_blocking);
    if (flag == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError))
            return -1;
        PyErr_Clear();
    } else {
        int rc = flag != Py_None ? await_foreign(task, yielded, flag) : 1;
        Py_DECREF(flag);
        if (rc <= 0)
            return rc;
    }
    if (PyGen_CheckExact(yielded))
        return throw_soon(task, PyUnicode_FromFormat("yield was used instead of yield from for "
                                                     "generator in task %R with %R",
                                                     gpy_task_object(task), yielded));
    return throw_soon(task, PyUnicode_FromFormat("Task got bad yield: %R", yielded));
}

static int
task_yielded(struct gpy_task *task, PyObject *yielded)
{
    if (gpy_future_check(task->fut.module, yielded))
        return await_ours(task, yielded);
    if (yielded == Py_None)
        return gpy_task_schedule_step(task, NULL);
    return yielded_object(task, yielded);
}

static int
task_returned(struct gpy_task *task, PyObject *result)
{
    if (!task->must_cancel)
        return gpy_fut_set_result(&task->fut, result);
    task->must_cancel = false; /* cancelled during its last step */
    return gpy_fut_cancel(&task->fut, task->fut.cancel_msg) < 0 ? -1 : 0;
}

static int
task_raised(struct gpy_task *task)
{
    PyObject *exc = gpy_exc_take();
    if (PyErr_GivenExceptionMatches(exc, task->fut.module->cancelled_error)) {
        Py_XSETREF(task->fut.cancelled_exc, exc); /* the first who asks gets this very one */
        return gpy_fut_cancel(&task->fut, NULL) < 0 ? -1 : 0;
    }
    if (gpy_fut_set_exception(&task->fut, exc) < 0) {
        gpy_exc_chain(exc);
        return -1;
    }
    if (PyErr_GivenExceptionMatches(exc, PyExc_KeyboardInterrupt) ||
        PyErr_GivenExceptionMatches(exc, PyExc_SystemExit)) {
        gpy_exc_give(exc);
        return -1;
    }
    Py_DECREF(exc);
    return 0;
}

/* ---- the step -------------------------------------------------------------------------------- */

static PySendResult
coro_throw(struct gpy_state *module, PyObject *coro, PyObject *exc, PyObject **result)
{
    *result = PyObject_CallMethodOneArg(coro, module->str_throw, exc);
    if (*result != NULL)
        return PYGEN_NEXT;
    if (!PyErr_Occurred()) {
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    }
    if (!PyErr_ExceptionMatches(PyExc_StopIteration))
        return PYGEN_ERROR;
    PyObject *stop = gpy_exc_take();
    PyObject *value = ((PyStopIterationObject *)stop)->value;
    *result = Py_NewRef(value != NULL ? value : Py_None);
    Py_DECREF(stop);
    return PYGEN_RETURN;
}

/* What this step throws: a requested cancellation takes the place of any other exception.
 * New reference in *thrown, or NULL there: send. */
static int
step_exception(struct gpy_task *task, PyObject *exc_or_null, PyObject **thrown)
{
    *thrown = Py_XNewRef(exc_or_null);
    if (!task->must_cancel)
        return 0;
    task->must_cancel = false;
    if (exc_or_null != NULL &&
        PyErr_GivenExceptionMatches(exc_or_null, task->fut.module->cancelled_error))
        return 0;
    Py_XSETREF(*thrown, gpy_fut_make_cancelled_error(&task->fut));
    return *thrown != NULL ? 0 : -1;
}

static int
task_advance(struct gpy_task *task, PyObject *exc_or_null)
{
    PyObject *thrown, *result = NULL;
    if (task->fut.state != GPY_FUT_PENDING) {
        PyErr_Format(task->fut.module->invalid_state_error, "__step(): already done: %R, %R",
                     gpy_task_object(task), exc_or_null != NULL ? exc_or_null : Py_None);
        return -1;
    }
    if (gpy_task_coro(task) == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "uninitialized Task object");
        return -1;
    }
    if (step_exception(task, exc_or_null, &thrown) < 0)
        return -1;
    PyObject *coro = Py_NewRef(gpy_task_coro(task));
    Py_CLEAR(task->fut_waiter);
    PySendResult status;
    if (thrown == NULL) {
        status = gpy_send_none(coro, &result);
    } else {
        status = coro_throw(task->fut.module, coro, thrown, &result);
        Py_DECREF(thrown);
    }
    Py_DECREF(coro);
    int rc = -1;
    switch (status) {
    case PYGEN_NEXT:
        rc = task_yielded(task, result);
        break;
    case PYGEN_RETURN:
        rc = task_returned(task, result);
        break;
    case PYGEN_ERROR:
        return task_raised(task);
    }
    Py_DECREF(result);
    return rc;
}

/* Somebody else's loop calls the step. */
static GY_COLD int
task_step_called(struct gpy_task *task, PyObject *exc_or_null)
{
    if (gpy_fut_check_alive(&task->fut) < 0)
        return -1;
    PyObject *self = Py_NewRef(gpy_task_object(task));
    PyObject *loop = Py_NewRef(gpy_fut_loop(&task->fut));
    int rc = gpy_registry_enter(task, loop);
    if (rc == 0) {
        rc = task_advance(task, exc_or_null);
        PyObject *exc = rc < 0 ? gpy_exc_take() : NULL;
        if (gpy_registry_leave(task, loop) < 0)
            rc = -1;
        if (exc != NULL)
            gpy_exc_chain(exc);
    }
    Py_DECREF(loop);
    Py_DECREF(self);
    return rc;
}

/* current: of the loop whose turn this is and whose entry holds the task, or NULL. */
static int
task_step(struct gpy_task *task, PyObject *exc_or_null, struct gpy_current_task *current)
{
    if (current == NULL)
        return task_step_called(task, exc_or_null);
    PyObject *loop = current->loop;
    if (GY_UNLIKELY(gpy_fut_loop(&task->fut) != loop)) { /* __init__() was called again */
        gpy_task_settle(task->fut.module, current);
        return task_step_called(task, exc_or_null);
    }
    if (gpy_registry_enter_next(task, loop, current) < 0)
        return -1;
    int rc = task_advance(task, exc_or_null);
    if (GY_LIKELY(rc == 0))
        return gpy_registry_leave_next(task, loop, current);
    PyObject *exc = gpy_exc_take();
    (void)gpy_registry_leave_next(task, loop, current);
    gpy_exc_chain(exc);
    return -1;
}

static int
task_wakeup(struct gpy_task *task, PyObject *future, struct gpy_current_task *current)
{
    struct gpy_state *module = task->fut.module;
    PyObject *outcome = NULL;
    int kind;
    if (gpy_registry_unawait(task, future) < 0)
        return -1;
    if (gpy_future_check(module, future)) {
        if (GY_LIKELY(gpy_fut_has_result(gpy_fut_of(future))))
            return task_step(task, NULL, current);
        kind = gpy_fut_outcome(gpy_fut_of(future), &outcome);
    } else {
        outcome = PyObject_CallMethodNoArgs(future, module->str_result);
        kind = outcome != NULL ? 0 : -1;
    }
    if (kind == 0) { /* the future's iterator hands the result to the coroutine */
        Py_DECREF(outcome);
        return task_step(task, NULL, current);
    }
    if (kind < 0)
        outcome = gpy_exc_take();
    int rc = task_step(task, outcome, current);
    Py_DECREF(outcome);
    return rc;
}

/* ---- entry points ---------------------------------------------------------------------------- */

/* Leaves the context whatever happened; 0 or -1. */
static int
leave_context(PyObject *context, int rc)
{
    if (rc == 0)
        return PyContext_Exit(context);
    PyObject *exc = gpy_exc_take();
    (void)PyContext_Exit(context);
    gpy_exc_chain(exc);
    return -1;
}

int
gpy_task_run_step(struct gpy_state *module, struct gpy_current_task *current, PyObject *task,
                  PyObject *exc_or_null)
{
    PyObject *context = Py_NewRef(gpy_task_context_borrow(task));
    int rc = PyContext_Enter(context);
    if (rc == 0)
        rc = leave_context(context, task_step(gpy_task_of(task), exc_or_null, current));
    Py_DECREF(context);
    return rc;
}

int
gpy_task_run_wakeup(struct gpy_state *module, struct gpy_current_task *current, PyObject *task,
                    PyObject *future)
{
    PyObject *context = Py_NewRef(gpy_task_context_borrow(task));
    int rc = PyContext_Enter(context);
    if (rc == 0)
        rc = leave_context(context, task_wakeup(gpy_task_of(task), future, current));
    Py_DECREF(context);
    return rc;
}

#if GPY_HAS_EAGER_TASKS
/* The first step inside the constructor, as the current task, in its context. */
static int
eager_step(struct gpy_task *task)
{
    PyObject *context = Py_NewRef(gpy_task_context_borrow(gpy_task_object(task)));
    int rc = gpy_registry_add_eager(task);
    if (rc == 0) {
        rc = PyContext_Enter(context);
        if (rc == 0)
            rc = leave_context(context, task_advance(task, NULL));
        PyObject *exc = rc < 0 ? gpy_exc_take() : NULL;
        if (gpy_registry_discard_eager(task) < 0)
            rc = -1;
        if (exc != NULL)
            gpy_exc_chain(exc);
    }
    Py_DECREF(context);
    return rc;
}

int
gpy_task_start_eagerly(struct gpy_task *task)
{
    struct gpy_state *module = task->fut.module;
    PyObject *loop = Py_NewRef(gpy_fut_loop(&task->fut));
    PyObject *previous = gpy_registry_swap_current(module, loop, gpy_task_object(task));
    int rc = previous != NULL ? eager_step(task) : -1;
    if (previous != NULL) {
        PyObject *exc = rc < 0 ? gpy_exc_take() : NULL;
        PyObject *self = gpy_registry_swap_current(module, loop, previous);
        Py_DECREF(previous);
        if (self == NULL)
            rc = -1;
        Py_XDECREF(self);
        if (exc != NULL)
            gpy_exc_chain(exc);
    }
    Py_DECREF(loop);
    if (rc == 0 && task->fut.state == GPY_FUT_PENDING)
        return gpy_registry_add(task);
    if (rc == 0)
        Py_CLEAR(*gpy_task_slot(
            task,
            gpy_base.coro)); /* it will never be stepped again: break the cycle through its frame */
    return rc;
}
#endif
