/* pycompat.h: everything that differs between the supported versions of CPython's C API.
 *
 * No other file of the binding tests PY_VERSION_HEX, apart from module.c (slots) and
 * task_registry.c (where asyncio keeps its tasks).  What a patch release changed is asked at run
 * time, with gpy_python_at_least(): the extension may have been built with an older one. */
#ifndef GPY_PYCOMPAT_H
#define GPY_PYCOMPAT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#if PY_VERSION_HEX >= 0x030C0000
#define GPY_HAS_EAGER_TASKS 1        /* Task(eager_start=True), _swap_current_task()           */
#define GPY_ASYNCIO_TYPES_ARE_HEAP 1 /* their tp_dealloc drops and tp_traverse visits the type */
#define GPY_THROW_IS_SINGLE_ARG 1    /* throw(type, value, tb) is deprecated                   */
#define GPY_TASK_HAS_GET_CONTEXT 1
#define GPY_DICT_BEFORE_OBJECT 1   /* asyncio.Future's dict, which CPython lays out and keeps  */
#define GPY_TASK_NAME_MAY_BE_INT 1 /* n stands for Task-n                                   */
#define GPY_GET_EVENT_LOOP "get_event_loop" /* in asyncio.events: what Future(loop=None) asks   */
#define GPY_ASYNCIO_TASK_SET "_scheduled_tasks" /* before 3.14: the WeakSet of all tasks */
#else
#define GPY_HAS_EAGER_TASKS 0
#define GPY_ASYNCIO_TYPES_ARE_HEAP 0
#define GPY_THROW_IS_SINGLE_ARG 0
#define GPY_TASK_HAS_GET_CONTEXT 0
#define GPY_DICT_BEFORE_OBJECT 0
#define GPY_TASK_NAME_MAY_BE_INT 0
#define GPY_GET_EVENT_LOOP "_get_event_loop"
#define GPY_ASYNCIO_TASK_SET "_all_tasks"
#endif

/* loop.create_task(eager_start=): 3.14, and 3.13.3 by the same change. */
#define GPY_CREATE_TASK_HAS_EAGER_START (gpy_python_at_least(13, 3))
#define GPY_CREATE_TASK_PASSES_ANYTHING (PY_VERSION_HEX >= 0x030D0300) /* **kwargs since then */

#if PY_VERSION_HEX >= 0x030E0000
#define GPY_HAS_AWAITED_BY 1 /* call graphs; tasks listed per thread                   */
#else
#define GPY_HAS_AWAITED_BY 0
#endif

#if PY_VERSION_HEX >= 0x030F0000
#define GPY_COROUTINES_HAVE_STATE 1 /* cr_state, which inspect.getcoroutinestate() reads */
#else
#define GPY_COROUTINES_HAVE_STATE 0
#endif

#if PY_VERSION_HEX >= 0x030D0000
#define GPY_SERVER_ATTACH_TAKES_TRANSPORT 1 /* Server._attach(transport), _detach(transport) */
#else
#define GPY_SERVER_ATTACH_TAKES_TRANSPORT 0
#endif

#if PY_VERSION_HEX >= 0x030D0000
#define GPY_SENDS_EMPTY_DATAGRAMS 1
#define GPY_DATAGRAM_HEADER_BYTES 8 /* that count as buffered, beside the data */
#else
#define GPY_SENDS_EMPTY_DATAGRAMS 0
#define GPY_DATAGRAM_HEADER_BYTES 0
#endif

/* What write() wants, in the words of asyncio's TypeError. */
#if PY_VERSION_HEX >= 0x030E0000
#define GPY_DATA_ARGUMENT "a bytes, bytearray, or memoryview object"
#else
#define GPY_DATA_ARGUMENT "a bytes-like object"
#endif

/* writelines() of 3.11 is write() of what join() makes, with the errors of both. */
#if PY_VERSION_HEX >= 0x030C0000
#define GPY_WRITELINES_JOINS 0
#else
#define GPY_WRITELINES_JOINS 1
#endif

/* The version that runs, not the one that compiled: (3 << 24) | (minor << 16) | (micro << 8). */
static inline bool
gpy_python_at_least(int minor, int micro)
{
    return Py_Version >= (0x03000000ul | (unsigned long)minor << 16 | (unsigned long)micro << 8);
}

/* Takes the exception being raised out of the thread, as an instance that carries its traceback.
 * New reference; an exception must be set. */
static inline PyObject *
gpy_exc_take(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL)
        (void)PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
#endif
}

/* Raises `exc`, an instance, with the traceback that it carries.  Steals the reference. */
static inline void
gpy_exc_give(PyObject *exc)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(exc);
#else
    PyErr_Restore(Py_NewRef(Py_TYPE(exc)), exc, PyException_GetTraceback(exc));
#endif
}

/* Ends a clean-up that may itself have failed: raises `earlier`, or, if another exception is being
 * raised by now, makes `earlier` its context.  Steals the reference. */
static inline void
gpy_exc_chain(PyObject *earlier)
{
    if (!PyErr_Occurred()) {
        gpy_exc_give(earlier);
        return;
    }
    PyObject *later = gpy_exc_take();
    if (later == earlier)
        Py_DECREF(earlier);
    else
        PyException_SetContext(later, earlier);
    gpy_exc_give(later);
}

#if PY_VERSION_HEX < 0x030E0000
/* A number that changes with every change of the dict, here or in another thread. */
static inline uint64_t
gpy_dict_version(PyObject *dict)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* says 3.12, gone in 3.14 */
    return ((PyDictObject *)(void *)dict)->ma_version_tag;
#pragma GCC diagnostic pop
}
#endif

/* The same for the __dict__ of an object that may have its attributes in other ways as well; 0: it
 * is not known.  From 3.13 on an attribute that is assigned may not show in the dict's version. */
static inline uint64_t
gpy_attributes_version(PyObject *dict)
{
#if PY_VERSION_HEX < 0x030D0000
    return gpy_dict_version(dict);
#else
    (void)dict;
    return 0;
#endif
}

/* The content of a bytes object that nobody else has is new. */
static inline void
gpy_bytes_changed(PyObject *bytes)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* says 3.11; still used in 3.15 */
    ((PyBytesObject *)(void *)bytes)->ob_shash = -1;
#pragma GCC diagnostic pop
}

/* What a weak reference points at; new reference, NULL (no exception) if it is gone. */
static inline PyObject *
gpy_weakref_get(PyObject *reference)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *object = NULL;
    if (PyWeakref_GetRef(reference, &object) < 0)
        PyErr_Clear();
    return object;
#else
    PyObject *object = PyWeakref_GetObject(reference);
    return object == NULL || object == Py_None ? NULL : Py_NewRef(object);
#endif
}

static inline bool
gpy_is_finalizing(void)
{
#if PY_VERSION_HEX >= 0x030D0000
    return Py_IsFinalizing();
#else
    return _Py_IsFinalizing();
#endif
}

/* Shortens bytes that nobody else has yet; NULL and an exception if that fails.  A little stays
 * where it is: realloc() would cut it off, and glibc keeps so small a piece for the next malloc()
 * of its size, behind which, at the top of the heap, no message of a burst goes back to the
 * system. */
static inline void
gpy_bytes_cut(PyObject **bytes, Py_ssize_t len)
{
    enum { SMALL = 1040 /* the largest that glibc's tcache takes, and more */ };
    Py_ssize_t over = PyBytes_GET_SIZE(*bytes) - len;
    if (over > SMALL || over > len / 8) {
        (void)_PyBytes_Resize(bytes, len);
        return;
    }
    Py_SET_SIZE((PyVarObject *)*bytes, len);
    PyBytes_AS_STRING(*bytes)[len] = '\0';
}

#endif
