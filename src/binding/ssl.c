/* ssl.c: SSLCore: the fields that C and asyncio's SSLProtocol share, and the door for ciphertext.
 *
 * Owner, thread: see ssl.h.  Invariants: `ssl` is not NULL only while ssl_socket, whose it is, is
 * held; `phase` is what phase_name says. */
#include "ssl_engine.h"

#include "pycompat.h"
#include "streams.h"

#include <structmember.h>

struct gpy_ssl *
gpy_ssl_check(struct gpy_state *state, PyObject *protocol)
{
    if (state->ssl_core_type == NULL || !PyObject_TypeCheck(protocol, state->ssl_core_type))
        return NULL;
    struct gpy_ssl *self = (struct gpy_ssl *)protocol;
    return self->ssl_socket != NULL ? self : NULL;
}

PyObject *
gpy_ssl_super(struct gpy_ssl *self, PyObject *name, PyObject *arg)
{
    PyObject *method = PyObject_GetAttr(self->state->asyncio_ssl_protocol, name);
    PyObject *stack[2] = {(PyObject *)self, arg};
    PyObject *result = method ? PyObject_Vectorcall(method, stack, arg ? 2 : 1, NULL) : NULL;
    Py_XDECREF(method);
    return result;
}

int
gpy_ssl_fatal_error(struct gpy_ssl *self)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return -1;
    PyObject *exc = gpy_exc_take();
    PyObject *result = PyObject_CallMethod((PyObject *)self, "_fatal_error", "Os", exc,
                                           "Fatal error on SSL protocol");
    Py_DECREF(exc);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

/* ---- ciphertext from the transport ------------------------------------------------------------
 */

/* What is not yet, or not any more, a stream of records: asyncio's methods, which find the bytes in
 * the BIO. */
static GY_COLD int
feed_otherwise(struct gpy_ssl *self, const char *data, size_t len)
{
    struct gpy_state *state = self->state;
    PyObject *name = NULL;
    (void)gpy_ssl_frame_walk(&self->frame, data, len);
    while (len != 0) {
        size_t part = len > INT_MAX ? INT_MAX : len;
        if (gpy_ssl_put(self, data, part) < 0)
            return -1;
        data += part;
        len -= part;
    }
    switch ((enum gpy_ssl_phase)self->phase) {
    case GPY_SSL_HANDSHAKE:
        name = state->str__do_handshake;
        break;
    case GPY_SSL_FLUSHING:
        name = state->str__do_flush;
        break;
    case GPY_SSL_SHUTDOWN:
        name = state->str__do_shutdown;
        break;
    case GPY_SSL_OTHER:
    case GPY_SSL_WRAPPED:
        return 0;
    }
    PyObject *result = PyObject_CallMethodNoArgs((PyObject *)self, name);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

void
gpy_ssl_feed(struct gpy_ssl *self, struct gpy_transport *base, const char *data, size_t len)
{
    struct gpy_protocol_frame frame;
    int rc = -1;
    Py_INCREF(self); /* set_protocol() inside may drop the transport's reference */
    if (GY_LIKELY(gpy_protocol_enter(base->loop, base->context, &frame) == 0)) {
        self->feeding = self->phase == GPY_SSL_WRAPPED;
        rc = GY_LIKELY(self->phase == GPY_SSL_WRAPPED) ? gpy_ssl_read(self, data, len)
                                                       : feed_otherwise(self, data, len);
        self->feeding = false;
        if (GY_UNLIKELY(gpy_ssl_close_pipe(self) < 0))
            rc = -1;
    }
    rc |= gpy_protocol_leave(base->loop, base->context, &frame, (PyObject *)self,
                             self->state->str_buffer_updated);
    if (GY_UNLIKELY(rc < 0))
        gpy_transport_fatal_error(base, "Fatal error: protocol.buffer_updated() call failed.");
    Py_DECREF(self);
}

/* ---- fields with a meaning for C ----------------------------------------------------------------
 */

static PyObject *
get_object(struct gpy_ssl *self, void *offset)
{
    PyObject *value = *(PyObject **)((char *)self + (uintptr_t)offset);
    return Py_NewRef(value ? value : Py_None);
}

static int
set_phase(struct gpy_ssl *self, PyObject *value, void *Py_UNUSED(closure))
{
    struct gpy_state *state = self->state;
    if (value == state->ssl_wrapped)
        self->phase = GPY_SSL_WRAPPED;
    else if (value == state->ssl_do_handshake)
        self->phase = GPY_SSL_HANDSHAKE;
    else if (value == state->ssl_flushing)
        self->phase = GPY_SSL_FLUSHING;
    else if (value == state->ssl_shutdown)
        self->phase = GPY_SSL_SHUTDOWN;
    else
        self->phase = GPY_SSL_OTHER;
    Py_XSETREF(self->phase_name, Py_XNewRef(value));
    return 0;
}

static void
let_go(struct gpy_ssl *self)
{
    if (gpy_ssl_close_pipe(self) < 0)
        PyErr_Clear();
    if (self->ssl != NULL)
        gpy_ssl_pipe_detach(&self->pipe, self->ssl);
    self->ssl = NULL;
    Py_CLEAR(self->ssl_socket);
}

/* Takes the SSL* that was made since _watch(), if it is this object's.  Once: a transport may have
 * noted since that it need not ask Python. */
static int
set_ssl_object(struct gpy_ssl *self, PyObject *value, void *Py_UNUSED(closure))
{
    Py_XSETREF(self->ssl_object, Py_XNewRef(value));
    if (value == NULL || !self->watching || self->incoming == NULL || self->outgoing == NULL ||
        (PyObject *)Py_TYPE(value) != self->state->ssl_object)
        return 0;
    self->watching = false;
    PyObject *socket = PyObject_GetAttr(value, self->state->str__sslobj);
    if (socket == NULL)
        return -1;
    self->ssl_socket = socket;
    self->ssl = self->lib ? gpy_openssl_take(self->lib, socket) : NULL;
    if (self->ssl != NULL && gpy_ssl_pipe_attach(&self->pipe, self->lib, self->ssl) < 0)
        self->ssl = NULL;
    return 0;
}

#define OFFSET(field) (void *)offsetof(struct gpy_ssl, field)
static PyGetSetDef ssl_getset[] = {
    {"_state", (getter)get_object, (setter)set_phase, NULL, OFFSET(phase_name)},
    {"_sslobj", (getter)get_object, (setter)set_ssl_object, NULL, OFFSET(ssl_object)},
    {NULL, NULL, NULL, NULL, NULL},
};

#define FIELD(name, type, field)                                                                   \
    {                                                                                              \
        name, type, offsetof(struct gpy_ssl, field), 0, NULL                                       \
    }
static PyMemberDef ssl_members[] = {
    FIELD("_loop", T_OBJECT, loop),
    FIELD("_incoming", T_OBJECT, incoming),
    FIELD("_outgoing", T_OBJECT, outgoing),
    FIELD("_transport", T_OBJECT, transport),
    FIELD("_app_protocol", T_OBJECT, app_protocol),
    FIELD("_app_protocol_get_buffer", T_OBJECT, app_get_buffer),
    FIELD("_app_protocol_buffer_updated", T_OBJECT, app_buffer_updated),
    FIELD("_app_protocol_is_buffer", T_BOOL, app_is_buffer),
    FIELD("_write_backlog", T_OBJECT, backlog),
    FIELD("_write_buffer_size", T_PYSSIZET, backlog_bytes),
    FIELD("_incoming_high_water", T_PYSSIZET, incoming_high),
    FIELD("_incoming_low_water", T_PYSSIZET, incoming_low),
    FIELD("_outgoing_high_water", T_PYSSIZET, outgoing_high),
    FIELD("_outgoing_low_water", T_PYSSIZET, outgoing_low),
    FIELD("_app_reading_paused", T_BOOL, app_reading_paused),
    FIELD("_app_writing_paused", T_BOOL, app_writing_paused),
    FIELD("_ssl_reading_paused", T_BOOL, ssl_reading_paused),
    FIELD("_ssl_writing_paused", T_BOOL, ssl_writing_paused),
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct gpy_ssl, weakreflist), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* ---- methods ------------------------------------------------------------------------------------
 */

/* _watch(bytes of the file of _ssl or None, its OPENSSL_VERSION): the next _sslobj may be called
 * directly. */
static PyObject *
ssl_watch(struct gpy_ssl *self, PyObject *args)
{
    PyObject *file;
    const char *version;
    if (!PyArg_ParseTuple(args, "Os:_watch", &file, &version))
        return NULL;
    if (*version != '\0')
        self->lib = gpy_openssl_find(PyBytes_Check(file) ? PyBytes_AS_STRING(file) : NULL, version);
    self->watching = self->ssl_socket == NULL;
    if (self->lib != NULL)
        gpy_openssl_watch();
    Py_RETURN_NONE;
}

static PyObject *
ssl_do_read(struct gpy_ssl *self, PyObject *Py_UNUSED(ignored))
{
    if (self->ssl_socket == NULL)
        return gpy_ssl_super(self, self->state->str__do_read, NULL);
    if (self->phase != GPY_SSL_WRAPPED && self->phase != GPY_SSL_FLUSHING)
        Py_RETURN_NONE;
    if (gpy_ssl_read(self, NULL, 0) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
ssl_process_outgoing(struct gpy_ssl *self, PyObject *Py_UNUSED(ignored))
{
    if (self->ssl_socket == NULL)
        return gpy_ssl_super(self, self->state->str__process_outgoing, NULL);
    if (gpy_ssl_process_outgoing(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
ssl_get_write_buffer_size(struct gpy_ssl *self, PyObject *Py_UNUSED(ignored))
{
    if (self->ssl_socket == NULL)
        return gpy_ssl_super(self, self->state->str__get_write_buffer_size, NULL);
    if (self->feeding && gpy_ssl_drain(self) < 0)
        return NULL;
    return PyLong_FromSsize_t(gpy_ssl_write_buffer_size(self));
}

/* What was written in data_received(), and waits for its end, leaves now. */
static PyObject *
ssl_send_held(struct gpy_ssl *self, PyObject *Py_UNUSED(ignored))
{
    if (self->feeding && self->ssl_socket != NULL && gpy_ssl_drain(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* True where OpenSSL is called directly; for tests. */
static PyObject *
ssl_is_direct(struct gpy_ssl *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->ssl != NULL);
}

/* The application's protocol is about to be connected: a plain stream gets its short cuts. */
static PyObject *
ssl_adopt_streams(struct gpy_ssl *self, PyObject *Py_UNUSED(ignored))
{
    struct gpy_state *state = self->state;
    if (self->app_protocol != NULL && self->loop != NULL &&
        gpy_loop_direct(state, self->loop) != NULL)
        gpy_streams_adopt(state, self->app_protocol);
    Py_RETURN_NONE;
}

static PyMethodDef ssl_methods[] = {
    {"_adopt_streams", (PyCFunction)ssl_adopt_streams, METH_NOARGS, NULL},
    {"_watch", (PyCFunction)ssl_watch, METH_VARARGS, NULL},
    {"_send_held", (PyCFunction)ssl_send_held, METH_NOARGS, NULL},
    {"_is_direct", (PyCFunction)ssl_is_direct, METH_NOARGS, NULL},
    {"_do_read", (PyCFunction)ssl_do_read, METH_NOARGS, NULL},
    {"_process_outgoing", (PyCFunction)ssl_process_outgoing, METH_NOARGS, NULL},
    {"_write_appdata", (PyCFunction)gpy_ssl_write_appdata, METH_O, NULL},
    {"_get_write_buffer_size", (PyCFunction)ssl_get_write_buffer_size, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

/* ---- the type -----------------------------------------------------------------------------------
 */

/* The arguments are for the Python subclass's __init__. */
static PyObject *
ssl_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    struct gpy_state *state = gpy_state_of_type(type);
    struct gpy_ssl *self = state ? (struct gpy_ssl *)type->tp_alloc(type, 0) : NULL;
    if (self == NULL)
        return NULL;
    self->state = state;
    gpy_state_hold(state);
    return (PyObject *)self;
}

static int
ssl_traverse(struct gpy_ssl *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->ssl_object);
    Py_VISIT(self->ssl_socket);
    Py_VISIT(self->incoming);
    Py_VISIT(self->outgoing);
    Py_VISIT(self->loop);
    Py_VISIT(self->transport);
    Py_VISIT(self->app_protocol);
    Py_VISIT(self->app_get_buffer);
    Py_VISIT(self->app_buffer_updated);
    Py_VISIT(self->backlog);
    Py_VISIT(self->phase_name);
    return 0;
}

static int
ssl_clear(struct gpy_ssl *self)
{
    let_go(self);
    Py_CLEAR(self->ssl_object);
    Py_CLEAR(self->incoming);
    Py_CLEAR(self->outgoing);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->transport);
    Py_CLEAR(self->app_protocol);
    Py_CLEAR(self->app_get_buffer);
    Py_CLEAR(self->app_buffer_updated);
    Py_CLEAR(self->backlog);
    Py_CLEAR(self->phase_name);
    return 0;
}

static void
ssl_dealloc(struct gpy_ssl *self)
{
    PyTypeObject *type = Py_TYPE(self);
    struct gpy_state *state = self->state;
    PyObject_GC_UnTrack(self);
    if (self->weakreflist != NULL)
        PyObject_ClearWeakRefs((PyObject *)self);
    (void)ssl_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
    gpy_state_release(state);
}

static PyType_Slot ssl_slots[] = {
    {Py_tp_doc, "The C half of the TLS protocol; made by the loop."},
    {Py_tp_new, ssl_new},
    {Py_tp_dealloc, ssl_dealloc},
    {Py_tp_traverse, ssl_traverse},
    {Py_tp_clear, ssl_clear},
    {Py_tp_methods, ssl_methods},
    {Py_tp_getset, ssl_getset},
    {Py_tp_members, ssl_members},
    {0, NULL},
};

static PyType_Spec ssl_spec = {
    .name = "gyre._gyre.SSLCore",
    .basicsize = sizeof(struct gpy_ssl),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = ssl_slots,
};

static int
find_imports(struct gpy_state *state, PyObject *sslproto)
{
    PyObject *states = PyObject_GetAttrString(sslproto, "SSLProtocolState");
    PyObject *ssl = PyObject_GetAttrString(sslproto, "ssl"); /* None in a Python without it */
    const struct {
        PyObject **slot;
        PyObject *from;
        const char *name;
    } wanted[] = {
        {&state->asyncio_ssl_protocol, sslproto, "SSLProtocol"},
        {&state->ssl_do_handshake, states, "DO_HANDSHAKE"},
        {&state->ssl_wrapped, states, "WRAPPED"},
        {&state->ssl_flushing, states, "FLUSHING"},
        {&state->ssl_shutdown, states, "SHUTDOWN"},
        {&state->ssl_again_errors, ssl == Py_None ? NULL : sslproto, "SSLAgainErrors"},
        {&state->ssl_object, ssl == Py_None ? NULL : ssl, "SSLObject"},
    };
    int rc = states && ssl ? 0 : -1;
    for (size_t i = 0; rc == 0 && i < sizeof wanted / sizeof *wanted; i++) {
        if (wanted[i].from == NULL)
            continue;
        *wanted[i].slot = PyObject_GetAttrString(wanted[i].from, wanted[i].name);
        rc = *wanted[i].slot ? 0 : -1;
    }
    Py_XDECREF(states);
    Py_XDECREF(ssl);
    return rc;
}

int
gpy_ssl_exec(PyObject *module, struct gpy_state *state)
{
    PyObject *sslproto = PyImport_ImportModule("asyncio.sslproto");
    int rc = sslproto ? find_imports(state, sslproto) : -1;
    Py_XDECREF(sslproto);
    if (rc < 0)
        return -1;
    state->ssl_core_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &ssl_spec, NULL);
    if (state->ssl_core_type == NULL || PyModule_AddType(module, state->ssl_core_type) < 0)
        return -1;
    return gpy_ssl_transport_exec(module, state);
}
