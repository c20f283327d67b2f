/* args.c: see args.h. */
#include "args.h"

static int
unexpected(const char *function, PyObject *key)
{
    PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument %R", function, key);
    return -1;
}

/* The index of the leading parameter of this name, or -1. */
static Py_ssize_t
leading_index(const struct gpy_leading *leading, PyObject *key)
{
    for (Py_ssize_t i = 0; i < leading->count; i++)
        if (PyUnicode_CompareWithASCIIString(key, leading->names[i]) == 0)
            return i;
    return -1;
}

static int
fill_leading(struct gpy_call *call, const struct gpy_leading *leading)
{
    Py_ssize_t missing = 0;
    for (Py_ssize_t i = 0; i < leading->count; i++) {
        if (i < call->nargs)
            call->named[i] = call->args[i];
        missing += call->named[i] == NULL;
    }
    if (missing != 0) {
        PyErr_Format(PyExc_TypeError, "%s() missing %zd required positional argument%s",
                     leading->function, missing, missing == 1 ? "" : "s");
        return -1;
    }
    call->args = call->named;
    call->nargs = leading->count;
    return 0;
}

int
gpy_call_parse_named(struct gpy_call *call, const struct gpy_leading *leading, PyObject *kwnames)
{
    PyObject *const *values = call->args + call->nargs;
    Py_ssize_t count = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;

    for (Py_ssize_t i = 0; i < GPY_LEADING_MAX; i++)
        call->named[i] = NULL;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *key = PyTuple_GET_ITEM(kwnames, i);
        Py_ssize_t index = leading_index(leading, key);
        if (leading->takes_context && PyUnicode_CompareWithASCIIString(key, "context") == 0) {
            call->context = values[i] == Py_None ? NULL : values[i];
        } else if (index < 0) {
            return unexpected(leading->function, key);
        } else if (index < call->nargs) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument %R",
                         leading->function, key);
            return -1;
        } else {
            call->named[index] = values[i];
        }
    }
    return call->nargs < leading->count ? fill_leading(call, leading) : 0;
}

PyObject *
gpy_one_argument(const char *function, const char *name, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    Py_ssize_t count = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *key = PyTuple_GET_ITEM(kwnames, i);
        if (PyUnicode_CompareWithASCIIString(key, name) != 0) {
            (void)unexpected(function, key);
            return NULL;
        }
    }
    if (nargs + count == 1)
        return args[0];
    if (nargs + count == 0)
        PyErr_Format(PyExc_TypeError, "%s() missing 1 required positional argument: '%s'", function,
                     name);
    else
        PyErr_Format(PyExc_TypeError, "%s() takes 2 positional arguments but %zd were given",
                     function, nargs + count + 1);
    return NULL;
}
