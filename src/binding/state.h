/* state.h: what one import of gyre._gyre owns.
 *
 * There are no C globals that hold Python objects: two subinterpreters each have a module state of
 * their own.  Each file of the binding adds its types and interned names to the X-macro lists
 * below, so that traverse and clear (module.c) can never forget one. Thread: any thread that holds
 * the GIL of the owning interpreter. */
#ifndef GPY_STATE_H
#define GPY_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Heap types that the module creates: GPY_TYPE(field). */
#define GPY_TYPES(X)

/* Objects looked up once, at import: GPY_OBJECT(field).  Who looks it up says so in its exec
 * function. */
#define GPY_OBJECTS(X)

/* Interned attribute and keyword names: GPY_NAME(identifier) is state->str_identifier. */
#define GPY_NAMES(X)

struct gpy_state {
#define X(field) PyTypeObject *field;
    GPY_TYPES(X)
#undef X
#define X(field) PyObject *field;
    GPY_OBJECTS(X)
#undef X
#define X(name) PyObject *str_##name;
    GPY_NAMES(X)
#undef X
};

extern struct PyModuleDef gpy_module_def;

static inline struct gpy_state *
gpy_state_of_module(PyObject *module)
{
    return (struct gpy_state *)PyModule_GetState(module);
}

/* The state behind any instance of one of our types or of a Python subclass of it.
 * NULL with TypeError set if the type does not come from this module. */
static inline struct gpy_state *
gpy_state_of_type(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &gpy_module_def);
    return module ? gpy_state_of_module(module) : NULL;
}

#endif
