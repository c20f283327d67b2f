/* stream_transport.c: the transport over a connected stream socket: life, Python methods, type.
 *
 * Owner: Python references, and the loop's pin from the first operation until the core has closed
 * the descriptor.  Thread: the loop's.
 * Invariants: connection_lost() is called at most once, before the core is told to close (so that
 * the descriptor is still open inside it), except that dropping queued bytes needs the core's close
 * at once; the core's stream is ended exactly once, by its closed() or by abandon. */
#include "stream_transport.h"

#include "args.h"
#include "errors.h"
#include "future.h"
#include "pycompat.h"
#include "streams.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

/* ---- the core's upcalls about the end -----------------------------------------------------------
 */

static void
on_detach(struct gy_stream *stream)
{
    struct gpy_stream_transport *self = gpy_stream_transport_of(stream);
    if (!gpy_transport_detach(&self->base))
        stream->fd = -1; /* the number is somebody else's by now */
}

static void
on_closed(struct gy_stream *stream)
{
    struct gpy_stream_transport *self = gpy_stream_transport_of(stream);
    self->base.core_ended = true;
    gpy_transport_delist(&self->base);
    gpy_transport_unpin(&self->base); /* may free self */
}

const struct gy_stream_host gpy_stream_transport_host = {
    .buffer = gpy_stream_transport_on_buffer,
    .unused = gpy_stream_transport_on_unused,
    .data = gpy_stream_transport_on_data,
    .eof = gpy_stream_transport_on_eof,
    .error = gpy_stream_transport_on_error,
    .drained = gpy_stream_transport_on_drained,
    .release = gpy_stream_transport_on_release,
    .detach = on_detach,
    .closed = on_closed,
};

static void
ops_abandon(struct gpy_transport *base)
{
    struct gpy_stream_transport *self = gpy_stream_transport_of_base(base);
    if (base->core_ended)
        return;
    gpy_stream_transport_release_view(self);
    gy_stream_abandon(&self->stream);
    base->core_ended = true;
    gpy_transport_delist(base);
    gpy_transport_unpin(base); /* may free self */
}

static void
ops_drop(struct gpy_transport *base)
{
    struct gpy_stream_transport *self = gpy_stream_transport_of_base(base);
    gpy_stream_transport_release_view(self);
    if (!gy_stream_drop(&self->stream))
        return;
    base->core_ended = true;
    gpy_transport_delist(base);
    gpy_transport_unpin(base);
}

static void
member_abandon(struct gpy_loop_member *member)
{
    ops_abandon(gpy_transport_of_member(member));
}

static bool
member_is_at_rest(const struct gpy_loop_member *member)
{
    const struct gpy_transport *base = container_of(member, const struct gpy_transport, member);
    const struct gpy_stream_transport *self =
        container_of(base, const struct gpy_stream_transport, base);
    return !base->core_ended && gy_stream_is_at_rest(&self->stream);
}

static const struct gpy_loop_member_ops member_ops = {
    .abandon = member_abandon,
    .is_at_rest = member_is_at_rest,
};

/* ---- what the kinds of transports do differently
 * ------------------------------------------------- */

static size_t
ops_buffer_size(struct gpy_transport *base)
{
    struct gpy_stream_transport *self = gpy_stream_transport_of_base(base);
    return base->conn_lost || self->base.core_ended ? 0 : gy_stream_queued(&self->stream);
}

static void
ops_flush(struct gpy_transport *base)
{
    gpy_stream_transport_flush(gpy_stream_transport_of_base(base));
}

int
gpy_stream_transport_lose(struct gpy_stream_transport *self, PyObject *exc)
{
    struct gpy_transport *base = &self->base;
    if (base->conn_lost)
        return 0;
    PyObject *error = NULL;
    /* What is only held back asyncio would have sent in write(), and have lost the connection if
     * that failed: before the callback raised `exc`, unless that is the error of the write. */
    if (!self->base.core_ended && gy_stream_queued(&self->stream) != 0 &&
        gy_op_is_idle(&self->stream.send_op))
        gy_stream_flush(&self->stream);
    bool other = exc == NULL || !PyObject_TypeCheck(exc, (PyTypeObject *)PyExc_OSError);
    if (other && !self->base.core_ended && self->stream.error != 0) {
        exc = error = gpy_oserror_new(self->stream.error);
        if (exc == NULL)
            return -1;
    }
    base->closing = true;
    base->conn_lost = 1;
    if (!self->base.core_ended) {
        gy_stream_stop_receive(&self->stream);
        if (gy_stream_queued(&self->stream) != 0)
            gy_stream_close(&self->stream); /* nothing more may leave */
    }
    int rc = gpy_transport_schedule_lost(base, exc);
    Py_XDECREF(error);
    return rc;
}

static int
ops_force_close(struct gpy_transport *base, PyObject *exc)
{
    return gpy_stream_transport_lose(gpy_stream_transport_of_base(base), exc);
}

static int
ops_set_protocol(struct gpy_transport *base)
{
    struct gpy_stream_transport *self = gpy_stream_transport_of_base(base);
    if (base->kind == GPY_PROTOCOL_BUFFER && self->view == NULL) {
        self->view = PyMem_Calloc(1, sizeof(*self->view));
        if (self->view == NULL) {
            (void)PyErr_NoMemory();
            return -1;
        }
    }
    /* A BufferedProtocol reads straight into its own memory. */
    if (base->kind == GPY_PROTOCOL_BUFFER && !self->base.core_ended)
        gy_stream_set_policy(&self->stream, GY_RECV_POLL);
    return 0;
}

static void
ops_disown(struct gpy_transport *base)
{
    struct gpy_stream_transport *self = gpy_stream_transport_of_base(base);
    (void)gpy_transport_detach(base);
    if (self->base.core_ended)
        return;
    self->stream.fd = -1; /* whatever still comes fails with EBADF and hits nobody */
    if (gpy_oserror_raise(-EBADF) == NULL)
        gpy_transport_fatal_error(base, "Fatal error on socket transport");
}

static void
ops_pause(struct gpy_transport *base)
{
    gy_stream_pause(&gpy_stream_transport_of_base(base)->stream);
}

static void
ops_resume(struct gpy_transport *base)
{
    gy_stream_resume(&gpy_stream_transport_of_base(base)->stream);
}

static const struct gpy_transport_ops stream_transport_ops = {
    .buffer_size = ops_buffer_size,
    .flush = ops_flush,
    .force_close = ops_force_close,
    .set_protocol = ops_set_protocol,
    .disown = ops_disown,
    .pause = ops_pause,
    .resume = ops_resume,
    .abandon = ops_abandon,
    .drop = ops_drop,
};

/* ---- birth
 * ------------------------------------------------------------------------------------------ */

static int
attach_server(struct gpy_stream_transport *self)
{
    struct gpy_transport *base = &self->base;
    if (base->server == NULL)
        return 0;
    PyObject *stack[2] = {base->server, (PyObject *)self};
    PyObject *result = PyObject_VectorcallMethod(
        base->state->str__attach, stack,
        (GPY_SERVER_ATTACH_TAKES_TRANSPORT ? 2 : 1) | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    if (result == NULL)
        Py_CLEAR(base->server);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

void
gpy_stream_transport_discard(struct gpy_stream_transport *self)
{
    PyObject *exc = PyErr_Occurred() ? gpy_exc_take() : NULL;
    self->base.ended = true; /* nobody has seen it: no warning */
    if (gpy_transport_leave_server(&self->base) < 0)
        PyErr_WriteUnraisable((PyObject *)self);
    ops_abandon(&self->base);
    Py_DECREF(self);
    if (exc != NULL)
        gpy_exc_give(exc);
}

struct gpy_stream_transport *
gpy_stream_transport_new(struct gpy_loop *loop, const struct gpy_transport_parts *parts)
{
    PyTypeObject *type = loop->state->stream_transport_type;
    struct gpy_stream_transport *self = (struct gpy_stream_transport *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->base.core_ended = true; /* until it has begun */
    self->base.ended = true;
    if (gpy_transport_init(&self->base, &stream_transport_ops, loop, parts) < 0 ||
        ops_set_protocol(&self->base) < 0 || gpy_transport_enlist(&self->base) < 0) {
        Py_CLEAR(self->base.server);
        Py_DECREF(self);
        return NULL;
    }
    self->base.member.ops = &member_ops;
    gy_stream_init(&self->stream, &loop->core, parts->fd, &gpy_stream_transport_host,
                   self->base.kind == GPY_PROTOCOL_BUFFER ? GY_RECV_POLL
                                                          : (enum gy_recv_policy)loop->recv_policy);
    self->base.core_ended = false;
    self->base.ended = false;
    if (attach_server(self) < 0) {
        self->stream.fd = -1; /* the caller keeps it */
        self->base.fd_gone = true;
        gpy_stream_transport_discard(self);
        return NULL;
    }
    return self;
}

int
gpy_stream_transport_start(struct gpy_stream_transport *self, PyObject *waiter)
{
    struct gpy_transport *base = &self->base;
    if (base->loop->direct) /* in debug mode everything is asyncio's own */
        gpy_streams_adopt(base->state, base->protocol);
    return gpy_transport_schedule_start(base, waiter ? waiter : Py_None);
}

static PyObject *
stream_transport_begin(struct gpy_stream_transport *self, PyObject *waiter)
{
    struct gpy_transport *base = &self->base;
    return gpy_transport_begin(base, !base->closing && !base->paused, waiter);
}

/* ---- ends
 * ------------------------------------------------------------------------------------------- */

int
gpy_stream_transport_close(struct gpy_stream_transport *self)
{
    struct gpy_transport *base = &self->base;
    if (base->closing)
        return 0;
    base->closing = true;
    if (!self->base.core_ended) {
        gy_stream_stop_receive(&self->stream);
        gpy_stream_transport_flush(self); /* what is held leaves now; may fail and lose */
        if (gy_stream_queued(&self->stream) != 0)
            return 0; /* on_drained goes on */
    }
    return gpy_stream_transport_lose(self, NULL);
}

static PyObject *
stream_transport_close(struct gpy_stream_transport *self, PyObject *Py_UNUSED(ignored))
{
    return gpy_none_or_error(gpy_stream_transport_close(self));
}

/* _fatal_error(exc, message): SSLProtocol and libraries that copy asyncio's transports. */
static PyObject *
stream_transport_fatal_error(struct gpy_stream_transport *self, PyObject *args)
{
    PyObject *exc;
    const char *message = "Fatal error on transport";
    if (!PyArg_ParseTuple(args, "O|s:_fatal_error", &exc, &message))
        return NULL;
    if (!PyExceptionInstance_Check(exc)) {
        PyErr_SetString(PyExc_TypeError, "_fatal_error() needs an exception");
        return NULL;
    }
    gpy_exc_give(Py_NewRef(exc));
    gpy_transport_fatal_error(&self->base, message);
    Py_RETURN_NONE;
}

static int
fail_empty_waiter_at_end(struct gpy_stream_transport *self)
{
    if (self->empty_waiter == NULL)
        return 0;
    PyObject *exc =
        PyObject_CallFunction(PyExc_ConnectionError, "s", "Connection is closed by peer");
    if (exc == NULL)
        return -1;
    gpy_stream_transport_fail_empty_waiter(self, exc);
    Py_DECREF(exc);
    return 0;
}

static PyObject *
stream_transport_call_connection_lost(struct gpy_stream_transport *self, PyObject *exc)
{
    struct gpy_transport *base = &self->base;
    if (base->ended)
        Py_RETURN_NONE;
    PyObject *result = gpy_transport_tell_lost(base, exc);
    PyObject *raised = result ? NULL : gpy_exc_take();
    base->ended = true;
    /* First the protocol: if nobody else has the transport, no name of it need be kept. */
    Py_CLEAR(base->protocol);
    base->losing = true;
    if (!self->base.core_ended)
        gy_stream_close_now(&self->stream);
    base->losing = false;
    if (gpy_transport_leave_server(base) < 0 || fail_empty_waiter_at_end(self) < 0)
        Py_CLEAR(result);
    if (raised == NULL)
        return result;
    Py_XDECREF(result);
    gpy_exc_chain(raised);
    return NULL;
}

/* ---- the type
 * ------------------------------------------------------------------------------------------ */

static PyObject *
stream_transport_repr(struct gpy_stream_transport *self)
{
    struct gpy_transport *base = &self->base;
    PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(self), "__name__");
    if (name == NULL)
        return NULL;
    const char *state = base->ended ? " closed" : base->closing ? " closing" : "";
    PyObject *text;
    if (base->ended || base->loop == NULL || !base->loop->core_ready) {
        text = PyUnicode_FromFormat("<%U%s fd=%d>", name, state, (int)base->fd);
    } else {
        size_t queued = ops_buffer_size(base);
        bool reading = !self->base.core_ended && (self->stream.flags & GY_STREAM_READING) != 0 &&
                       (self->stream.flags & GY_STREAM_EOF) == 0;
        text = PyUnicode_FromFormat("<%U%s fd=%d read=%s write=<%s, bufsize=%zu>>", name, state,
                                    (int)base->fd, reading ? "polling" : "idle",
                                    queued ? "polling" : "idle", queued);
    }
    Py_DECREF(name);
    return text;
}

static int
stream_transport_traverse(struct gpy_stream_transport *self, visitproc visit, void *arg)
{
    Py_VISIT(self->empty_waiter);
    return gpy_transport_traverse(&self->base, visit, arg);
}

static int
stream_transport_clear(struct gpy_stream_transport *self)
{
    Py_CLEAR(self->empty_waiter);
    gpy_transport_drop_again(&self->base);
    gpy_transport_clear(&self->base);
    return 0;
}

static void
stream_transport_finalize(struct gpy_stream_transport *self)
{
    gpy_transport_finalize(&self->base, true);
}

static void
stream_transport_dealloc(struct gpy_stream_transport *self)
{
    if (!gpy_transport_dealloc_begin(&self->base))
        return;
    Py_CLEAR(self->empty_waiter);
    PyMem_Free(self->view);
    gpy_transport_dealloc_end(&self->base);
}

GPY_ONE_ARGUMENT(stream_transport_write, struct gpy_stream_transport, gpy_stream_transport_write,
                 "write", "data")
GPY_ONE_ARGUMENT(stream_transport_writelines, struct gpy_stream_transport,
                 gpy_stream_transport_writelines, "writelines", "list_of_data")

static PyMethodDef stream_transport_methods[] = {
    GPY_TRANSPORT_METHODS,
    {"write", GPY_METHOD(stream_transport_write),
     "write($self, data)\n--\n\nSend bytes; what the socket does not take at once is buffered."},
    {"writelines", GPY_METHOD(stream_transport_writelines),
     "writelines($self, list_of_data)\n--\n\nSend several bytes objects."},
    {"write_eof", (PyCFunction)gpy_stream_transport_write_eof, METH_NOARGS,
     "write_eof($self)\n--\n\nClose the sending side when the buffer is sent."},
    {"can_write_eof", (PyCFunction)gpy_transport_can_write_eof, METH_NOARGS,
     "can_write_eof($self)\n--\n\nTrue."},
    GPY_TRANSPORT_READING_METHODS("data"),
    {"close", (PyCFunction)stream_transport_close, METH_NOARGS,
     "close($self)\n--\n\nClose when the buffer is sent; no more data is received."},
    {"abort", (PyCFunction)gpy_transport_abort, METH_NOARGS,
     "abort($self)\n--\n\nClose now and drop the buffer."},
    {"_force_close", (PyCFunction)gpy_transport_force_close, METH_O, NULL},
    {"_fatal_error", (PyCFunction)stream_transport_fatal_error, METH_VARARGS, NULL},
    {"_call_connection_lost", (PyCFunction)stream_transport_call_connection_lost, METH_O, NULL},
    {"_begin", (PyCFunction)stream_transport_begin, METH_O, NULL},
    {"_make_empty_waiter", (PyCFunction)gpy_stream_transport_make_empty_waiter, METH_NOARGS, NULL},
    {"_reset_empty_waiter", (PyCFunction)gpy_stream_transport_reset_empty_waiter, METH_NOARGS,
     NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef stream_transport_getset[] = {
    GPY_TRANSPORT_GETSET,
    {"_buffer", (getter)gpy_stream_transport_buffer_get, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef stream_transport_members[] = {
    GPY_TRANSPORT_MEMBERS,
    {"_eof", T_BOOL, offsetof(struct gpy_stream_transport, eof), READONLY, NULL},
    {"_empty_waiter", T_OBJECT, offsetof(struct gpy_stream_transport, empty_waiter), READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot stream_transport_slots[] = {
    {Py_tp_doc, "A connected stream socket; made by the loop."},
    {Py_tp_repr, stream_transport_repr},
    {Py_tp_traverse, stream_transport_traverse},
    {Py_tp_clear, stream_transport_clear},
    {Py_tp_finalize, stream_transport_finalize},
    {Py_tp_dealloc, stream_transport_dealloc},
    {Py_tp_methods, stream_transport_methods},
    {Py_tp_getset, stream_transport_getset},
    {Py_tp_members, stream_transport_members},
    {0, NULL},
};

static PyType_Spec stream_transport_spec = {
    .name = "gyre._gyre.StreamTransport",
    .basicsize = sizeof(struct gpy_stream_transport),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = stream_transport_slots,
};

/* `_sendfile_compatible` and the other class attributes that asyncio reads. */
static int
add_class_attributes(PyObject *type)
{
    int rc = -1;
    PyObject *constants = PyImport_ImportModule("asyncio.constants");
    PyObject *modes = constants ? PyObject_GetAttrString(constants, "_SendfileMode") : NULL;
    PyObject *mode = modes ? PyObject_GetAttrString(modes, "TRY_NATIVE") : NULL;
    PyObject *max_size = mode ? PyLong_FromLong(GY_RECV_BYTES_MAX) : NULL;
    if (max_size != NULL && PyObject_SetAttrString(type, "_sendfile_compatible", mode) == 0 &&
        PyObject_SetAttrString(type, "max_size", max_size) == 0)
        rc = PyObject_SetAttrString(type, "_start_tls_compatible", Py_True);
    Py_XDECREF(constants);
    Py_XDECREF(modes);
    Py_XDECREF(mode);
    Py_XDECREF(max_size);
    return rc;
}

int
gpy_stream_transport_exec(PyObject *module, struct gpy_state *state)
{
    PyTypeObject *type =
        gpy_transport_type_new(module, &stream_transport_spec, "_FlowControlMixin", NULL);
    state->stream_transport_type = type;
    return type != NULL ? add_class_attributes((PyObject *)type) : -1;
}

/* ---- loop._make_socket_transport
 * ------------------------------------------------------------------------ */

void
gpy_stream_transport_not_tcp(struct gpy_stream_transport *self)
{
    int domain = AF_UNSPEC;
    socklen_t len = sizeof(domain);
    (void)getsockopt(self->base.fd, SOL_SOCKET, SO_DOMAIN, &domain, &len);
    self->stream.flags |= GY_STREAM_READ_OUT;
    if (domain == AF_UNIX)
        self->stream.flags |= GY_STREAM_LOCAL;
}

/* Always without Nagle's delay, which anything but TCP refuses. */
static void
tune_socket(struct gpy_stream_transport *self)
{
    int on = 1;
    if (setsockopt(self->base.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0)
        gpy_stream_transport_not_tcp(self);
}

PyObject *
gpy_loop_make_socket_transport(struct gpy_loop *loop, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"sock", "protocol", "waiter", "extra", "server", "context", NULL};
    PyObject *sock, *protocol, *waiter = Py_None, *extra = Py_None, *server = Py_None;
    PyObject *context = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|O$OOO:_make_socket_transport", names, &sock,
                                     &protocol, &waiter, &extra, &server, &context) ||
        gpy_loop_check_open(loop) < 0)
        return NULL;
    int fd = gpy_transport_free_fileno(loop, sock);
    if (fd < 0)
        return NULL;
    context = context == Py_None ? PyContext_CopyCurrent() : Py_NewRef(context);
    if (context == NULL)
        return NULL;
    struct gpy_transport_parts parts = {.fd = fd,
                                        .sock = sock,
                                        .protocol = protocol,
                                        .extra = extra,
                                        .server = server,
                                        .context = context};
    struct gpy_stream_transport *self = gpy_stream_transport_new(loop, &parts);
    Py_DECREF(context);
    if (self == NULL)
        return NULL;
    tune_socket(self);
    if (gpy_stream_transport_start(self, waiter == Py_None ? NULL : waiter) < 0) {
        self->stream.fd = -1; /* stays the caller's */
        self->base.fd_gone = true;
        gpy_stream_transport_discard(self);
        return NULL;
    }
    return (PyObject *)self;
}
