/* errors.c: see errors.h.  Thread: any that holds the GIL. */
#include "errors.h"

#include "../core/base.h"
#include <string.h>

PyObject *
gpy_oserror_new(int err)
{
    GY_ASSERT(err < 0);
    /* strerror() and its locale are what os.strerror() and the socket module use, too. */
    return PyObject_CallFunction(PyExc_OSError, "is", -err, strerror(-err));
}

PyObject *
gpy_oserror_raise(int err)
{
    PyObject *exc = gpy_oserror_new(err);
    if (exc != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
        Py_DECREF(exc);
    }
    return NULL;
}
