/* args.h: arguments of C methods that asyncio's Python methods take by position or by name.
 * Borrowed references throughout; thread: any that holds the GIL. */
#ifndef GPY_ARGS_H
#define GPY_ARGS_H

#include "state.h"

#include "base.h"

enum { GPY_LEADING_MAX = 2 };

/* The signature of a method of the call_soon kind: (leading..., *args, context=None). */
struct gpy_leading {
    const char *function;
    Py_ssize_t count; /* leading parameters, all required */
    const char *names[GPY_LEADING_MAX];
    bool takes_context;
};

/* One call of it: args[0:nargs], of which the leading ones are there whatever way they came. */
struct gpy_call {
    PyObject *const *args;
    Py_ssize_t nargs;
    PyObject *context; /* NULL: none, or None */
    PyObject *named[GPY_LEADING_MAX];
};

/* The rare way: something is named or missing.  0, or -1 with TypeError. */
int gpy_call_parse_named(struct gpy_call *call, const struct gpy_leading *leading,
                         PyObject *kwnames);

/* `call` must stay where it is as long as its args are used.  0, or -1 with TypeError. */
static inline int
gpy_call_parse(struct gpy_call *call, const struct gpy_leading *leading, PyObject *const *args,
               Py_ssize_t nargs, PyObject *kwnames)
{
    call->args = args;
    call->nargs = nargs;
    call->context = NULL;
    if (GY_LIKELY(kwnames == NULL && nargs >= leading->count))
        return 0;
    return gpy_call_parse_named(call, leading, kwnames);
}

/* The only argument of `function`; NULL with TypeError. */
PyObject *gpy_one_argument(const char *function, const char *name, PyObject *const *args,
                           Py_ssize_t nargs, PyObject *kwnames);

/* A METH_FASTCALL | METH_KEYWORDS function over one that takes its only argument as it is.
 * NOLINTBEGIN(bugprone-macro-parentheses): self_type is a type. */
#define GPY_ONE_ARGUMENT(wrapper, self_type, implementation, function, name)                       \
    static PyObject *wrapper(self_type *self, PyObject *const *args, Py_ssize_t nargs,             \
                             PyObject *kwnames)                                                    \
    {                                                                                              \
        PyObject *argument = GY_LIKELY(kwnames == NULL && nargs == 1)                              \
                                 ? args[0]                                                         \
                                 : gpy_one_argument(function, name, args, nargs, kwnames);         \
        return argument ? implementation(self, argument) : NULL;                                   \
    }
/* NOLINTEND(bugprone-macro-parentheses) */

#define GPY_METHOD(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS

#endif
