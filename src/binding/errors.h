/* errors.h: the one place that turns the core's -errno into Python exceptions. */
#ifndef GPY_ERRORS_H
#define GPY_ERRORS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* The OSError for -errno (err < 0), of the subclass that Python gives it.  New reference, or NULL
 * with another exception set. */
PyObject *gpy_oserror_new(int err);

/* Raises it.  Always returns NULL. */
PyObject *gpy_oserror_raise(int err);

#endif
