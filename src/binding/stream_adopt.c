/* stream_adopt.c: how a plain asyncio.StreamReader comes to have an intake, and its attributes.
 *
 * Adopting: what a new StreamReader has in its __dict__ (these attributes, nothing else) moves into
 * the intake, the intake takes its place there, and the class changes.  Anything that does not look
 * exactly so is left alone.  Letting go is the reverse: it happens when somebody assigns what the
 * intake cannot keep, deletes an attribute or sets another class. */
#include "stream_intake.h"

#include "../core/base.h"

#include <stddef.h>

enum { READER_ATTRIBUTES = 8 };

/* More than any buffer has, and exact as a double. */
#define LIMIT_MAX ((Py_ssize_t)1 << 52)

/* The reader's __dict__; new reference. */
static PyObject *
dict_of(PyObject *reader)
{
    return PyObject_GenericGetDict(reader, NULL);
}

/* The reader has attributes of its own: does one of them hide what we stand in for? */
static GY_COLD bool
hides_method(PyObject *dict)
{
    static const char *const names[] = {"read",
                                        "readexactly",
                                        "readuntil",
                                        "readline",
                                        "feed_data",
                                        "feed_eof",
                                        "exception",
                                        "at_eof",
                                        "_wakeup_waiter",
                                        "_wait_for_data",
                                        "_maybe_resume_transport"};
    for (size_t i = 0; i < Py_ARRAY_LENGTH(names); i++)
        if (PyDict_GetItemString(dict, names[i]) != NULL)
            return true;
    return false;
}

/* The intake in a reader's __dict__, borrowed, or NULL.  Where nothing else is in there, to go to
 * the first entry is cheaper than to look it up. */
static PyObject *
find_intake(struct gpy_state *state, PyObject *dict, bool *untouched)
{
    PyObject *key = NULL, *value = NULL;
    Py_ssize_t position = 0;
    *untouched = PyDict_GET_SIZE(dict) == 1;
    if (GY_LIKELY(*untouched) && PyDict_Next(dict, &position, &key, &value) &&
        key == state->str__intake)
        return value;
    value = PyDict_GetItemWithError(dict, state->str__intake);
    *untouched = value != NULL && !hides_method(dict);
    return value;
}

struct gpy_intake *
gpy_intake_of(struct gpy_state *state, PyObject *reader, bool *untouched)
{
    if (!Py_IS_TYPE(reader, state->stream_reader_type))
        return NULL;
    PyObject *dict = dict_of(reader);
    PyObject *intake = dict ? find_intake(state, dict, untouched) : NULL;
    Py_XDECREF(dict); /* the reader has it */
    if (GY_LIKELY(intake != NULL && Py_IS_TYPE(intake, state->stream_intake_type)))
        return (struct gpy_intake *)intake;
    *untouched = false;
    PyErr_Clear();
    return NULL;
}

/* ---- the class of a reader ---------------------------------------------------------------------
 */

/* object.__class__ = type, past the descriptor of ours.  0 or -1. */
static int
set_class(struct gpy_state *state, PyObject *reader, PyObject *type)
{
    PyObject *descriptor = state->object_class;
    return Py_TYPE(descriptor)->tp_descr_set(descriptor, reader, type);
}

/* Everything back into the __dict__, and asyncio's class.  0 or -1. */
static int
let_go(struct gpy_state *state, PyObject *reader, struct gpy_intake *intake)
{
    PyObject *none = Py_None;
    PyObject *dict = dict_of(reader);
    PyObject *buffer = dict ? gpy_intake_bytearray(intake) : NULL;
    int rc = -1;
    Py_INCREF((PyObject *)intake);
    if (buffer != NULL && PyDict_SetItem(dict, state->str__buffer, buffer) == 0 &&
        PyDict_SetItem(dict, state->str__limit, intake->limit_object) == 0 &&
        PyDict_SetItem(dict, state->str__loop, intake->loop) == 0 &&
        PyDict_SetItem(dict, state->str__eof, intake->eof ? Py_True : Py_False) == 0 &&
        PyDict_SetItem(dict, state->str__paused, intake->paused ? Py_True : Py_False) == 0 &&
        PyDict_SetItem(dict, state->str__transport, intake->transport) == 0 &&
        PyDict_SetItem(dict, state->str__waiter, intake->waiter ? intake->waiter : none) == 0 &&
        PyDict_SetItem(dict, state->str__exception, intake->exception ? intake->exception : none) ==
            0)
        rc = set_class(state, reader, state->asyncio_stream_reader);
    if (rc == 0) {
        intake->orphaned = true; /* its coroutines hand over */
        rc = PyDict_DelItem(dict, state->str__intake);
    }
    Py_DECREF((PyObject *)intake);
    Py_XDECREF(dict);
    return rc;
}

/* ---- adopting ----------------------------------------------------------------------------------
 */

bool
gpy_intake_set_limit(struct gpy_intake *self, PyObject *limit)
{
    if (!PyLong_CheckExact(limit) && !PyFloat_CheckExact(limit))
        return false;
    double number = PyFloat_AsDouble(limit);
    PyErr_Clear(); /* an int beyond all floats: number is -1 */
    if (!(number >= 0))
        return false;
    if (number > (double)LIMIT_MAX)
        number = (double)LIMIT_MAX;
    self->limit = (Py_ssize_t)number;
    self->limit_twice = (Py_ssize_t)(2 * number);
    Py_XSETREF(self->limit_object, Py_NewRef(limit));
    return true;
}

/* The attributes of a new reader, from its dict; false (no exception): not as they should be. */
static bool
read_attributes(struct gpy_intake *self, PyObject *dict)
{
    struct gpy_state *state = self->state;
    PyObject *buffer = PyDict_GetItemWithError(dict, state->str__buffer);
    PyObject *limit = PyDict_GetItemWithError(dict, state->str__limit);
    PyObject *loop = PyDict_GetItemWithError(dict, state->str__loop);
    PyObject *eof = PyDict_GetItemWithError(dict, state->str__eof);
    PyObject *paused = PyDict_GetItemWithError(dict, state->str__paused);
    PyObject *transport = PyDict_GetItemWithError(dict, state->str__transport);
    PyObject *waiter = PyDict_GetItemWithError(dict, state->str__waiter);
    PyObject *exception = PyDict_GetItemWithError(dict, state->str__exception);
    if (buffer == NULL || limit == NULL || loop == NULL || eof == NULL || paused == NULL ||
        transport == NULL || waiter == NULL || exception == NULL ||
        PyDict_GET_SIZE(dict) != READER_ATTRIBUTES || !PyByteArray_CheckExact(buffer) ||
        !PyBool_Check(eof) || !PyBool_Check(paused) || !gpy_intake_set_limit(self, limit))
        return false;
    self->buffer = Py_NewRef(buffer);
    self->loop = Py_NewRef(loop);
    self->eof = eof == Py_True;
    self->paused = paused == Py_True;
    self->transport = Py_NewRef(transport);
    self->waiter = waiter == Py_None ? NULL : Py_NewRef(waiter);
    self->exception = exception == Py_None ? NULL : Py_NewRef(exception);
    return true;
}

/* A new dict with nothing but the intake is made sooner than the old one is emptied. */
static int
move_in(struct gpy_intake *self, PyObject *reader)
{
    struct gpy_state *state = self->state;
    PyObject *dict = PyDict_New();
    int rc = dict ? PyDict_SetItem(dict, state->str__intake, (PyObject *)self) : -1;
    if (rc == 0)
        rc = set_class(state, reader, (PyObject *)state->stream_reader_type);
    if (rc == 0)
        rc = PyObject_GenericSetDict(reader, dict, NULL);
    Py_XDECREF(dict);
    return rc;
}

struct gpy_intake *
gpy_intake_adopt(struct gpy_state *state, PyObject *reader)
{
    bool untouched;
    if (Py_IS_TYPE(reader, state->stream_reader_type))
        return (struct gpy_intake *)Py_XNewRef(
            (PyObject *)gpy_intake_of(state, reader, &untouched));
    if ((PyObject *)Py_TYPE(reader) != state->asyncio_stream_reader)
        return NULL;
    PyTypeObject *type = state->stream_intake_type;
    struct gpy_intake *self = (struct gpy_intake *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->state = state;
        gpy_state_hold(state);
    }
    PyObject *dict = self ? dict_of(reader) : NULL;
    if (dict != NULL) {
        if (!read_attributes(self, dict) || move_in(self, reader) < 0)
            Py_CLEAR(self);
    }
    if (dict == NULL)
        Py_CLEAR(self);
    Py_XDECREF(dict);
    PyErr_Clear(); /* no memory, or a class that cannot be changed: it stays asyncio's */
    return self;
}

/* ---- attributes ---------------------------------------------------------------------------------
 */

/* The intake behind an attribute, borrowed; NULL (no exception): a reader of this class that was
 * made by hand, whose attributes are in its __dict__ as asyncio has them. */
static struct gpy_intake *
find_any_intake(PyObject *dict)
{
    PyObject *key, *value;
    Py_ssize_t position = 0;
    /* No state at hand, and the intake is the first entry. */
    while (PyDict_Next(dict, &position, &key, &value)) {
        if (!gpy_intake_check(value))
            continue;
        struct gpy_intake *intake = (struct gpy_intake *)value;
        if (GY_LIKELY(key == intake->state->str__intake) ||
            (PyUnicode_Check(key) && PyUnicode_CompareWithASCIIString(key, "_intake") == 0))
            return intake;
    }
    return NULL;
}

static struct gpy_intake *
intake_behind(PyObject *reader)
{
    PyObject *dict = dict_of(reader);
    struct gpy_intake *found = dict ? find_any_intake(dict) : NULL;
    Py_XDECREF(dict); /* the reader has it */
    if (GY_UNLIKELY(found == NULL))
        PyErr_Clear();
    return found;
}

enum attribute { BUFFER, LIMIT, LOOP, EOF_FLAG, PAUSED, TRANSPORT, WAITER, EXCEPTION };

static PyObject *
attribute_name(struct gpy_state *state, enum attribute which)
{
    switch (which) {
    case BUFFER:
        return state->str__buffer;
    case LIMIT:
        return state->str__limit;
    case LOOP:
        return state->str__loop;
    case EOF_FLAG:
        return state->str__eof;
    case PAUSED:
        return state->str__paused;
    case TRANSPORT:
        return state->str__transport;
    case WAITER:
        return state->str__waiter;
    case EXCEPTION:
        return state->str__exception;
    }
    Py_UNREACHABLE();
}

static const char *const attribute_names[] = {
    [BUFFER] = "_buffer", [LIMIT] = "_limit",         [LOOP] = "_loop",
    [EOF_FLAG] = "_eof",  [PAUSED] = "_paused",       [TRANSPORT] = "_transport",
    [WAITER] = "_waiter", [EXCEPTION] = "_exception",
};

/* reader.__dict__[name], of a reader without an intake. */
static GY_COLD PyObject *
plain_get(PyObject *reader, const char *name)
{
    PyObject *dict = dict_of(reader);
    PyObject *value = dict ? Py_XNewRef(PyDict_GetItemString(dict, name)) : NULL;
    if (dict != NULL && value == NULL)
        PyErr_Format(PyExc_AttributeError, "'StreamReader' object has no attribute '%s'", name);
    Py_XDECREF(dict);
    return value;
}

static GY_COLD int
plain_set(PyObject *reader, const char *name, PyObject *value)
{
    PyObject *dict = dict_of(reader);
    if (dict == NULL)
        return -1;
    int rc = value ? PyDict_SetItemString(dict, name, value) : PyDict_DelItemString(dict, name);
    if (rc < 0 && PyErr_ExceptionMatches(PyExc_KeyError))
        PyErr_SetString(PyExc_AttributeError, name);
    Py_DECREF(dict);
    return rc;
}

static PyObject *
attribute_get(PyObject *reader, void *closure)
{
    struct gpy_intake *intake = intake_behind(reader);
    if (GY_UNLIKELY(intake == NULL))
        return plain_get(reader, attribute_names[(uintptr_t)closure]);
    switch ((enum attribute)(uintptr_t)closure) {
    case BUFFER:
        return Py_XNewRef(gpy_intake_bytearray(intake));
    case LIMIT:
        return Py_NewRef(intake->limit_object);
    case LOOP:
        return Py_NewRef(intake->loop);
    case EOF_FLAG:
        return PyBool_FromLong(intake->eof);
    case PAUSED:
        return PyBool_FromLong(intake->paused);
    case TRANSPORT:
        return Py_NewRef(intake->transport);
    case WAITER:
        return Py_NewRef(intake->waiter != NULL ? intake->waiter : Py_None);
    case EXCEPTION:
        return Py_NewRef(intake->exception != NULL ? intake->exception : Py_None);
    }
    Py_UNREACHABLE();
}

/* 1: kept; 0: the intake cannot keep this. */
static int
keep_buffer(struct gpy_intake *intake, PyObject *value)
{
    if (!PyByteArray_CheckExact(value) || gpy_intake_bytearray(intake) == NULL) {
        PyErr_Clear();
        return 0;
    }
    Py_SETREF(intake->buffer, Py_NewRef(value));
    return 1;
}

static int
keep_flag(bool *flag, PyObject *value)
{
    if (!PyBool_Check(value))
        return 0;
    *flag = value == Py_True;
    return 1;
}

static int
attribute_keep(struct gpy_intake *intake, enum attribute which, PyObject *value)
{
    switch (which) {
    case BUFFER:
        return keep_buffer(intake, value);
    case LIMIT:
        return gpy_intake_set_limit(intake, value);
    case EOF_FLAG:
        return keep_flag(&intake->eof, value);
    case PAUSED:
        return keep_flag(&intake->paused, value);
    case LOOP:
        Py_SETREF(intake->loop, Py_NewRef(value));
        return 1;
    case TRANSPORT:
        Py_SETREF(intake->transport, Py_NewRef(value));
        return 1;
    case WAITER:
        Py_XSETREF(intake->waiter, value == Py_None ? NULL : Py_NewRef(value));
        return 1;
    case EXCEPTION:
        Py_XSETREF(intake->exception, value == Py_None ? NULL : Py_NewRef(value));
        return 1;
    }
    Py_UNREACHABLE();
}

static int
attribute_set(PyObject *reader, PyObject *value, void *closure)
{
    enum attribute which = (enum attribute)(uintptr_t)closure;
    struct gpy_intake *intake = intake_behind(reader);
    if (GY_UNLIKELY(intake == NULL))
        return plain_set(reader, attribute_names[which], value);
    if (value != NULL && attribute_keep(intake, which, value) > 0)
        return 0;
    struct gpy_state *state = intake->state; /* its module is alive: the reader's type holds it */
    if (let_go(state, reader, intake) < 0)
        return -1;
    return PyObject_SetAttr(reader, attribute_name(state, which), value);
}

/* asyncio's class; or the subclass that somebody made of ours. */
static PyObject *
class_get(PyObject *reader, void *Py_UNUSED(closure))
{
    PyTypeObject *type = Py_TYPE(reader);
    return Py_NewRef((PyObject *)(gpy_stream_class_is_ours(type) ? type->tp_base : type));
}

static int
class_set(PyObject *reader, PyObject *value, void *Py_UNUSED(closure))
{
    struct gpy_intake *intake = intake_behind(reader);
    if (gpy_stream_class_is_ours(Py_TYPE(reader)) && value == (PyObject *)Py_TYPE(reader)->tp_base)
        return 0;
    if (intake == NULL)
        return gpy_stream_set_class(reader, value);
    struct gpy_state *state = intake->state;
    return let_go(state, reader, intake) < 0 ? -1 : set_class(state, reader, value);
}

#define ATTRIBUTE(name, which)                                                                     \
    {                                                                                              \
        name, attribute_get, attribute_set, NULL, (void *)(uintptr_t)(which)                       \
    }
static PyGetSetDef reader_getset[] = {
    {"__class__", class_get, class_set, NULL, NULL},
    ATTRIBUTE("_buffer", BUFFER),
    ATTRIBUTE("_limit", LIMIT),
    ATTRIBUTE("_loop", LOOP),
    ATTRIBUTE("_eof", EOF_FLAG),
    ATTRIBUTE("_paused", PAUSED),
    ATTRIBUTE("_transport", TRANSPORT),
    ATTRIBUTE("_waiter", WAITER),
    ATTRIBUTE("_exception", EXCEPTION),
};

int
gpy_intake_add_attributes(struct gpy_state *state, PyObject *namespace)
{
    PyTypeObject *base = (PyTypeObject *)state->asyncio_stream_reader;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(reader_getset); i++) {
        PyObject *descriptor = PyDescr_NewGetSet(base, &reader_getset[i]);
        int rc =
            descriptor ? PyDict_SetItemString(namespace, reader_getset[i].name, descriptor) : -1;
        Py_XDECREF(descriptor);
        if (rc < 0)
            return -1;
    }
    return 0;
}
