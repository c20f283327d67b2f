/* streams.c: see streams.h: the classes of adopted readers and writers, and their methods.
 *
 * A method here is a descriptor that stands in for one of asyncio's functions (coro_method.h); it
 * calls the function whenever the call is not the plain one, or asyncio's class was changed.
 * Thread: the loop's. */
#include "streams.h"

#include "../core/base.h"
#include "coro.h"
#include "coro_method.h"
#include "future.h"
#include "pycompat.h"
#include "stream_transport.h"

#include <stddef.h>
#include <structmember.h>

/* ---- is everything asyncio's own? --------------------------------------------------------------
 */

enum hot_class { READER, WRITER, PROTOCOL, HOT_CLASSES };

static const struct {
    enum hot_class where;
    const char *name;
} hot[] = {
    {READER, "read"},
    {READER, "readexactly"},
    {READER, "readuntil"},
    {READER, "readline"},
    {READER, "feed_data"},
    {READER, "feed_eof"},
    {READER, "exception"},
    {READER, "at_eof"},
    {READER, "_wakeup_waiter"},
    {READER, "_wait_for_data"},
    {READER, "_maybe_resume_transport"},
    {WRITER, "write"},
    {WRITER, "drain"},
    {PROTOCOL, "data_received"},
    {PROTOCOL, "_drain_helper"},
};

/* Looked up in the __dict__ of a writer: its class has none of them. */
static const char *const in_dict[] = {"_transport", "_reader", "_protocol"};

static PyObject *
hot_class_of(struct gpy_state *state, enum hot_class which)
{
    switch (which) {
    case READER:
        return state->asyncio_stream_reader;
    case WRITER:
        return state->asyncio_stream_writer;
    case PROTOCOL:
    case HOT_CLASSES:
        break;
    }
    return state->asyncio_stream_protocol;
}

static unsigned int
version_of(PyObject *type)
{
    return ((PyTypeObject *)type)->tp_version_tag; /* 0 from a change to the next look-up */
}

/* Some class has another version than when we looked last. */
static GY_COLD bool
look_again(struct gpy_state *state)
{
    if (state->stream_originals == NULL)
        return false; /* not asyncio's own from the start, or the module is being torn down */
    PyObject *raised = PyErr_Occurred() ? gpy_exc_take() : NULL;
    bool same = true;
    for (size_t i = 0; same && i < Py_ARRAY_LENGTH(hot); i++) {
        PyObject *now = PyObject_GetAttrString(hot_class_of(state, hot[i].where), hot[i].name);
        same = now == PyTuple_GET_ITEM(state->stream_originals, (Py_ssize_t)i);
        Py_XDECREF(now);
    }
    for (size_t i = 0; same && i < Py_ARRAY_LENGTH(in_dict); i++)
        same = PyObject_HasAttrString(hot_class_of(state, WRITER), in_dict[i]) == 0;
    PyErr_Clear();
    if (raised != NULL)
        gpy_exc_give(raised);
    for (int i = 0; i < HOT_CLASSES; i++)
        state->stream_versions[i] = same ? version_of(hot_class_of(state, (enum hot_class)i)) : 0;
    return same;
}

bool
gpy_streams_pristine(struct gpy_state *state)
{
    const unsigned int *seen = state->stream_versions;
    if (GY_LIKELY(seen[READER] != 0 && seen[READER] == version_of(state->asyncio_stream_reader) &&
                  seen[WRITER] == version_of(state->asyncio_stream_writer) &&
                  seen[PROTOCOL] == version_of(state->asyncio_stream_protocol)))
        return true;
    return look_again(state);
}

/* ---- the protocol ------------------------------------------------------------------------------
 */

/* The reader of a plain StreamReaderProtocol; new reference, NULL (no exception): none. */
static PyObject *
reader_of(struct gpy_state *state, PyObject *dict)
{
    PyObject *reference = PyDict_GetItemWithError(dict, state->str__stream_reader_wr);
    if (reference == NULL || !PyWeakref_CheckRef(reference))
        return NULL;
    return gpy_weakref_get(reference);
}

static inline bool
is_as_remembered(uint64_t version, PyObject *dict)
{
    return version != 0 && version == gpy_attributes_version(dict);
}

struct gpy_intake *
gpy_streams_intake(struct gpy_state *state, PyObject *protocol)
{
    if ((PyObject *)Py_TYPE(protocol) != state->asyncio_stream_protocol ||
        !gpy_streams_pristine(state))
        return NULL;
    struct gpy_intake *intake = NULL;
    bool untouched = false;
    PyObject *dict = PyObject_GenericGetDict(protocol, NULL);
    PyObject *reader = dict != NULL ? reader_of(state, dict) : NULL;
    if (reader != NULL) {
        intake = gpy_intake_of(state, reader, &untouched);
        intake = (struct gpy_intake *)Py_XNewRef((PyObject *)intake);
        Py_DECREF(reader);
    }
    if (intake != NULL && (!untouched || intake->eof ||
                           (!is_as_remembered(intake->protocol_version, dict) &&
                            PyDict_GetItemWithError(dict, state->str_data_received) != NULL)))
        Py_CLEAR(intake);
    Py_XDECREF(dict);
    return intake;
}

static bool
is_drained(struct gpy_state *state, PyObject *dict)
{
    return PyDict_GetItemWithError(dict, state->str__paused) == Py_False &&
           PyDict_GetItemWithError(dict, state->str__connection_lost) == Py_False &&
           PyDict_GetItemWithError(dict, state->str__drain_helper) == NULL;
}

bool
gpy_streams_drained(struct gpy_state *state, PyObject *protocol, struct gpy_intake *intake)
{
    if ((PyObject *)Py_TYPE(protocol) != state->asyncio_stream_protocol ||
        !gpy_streams_pristine(state))
        return false;
    PyObject *dict = PyObject_GenericGetDict(protocol, NULL);
    if (dict == NULL)
        return false;
    uint64_t version = intake != NULL ? gpy_attributes_version(dict) : 0;
    bool drained = version != 0 && version == intake->protocol_version;
    if (!drained) {
        drained = is_drained(state, dict);
        if (drained && version != 0 &&
            PyDict_GetItemWithError(dict, state->str_data_received) == NULL)
            intake->protocol_version = version;
    }
    Py_DECREF(dict);
    return drained;
}

/* ---- adopting ----------------------------------------------------------------------------------
 */

static void
adopt_writer(struct gpy_state *state, PyObject *writer)
{
    if ((PyObject *)Py_TYPE(writer) == state->asyncio_stream_writer &&
        PyObject_SetAttr(writer, state->str___class__, (PyObject *)state->stream_writer_type) < 0)
        PyErr_Clear(); /* it stays asyncio's */
}

/* client_connected_cb(reader, writer) for the first and only time: the writer has just been made.
 * `self` is (module, protocol, the callback). */
static PyObject *
client_connected(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *protocol = PyTuple_GET_ITEM(self, 1);
    PyObject *callback = PyTuple_GET_ITEM(self, 2);
    struct gpy_state *state = gpy_state_of_module(PyTuple_GET_ITEM(self, 0));
    if (PyObject_SetAttr(protocol, state->str__client_connected_cb, callback) < 0)
        return NULL;
    if (nargs == 2 && gpy_streams_pristine(state))
        adopt_writer(state, args[1]);
    return PyObject_Vectorcall(callback, args, (size_t)nargs, NULL);
}

static PyMethodDef client_connected_def = {
    "client_connected_cb", (PyCFunction)(void (*)(void))client_connected, METH_FASTCALL, NULL};

/* Puts client_connected() before the callback.  0 or -1. */
static int
await_writer(struct gpy_state *state, PyObject *protocol, PyObject *callback)
{
    PyObject *module = PyType_GetModule(state->stream_transport_type);
    PyObject *self = module ? PyTuple_Pack(3, module, protocol, callback) : NULL;
    PyObject *function = self ? PyCFunction_New(&client_connected_def, self) : NULL;
    int rc = function ? PyObject_SetAttr(protocol, state->str__client_connected_cb, function) : -1;
    Py_XDECREF(function);
    Py_XDECREF(self);
    return rc;
}

void
gpy_streams_adopt(struct gpy_state *state, PyObject *protocol)
{
    if ((PyObject *)Py_TYPE(protocol) != state->asyncio_stream_protocol ||
        !gpy_streams_pristine(state))
        return;
    PyObject *dict = PyObject_GenericGetDict(protocol, NULL);
    PyObject *reader = dict ? reader_of(state, dict) : NULL;
    PyObject *intake = reader ? (PyObject *)gpy_intake_adopt(state, reader) : NULL;
    PyObject *callback =
        intake ? PyDict_GetItemWithError(dict, state->str__client_connected_cb) : NULL;
    /* start_tls() does not call connection_made() again. */
    if (callback != NULL && callback != Py_None &&
        PyDict_GetItemWithError(dict, state->str__transport) == Py_None)
        (void)await_writer(state, protocol, callback);
    PyErr_Clear(); /* no memory: asyncio's way works as well */
    Py_XDECREF(intake);
    Py_XDECREF(reader);
    Py_XDECREF(dict);
}

/* ---- methods -----------------------------------------------------------------------------------
 */

enum method_kind {
    READ = GPY_STREAM_READ,
    READEXACTLY = GPY_STREAM_READEXACTLY,
    READUNTIL = GPY_STREAM_READUNTIL,
    READLINE = GPY_STREAM_READLINE,
    DRAIN = GPY_STREAM_DRAIN,
    FEED_DATA,
    FEED_EOF,
    EXCEPTION,
    AT_EOF,
    WRITE,
};

/* Whatever asyncio's class has under this name now. */
static PyObject *
call_original(struct gpy_coro_method *self, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    PyObject *function = PyObject_GetAttr(self->base, self->name);
    if (function == NULL)
        return NULL;
    PyObject *result =
        PyObject_Vectorcall(function, args, (size_t)PyVectorcall_NARGS(nargsf), kwnames);
    Py_DECREF(function);
    return result;
}

/* A count that read() and readexactly() take in C. */
static bool
plain_count(PyObject *object, Py_ssize_t *count)
{
    if (!PyLong_CheckExact(object))
        return false;
    *count = PyLong_AsSsize_t(object);
    if (*count != -1 || !PyErr_Occurred())
        return true;
    PyErr_Clear();
    return false;
}

/* Fills in the arguments of a reading coroutine; false: asyncio's function shall see to it. */
static bool
reading_job(struct gpy_coro_method *self, PyObject *arg_or_null, struct gpy_coro_job *job)
{
    switch ((enum method_kind)self->kind) {
    case READ:
        return arg_or_null != NULL && plain_count(arg_or_null, &job->count) && job->count >= 0;
    case READEXACTLY:
        return arg_or_null != NULL && plain_count(arg_or_null, &job->count);
    case READUNTIL:
        job->argument = arg_or_null != NULL ? arg_or_null : self->state->stream_newline;
        return PyBytes_CheckExact(job->argument) && PyBytes_GET_SIZE(job->argument) != 0;
    case READLINE:
        job->argument = self->state->stream_newline;
        return arg_or_null == NULL;
    case DRAIN:
    case FEED_DATA:
    case FEED_EOF:
    case EXCEPTION:
    case AT_EOF:
    case WRITE:
        break;
    }
    return false;
}

/* feed_data(bytes): 1 done, 0 not a plain call, -1. */
static int
feed_data(struct gpy_intake *intake, PyObject *data)
{
    if (data == NULL || intake->eof || !PyBytes_CheckExact(data))
        return 0;
    if (PyBytes_GET_SIZE(data) == 0)
        return 1;
    Py_INCREF((PyObject *)intake);
    int rc = gpy_intake_feed(intake, data);
    Py_DECREF((PyObject *)intake);
    return rc < 0 ? -1 : 1;
}

static PyObject *
feed_eof(struct gpy_intake *intake)
{
    Py_INCREF((PyObject *)intake);
    int rc = gpy_intake_feed_eof(intake);
    Py_DECREF((PyObject *)intake);
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}

/* A method of a reader; NULL without an exception: not the plain case. */
static PyObject *
reader_method(struct gpy_coro_method *self, PyObject *reader, PyObject *arg_or_null)
{
    struct gpy_state *state = self->state;
    bool untouched;
    struct gpy_intake *intake = gpy_intake_of(state, reader, &untouched);
    if (intake == NULL || !untouched)
        return NULL;
    int fed;
    switch ((enum method_kind)self->kind) {
    case FEED_DATA:
        fed = feed_data(intake, arg_or_null);
        return fed > 0 ? Py_NewRef(Py_None) : NULL;
    case FEED_EOF:
        return arg_or_null == NULL ? feed_eof(intake) : NULL;
    case EXCEPTION:
        if (arg_or_null != NULL)
            return NULL;
        return Py_NewRef(intake->exception != NULL ? intake->exception : Py_None);
    case AT_EOF:
        if (arg_or_null != NULL)
            return NULL;
        return PyBool_FromLong(intake->eof && gpy_intake_len(intake) == 0);
    case READ:
    case READEXACTLY:
    case READUNTIL:
    case READLINE:
    case DRAIN:
    case WRITE:
        break;
    }
    struct gpy_coro_job job = {.call = (enum gpy_coro_call)self->kind,
                               .owner = reader,
                               .function = self->function,
                               .intake = intake};
    return reading_job(self, arg_or_null, &job) ? gpy_coro_new(state, &job) : NULL;
}

/* writer._transport; the class has no such attribute: gpy_streams_pristine().  New reference. */
static PyObject *
transport_of(struct gpy_state *state, PyObject *writer)
{
    PyObject *dict = PyObject_GenericGetDict(writer, NULL);
    PyObject *transport = dict ? PyDict_GetItemWithError(dict, state->str__transport) : NULL;
    Py_XINCREF(transport);
    Py_XDECREF(dict);
    if (GY_LIKELY(transport != NULL))
        return transport;
    PyErr_Clear();
    return PyObject_GetAttr(writer, state->str__transport);
}

static PyObject *
write_method(struct gpy_state *state, PyObject *writer, PyObject *data)
{
    PyObject *transport = transport_of(state, writer);
    if (transport == NULL)
        return NULL;
    PyObject *result;
    struct gpy_stream_transport *ours = (struct gpy_stream_transport *)transport;
    if (GY_LIKELY(Py_IS_TYPE(transport, state->stream_transport_type)) &&
        ours->base.instance_dict == NULL)
        result = gpy_stream_transport_write(ours, data);
    else
        result = PyObject_CallMethodOneArg(transport, state->str_write, data);
    if (result != NULL)
        Py_SETREF(result, Py_NewRef(Py_None));
    Py_DECREF(transport);
    return result;
}

static PyObject *
writer_method(struct gpy_coro_method *self, PyObject *writer, PyObject *arg_or_null)
{
    struct gpy_state *state = self->state;
    if (!Py_IS_TYPE(writer, state->stream_writer_type))
        return NULL;
    if (self->kind == WRITE)
        return arg_or_null != NULL ? write_method(state, writer, arg_or_null) : NULL;
    struct gpy_coro_job job = {
        .call = GPY_STREAM_DRAIN, .owner = writer, .function = self->function};
    return arg_or_null == NULL ? gpy_coro_new(state, &job) : NULL;
}

static PyObject *
method_vectorcall(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    struct gpy_coro_method *self = (struct gpy_coro_method *)callable;
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
    if (GY_LIKELY(kwnames == NULL && (nargs == 1 || nargs == 2) &&
                  gpy_streams_pristine(self->state))) {
        PyObject *arg_or_null = nargs == 2 ? args[1] : NULL;
        PyObject *result = self->kind == WRITE || self->kind == DRAIN
                               ? writer_method(self, args[0], arg_or_null)
                               : reader_method(self, args[0], arg_or_null);
        if (GY_LIKELY(result != NULL) || PyErr_Occurred())
            return result;
    }
    return call_original(self, args, nargsf, kwnames);
}

/* Adds one to the namespace of the class that stands in for `base`. */
static int
add_method(struct gpy_state *state, PyObject *namespace, PyObject *base, const char *name,
           enum method_kind kind)
{
    PyObject *function = PyObject_GetAttrString(base, name);
    PyObject *method =
        function ? gpy_coro_method_new(state, method_vectorcall, function, (uint8_t)kind) : NULL;
    Py_XDECREF(function);
    if (method == NULL)
        return -1;
    struct gpy_coro_method *self = (struct gpy_coro_method *)method;
    self->base = Py_NewRef(base);
    self->name = PyUnicode_InternFromString(name);
    int rc = self->name ? PyDict_SetItem(namespace, self->name, method) : -1;
    Py_DECREF(method);
    return rc;
}

/* ---- the two classes ---------------------------------------------------------------------------
 */

bool
gpy_stream_class_is_ours(PyTypeObject *type)
{
    return PyDict_GetItemString(type->tp_dict, "_object_class") != NULL;
}

int
gpy_stream_set_class(PyObject *object, PyObject *value)
{
    PyObject *descriptor = PyObject_GetAttrString((PyObject *)Py_TYPE(object), "_object_class");
    int rc = descriptor ? Py_TYPE(descriptor)->tp_descr_set(descriptor, object, value) : -1;
    Py_XDECREF(descriptor);
    return rc;
}

static PyObject *
writer_get_class(PyObject *writer, void *Py_UNUSED(closure))
{
    PyTypeObject *type = Py_TYPE(writer);
    return Py_NewRef((PyObject *)(gpy_stream_class_is_ours(type) ? type->tp_base : type));
}

static int
writer_set_class(PyObject *writer, PyObject *value, void *Py_UNUSED(closure))
{
    PyTypeObject *type = Py_TYPE(writer);
    if (gpy_stream_class_is_ours(type) && value == (PyObject *)type->tp_base)
        return 0;
    return gpy_stream_set_class(writer, value);
}

static PyGetSetDef writer_class = {"__class__", writer_get_class, writer_set_class, NULL, NULL};

/* A subclass of asyncio's class that calls itself by its name.  Steals `namespace`. */
static PyTypeObject *
make_class(PyObject *base, PyObject *namespace)
{
    PyObject *slots = PyTuple_New(0);
    PyObject *name = PyObject_GetAttrString(base, "__name__");
    PyObject *module = PyObject_GetAttrString(base, "__module__");
    PyObject *doc = PyObject_GetAttrString(base, "__doc__");
    PyObject *type = NULL;
    if (slots != NULL && name != NULL && module != NULL && doc != NULL &&
        PyDict_SetItemString(namespace, "__slots__", slots) == 0 &&
        PyDict_SetItemString(namespace, "__module__", module) == 0 &&
        PyDict_SetItemString(namespace, "__doc__", doc) == 0)
        type = PyObject_CallFunction((PyObject *)&PyType_Type, "O(O)O", name, base, namespace);
    Py_XDECREF(slots);
    Py_XDECREF(name);
    Py_XDECREF(module);
    Py_XDECREF(doc);
    Py_DECREF(namespace);
    return (PyTypeObject *)type;
}

static int
make_reader_class(struct gpy_state *state)
{
    static const struct {
        const char *name;
        enum method_kind kind;
    } methods[] = {
        {"read", READ},           {"readexactly", READEXACTLY}, {"readuntil", READUNTIL},
        {"readline", READLINE},   {"feed_data", FEED_DATA},     {"feed_eof", FEED_EOF},
        {"exception", EXCEPTION}, {"at_eof", AT_EOF},
    };
    PyObject *namespace = PyDict_New();
    if (namespace == NULL)
        return -1;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(methods); i++)
        if (add_method(state, namespace, state->asyncio_stream_reader, methods[i].name,
                       methods[i].kind) < 0)
            goto fail;
    if (gpy_intake_add_attributes(state, namespace) < 0 ||
        PyDict_SetItemString(namespace, "_object_class", state->object_class) < 0)
        goto fail;
    state->stream_reader_type = make_class(state->asyncio_stream_reader, namespace);
    return state->stream_reader_type != NULL ? 0 : -1;
fail:
    Py_DECREF(namespace);
    return -1;
}

static int
make_writer_class(struct gpy_state *state)
{
    PyObject *base = state->asyncio_stream_writer;
    PyObject *descriptor = PyDescr_NewGetSet((PyTypeObject *)base, &writer_class);
    PyObject *namespace = descriptor ? PyDict_New() : NULL;
    int rc = namespace ? PyDict_SetItemString(namespace, "__class__", descriptor) : -1;
    Py_XDECREF(descriptor);
    if (rc < 0 || PyDict_SetItemString(namespace, "_object_class", state->object_class) < 0 ||
        add_method(state, namespace, base, "write", WRITE) < 0 ||
        add_method(state, namespace, base, "drain", DRAIN) < 0) {
        Py_XDECREF(namespace);
        return -1;
    }
    state->stream_writer_type = make_class(base, namespace);
    return state->stream_writer_type != NULL ? 0 : -1;
}

/* ---- start-up ----------------------------------------------------------------------------------
 */

static int
import_asyncio(struct gpy_state *state)
{
    if (gpy_import_into(&state->asyncio_stream_reader, "asyncio.streams", "StreamReader") < 0 ||
        gpy_import_into(&state->asyncio_stream_writer, "asyncio.streams", "StreamWriter") < 0 ||
        gpy_import_into(&state->asyncio_stream_protocol, "asyncio.streams",
                        "StreamReaderProtocol") < 0 ||
        gpy_import_into(&state->incomplete_read_error, "asyncio.exceptions",
                        "IncompleteReadError") < 0 ||
        gpy_import_into(&state->limit_overrun_error, "asyncio.exceptions", "LimitOverrunError") < 0)
        return -1;
    PyObject *dict = PyObject_GetAttrString((PyObject *)&PyBaseObject_Type, "__dict__");
    state->object_class = dict ? PyObject_GetItem(dict, state->str___class__) : NULL;
    Py_XDECREF(dict);
    state->stream_newline = PyBytes_FromStringAndSize("\n", 1);
    return state->object_class != NULL && state->stream_newline != NULL ? 0 : -1;
}

/* The functions that we stand in for.  None of it is used if somebody replaced one before us. */
static int
remember_originals(struct gpy_state *state)
{
    PyObject *streams = PyImport_ImportModule("asyncio.streams");
    PyObject *globals = streams ? PyModule_GetDict(streams) : NULL;
    PyObject *originals = globals ? PyTuple_New((Py_ssize_t)Py_ARRAY_LENGTH(hot)) : NULL;
    bool genuine = true;
    for (size_t i = 0; originals != NULL && i < Py_ARRAY_LENGTH(hot); i++) {
        PyObject *function = PyObject_GetAttrString(hot_class_of(state, hot[i].where), hot[i].name);
        if (function == NULL) {
            Py_CLEAR(originals);
            break;
        }
        genuine &= PyFunction_Check(function) && PyFunction_GetGlobals(function) == globals;
        PyTuple_SET_ITEM(originals, (Py_ssize_t)i, function);
    }
    Py_XDECREF(streams);
    if (originals == NULL)
        return -1;
    if (genuine)
        state->stream_originals = Py_NewRef(originals);
    Py_DECREF(originals);
    return 0;
}

int
gpy_streams_exec(PyObject *module, struct gpy_state *state)
{
    if (gpy_intake_exec(module, state) < 0 || import_asyncio(state) < 0 ||
        remember_originals(state) < 0)
        return -1;
    return make_reader_class(state) == 0 ? make_writer_class(state) : -1;
}
