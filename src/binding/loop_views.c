/* loop_views.c: what asyncio's _ready and _scheduled show, for the Python views in gyre/_views.py.
 *
 * Entries without a Handle get one here: debuggers, simulators and tests see Handles as on asyncio.
 */
#include "handle.h"
#include "loop.h"
#include "task.h"

/* A Handle for an entry, new reference.  A task's entry shows as its step or wakeup, bound to the
 * task. */
static PyObject *
entry_as_handle(struct gpy_loop *self, const struct gpy_ready_entry *entry)
{
    PyObject *owner = gpy_ready_entry_owner(entry);
    PyObject *context = entry->b;
    PyObject *call[] = {NULL, entry->a};
    switch (gpy_ready_entry_tag(entry)) {
    case GPY_READY_HANDLE:
    case GPY_READY_FRESH_HANDLE:
        return Py_NewRef(owner);
    case GPY_READY_CALLBACK:
        call[0] = Py_NewRef(owner);
        break;
    case GPY_READY_TASK_STEP:
        call[0] = gpy_task_step_new(owner);
        context = gpy_task_context_borrow(owner);
        break;
    case GPY_READY_TASK_WAKE:
        call[0] = gpy_task_wakeup_new(owner);
        context = gpy_task_context_borrow(owner);
        break;
    }
    if (call[0] == NULL)
        return NULL;
    PyObject *handle =
        (PyObject *)gpy_handle_new(self, self->state->handle_type, call, entry->a ? 2 : 1, context);
    Py_DECREF(call[0]);
    return handle;
}

static PyObject *
loop_ready_items(struct gpy_loop *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < self->ready.count; i++) {
        PyObject *handle = entry_as_handle(self, gpy_ready_at(&self->ready, i));
        if (handle == NULL || PyList_Append(list, handle) < 0)
            Py_CLEAR(list);
        Py_XDECREF(handle);
    }
    return list;
}

static PyObject *
loop_ready_len(struct gpy_loop *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromSize_t(self->ready.count);
}

static PyObject *
loop_ready_popleft(struct gpy_loop *self, PyObject *Py_UNUSED(ignored))
{
    if (self->ready.count == 0) {
        PyErr_SetString(PyExc_IndexError, "pop from an empty deque");
        return NULL;
    }
    PyObject *handle = entry_as_handle(self, gpy_ready_at(&self->ready, 0));
    if (handle != NULL) {
        struct gpy_ready_entry entry = gpy_ready_pop(&self->ready);
        gpy_ready_entry_drop(&entry);
    }
    return handle;
}

static PyObject *
loop_ready_append(struct gpy_loop *self, PyObject *handle)
{
    if (gpy_ready_push(&self->ready, GPY_READY_HANDLE, handle, NULL, NULL) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
loop_ready_clear(struct gpy_loop *self, PyObject *Py_UNUSED(ignored))
{
    gpy_ready_clear(&self->ready);
    Py_RETURN_NONE;
}

static PyObject *
loop_scheduled_items(struct gpy_loop *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *list = PyList_New(0);
    if (list == NULL || !self->core_ready)
        return list;
    const struct gy_timers *timers = &self->core.timers;
    for (uint32_t i = 0; i < timers->count; i++) {
        if (timers->heap[i]->kind != GY_TIMER_HOST)
            continue;
        if (PyList_Append(list, (PyObject *)gpy_timer_handle_of(timers->heap[i])) < 0) {
            Py_DECREF(list);
            return NULL;
        }
    }
    return list;
}

/* Takes the first timer of ours out of the heap: new reference (the heap's), or NULL. */
static struct gpy_timer_handle *
take_timer(struct gpy_loop *self)
{
    struct gy_timers *timers = &self->core.timers;
    for (uint32_t i = 0; i < timers->count; i++) {
        struct gy_timer *timer = timers->heap[i];
        if (timer->kind != GY_TIMER_HOST)
            continue;
        gy_timers_remove(timers, timer);
        struct gpy_timer_handle *handle = gpy_timer_handle_of(timer);
        handle->handle.scheduled = false;
        return handle;
    }
    return NULL;
}

void
gpy_loop_timers_clear(struct gpy_loop *self)
{
    struct gpy_timer_handle *handle;
    while ((handle = take_timer(self)) != NULL)
        Py_DECREF(handle);
}

int
gpy_loop_timers_traverse(struct gpy_loop *self, visitproc visit, void *arg)
{
    const struct gy_timers *timers = &self->core.timers;
    for (uint32_t i = 0; i < timers->count; i++) {
        if (timers->heap[i]->kind == GY_TIMER_HOST)
            Py_VISIT((PyObject *)gpy_timer_handle_of(timers->heap[i]));
    }
    return 0;
}

static PyObject *
loop_scheduled_clear(struct gpy_loop *self, PyObject *Py_UNUSED(ignored))
{
    if (self->core_ready)
        gpy_loop_timers_clear(self);
    Py_RETURN_NONE;
}

PyMethodDef gpy_loop_view_methods[] = {
    {"_ready_items", (PyCFunction)loop_ready_items, METH_NOARGS, NULL},
    {"_ready_len", (PyCFunction)loop_ready_len, METH_NOARGS, NULL},
    {"_ready_popleft", (PyCFunction)loop_ready_popleft, METH_NOARGS, NULL},
    {"_ready_append", (PyCFunction)loop_ready_append, METH_O, NULL},
    {"_ready_clear", (PyCFunction)loop_ready_clear, METH_NOARGS, NULL},
    {"_scheduled_items", (PyCFunction)loop_scheduled_items, METH_NOARGS, NULL},
    {"_scheduled_clear", (PyCFunction)loop_scheduled_clear, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};
