/* handle.h: Handle and TimerHandle, what call_soon and call_later give to their caller.
 *
 * Own C types with asyncio's attributes; their __class__ is asyncio's, so isinstance() holds
 * (asyncio's own types have __slots__, a C layout cannot be mixed in). Thread: the loop's; cancel()
 * of a plain Handle from any thread that holds the GIL. */
#ifndef GPY_HANDLE_H
#define GPY_HANDLE_H

#include "loop.h"

enum { HANDLE_ARGS_INLINE = 3, HANDLE_ARGS_TUPLE = 255 };

/* What each callback needs is in the first 64 bytes. */
struct gpy_handle {
    PyObject_HEAD
    struct gpy_loop *loop; /* strong; NULL only after tp_clear                                  */
    PyObject *callback;    /* NULL after cancel()                                               */
    PyObject *context;
    PyObject *weakrefs;
    uint8_t nargs; /* HANDLE_ARGS_TUPLE: slots[1] is a tuple */
    bool plain;    /* in the queue as a fresh one: a Handle, not cancelled, its arguments in slots,
                    * its context contextvars' own, the two at the end NULL */
    bool cancelled;
    bool is_timer;
    bool is_threadsafe;
    bool scheduled;   /* timers: in the heap                        */
    bool when_is_int; /* timers: the caller gave an int             */
    /* slots[0] is scratch for PY_VECTORCALL_ARGUMENTS_OFFSET; arguments follow. */
    PyObject *slots[1 + HANDLE_ARGS_INLINE];
    PyObject *source_traceback; /* debug mode, else NULL */
    PyObject *repr;             /* kept by cancel() in debug mode */
};

struct gpy_timer_handle {
    struct gpy_handle handle;
    struct gy_timer timer;
    double when;
};

/* What call_soon_threadsafe() returns from 3.14 on: while the callback runs, cancel() and
 * cancelled() of other threads wait for its end. */
struct gpy_threadsafe_handle {
    struct gpy_handle handle;
    unsigned long running_thread; /* that runs the callback now, or 0                        */
    PyThread_type_lock ended;     /* for those that wait; made by the first of them          */
    bool ended_held;              /* the running callback holds `ended`                      */
};

int gpy_handle_exec(PyObject *module, struct gpy_state *state);

static inline bool
gpy_handle_check(struct gpy_state *state, PyObject *object)
{
    return Py_IS_TYPE(object, state->handle_type) || Py_IS_TYPE(object, state->timer_handle_type) ||
           (state->threadsafe_handle_type != NULL &&
            Py_IS_TYPE(object, state->threadsafe_handle_type));
}

/* New Handle or TimerHandle (not yet in any queue) for call[0](*call[1:ncall]), that is an argument
 * vector that begins with the callback.  context NULL: a copy of the current one.  New reference or
 * NULL. */
struct gpy_handle *gpy_handle_new(struct gpy_loop *loop, PyTypeObject *type, PyObject *const *call,
                                  size_t ncall, PyObject *context);
/* The same, before PyObject_GC_Track(); ready.h says when that is put off. */
struct gpy_handle *gpy_handle_new_untracked(struct gpy_loop *loop, PyTypeObject *type,
                                            PyObject *const *call, size_t ncall, PyObject *context);

/* The same for a Handle with at most HANDLE_ARGS_INLINE arguments from the free list, which is not
 * empty: with two references, and that to `context`, contextvars' own, moves into it.  Cannot fail,
 * runs no foreign code. */
static inline struct gpy_handle *
gpy_handle_reuse(struct gpy_loop *loop, PyObject *const *call, size_t ncall, PyObject *context)
{
    struct gpy_state *state = loop->state;
    struct gpy_handle *self =
        (struct gpy_handle *)(void *)gpy_freelist_take(&state->free_handles, state->handle_type);
    Py_INCREF(self);
    self->loop = (struct gpy_loop *)Py_NewRef((PyObject *)loop);
    self->callback = Py_NewRef(call[0]);
    self->context = context;
    for (size_t i = 1; i < ncall; i++)
        self->slots[i] = Py_NewRef(call[i]);
    self->nargs = (uint8_t)(ncall - 1);
    self->plain = true;
    return self;
}

#ifdef Py_GIL_DISABLED /* there another thread may look at the count of references */
enum { GPY_FRESH_HANDLES = false };
#else
enum { GPY_FRESH_HANDLES = true };
#endif

/* Runs the callback in its context.  What it raises is reported; 0, or -1 with an exception that
 * must leave the loop (KeyboardInterrupt, SystemExit). */
int gpy_handle_run(struct gpy_handle *handle);

/* The same for a handle that has just left the queue and that the collector does not know of
 * (GPY_READY_FRESH_HANDLE); drops the queue's reference. */
int gpy_handle_run_fresh(struct gpy_handle *handle);
/* The same where somebody else may have it, or when it runs in debug mode. */
int gpy_handle_run_known(struct gpy_handle *handle);

/* The callback raised what is set now: reports it as asyncio does.  As gpy_handle_run(). */
int gpy_handle_report(struct gpy_handle *handle);

void gpy_handle_cancel(struct gpy_handle *handle);

static inline struct gpy_timer_handle *
gpy_timer_handle_of(struct gy_timer *timer)
{
    return container_of(timer, struct gpy_timer_handle, timer);
}

#endif
