/* future_methods.h: the methods and getters that Future and Task have in common, as table rows.
 *
 * asyncio's Task inherits from asyncio's Future, but gyre.Task cannot inherit from gyre.Future as
 * well: the two bases have different layouts.  So both types list these rows themselves. */
#ifndef GPY_FUTURE_METHODS_H
#define GPY_FUTURE_METHODS_H

#include "future.h"

PyObject *gpy_fut_m_result(PyObject *self, PyObject *unused);
PyObject *gpy_fut_m_exception(PyObject *self, PyObject *unused);
PyObject *gpy_fut_m_done(PyObject *self, PyObject *unused);
PyObject *gpy_fut_m_cancelled(PyObject *self, PyObject *unused);
PyObject *gpy_fut_m_get_loop(PyObject *self, PyObject *unused);
PyObject *gpy_fut_m_make_cancelled_error(PyObject *self, PyObject *unused);
PyObject *gpy_fut_m_add_done_callback(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
                                      PyObject *kwnames);
PyObject *gpy_fut_m_remove_done_callback(PyObject *self, PyObject *callable);

PyObject *gpy_fut_get_state(PyObject *self, void *closure);
PyObject *gpy_fut_get_blocking(PyObject *self, void *closure);
int gpy_fut_set_blocking(PyObject *self, PyObject *value, void *closure);
PyObject *gpy_fut_get_loop(PyObject *self, void *closure);
PyObject *gpy_fut_get_callbacks(PyObject *self, void *closure);
PyObject *gpy_fut_get_result(PyObject *self, void *closure);
PyObject *gpy_fut_get_exception(PyObject *self, void *closure);
PyObject *gpy_fut_get_log_traceback(PyObject *self, void *closure);
int gpy_fut_set_log_traceback(PyObject *self, PyObject *value, void *closure);
PyObject *gpy_fut_get_source_traceback(PyObject *self, void *closure);
PyObject *gpy_fut_get_cancel_message(PyObject *self, void *closure);
int gpy_fut_set_cancel_message(PyObject *self, PyObject *value, void *closure);

/* The message argument of cancel(msg=None), which Future and Task both take.  Borrowed; NULL with
 * TypeError set. */
PyObject *gpy_fut_parse_cancel(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                               PyObject *msg_name);

/* PyCFunction and _PyCFunctionFast* differ in type; PyMethodDef holds them all as PyCFunction. */
#define GPY_FASTCALL_KEYWORDS(function)                                                            \
    (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS

#define GPY_FUT_METHODS                                                                            \
    {"result", gpy_fut_m_result, METH_NOARGS,                                                      \
     PyDoc_STR("result($self, /)\n--\n\nReturn the result, or raise the exception; "               \
               "InvalidStateError while pending.")},                                               \
        {"exception", gpy_fut_m_exception, METH_NOARGS,                                            \
         PyDoc_STR("exception($self, /)\n--\n\nReturn the exception that was set, or None; "       \
                   "raises like result() if "                                                      \
                   "cancelled or pending.")},                                                      \
        {"done", gpy_fut_m_done, METH_NOARGS,                                                      \
         PyDoc_STR("done($self, /)\n--\n\nReturn True once there is a result, an exception or a "  \
                   "cancellation.")},                                                              \
        {"cancelled", gpy_fut_m_cancelled, METH_NOARGS,                                            \
         PyDoc_STR("cancelled($self, /)\n--\n\nReturn True if this ended by cancellation.")},      \
        {"get_loop", gpy_fut_m_get_loop, METH_NOARGS,                                              \
         PyDoc_STR("get_loop($self, /)\n--\n\nReturn the event loop this belongs to.")},           \
        {"_make_cancelled_error", gpy_fut_m_make_cancelled_error, METH_NOARGS,                     \
         PyDoc_STR("Return the CancelledError to raise; the original one the first time.")},       \
        {"add_done_callback", GPY_FASTCALL_KEYWORDS(gpy_fut_m_add_done_callback),                  \
         PyDoc_STR("add_done_callback($self, fn, /, *, context=None)\n--\n\nHave the loop call "   \
                   "fn(self) "                                                                     \
                   "in context once this is done.")},                                              \
        {"remove_done_callback", gpy_fut_m_remove_done_callback, METH_O,                           \
         PyDoc_STR("remove_done_callback($self, fn, /)\n--\n\nRemove every callback equal to fn "  \
                   "and return how many there were.")},                                            \
    {                                                                                              \
        "__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS,                                 \
            PyDoc_STR("Future[int] and Task[int] are for annotations only.")                       \
    }

extern PyMethodDef gpy_future_methods[];
extern PyGetSetDef gpy_future_getset[];

#define GPY_FUT_GETSET                                                                             \
    {"_state", gpy_fut_get_state}, {"_loop", gpy_fut_get_loop},                                    \
        {"_asyncio_future_blocking", gpy_fut_get_blocking, gpy_fut_set_blocking},                  \
        {"_callbacks", gpy_fut_get_callbacks}, {"_result", gpy_fut_get_result},                    \
        {"_exception", gpy_fut_get_exception},                                                     \
        {"_log_traceback", gpy_fut_get_log_traceback, gpy_fut_set_log_traceback},                  \
        {"_source_traceback", gpy_fut_get_source_traceback},                                       \
    {                                                                                              \
        "_cancel_message", gpy_fut_get_cancel_message, gpy_fut_set_cancel_message                  \
    }

#endif
