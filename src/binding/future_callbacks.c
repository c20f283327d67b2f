/* future_callbacks.c: who is told when a Future or Task is done.
 *
 * The first callback lives in the object itself, because most futures have exactly one waiter: a
 * task of ours that awaits one allocates nothing.  Further ones go to a vector.
 * Callables and their __eq__ are foreign code that may add, remove or finish: nothing here keeps a
 * pointer into the vector, or a borrowed reference, across such a call. */
#include "future.h"
#include "task.h"

struct gpy_callback_list {
    Py_ssize_t count;
    Py_ssize_t capacity;
    struct gpy_callback entries[];
};

enum { CALLBACK_LIST_MIN = 4 };

static Py_ssize_t
callbacks_count(const struct gpy_fut *fut)
{
    if (fut->first.callable == NULL)
        return 0;
    return 1 + (fut->more != NULL ? fut->more->count : 0);
}

static struct gpy_callback *
callbacks_at(struct gpy_fut *fut, Py_ssize_t index)
{
    return index == 0 ? &fut->first : &fut->more->entries[index - 1];
}

static int
callbacks_reserve(struct gpy_fut *fut)
{
    struct gpy_callback_list *list = fut->more;
    Py_ssize_t capacity = list == NULL ? 0 : list->capacity;
    if (list != NULL && list->count < capacity)
        return 0;
    capacity = capacity == 0 ? CALLBACK_LIST_MIN : capacity * 2;
    if ((size_t)capacity > (PY_SSIZE_T_MAX - sizeof(*list)) / sizeof(list->entries[0])) {
        PyErr_NoMemory();
        return -1;
    }
    struct gpy_callback_list *grown =
        PyMem_Realloc(list, sizeof(*list) + (size_t)capacity * sizeof(list->entries[0]));
    if (grown == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    if (list == NULL)
        grown->count = 0;
    grown->capacity = capacity;
    fut->more = grown;
    return 0;
}

int
gpy_call_soon(struct gpy_state *module, PyObject *loop, PyObject *callable, PyObject *arg_or_null,
              PyObject *context)
{
    PyObject *args[5] = {NULL, loop, callable};
    size_t count = 2;
    if (arg_or_null != NULL)
        args[1 + count++] = arg_or_null;
    args[1 + count] = context;
    Py_INCREF(loop); /* call_soon() may be anything, also fut.__init__() with another loop */
    Py_INCREF(context);
    PyObject *handle =
        PyObject_VectorcallMethod(module->str_call_soon, args + 1,
                                  count | PY_VECTORCALL_ARGUMENTS_OFFSET, module->kwnames_context);
    Py_DECREF(context);
    Py_DECREF(loop);
    if (handle == NULL)
        return -1;
    Py_DECREF(handle);
    return 0;
}

/* The wakeup of one of our tasks as the callable that a foreign loop needs. */
static int
task_waiter_schedule_slowly(struct gpy_fut *fut, PyObject *task)
{
    PyObject *wakeup = gpy_task_wakeup_new(task);
    if (wakeup == NULL)
        return -1;
    PyObject *context = gpy_task_context_borrow(task);
    int rc = gpy_call_soon(fut->module, gpy_fut_loop(fut), wakeup, gpy_fut_object(fut), context);
    Py_DECREF(wakeup);
    return rc;
}

static int
callback_schedule(struct gpy_fut *fut, const struct gpy_callback *callback)
{
    struct gpy_state *module = fut->module;
    PyObject *self = gpy_fut_object(fut);
    struct gpy_loop *direct = gpy_fut_direct(fut);
    if (callback->context == NULL) {
        if (direct != NULL && PyContext_CheckExact(gpy_task_context_borrow(callback->callable)))
            return gpy_loop_schedule(direct, GPY_READY_TASK_WAKE, callback->callable, self, NULL);
        return task_waiter_schedule_slowly(fut, callback->callable);
    }
    if (direct != NULL && PyContext_CheckExact(callback->context))
        return gpy_loop_schedule(direct, GPY_READY_CALLBACK, callback->callable, self,
                                 callback->context);
    return gpy_call_soon(module, gpy_fut_loop(fut), callback->callable, self, callback->context);
}

int
gpy_fut_add_callback(struct gpy_fut *fut, PyObject *callable, PyObject *context_or_null)
{
    if (fut->state != GPY_FUT_PENDING) {
        struct gpy_callback callback = {callable, context_or_null};
        return callback_schedule(fut, &callback);
    }
    if (fut->first.callable == NULL) {
        fut->first.callable = Py_NewRef(callable);
        fut->first.context = Py_XNewRef(context_or_null);
        return 0;
    }
    if (callbacks_reserve(fut) < 0)
        return -1;
    struct gpy_callback *slot = &fut->more->entries[fut->more->count++];
    slot->callable = Py_NewRef(callable);
    slot->context = Py_XNewRef(context_or_null);
    return 0;
}

static struct gpy_callback
callback_copy(const struct gpy_callback *callback)
{
    return (struct gpy_callback){Py_NewRef(callback->callable), Py_XNewRef(callback->context)};
}

static void
callback_drop(struct gpy_callback *callback)
{
    Py_DECREF(callback->callable);
    Py_XDECREF(callback->context);
}

static void
callback_list_free(struct gpy_callback_list *list, Py_ssize_t from)
{
    for (Py_ssize_t i = from; i < list->count; i++)
        callback_drop(&list->entries[i]);
    PyMem_Free(list);
}

/* A task that waits moves on to the queue, with the reference to it. */
static int
first_schedule(struct gpy_fut *fut, struct gpy_callback first)
{
    struct gpy_loop *direct = gpy_fut_direct(fut);
    int rc;
    if (GY_LIKELY(first.context == NULL && direct != NULL &&
                  PyContext_CheckExact(gpy_task_context_borrow(first.callable)))) {
        rc = gpy_loop_schedule_moved(direct, GPY_READY_TASK_WAKE, first.callable,
                                     gpy_fut_object(fut));
        if (GY_LIKELY(rc == 0))
            return 0;
    } else {
        rc = callback_schedule(fut, &first);
    }
    callback_drop(&first);
    return rc;
}

int
gpy_fut_schedule_callbacks(struct gpy_fut *fut)
{
    struct gpy_callback first = fut->first;
    struct gpy_callback_list *more = fut->more;
    if (first.callable == NULL)
        return 0;
    fut->first = (struct gpy_callback){NULL, NULL};
    fut->more = NULL;
    int rc = first_schedule(fut, first);
    if (GY_LIKELY(more == NULL))
        return rc;
    Py_ssize_t done = 0;
    while (rc == 0 && done < more->count) {
        rc = callback_schedule(fut, &more->entries[done]);
        callback_drop(&more->entries[done]);
        done++;
    }
    if (rc < 0 && done < more->count) { /* dropping the rest may run anything: keep the error */
        PyObject *exc = gpy_exc_take();
        callback_list_free(more, done);
        gpy_exc_chain(exc);
        return -1;
    }
    callback_list_free(more, done);
    return rc;
}

/* Is this the callback that remove_done_callback(callable) means?  1, 0 or -1. */
static int
callback_matches(const struct gpy_callback *callback, PyObject *callable)
{
    if (callback->context != NULL)
        return PyObject_RichCompareBool(callback->callable, callable, Py_EQ);
    PyObject *wakeup = gpy_task_wakeup_new(callback->callable);
    if (wakeup == NULL)
        return -1;
    int rc = PyObject_RichCompareBool(wakeup, callable, Py_EQ);
    Py_DECREF(wakeup);
    return rc;
}

static void
callbacks_delete(struct gpy_fut *fut, Py_ssize_t index)
{
    struct gpy_callback gone = *callbacks_at(fut, index);
    Py_ssize_t count = callbacks_count(fut);
    for (Py_ssize_t i = index + 1; i < count; i++)
        *callbacks_at(fut, i - 1) = *callbacks_at(fut, i);
    if (count == 1)
        fut->first = (struct gpy_callback){NULL, NULL};
    else
        fut->more->count--;
    callback_drop(&gone);
}

Py_ssize_t
gpy_fut_remove_callback(struct gpy_fut *fut, PyObject *callable)
{
    Py_ssize_t removed = 0;
    for (Py_ssize_t i = 0; i < callbacks_count(fut);) {
        struct gpy_callback seen = callback_copy(callbacks_at(fut, i));
        int same = callback_matches(&seen, callable);
        /* __eq__ may have changed the list: delete only what we looked at. */
        bool still_there = i < callbacks_count(fut) &&
                           callbacks_at(fut, i)->callable == seen.callable &&
                           callbacks_at(fut, i)->context == seen.context;
        if (same > 0 && still_there) {
            callbacks_delete(fut, i);
            removed++;
        } else {
            i++;
        }
        callback_drop(&seen);
        if (same < 0)
            return -1;
    }
    return removed;
}

static PyObject *
callback_as_pair(const struct gpy_callback *callback)
{
    if (callback->context != NULL)
        return PyTuple_Pack(2, callback->callable, callback->context);
    PyObject *wakeup = gpy_task_wakeup_new(callback->callable);
    if (wakeup == NULL)
        return NULL;
    PyObject *pair = PyTuple_Pack(2, wakeup, gpy_task_context_borrow(callback->callable));
    Py_DECREF(wakeup);
    return pair;
}

PyObject *
gpy_fut_list_callbacks(struct gpy_fut *fut)
{
    if (fut->first.callable == NULL)
        Py_RETURN_NONE;
    PyObject *list = PyList_New(0);
    if (list == NULL)
        return NULL;
    /* Allocating may run the garbage collector and with it anything: count anew each time. */
    for (Py_ssize_t i = 0; i < callbacks_count(fut); i++) {
        struct gpy_callback seen = callback_copy(callbacks_at(fut, i));
        PyObject *pair = callback_as_pair(&seen);
        callback_drop(&seen);
        if (pair == NULL || PyList_Append(list, pair) < 0) {
            Py_XDECREF(pair);
            Py_DECREF(list);
            return NULL;
        }
        Py_DECREF(pair);
    }
    return list;
}

int
gpy_callbacks_traverse(struct gpy_fut *fut, visitproc visit, void *arg)
{
    Py_VISIT(fut->first.callable);
    Py_VISIT(fut->first.context);
    if (fut->more != NULL) {
        for (Py_ssize_t i = 0; i < fut->more->count; i++) {
            Py_VISIT(fut->more->entries[i].callable);
            Py_VISIT(fut->more->entries[i].context);
        }
    }
    return 0;
}

void
gpy_callbacks_clear(struct gpy_fut *fut)
{
    struct gpy_callback first = fut->first;
    struct gpy_callback_list *more = fut->more;
    fut->first = (struct gpy_callback){NULL, NULL};
    fut->more = NULL;
    if (first.callable != NULL)
        callback_drop(&first);
    if (more != NULL)
        callback_list_free(more, 0);
}
