/* module.c: gyre._gyre, its state and its exec steps; every type lives in a file of its own. */
#include "backend.h"
#include "coro.h"
#include "coro_method.h"
#include "file.h"
#include "future.h"
#include "handle.h"
#include "loop.h"
#include "sock_calls.h"
#include "streams.h"
#include "task.h"
#include "tcp.h"

#ifndef GPY_VERSION
#error "GPY_VERSION comes from meson.build"
#endif

static int
intern_names(struct gpy_state *state)
{
#define X(name)                                                                                    \
    state->str_##name = PyUnicode_InternFromString(#name);                                         \
    if (state->str_##name == NULL)                                                                 \
        return -1;
    GPY_NAMES(X)
#undef X
    return 0;
}

static void
limit_freelists(struct gpy_state *state, unsigned limit)
{
    gpy_future_drop_spare_dicts(state);
#define X(name)                                                                                    \
    state->free_##name.limit = limit;                                                              \
    gpy_freelist_trim(&state->free_##name);
    GPY_FREELISTS(X)
#undef X
}

static int
module_exec(PyObject *module)
{
    struct gpy_state *state = PyMem_Calloc(1, sizeof *state);
    if (state == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    *(struct gpy_state **)PyModule_GetState(module) = state;
    limit_freelists(state, GPY_FREELIST_LIMIT);
    if (intern_names(state) < 0)
        return -1;
    /* Before anything of _asyncio: until 3.11 that module, when it is imported first, imports
     * asyncio, which imports it once more, and there are two tables of current tasks. */
    PyObject *asyncio = PyImport_ImportModule("asyncio");
    if (asyncio == NULL)
        return -1;
    Py_DECREF(asyncio);
    if (gpy_future_exec(module, state) < 0 || gpy_future_iter_exec(module, state) < 0 ||
        gpy_task_exec(module, state) < 0 || gpy_handle_exec(module, state) < 0 ||
        gpy_backend_exec(module, state) < 0 || gpy_loop_exec(module, state) < 0 ||
        gpy_coro_exec(module, state) < 0 || gpy_coro_method_exec(module, state) < 0 ||
        gpy_tcp_exec(module, state) < 0 || gpy_file_exec(module, state) < 0 ||
        gpy_streams_exec(module, state) < 0)
        return -1;
    return PyModule_AddStringConstant(module, "__version__", GPY_VERSION);
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct gpy_state *state = gpy_state_of_module(module);
    if (state == NULL) /* not executed yet */
        return 0;
#define X(field) Py_VISIT(state->field);
    GPY_TYPES(X)
    GPY_OBJECTS(X)
#undef X
#define X(name) Py_VISIT(state->str_##name);
    GPY_NAMES(X)
#undef X
    return 0;
}

static void
state_clear(struct gpy_state *state)
{
#define X(field) Py_CLEAR(state->field);
    GPY_TYPES(X)
    GPY_OBJECTS(X)
#undef X
#define X(name) Py_CLEAR(state->str_##name);
    GPY_NAMES(X)
#undef X
}

static PyObject *
freelists(PyObject *module, PyObject *limit_or_none)
{
    struct gpy_state *state = gpy_state_of_module(module);
    if (limit_or_none != Py_None) {
        unsigned long limit = PyLong_AsUnsignedLong(limit_or_none);
        if (limit == (unsigned long)-1 && PyErr_Occurred())
            return NULL;
        limit_freelists(state, (unsigned)Py_MIN(limit, UINT_MAX));
    }
    PyObject *counts = PyDict_New();
#define X(name)                                                                                    \
    if (counts != NULL) {                                                                          \
        PyObject *count = PyLong_FromUnsignedLong(state->free_##name.count);                       \
        if (count == NULL || PyDict_SetItemString(counts, #name, count) < 0)                       \
            Py_CLEAR(counts);                                                                      \
        Py_XDECREF(count);                                                                         \
    }
    GPY_FREELISTS(X)
#undef X
    return counts;
}

static PyMethodDef module_methods[] = {
    {"_freelists", freelists, METH_O,
     PyDoc_STR("_freelists($module, limit, /)\n--\n\nHow many pieces of memory each free list "
               "holds; limit (None: as it is) for each.")},
    {"_sock_method", gpy_sock_method, METH_O,
     PyDoc_STR("_sock_method($module, function, /)\n--\n\nThe same coroutine function of a loop; a "
               "plain call takes a short cut.")},
    {NULL, NULL, 0, NULL},
};

void
gpy_state_drop(struct gpy_state *state)
{
    limit_freelists(state, 0);
    state_clear(state);
    PyMem_Free(state);
}

static int
module_clear(PyObject *module)
{
    struct gpy_state *state = gpy_state_of_module(module);
    if (state != NULL && state->users == 0)
        state_clear(state);
    return 0;
}

static void
module_free(void *module)
{
    struct gpy_state *state = gpy_state_of_module((PyObject *)module);
    if (state == NULL)
        return;
    state->is_orphan = true;
    if (state->users == 0)
        gpy_state_drop(state);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

struct PyModuleDef gpy_module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "gyre._gyre",
    .m_doc = "The C half of gyre: LoopCore, Task, Future, Handle and the transports.",
    .m_size = sizeof(struct gpy_state *),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__gyre(void);

PyMODINIT_FUNC
PyInit__gyre(void)
{
    return PyModuleDef_Init(&gpy_module_def);
}
