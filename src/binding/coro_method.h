/* coro_method.h: a method that takes a short cut past a function in Python.
 *
 * To the outside it is that function: it has its attributes (inspect sees a coroutine function and
 * its signature) and binds as one.  A call goes to `vectorcall`, which calls the function itself
 * whenever the short cut is none. */
#ifndef GPY_CORO_METHOD_H
#define GPY_CORO_METHOD_H

#include "state.h"

struct gpy_coro_method {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    struct gpy_state *state;
    PyObject *function;
    PyObject *base; /* streams: asyncio's class; or NULL        */
    PyObject *name; /* of the function there; NULL without base */
    uint8_t kind;   /* whatever vectorcall makes of it          */
};

PyObject *gpy_coro_method_new(struct gpy_state *state, vectorcallfunc vectorcall,
                              PyObject *function, uint8_t kind);
int gpy_coro_method_exec(PyObject *module, struct gpy_state *state);

#endif
