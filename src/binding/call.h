/* call.h: calling Python objects with fewer steps between.
 *
 * The same calls as PyObject_Vectorcall() makes, without its look at what came back: a callable
 * that returns NULL without an exception is a bug of its own.  Builds with assertions take the long
 * way and see it. */
#ifndef GPY_CALL_H
#define GPY_CALL_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

#include "../core/base.h"

/* callable(*args[0:nargs]); args[-1] is scratch if nargsf says so. */
static inline PyObject *
gpy_call(PyObject *callable, PyObject *const *args, size_t nargsf)
{
#if !GY_ASSERTS
    PyTypeObject *type = Py_TYPE(callable);
    if (GY_LIKELY(PyType_HasFeature(type, Py_TPFLAGS_HAVE_VECTORCALL))) {
        vectorcallfunc function;
        memcpy(&function, (const char *)callable + type->tp_vectorcall_offset, sizeof function);
        if (GY_LIKELY(function != NULL))
            return function(callable, args, nargsf, NULL);
    }
#endif
    return PyObject_Vectorcall(callable, args, nargsf, NULL);
}

/* PyIter_Send(iterator, None, &result) */
static inline PySendResult
gpy_send_none(PyObject *iterator, PyObject **result)
{
#if !GY_ASSERTS
    PyAsyncMethods *methods = Py_TYPE(iterator)->tp_as_async;
    if (GY_LIKELY(methods != NULL && methods->am_send != NULL))
        return methods->am_send(iterator, Py_None, result);
#endif
    return PyIter_Send(iterator, Py_None, result);
}

#endif
