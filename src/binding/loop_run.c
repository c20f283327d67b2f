/* loop_run.c: the turn.
 *
 *     poll or wait -> due timers are set aside -> what was ready -> completions -> the due timers
 * -> again
 *
 * What these schedule runs in the next turn.  That is asyncio's order: its selector fills the ready
 * queue with events and then timers, behind what was ready, before it runs any of it. */
#include "backend.h"
#include "call.h"
#include "handle.h"
#include "loop.h"
#include "pycompat.h"

#include "task.h"

#include <string.h>

/* While callbacks are ready the kernel is entered only when the ring asks for it, or every so many
 * turns (a ring without flags in user memory has no other way to see events). */
enum { TURNS_PER_POLL = 16 };

#define QUIESCE_LIMIT_NS (2 * GY_NS_PER_SECOND)

static int
run_callback(struct gpy_loop *self, struct gpy_ready_entry *entry)
{
    PyObject *callable = gpy_ready_entry_owner(entry);
    PyObject *result = NULL;
    if (PyContext_Enter(entry->b) == 0) {
        PyObject *stack[2] = {NULL, entry->a};
        result = gpy_call(callable, stack + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET);
        if (PyContext_Exit(entry->b) < 0)
            Py_CLEAR(result);
    }
    if (GY_LIKELY(result != NULL)) {
        Py_DECREF(result);
        return 0;
    }
    if (gpy_loop_keep_raised(self))
        return -1;
    /* Only now is a Handle needed: the report names it. */
    PyObject *exc = gpy_exc_take();
    PyObject *call[] = {callable, entry->a};
    struct gpy_handle *handle = gpy_handle_new(self, self->state->handle_type, call, 2, entry->b);
    if (handle == NULL) {
        Py_DECREF(exc);
        PyErr_WriteUnraisable(callable);
        return 0;
    }
    gpy_exc_give(exc);
    int rc = gpy_handle_report(handle);
    Py_DECREF(handle);
    return rc;
}

/* A Handle of asyncio's, put here by a library or a test. */
static int
run_foreign_handle(struct gpy_loop *self, PyObject *handle)
{
    PyObject *cancelled = PyObject_GetAttrString(handle, "_cancelled");
    int skip = cancelled ? PyObject_IsTrue(cancelled) : -1;
    Py_XDECREF(cancelled);
    PyObject *result = skip == 0 ? PyObject_CallMethod(handle, "_run", NULL) : NULL;
    if (result != NULL || skip > 0) {
        Py_XDECREF(result);
        return 0;
    }
    if (gpy_loop_keep_raised(self))
        return -1;
    gpy_loop_report(self, "Exception in callback", "handle", handle, NULL);
    return 0;
}

static int
run_task_entry(struct gpy_loop *self, enum gpy_ready_tag tag, PyObject *task, PyObject *arg)
{
    int rc = tag == GPY_READY_TASK_STEP
                 ? gpy_task_run_step(self->state, &self->current, task, arg)
                 : gpy_task_run_wakeup(self->state, &self->current, task, arg);
    if (GY_LIKELY(rc == 0))
        return 0;
    gpy_task_settle(self->state, &self->current);
    if (gpy_loop_keep_raised(self))
        return -1;
    gpy_loop_report(self, "Exception in task step", "task", task, NULL);
    return 0;
}

/* The references of the entry, which has left the queue, are dropped here. */
static inline int
run_entry(struct gpy_loop *self, struct gpy_ready_entry *entry)
{
    PyObject *owner = gpy_ready_entry_owner(entry);
    enum gpy_ready_tag tag = gpy_ready_entry_tag(entry);
    int rc = 0;
    switch (tag) {
    case GPY_READY_FRESH_HANDLE: /* in debug mode */
        gpy_task_settle(self->state, &self->current);
        return gpy_handle_run_known((struct gpy_handle *)owner);
    case GPY_READY_TASK_STEP:
    case GPY_READY_TASK_WAKE:
        rc = run_task_entry(self, tag, owner, entry->a);
        break;
    case GPY_READY_CALLBACK:
        gpy_task_settle(self->state, &self->current);
        rc = run_callback(self, entry);
        break;
    case GPY_READY_HANDLE:
        gpy_task_settle(self->state, &self->current);
        if (GY_LIKELY(gpy_handle_check(self->state, owner)))
            rc = gpy_handle_run((struct gpy_handle *)owner);
        else
            rc = run_foreign_handle(self, owner);
        break;
    }
    gpy_ready_entry_release(entry);
    return rc;
}

static GY_COLD int
run_entry_watched(struct gpy_loop *self, struct gpy_ready_entry *entry)
{
    PyObject *owner = Py_NewRef(gpy_ready_entry_owner(entry));
    int64_t started_ns = gpy_loop_watch_begin(self, owner);
    int rc = run_entry(self, entry);
    gpy_task_settle(self->state, &self->current);
    gpy_loop_watch_end(self, owner, started_ns);
    Py_DECREF(owner);
    return rc;
}

static int
check_forked(struct gpy_loop *self)
{
    if (GY_LIKELY(!gy_loop_forked(&self->core)))
        return 0;
    PyErr_SetString(PyExc_RuntimeError,
                    "This event loop was inherited through fork() and cannot run in the child; "
                    "create a new loop there");
    return -1;
}

/* Runs the oldest *left entries, which then says how many are left.  0, or -1: `raised` is set, or
 * the process was forked (exception set). */
static int
run_queue(struct gpy_loop *self, struct gpy_ready *queue, size_t *left)
{
    int rc = 0;
    size_t count = *left;
    for (; count != 0 && queue->count != 0 && rc == 0; count--) {
        PyObject *fresh = GY_UNLIKELY(self->debug) ? NULL : gpy_ready_pop_fresh(queue);
        if (fresh != NULL) {
            gpy_task_settle(self->state, &self->current);
            rc = gpy_handle_run_fresh((struct gpy_handle *)fresh);
        } else {
            struct gpy_ready_entry entry = gpy_ready_pop(queue);
            rc = GY_UNLIKELY(self->debug) ? run_entry_watched(self, &entry)
                                          : run_entry(self, &entry);
        }
        if (GY_UNLIKELY(!self->core_ready))
            return rc; /* closed by force inside a callback */
        gy_loop_flush_dirty(&self->core);
        if (GY_UNLIKELY(gy_loop_forked(&self->core)))
            return rc < 0 ? rc : check_forked(self);
    }
    *left = count;
    return rc;
}

static __attribute__((noinline)) void
end_pass(struct gpy_loop *self, size_t count)
{
    if (self->core_ready)
        gy_loop_pass_end(&self->core, count);
}

/* Timers that are due now are set aside: those that callbacks of this turn add wait for the next.
 */
static int
collect_due(struct gpy_loop *self)
{
    if (self->core.timers.count == 0)
        return 0;
    if (GY_UNLIKELY(self->time_overridden))
        gpy_task_settle(self->state, &self->current);
    int64_t now_ns = gpy_loop_clock_ns(self);
    if (now_ns == -1 && PyErr_Occurred())
        return -1;
    struct gy_timer *timer;
    while ((timer = gy_loop_pop_due(&self->core, now_ns)) != NULL) {
        PyObject *handle = (PyObject *)gpy_timer_handle_of(timer);
        ((struct gpy_handle *)handle)->scheduled = false;
        int rc = gpy_ready_push(&self->due, GPY_READY_HANDLE, handle, NULL, NULL);
        Py_DECREF(handle); /* the heap's reference */
        if (rc < 0)
            return -1;
    }
    return 0;
}

/* The next deadline on CLOCK_MONOTONIC; with a loop.time() of the user's, converted by the
 * difference. */
static int
wait_deadline(struct gpy_loop *self, int64_t *deadline_ns)
{
    *deadline_ns = gy_timers_next_ns(&self->core.timers);
    if (GY_LIKELY(!self->time_overridden) || *deadline_ns == GY_NS_NEVER)
        return 0;
    int64_t now_ns = gpy_loop_clock_ns(self);
    if (now_ns == -1 && PyErr_Occurred())
        return -1;
    int64_t left_ns = *deadline_ns > now_ns ? *deadline_ns - now_ns : 0;
    int64_t real_ns = gy_loop_now_ns(&self->core);
    *deadline_ns = left_ns > GY_NS_NEVER - real_ns ? GY_NS_NEVER : real_ns + left_ns;
    return 0;
}

static int
turn_wait(struct gpy_loop *self)
{
    int64_t deadline_ns;
    gpy_task_settle(self->state, &self->current); /* here other threads may run */
    /* In this order: a Python signal handler adds a timer. */
    if (gpy_loop_signals_arm(self) < 0 || wait_deadline(self, &deadline_ns) < 0)
        return -1;
    if (self->ready.count != 0) /* a Python signal handler or loop.time() scheduled something */
        return 0;
    int rc;
    gy_loop_prepare_wait(&self->core);
    Py_BEGIN_ALLOW_THREADS
    rc = gy_loop_wait(&self->core, deadline_ns);
    Py_END_ALLOW_THREADS
    gy_loop_finish_wait(&self->core);
    if (GY_UNLIKELY(rc < 0 && rc != -EINTR && rc != -ETIME))
        return gpy_backend_broke(rc);
    return 0;
}

/* A timer of before all time: there is nothing to wait for.  Signals that came are one. */
static inline bool
is_due_anyhow(struct gpy_loop *self)
{
    return gy_timers_next_ns(&self->core.timers) == INT64_MIN;
}

/* Everything before the callbacks: the kernel, signals, timers.  A turn that does not wait leaves
 * Python's signal handlers to the interpreter, which looks for them wherever bytecode runs; one of
 * many runs them here, for callbacks without any. */
static int
turn_poll(struct gpy_loop *self)
{
    int rc = 0;
    bool look = true;
    if (self->ready.count != 0 || self->stopping || gy_loop_has_work(&self->core) ||
        is_due_anyhow(self)) {
        look = self->turns++ % TURNS_PER_POLL == 0;
        rc = gy_loop_poll(&self->core, look);
        if (GY_UNLIKELY(rc < 0 && rc != -EINTR && rc != -ETIME))
            return gpy_backend_broke(rc);
        rc = 0;
    } else {
        rc = turn_wait(self);
    }
    if (look && rc == 0) {
        gpy_task_settle(self->state, &self->current); /* the handlers see no task of a past step */
        rc = PyErr_CheckSignals();
    }
    return rc < 0 ? -1 : collect_due(self);
}

/* An exception ended the turn: what it has not run goes first in the next, `left` that were ready
 * and the due timers, and behind them what was scheduled meanwhile. */
static GY_COLD void
keep_order(struct gpy_loop *self, size_t left)
{
    struct gpy_ready *ready = &self->ready;
    size_t fresh = ready->count - left;
    if (self->due.count == 0)
        return;
    gpy_ready_rotate(ready, left);
    if (gpy_ready_move(ready, &self->due) < 0)
        PyErr_Clear(); /* the rest runs in the next turn all the same */
    gpy_ready_rotate(ready, fresh);
    gpy_loop_signals_kept(self);
}

static int
turn(struct gpy_loop *self)
{
    if (turn_poll(self) < 0)
        return -1;
    size_t count = self->ready.count;
    size_t left = count;
    gy_loop_pass_begin(&self->core, count);
    int rc = run_queue(self, &self->ready, &left);
    if (GY_UNLIKELY(self->core.hold.room != 0))
        end_pass(self, count);
    if (rc < 0) {
        if (self->raised != NULL && self->core_ready)
            keep_order(self, left < self->ready.count ? left : self->ready.count);
        return -1;
    }
    (void)gy_loop_reap(&self->core);
    if (GY_UNLIKELY(self->raised != NULL))
        return -1;
    if (GY_UNLIKELY(gy_loop_forked(&self->core)))
        return check_forked(self);
    left = self->due.count;
    return left ? run_queue(self, &self->due, &left) : 0;
}

static void
before_upcalls(struct gy_loop *core)
{
    struct gpy_loop *self = container_of(core, struct gpy_loop, core);
    gpy_task_settle(self->state, &self->current);
}

static bool
callbacks_wait(const struct gy_loop *core)
{
    return container_of(core, const struct gpy_loop, core)->ready.count != 0;
}

static int
run_begin(struct gpy_loop *self)
{
    if (gpy_loop_check_open(self) < 0 || check_forked(self) < 0)
        return -1;
    if (self->in_run) {
        PyErr_SetString(PyExc_RuntimeError, "This event loop is already running");
        return -1;
    }
    if (gpy_backend_begin(self) < 0)
        return -1;
    self->in_run = true;
    self->busy = true;
    self->current.loop = (PyObject *)self;
    self->core.before_upcalls = before_upcalls;
    self->core.callbacks_wait = callbacks_wait;
    gpy_loop_signals_begin(self);
    return 0;
}

/* The exception that is set, if any, survives. */
static void
run_end(struct gpy_loop *self)
{
    self->in_run = false;
    self->busy = false;
    gpy_ready_track_fresh(&self->ready);
    gpy_task_settle(self->state, &self->current);
    /* Due timers that an exception kept from running go first at the next run. */
    if (self->due.count != 0) {
        PyObject *exc = PyErr_Occurred() ? gpy_exc_take() : NULL;
        keep_order(self, 0);
        if (exc != NULL)
            gpy_exc_give(exc);
    }
    if (!self->core_ready || gy_loop_forked(&self->core))
        return;
    gpy_loop_signals_restore(self);
    (void)gy_loop_quiesce(&self->core, QUIESCE_LIMIT_NS);
}

PyObject *
gpy_loop_run_once(struct gpy_loop *self, PyObject *Py_UNUSED(ignored))
{
    if (run_begin(self) < 0)
        return NULL;
    int rc;
    do {
        rc = turn(self);
        /* Whoever calls _run_once() from a run_forever() of his own wants one turn. */
    } while (rc == 0 && self->forever && !self->stopping && self->core_ready);
    if (rc < 0 && self->raised != NULL)
        gpy_loop_restore_raised(self);
    run_end(self);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}
