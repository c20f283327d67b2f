/* future.h: gyre.Future, and what gyre.Task has in common with it.
 *
 * Both are real C subclasses of asyncio's own types.  The base part stays as asyncio allocated it
 * (zeroed, that is pending) and is written only where CPython or a tool outside the process reads
 * it; all state that counts is ours and lies behind the base, in a struct gpy_fut.  A Task extends
 * it (struct gpy_task, task.h).  It begins at the same distance from the start of either kind of
 * object, the size of the larger base, so that all code here serves both types.
 *
 * Thread: any thread that holds the GIL; callbacks must be scheduled from the loop's. */
#ifndef GPY_FUTURE_H
#define GPY_FUTURE_H

#include "pycompat.h"
#include "schedule.h"
#include "state.h"

#include <stdint.h>

enum gpy_fut_state {
    GPY_FUT_PENDING = 0,
    GPY_FUT_CANCELLED = 1,
    GPY_FUT_FINISHED = 2,
};

/* One thing to do when a future is done.  context NULL: `callable` is one of our Tasks (or an
 * instance of a subclass), which waits for this future and is stepped in its own context. */
struct gpy_callback {
    PyObject *callable;
    PyObject *context;
};

struct gpy_callback_list; /* future_callbacks.c: the second callback and those after it */

struct gpy_fut {
    struct gpy_state *module;  /* lives as long as our type does, hence as long as this object */
    struct gpy_loop *own_loop; /* the loop in the base part, if it is one of ours, or NULL     */
    struct gpy_callback first; /* callable NULL: there are no callbacks at all                 */
    struct gpy_callback_list *more; /* NULL: at most one callback */
    PyObject *result; /* set if FINISHED and exception is NULL                        */
    PyObject *exception;
    PyObject *exception_tb;  /* its traceback when it was set: each result() starts there    */
    PyObject *cancelled_exc; /* the CancelledError that ended a Task, handed out once        */
    PyObject *cancel_msg;
    PyObject *source_tb; /* where it was created, in debug mode                          */
    uint8_t state;       /* enum gpy_fut_state                                           */
    bool log_tb;         /* report the exception if nobody ever looks at it              */
    bool blocking;       /* _asyncio_future_blocking                                     */
    bool is_task;        /* a struct gpy_task begins here                                */
    bool finalized;      /* CPython remembers it in the object's head, with the memory   */
};

/* Distance from the object to its struct gpy_fut; set once, before any object exists. */
extern Py_ssize_t gpy_fut_offset;

static inline struct gpy_fut *
gpy_fut_of(PyObject *object)
{
    return (struct gpy_fut *)(void *)((char *)object + gpy_fut_offset);
}

static inline PyObject *
gpy_fut_object(struct gpy_fut *fut)
{
    return (PyObject *)(void *)((char *)fut - gpy_fut_offset);
}

/* The loop is in the base part: asyncio's struct begins with it in every version.  NULL before
 * __init__ and after tp_clear. */
static inline PyObject **
gpy_fut_loop_slot(struct gpy_fut *fut)
{
    return (PyObject **)(void *)((char *)gpy_fut_object(fut) + sizeof(PyObject));
}

static inline PyObject *
gpy_fut_loop(const struct gpy_fut *fut)
{
    return *gpy_fut_loop_slot((struct gpy_fut *)(uintptr_t)fut);
}

/* Its loop, if callbacks may go straight to the queue just now; see gpy_loop_direct().  The base
 * part may have another one by now, and ours may be gone: asyncio.Future.__init__(self). */
static inline struct gpy_loop *
gpy_fut_direct(const struct gpy_fut *fut)
{
    struct gpy_loop *own = fut->own_loop;
    return own != NULL && (PyObject *)own == gpy_fut_loop(fut) && gpy_loop_is_direct(own) ? own
                                                                                          : NULL;
}

/* Exactly gyre.Future or gyre.Task: no Python code can stand between its methods and us. */
static inline bool
gpy_future_check(struct gpy_state *module, PyObject *object)
{
    return Py_IS_TYPE(object, module->future_type) || Py_IS_TYPE(object, module->task_type);
}

/* ---- for the loop, sockets and transports ---------------------------------------------------- */

/* A pending Future of `loop`: what loop.create_future() returns.  New reference. */
PyObject *gpy_future_new(struct gpy_state *module, PyObject *loop);
/* The same for a caller that knows what gpy_loop_check() says of `loop`, and for a program that
 * will call its methods. */
PyObject *gpy_future_new_on(struct gpy_state *module, PyObject *loop, struct gpy_loop *own_or_null);

void gpy_future_drop_spare_dicts(struct gpy_state *module); /* before its free list is cut      */

/* These four take any awaitable future; ours are done in C.  Setting a future that is done raises
 * InvalidStateError.  0 or -1; the queries 1, 0 or -1. */
int gpy_future_set_result(struct gpy_state *module, PyObject *future, PyObject *result);
int gpy_future_set_exception(struct gpy_state *module, PyObject *future, PyObject *exception);
int gpy_future_is_done(struct gpy_state *module, PyObject *future);
int gpy_future_cancelled(struct gpy_state *module, PyObject *future);

/* ---- shared by the files of Future and Task -------------------------------------------------- */

/* future.c: life cycle */
int gpy_import_into(PyObject **slot, const char *module_name, const char *name);
int gpy_future_exec(PyObject *module_object, struct gpy_state *module);
int gpy_fut_init(struct gpy_fut *fut, PyObject *loop); /* the shared half of __init__            */
void gpy_fut_finalize(struct gpy_fut *fut);            /* reports an exception nobody looked at  */
int gpy_fut_traverse(struct gpy_fut *fut, visitproc visit, void *arg); /* our own part only       */
void gpy_fut_clear(struct gpy_fut *fut);                               /* our own part only       */
/* Calls loop.call_exception_handler(); what that raises goes to sys.unraisablehook. */
void gpy_fut_report(struct gpy_fut *fut, PyObject *context);

/* future_state.c: the changes of state */
int gpy_fut_set_result(struct gpy_fut *fut, PyObject *result);
int gpy_fut_set_exception(struct gpy_fut *fut, PyObject *exception);
int gpy_fut_cancel(struct gpy_fut *fut, PyObject *msg_or_null); /* 1 cancelled, 0 was done, -1    */
/* 0: *out is the result; 1: *out is the exception to raise; -1: not done, InvalidStateError set.
 * New reference.  Counts as having looked at the exception. */
int gpy_fut_outcome(struct gpy_fut *fut, PyObject **out);
/* Its outcome is `result`, and there is no exception that anybody could fail to look at. */
static inline bool
gpy_fut_has_result(const struct gpy_fut *fut)
{
    return fut->state == GPY_FUT_FINISHED && fut->exception == NULL && fut->result != NULL;
}
PyObject *gpy_fut_make_cancelled_error(struct gpy_fut *fut);
int gpy_fut_check_alive(struct gpy_fut *fut); /* -1 and RuntimeError if __init__ never ran */

/* future_callbacks.c */
int gpy_fut_add_callback(struct gpy_fut *fut, PyObject *callable, PyObject *context_or_null);
Py_ssize_t gpy_fut_remove_callback(struct gpy_fut *fut, PyObject *callable);
int gpy_fut_schedule_callbacks(struct gpy_fut *fut); /* it is done: hands them all to the loop    */
PyObject *gpy_fut_list_callbacks(struct gpy_fut *fut);
int gpy_callbacks_traverse(struct gpy_fut *fut, visitproc visit, void *arg);
void gpy_callbacks_clear(struct gpy_fut *fut);
/* loop.call_soon(callable, *args, context=context): the way when gpy_loop_direct() says NULL. */
int gpy_call_soon(struct gpy_state *module, PyObject *loop, PyObject *callable,
                  PyObject *arg_or_null, PyObject *context);

/* future_iter.c */
int gpy_future_iter_exec(PyObject *module_object, struct gpy_state *module);
PyObject *gpy_future_iter_new(PyObject *future);
/* Ends an iterator with `value` as StopIteration.value. */
void gpy_raise_stop_iteration(PyObject *value);
/* The throw() of an iterator that does no more than raise: an exception is set, that which was
 * asked for (0) or one about the arguments (-1). */
int gpy_throw(PyObject *const *args, Py_ssize_t nargs);

#endif
