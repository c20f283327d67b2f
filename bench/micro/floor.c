/* floor.c: the least that any loop can do and still call a program's Python. A module.
 *
 * call_soon(callback, *args) copies the context, which asyncio promises, and returns a handle with
 * cancel(); a turn enters the context of each, calls it and leaves. Coroutines are stepped as
 * the current task of asyncio's books and wait for futures that are their own iterators. That is
 * all: no other thread, no kernel, no time, no errors (what is raised ends the run), no debug mode,
 * no context= or name=, no registration, no cancellation of tasks, no garbage collection (cycles
 * are never freed), no __dict__, weak references or subclasses, no callbacks of a future but the
 * one task that waits for it. So it is no loop; it says what a loop cannot beat.
 *
 * Loop(whole_futures=True) gives back of that what a program can see of a future: the collector
 * knows it, it has a __dict__ and weak references, `await` makes an iterator, which the collector
 * knows as well, and a task holds what it waits for, as cancel() needs it. Each is done in the
 * cheapest way known, with free lists and without an object for an empty list of callbacks.
 *
 * One thread with the GIL. What a queue holds is a strong reference, with TASK in its lowest bit if
 * it is a task. Memory that was freed lies in lists, linked by the word behind the head. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ARGS_MAX = 3, TASK = 1 };

#define LIKELY(x) __builtin_expect(!!(x), 1)

struct future {
    PyObject ob_base;
    PyObject *result;    /* NULL: pending */
    struct task *waiter; /* or NULL */
    struct loop *loop;   /* borrowed: it outlives what runs on it */
    bool asked;          /* as an iterator it has yielded itself */
};

struct whole_future {
    struct future future;
    PyObject *dict; /* an empty one stays: with it 3.11 need not look methods up each time */
    PyObject *weak_references;
};

struct future_iter {
    PyObject ob_base;
    struct whole_future *of; /* NULL after the end */
};

struct task {
    struct future future;
    PyObject *coro;
    PyObject *context;
    PyObject *waits_for; /* a whole future, or NULL */
};

struct handle {
    PyObject ob_base;
    PyObject *callback; /* NULL after cancel() */
    PyObject *context;
    PyObject *args[1 + ARGS_MAX]; /* the first for PY_VECTORCALL_ARGUMENTS_OFFSET */
    size_t nargs;
};

struct queue {
    uintptr_t *entries;
    size_t count;
    size_t capacity;
};

struct loop {
    PyObject ob_base;
    struct queue next;    /* what this turn has scheduled */
    struct queue now;     /* what it runs */
    struct task *current; /* in asyncio's books, or NULL; borrowed from there */
    struct task *awaited; /* by run_until_complete() */
    bool stopping;
    bool whole_futures;
};

static struct handle *free_handles;
static struct future *free_futures;
static struct whole_future *free_whole_futures;
static struct future_iter *free_iters;
static PyObject *current_tasks;    /* asyncio's books; NULL where it has none, from 3.14 on */
static PyObject *set_running_loop; /* asyncio's */

static PyTypeObject loop_type, handle_type, future_type, whole_future_type, iter_type, task_type;

/* What the workloads do not ask for is refused and not done by half: it would cost time, and the
 * floor is to be as fast as can be. No program but a benchmark gets to see it. */
static __attribute__((cold)) PyObject *
refuse(const char *what, PyObject *object)
{
    return PyErr_Format(PyExc_NotImplementedError, "the floor %s, not %R", what, object);
}

/* ---- the queue ---- */

static __attribute__((noinline)) int
queue_grow(struct queue *queue)
{
    size_t capacity = queue->capacity ? queue->capacity * 2 : 256;
    uintptr_t *entries = PyMem_Realloc(queue->entries, capacity * sizeof(*entries));
    if (entries == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    queue->entries = entries;
    queue->capacity = capacity;
    return 0;
}

/* The reference moves into the queue, unless it fails. */
static inline int
queue_push(struct queue *queue, uintptr_t entry)
{
    if (queue->count == queue->capacity && queue_grow(queue) < 0)
        return -1;
    queue->entries[queue->count++] = entry;
    return 0;
}

/* ---- handles ---- */

static inline void
handle_free(struct handle *self)
{
    Py_XDECREF(self->callback);
    for (size_t i = 1; i <= self->nargs; i++)
        Py_DECREF(self->args[i]);
    Py_DECREF(self->context);
    self->callback = (PyObject *)(void *)free_handles;
    free_handles = self;
}

static PyObject *
handle_cancel(PyObject *self, PyObject *unused)
{
    (void)unused;
    Py_CLEAR(((struct handle *)self)->callback);
    Py_RETURN_NONE;
}

static PyObject *
loop_call_soon(PyObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    struct queue *next = &((struct loop *)self)->next;
    if (nargs == 0 || nargs - 1 > ARGS_MAX || kwnames != NULL)
        return refuse("has call_soon(callback, *three_args)", kwnames ? kwnames : self);
    PyObject *context = PyContext_CopyCurrent();
    if (context == NULL)
        return NULL;
    struct handle *handle = free_handles;
    if (LIKELY(handle != NULL)) {
        free_handles = (struct handle *)(void *)handle->callback;
    } else if ((handle = PyObject_New(struct handle, &handle_type)) == NULL) {
        Py_DECREF(context);
        return NULL;
    }
    Py_SET_REFCNT((PyObject *)handle, 2);
    handle->callback = Py_NewRef(args[0]);
    handle->context = context;
    handle->nargs = (size_t)nargs - 1;
    for (size_t i = 1; i < (size_t)nargs; i++)
        handle->args[i] = Py_NewRef(args[i]);
    if (LIKELY(queue_push(next, (uintptr_t)handle) == 0))
        return (PyObject *)handle;
    handle_free(handle);
    return NULL;
}

static inline PyObject *
call(PyObject *callable, PyObject *const *args, size_t nargs)
{
    vectorcallfunc function = PyVectorcall_Function(callable);
    size_t flags = nargs | PY_VECTORCALL_ARGUMENTS_OFFSET;
    if (LIKELY(function != NULL))
        return function(callable, args, flags, NULL);
    return PyObject_Vectorcall(callable, args, flags, NULL);
}

/* Drops the queue's reference. A handle that nobody else has cannot be cancelled meanwhile. */
static inline int
handle_run(struct handle *self)
{
    bool alone = Py_REFCNT((PyObject *)self) == 1;
    int rc = 0;
    if (LIKELY(self->callback != NULL)) {
        PyObject *callback = alone ? self->callback : Py_NewRef(self->callback);
        rc = PyContext_Enter(self->context);
        if (rc == 0) {
            PyObject *result = call(callback, self->args + 1, self->nargs);
            rc = PyContext_Exit(self->context);
            if (LIKELY(result != NULL))
                Py_DECREF(result);
            else
                rc = -1;
        }
        if (!alone)
            Py_DECREF(callback);
    }
    if (LIKELY(alone))
        handle_free(self);
    else
        Py_DECREF((PyObject *)self);
    return rc;
}

static void
handle_dealloc(PyObject *self)
{
    handle_free((struct handle *)self);
}

/* ---- futures and tasks ---- */

static int
future_finish(struct future *self, PyObject *result)
{
    if (self->result != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the future is done");
        return -1;
    }
    self->result = Py_NewRef(result);
    struct task *waiter = self->waiter;
    self->waiter = NULL;
    return waiter == NULL ? 0 : queue_push(&self->loop->next, (uintptr_t)waiter | TASK);
}

static PyObject *
future_set_result(PyObject *self, PyObject *result)
{
    if (future_finish((struct future *)self, result) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
future_done(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(((struct future *)self)->result != NULL);
}

static PySendResult
future_send(PyObject *object, PyObject *unused, PyObject **result)
{
    struct future *self = (struct future *)object;
    (void)unused;
    if (self->result != NULL) {
        *result = Py_NewRef(self->result);
        return PYGEN_RETURN;
    }
    self->asked = true;
    *result = Py_NewRef(object);
    return PYGEN_NEXT;
}

/* What `await` in a coroutine does not use, and asks for. */
static PyObject *
future_next(PyObject *self)
{
    PyObject *result;
    PySendResult kind = Py_TYPE(self)->tp_as_async->am_send(self, NULL, &result);
    if (kind == PYGEN_NEXT)
        return result;
    PyErr_SetObject(PyExc_StopIteration, result);
    Py_DECREF(result);
    return NULL;
}

static inline PyObject *
future_init(struct future *self, struct loop *loop)
{
    self->result = NULL;
    self->waiter = NULL;
    self->loop = loop;
    self->asked = false;
    return (PyObject *)self;
}

static PyObject *
whole_future_new(struct loop *loop)
{
    struct whole_future *self = free_whole_futures;
    if (LIKELY(self != NULL)) {
        free_whole_futures = (struct whole_future *)(void *)self->future.result;
        Py_SET_REFCNT((PyObject *)self, 1);
    } else {
        PyObject *dict = PyDict_New();
        self = dict ? PyObject_GC_New(struct whole_future, &whole_future_type) : NULL;
        if (self == NULL) {
            Py_XDECREF(dict);
            return NULL;
        }
        self->dict = dict;
        self->weak_references = NULL;
    }
    (void)future_init(&self->future, loop);
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

static PyObject *
loop_create_future(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (((struct loop *)self)->whole_futures)
        return whole_future_new((struct loop *)self);
    struct future *future = free_futures;
    if (LIKELY(future != NULL)) {
        free_futures = (struct future *)(void *)future->result;
        Py_SET_REFCNT((PyObject *)future, 1);
    } else if ((future = PyObject_New(struct future, &future_type)) == NULL) {
        return NULL;
    }
    return future_init(future, (struct loop *)self);
}

static void
future_dealloc(PyObject *object)
{
    struct future *self = (struct future *)object;
    Py_XDECREF((PyObject *)self->waiter);
    Py_XDECREF(self->result);
    self->result = (PyObject *)(void *)free_futures;
    free_futures = self;
}

static int
whole_future_traverse(PyObject *object, visitproc visit, void *arg)
{
    struct whole_future *self = (struct whole_future *)object;
    Py_VISIT((PyObject *)self->future.waiter);
    Py_VISIT(self->future.result);
    Py_VISIT(self->dict);
    return 0;
}

static int
whole_future_clear(PyObject *object)
{
    struct whole_future *self = (struct whole_future *)object;
    Py_CLEAR(self->future.waiter);
    Py_CLEAR(self->dict);
    return 0;
}

static void
whole_future_dealloc(PyObject *object)
{
    struct whole_future *self = (struct whole_future *)object;
    PyObject_GC_UnTrack(object);
    if (self->weak_references != NULL)
        PyObject_ClearWeakRefs(object);
    Py_XDECREF((PyObject *)self->future.waiter);
    Py_XDECREF(self->future.result);
    PyObject *dict = self->dict;
    if (LIKELY(dict != NULL && Py_REFCNT(dict) == 1 && PyDict_GET_SIZE(dict) == 0)) {
        self->future.result = (PyObject *)(void *)free_whole_futures;
        free_whole_futures = self;
    } else {
        Py_XDECREF(dict);
        PyObject_GC_Del(object);
    }
}

static PyObject *
whole_future_await(PyObject *object)
{
    struct future_iter *iter = free_iters;
    if (LIKELY(iter != NULL)) {
        free_iters = (struct future_iter *)(void *)iter->of;
        Py_SET_REFCNT((PyObject *)iter, 1);
    } else if ((iter = PyObject_GC_New(struct future_iter, &iter_type)) == NULL) {
        return NULL;
    }
    iter->of = (struct whole_future *)Py_NewRef(object);
    PyObject_GC_Track(iter);
    return (PyObject *)iter;
}

static PySendResult
iter_send(PyObject *object, PyObject *unused, PyObject **result)
{
    struct future_iter *self = (struct future_iter *)object;
    if (self->of == NULL) {
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    }
    PySendResult kind = future_send((PyObject *)self->of, unused, result);
    if (kind == PYGEN_RETURN)
        Py_CLEAR(self->of);
    return kind;
}

static int
iter_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT((PyObject *)((struct future_iter *)object)->of);
    return 0;
}

static int
iter_clear(PyObject *object)
{
    Py_CLEAR(((struct future_iter *)object)->of);
    return 0;
}

static void
iter_dealloc(PyObject *object)
{
    struct future_iter *self = (struct future_iter *)object;
    PyObject_GC_UnTrack(object);
    Py_XDECREF((PyObject *)self->of);
    self->of = (struct whole_future *)(void *)free_iters;
    free_iters = self;
}

static void
task_dealloc(PyObject *object)
{
    struct task *self = (struct task *)object;
    Py_XDECREF(self->waits_for);
    Py_XDECREF((PyObject *)self->future.waiter);
    Py_XDECREF(self->future.result);
    Py_XDECREF(self->coro);
    Py_XDECREF(self->context);
    PyObject_Free(self);
}

static PyObject *
loop_create_task(PyObject *self, PyObject *coro)
{
    PyAsyncMethods *methods = Py_TYPE(coro)->tp_as_async;
    if (current_tasks == NULL || methods == NULL || methods->am_send == NULL)
        return refuse("steps coroutines, before Python 3.14", coro);
    struct task *task = PyObject_New(struct task, &task_type);
    if (task == NULL)
        return NULL;
    (void)future_init(&task->future, (struct loop *)self);
    task->waits_for = NULL;
    task->coro = Py_NewRef(coro);
    task->context = PyContext_CopyCurrent();
    if (task->context == NULL ||
        queue_push(&((struct loop *)self)->next, (uintptr_t)Py_NewRef((PyObject *)task) | TASK) < 0)
        Py_CLEAR(task);
    return (PyObject *)task;
}

/* Callbacks have no current task. */
static int
forget_current(struct loop *self)
{
    if (self->current == NULL)
        return 0;
    self->current = NULL;
    return PyDict_DelItem(current_tasks, (PyObject *)self);
}

/* The coroutine waits for what it has yielded; the reference to the task moves there, that to the
 * future perhaps to the task. */
static int
task_wait(struct loop *loop, struct task *self, PyObject *yielded)
{
    struct future *future = (struct future *)yielded;
    bool is_whole = Py_IS_TYPE(yielded, &whole_future_type);
    if (yielded == Py_None)
        return queue_push(&loop->next, (uintptr_t)self | TASK);
    if ((!is_whole && !Py_IS_TYPE(yielded, &future_type) && !Py_IS_TYPE(yielded, &task_type)) ||
        !future->asked || future->waiter != NULL) {
        (void)refuse("waits for its own futures and tasks", yielded);
        return -1;
    }
    future->asked = false;
    future->waiter = self;
    if (is_whole)
        self->waits_for = Py_NewRef(yielded);
    return 0;
}

static int
task_ends(struct loop *loop, struct task *self, PyObject *result)
{
    int rc = forget_current(loop) < 0 ? -1 : future_finish(&self->future, result);
    loop->stopping |= self == loop->awaited;
    Py_DECREF((PyObject *)self);
    return rc;
}

/* The queue's reference moves on. */
static int
task_step(struct loop *loop, struct task *self)
{
    if (loop->current != self) {
        if (PyDict_SetItem(current_tasks, (PyObject *)loop, (PyObject *)self) < 0)
            return -1;
        loop->current = self;
    }
    if (PyContext_Enter(self->context) < 0)
        return -1;
    Py_CLEAR(self->waits_for);
    PyObject *result = NULL;
    PySendResult sent = Py_TYPE(self->coro)->tp_as_async->am_send(self->coro, Py_None, &result);
    int rc = PyContext_Exit(self->context);
    if (sent == PYGEN_ERROR) {
        Py_DECREF((PyObject *)self);
        return -1;
    }
    if (rc == 0)
        rc = sent == PYGEN_NEXT ? task_wait(loop, self, result) : task_ends(loop, self, result);
    Py_DECREF(result);
    return rc;
}

/* ---- the loop ---- */

static int
turn(struct loop *self)
{
    struct queue now = self->next;
    self->next = self->now;
    self->now = now;
    if (now.count == 0) {
        PyErr_SetString(PyExc_RuntimeError, "nothing is ready, and the floor cannot wait");
        return -1;
    }
    int rc = 0;
    size_t i = 0;
    while (i < now.count && LIKELY(rc == 0)) {
        uintptr_t entry = now.entries[i++];
        if (entry & TASK)
            rc = task_step(self, (struct task *)(entry ^ TASK));
        else if (LIKELY(self->current == NULL) || (rc = forget_current(self)) == 0)
            rc = handle_run((struct handle *)entry);
    }
    for (; i < now.count; i++)
        Py_DECREF((PyObject *)(now.entries[i] & ~(uintptr_t)TASK));
    self->now.count = 0;
    return rc;
}

static int
run(struct loop *self)
{
    PyObject *set = PyObject_CallOneArg(set_running_loop, (PyObject *)self);
    int rc = set != NULL ? 0 : -1;
    self->stopping = false;
    while (rc == 0 && !self->stopping)
        rc = turn(self);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (forget_current(self) < 0)
        PyErr_Clear();
    Py_XDECREF(set);
    Py_XDECREF(PyObject_CallOneArg(set_running_loop, Py_None));
    PyErr_Restore(type, value, traceback);
    return rc;
}

static PyObject *
loop_run_forever(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (run((struct loop *)self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
loop_run_until_complete(PyObject *object, PyObject *coro)
{
    struct loop *self = (struct loop *)object;
    PyObject *task = loop_create_task(object, coro);
    if (task == NULL)
        return NULL;
    self->awaited = (struct task *)task;
    int rc = run(self);
    self->awaited = NULL;
    PyObject *result = rc == 0 ? Py_NewRef(((struct task *)task)->future.result) : NULL;
    Py_DECREF(task);
    return result;
}

static PyObject *
loop_stop(PyObject *self, PyObject *unused)
{
    (void)unused;
    ((struct loop *)self)->stopping = true;
    Py_RETURN_NONE;
}

/* Between runs: what is ready will never run. */
static PyObject *
loop_close(PyObject *object, PyObject *unused)
{
    struct queue *next = &((struct loop *)object)->next;
    (void)unused;
    while (next->count != 0)
        Py_DECREF((PyObject *)(next->entries[--next->count] & ~(uintptr_t)TASK));
    Py_RETURN_NONE;
}

static PyObject *
loop_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"whole_futures", NULL};
    int whole_futures = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$p:Loop", keywords, &whole_futures))
        return NULL;
    struct loop *self = (struct loop *)type->tp_alloc(type, 0);
    if (self != NULL)
        self->whole_futures = whole_futures != 0;
    return (PyObject *)self;
}

static void
loop_dealloc(PyObject *object)
{
    struct loop *self = (struct loop *)object;
    Py_XDECREF(loop_close(object, NULL));
    PyMem_Free(self->next.entries);
    PyMem_Free(self->now.entries);
    PyObject_Free(self);
}

/* ---- the types and the module ---- */

static PyMethodDef handle_methods[] = {
    {"cancel", handle_cancel, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject handle_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "floor_micro.Handle",
    .tp_basicsize = sizeof(struct handle),
    .tp_dealloc = handle_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_methods = handle_methods,
};

static PyAsyncMethods future_async = {.am_await = PyObject_SelfIter, .am_send = future_send};

static PyMethodDef future_methods[] = {
    {"done", future_done, METH_NOARGS, NULL},
    {"set_result", future_set_result, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject future_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "floor_micro.Future",
    .tp_basicsize = sizeof(struct future),
    .tp_dealloc = future_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_as_async = &future_async,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = future_next,
    .tp_methods = future_methods,
};

static PyAsyncMethods whole_future_async = {.am_await = whole_future_await};

static PyGetSetDef whole_future_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject whole_future_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "floor_micro.WholeFuture",
    .tp_basicsize = sizeof(struct whole_future),
    .tp_dealloc = whole_future_dealloc,
    .tp_traverse = whole_future_traverse,
    .tp_clear = whole_future_clear,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_as_async = &whole_future_async,
    .tp_iter = whole_future_await,
    .tp_methods = future_methods,
    .tp_getset = whole_future_getset,
    .tp_dictoffset = offsetof(struct whole_future, dict),
    .tp_weaklistoffset = offsetof(struct whole_future, weak_references),
};

static PyAsyncMethods iter_async = {.am_send = iter_send};

static PyTypeObject iter_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "floor_micro.FutureIter",
    .tp_basicsize = sizeof(struct future_iter),
    .tp_dealloc = iter_dealloc,
    .tp_traverse = iter_traverse,
    .tp_clear = iter_clear,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_as_async = &iter_async,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = future_next,
};

static PyTypeObject task_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "floor_micro.Task",
    .tp_basicsize = sizeof(struct task),
    .tp_dealloc = task_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_as_async = &future_async,
    .tp_iter = PyObject_SelfIter,
    .tp_iternext = future_next,
};

static PyMethodDef loop_methods[] = {
    {"call_soon", (PyCFunction)(void (*)(void))loop_call_soon, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"create_future", loop_create_future, METH_NOARGS, NULL},
    {"create_task", loop_create_task, METH_O, NULL},
    {"run_forever", loop_run_forever, METH_NOARGS, NULL},
    {"run_until_complete", loop_run_until_complete, METH_O, NULL},
    {"stop", loop_stop, METH_NOARGS, NULL},
    {"close", loop_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyTypeObject loop_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "floor_micro.Loop",
    .tp_basicsize = sizeof(struct loop),
    .tp_dealloc = loop_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_methods = loop_methods,
    .tp_new = loop_new,
};

static struct PyModuleDef module_def = {PyModuleDef_HEAD_INIT, .m_name = "floor_micro",
                                        .m_size = -1};

PyMODINIT_FUNC PyInit_floor_micro(void);

PyMODINIT_FUNC
PyInit_floor_micro(void)
{
    PyObject *asyncio = PyImport_ImportModule("_asyncio");
    if (asyncio == NULL)
        return NULL;
    set_running_loop = PyObject_GetAttrString(asyncio, "_set_running_loop");
    current_tasks = PyObject_GetAttrString(asyncio, "_current_tasks");
    Py_DECREF(asyncio);
    if (current_tasks == NULL)
        PyErr_Clear();
    PyObject *module = set_running_loop ? PyModule_Create(&module_def) : NULL;
    if (module == NULL || PyType_Ready(&handle_type) < 0 || PyType_Ready(&future_type) < 0 ||
        PyType_Ready(&whole_future_type) < 0 || PyType_Ready(&iter_type) < 0 ||
        PyType_Ready(&task_type) < 0 || PyType_Ready(&loop_type) < 0 ||
        PyModule_AddObjectRef(module, "Loop", (PyObject *)&loop_type) < 0)
        Py_CLEAR(module);
    return module;
}
