/* dgram_transport.c: the transport over a datagram socket: UDP, UNIX, and whatever else the socket
 * module can bind.
 *
 * dgram_transport_send.c has everything that sends.  Addresses of IPv4, IPv6 and UNIX sockets are
 * converted here; a socket of another family ("foreign") is received from by its own recvfrom().
 * Owner: Python references, and the loop's pin from the first operation until the core has closed
 * the descriptor.  Thread: the loop's.
 * Invariants: an exception of datagram_received() or error_received() is reported and changes
 * nothing, as asyncio has it; connection_lost() is called at most once, while the descriptor is
 * still open unless queued datagrams had to be dropped; the core's half is ended exactly once. */
#include "dgram_transport.h"

#include "args.h"
#include "dgram_transport_impl.h"
#include "errors.h"
#include "future.h"
#include "pycompat.h"
#include "sock.h"
#include "sockaddr.h"

#include <errno.h>
#include <netinet/in.h>

/* ---- the core's upcalls ------------------------------------------------------------------------
 */

/* The protocol raised: reported, or it leaves the loop. */
static GY_COLD void
protocol_raised(struct gpy_transport *base, const char *message)
{
    if (!gpy_loop_keep_raised(base->loop))
        gpy_loop_report(base->loop, message, "transport", base, "protocol", base->protocol, NULL);
}

static void
deliver(struct gpy_dgram_transport *self, PyObject *data, PyObject *address)
{
    struct gpy_transport *base = &self->base;
    PyObject *result =
        gpy_protocol_call_datagram(base->loop, base->context, base->protocol, data, address);
    if (GY_UNLIKELY(result == NULL))
        protocol_raised(base, "Exception in callback protocol.datagram_received()");
    Py_XDECREF(result);
}

static void
on_datagram(struct gy_dgram *dgram, const void *data, size_t len, const struct gy_address *from)
{
    struct gpy_dgram_transport *self = gpy_dgram_transport_of(dgram);
    if (GY_UNLIKELY(self->base.conn_lost || self->base.protocol == NULL))
        return;
    PyObject *bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)len);
    PyObject *address = bytes ? gpy_peers_to_python(&self->peers, from) : NULL;
    if (GY_LIKELY(address != NULL))
        deliver(self, bytes, address);
    else
        gpy_transport_fatal_error(&self->base, "Fatal read error on datagram transport");
    Py_XDECREF(bytes);
    Py_XDECREF(address);
}

void
gpy_dgram_transport_error_received(struct gpy_dgram_transport *self, PyObject *exc)
{
    struct gpy_transport *base = &self->base;
    if (base->protocol == NULL)
        return;
    PyObject *name = base->state->str_error_received;
    PyObject *protocol = Py_NewRef(base->protocol);
    PyObject *result;
    if (self->called) /* as asyncio: the caller's task stays current, and its context */
        result = PyObject_CallMethodOneArg(protocol, name, exc);
    else
        result = gpy_protocol_call(base->loop, base->context, protocol, name, exc);
    Py_DECREF(protocol);
    if (result == NULL)
        protocol_raised(base, "Exception in callback protocol.error_received()");
    Py_XDECREF(result);
}

static void
on_error(struct gy_dgram *dgram, int err)
{
    struct gpy_dgram_transport *self = gpy_dgram_transport_of(dgram);
    PyObject *exc = gpy_oserror_new(err);
    if (exc == NULL) {
        gpy_transport_fatal_error(&self->base, "Fatal error on datagram transport");
        return;
    }
    gpy_dgram_transport_error_received(self, exc);
    Py_DECREF(exc);
}

static void
on_broken(struct gy_dgram *dgram, int err)
{
    (void)gpy_oserror_raise(err);
    gpy_transport_fatal_error(&gpy_dgram_transport_of(dgram)->base,
                              "Fatal read error on datagram transport");
}

/* A foreign family: sock.recvfrom() knows its addresses. */
static int
on_receive(struct gy_dgram *dgram)
{
    struct gpy_dgram_transport *self = gpy_dgram_transport_of(dgram);
    struct gpy_transport *base = &self->base;
    PyObject *sock = Py_NewRef(base->sock);
    PyObject *both = PyObject_CallMethod(sock, "recvfrom", "n", (Py_ssize_t)GY_DGRAM_BYTES_MAX);
    Py_DECREF(sock);
    if (both == NULL)
        return gpy_dgram_transport_call_failed(self, "Fatal read error on datagram transport");
    if (!base->conn_lost && PyTuple_Check(both) && PyTuple_GET_SIZE(both) == 2)
        deliver(self, PyTuple_GET_ITEM(both, 0), PyTuple_GET_ITEM(both, 1));
    Py_DECREF(both);
    return 0;
}

int
gpy_dgram_transport_call_failed(struct gpy_dgram_transport *self, const char *message)
{
    if (PyErr_ExceptionMatches(PyExc_BlockingIOError) ||
        PyErr_ExceptionMatches(PyExc_InterruptedError)) {
        PyErr_Clear();
        return -EAGAIN;
    }
    if (PyErr_ExceptionMatches(PyExc_OSError)) {
        PyObject *exc = gpy_exc_take();
        gpy_dgram_transport_error_received(self, exc);
        Py_DECREF(exc);
        return 0;
    }
    gpy_transport_fatal_error(&self->base, message);
    return 0;
}

static void
on_drained(struct gy_dgram *dgram)
{
    struct gpy_dgram_transport *self = gpy_dgram_transport_of(dgram);
    struct gpy_transport *base = &self->base;
    if (base->conn_lost)
        return;
    gpy_transport_maybe_resume(base); /* may send */
    if (base->conn_lost || dgram->count != 0 || !base->closing)
        return;
    if (gpy_dgram_transport_lose(self, NULL) < 0 && !gpy_loop_keep_raised(base->loop))
        PyErr_WriteUnraisable((PyObject *)self);
}

static void
on_release(struct gy_dgram *dgram, void *owner)
{
    GY_UNUSED(dgram);
    Py_DECREF((PyObject *)owner);
}

static void
on_detach(struct gy_dgram *dgram)
{
    struct gpy_dgram_transport *self = gpy_dgram_transport_of(dgram);
    if (!gpy_transport_detach(&self->base))
        dgram->fd = -1; /* the number is somebody else's by now */
}

static void
on_closed(struct gy_dgram *dgram)
{
    struct gpy_dgram_transport *self = gpy_dgram_transport_of(dgram);
    self->base.core_ended = true;
    gpy_transport_delist(&self->base);
    gpy_transport_unpin(&self->base); /* may free self */
}

static const struct gy_dgram_host dgram_transport_host = {
    .datagram = on_datagram,
    .receive = on_receive,
    .send = gpy_dgram_transport_send_foreign,
    .error = on_error,
    .broken = on_broken,
    .drained = on_drained,
    .release = on_release,
    .detach = on_detach,
    .closed = on_closed,
};

static void
ops_abandon(struct gpy_transport *base)
{
    struct gpy_dgram_transport *self = gpy_dgram_transport_of_base(base);
    if (base->core_ended)
        return;
    gy_dgram_abandon(&self->dgram);
    base->core_ended = true;
    gpy_transport_delist(base);
    gpy_transport_unpin(base); /* may free self */
}

static void
member_abandon(struct gpy_loop_member *member)
{
    ops_abandon(gpy_transport_of_member(member));
}

static const struct gpy_loop_member_ops member_ops = {.abandon = member_abandon};

/* ---- what the kinds of transports do differently
 * ------------------------------------------------- */

static size_t
ops_buffer_size(struct gpy_transport *base)
{
    struct gpy_dgram_transport *self = gpy_dgram_transport_of_base(base);
    if (self->base.core_ended)
        return 0;
    return self->dgram.queued_bytes + (size_t)GPY_DATAGRAM_HEADER_BYTES * self->dgram.count;
}

static void
ops_flush(struct gpy_transport *base)
{
    struct gpy_dgram_transport *self = gpy_dgram_transport_of_base(base);
    bool was_called = self->called;
    self->called = true;
    if (!self->base.core_ended)
        gy_dgram_flush(&self->dgram);
    self->called = was_called;
}

/* abort() inside of a flush, by error_received(): the rest was given to sendto() before.  asyncio
 * had sent it by then, unless it had to wait for room, or the first error ended all (a transport
 * with remote_addr sends no more once it is lost). */
static bool
sent_before(const struct gpy_dgram_transport *self)
{
    return (self->dgram.flags & (GY_DGRAM_FLUSHING | GY_DGRAM_BACKLOG)) == GY_DGRAM_FLUSHING &&
           self->address == NULL;
}

int
gpy_dgram_transport_lose(struct gpy_dgram_transport *self, PyObject *exc)
{
    struct gpy_transport *base = &self->base;
    ops_flush(base); /* asyncio would have sent them before: only what waits for room is dropped */
    if (base->conn_lost)
        return 0;
    base->closing = true;
    base->conn_lost = 1;
    if (!self->base.core_ended) {
        gy_dgram_pause(&self->dgram);
        if (self->dgram.count != 0 && !sent_before(self))
            gy_dgram_close(&self->dgram); /* nothing more may leave */
    }
    return gpy_transport_schedule_lost(base, exc);
}

static int
ops_force_close(struct gpy_transport *base, PyObject *exc)
{
    return gpy_dgram_transport_lose(gpy_dgram_transport_of_base(base), exc);
}

static int
ops_set_protocol(struct gpy_transport *base)
{
    GY_UNUSED(base);
    return 0;
}

static void
ops_disown(struct gpy_transport *base)
{
    struct gpy_dgram_transport *self = gpy_dgram_transport_of_base(base);
    (void)gpy_transport_detach(base);
    if (self->base.core_ended)
        return;
    self->dgram.fd = -1; /* whatever still comes fails with EBADF and hits nobody */
    if (gpy_oserror_raise(-EBADF) == NULL)
        gpy_transport_fatal_error(base, "Fatal error on datagram transport");
}

static void
ops_pause(struct gpy_transport *base)
{
    gy_dgram_pause(&gpy_dgram_transport_of_base(base)->dgram);
}

static void
ops_resume(struct gpy_transport *base)
{
    gy_dgram_resume(&gpy_dgram_transport_of_base(base)->dgram);
}

static const struct gpy_transport_ops dgram_transport_ops = {
    .buffer_size = ops_buffer_size,
    .flush = ops_flush,
    .force_close = ops_force_close,
    .set_protocol = ops_set_protocol,
    .disown = ops_disown,
    .pause = ops_pause,
    .resume = ops_resume,
    .abandon = ops_abandon,
};

/* ---- birth
 * ------------------------------------------------------------------------------------------ */

/* sock.getsockname() or getpeername(); None where it has none. */
static PyObject *
name_of(PyObject *sock, const char *method)
{
    PyObject *name = PyObject_CallMethod(sock, method, NULL);
    if (name == NULL && PyErr_ExceptionMatches(PyExc_OSError)) {
        PyErr_Clear();
        return Py_NewRef(Py_None);
    }
    return name;
}

/* asyncio asks once, when the transport is made, and sends by what it was told then. */
static int
note_names(struct gpy_dgram_transport *self)
{
    struct gpy_transport *base = &self->base;
    struct gpy_state *state = base->state;
    if (base->extra == NULL && (base->extra = PyDict_New()) == NULL)
        return -1;
    PyObject *local = name_of(base->sock, "getsockname");
    PyObject *peer = local ? name_of(base->sock, "getpeername") : NULL;
    int rc = peer ? PyObject_SetItem(base->extra, state->str_sockname, local) : -1;
    int there = rc == 0 ? PySequence_Contains(base->extra, state->str_peername) : -1;
    if (there == 0 && PyObject_SetItem(base->extra, state->str_peername, peer) < 0)
        there = -1;
    if (there >= 0) {
        PyObject *stated = PyObject_GetItem(base->extra, state->str_peername);
        int truth = stated ? PyObject_IsTrue(stated) : -1;
        Py_XDECREF(stated);
        self->connected = truth > 0;
        self->has_peer = peer != Py_None;
        there = truth < 0 ? -1 : there;
    }
    Py_XDECREF(local);
    Py_XDECREF(peer);
    return there < 0 ? -1 : 0;
}

static int
note_address(struct gpy_dgram_transport *self, PyObject *address)
{
    int truth = PyObject_IsTrue(address);
    if (truth > 0)
        self->address = Py_NewRef(address);
    return truth < 0 ? -1 : 0;
}

/* UDP, and nothing else that has datagrams. */
static bool
is_udp(int fd, int family)
{
    int protocol = 0;
    socklen_t len = sizeof(protocol);
    return (family == AF_INET || family == AF_INET6) &&
           getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len) == 0 && protocol == IPPROTO_UDP;
}

static uint32_t
core_flags(struct gpy_dgram_transport *self)
{
    int family = self->family;
    if (family != AF_INET && family != AF_INET6 && family != AF_UNIX)
        return GY_DGRAM_FOREIGN;
    return self->base.loop->udp_offload && is_udp(self->base.fd, family) ? GY_DGRAM_OFFLOAD : 0;
}

/* Takes over parts->fd only if it succeeds. */
static struct gpy_dgram_transport *
transport_new(struct gpy_loop *loop, const struct gpy_transport_parts *parts, PyObject *address)
{
    PyTypeObject *type = loop->state->dgram_transport_type;
    struct gpy_dgram_transport *self = (struct gpy_dgram_transport *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->base.core_ended = true; /* until it has begun */
    self->base.ended = true;
    if (gpy_transport_init(&self->base, &dgram_transport_ops, loop, parts) < 0 ||
        (self->family = gpy_sock_family(loop->state, parts->sock)) < 0 || note_names(self) < 0 ||
        note_address(self, address) < 0 || gpy_transport_enlist(&self->base) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    self->base.member.ops = &member_ops;
    gy_dgram_init(&self->dgram, &loop->core, parts->fd, &dgram_transport_host, core_flags(self));
    self->base.core_ended = false;
    self->base.ended = false;
    return self;
}

/* For a transport that could not be started: the descriptor stays the caller's. */
static void
discard(struct gpy_dgram_transport *self)
{
    PyObject *exc = gpy_exc_take();
    self->base.ended = true; /* nobody has seen it: no warning */
    self->dgram.fd = -1;
    self->base.fd_gone = true;
    ops_abandon(&self->base);
    Py_DECREF(self);
    gpy_exc_give(exc);
}

static PyObject *
dgram_transport_begin(struct gpy_dgram_transport *self, PyObject *waiter)
{
    struct gpy_transport *base = &self->base;
    return gpy_transport_begin(base, !base->closing && !base->paused, waiter);
}

PyObject *
gpy_loop_make_datagram_transport(struct gpy_loop *loop, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"sock", "protocol", "address", "waiter", "extra", NULL};
    PyObject *sock, *protocol, *address = Py_None, *waiter = Py_None, *extra = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OOO:_make_datagram_transport", names, &sock,
                                     &protocol, &address, &waiter, &extra) ||
        gpy_loop_check_open(loop) < 0)
        return NULL;
    int fd = gpy_transport_free_fileno(loop, sock);
    if (fd < 0)
        return NULL;
    PyObject *context = PyContext_CopyCurrent();
    if (context == NULL)
        return NULL;
    struct gpy_transport_parts parts = {
        .fd = fd, .sock = sock, .protocol = protocol, .extra = extra, .context = context};
    struct gpy_dgram_transport *self = transport_new(loop, &parts, address);
    Py_DECREF(context);
    if (self == NULL)
        return NULL;
    if (gpy_transport_schedule_start(&self->base, waiter) < 0) {
        discard(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* ---- ends and pauses
 * --------------------------------------------------------------------------------- */

static PyObject *
dgram_transport_close(struct gpy_dgram_transport *self, PyObject *Py_UNUSED(ignored))
{
    struct gpy_transport *base = &self->base;
    if (base->closing)
        Py_RETURN_NONE;
    base->closing = true;
    if (!self->base.core_ended) {
        gy_dgram_pause(&self->dgram);
        ops_flush(base); /* what is held leaves now; may lose */
        if (self->dgram.count != 0)
            Py_RETURN_NONE; /* on_drained goes on */
    }
    return gpy_none_or_error(gpy_dgram_transport_lose(self, NULL));
}

static PyObject *
dgram_transport_call_connection_lost(struct gpy_dgram_transport *self, PyObject *exc)
{
    struct gpy_transport *base = &self->base;
    if (base->ended)
        Py_RETURN_NONE;
    PyObject *result = gpy_transport_tell_lost(base, exc);
    PyObject *raised = result ? NULL : gpy_exc_take();
    ops_flush(base); /* what connection_lost() itself has sent: the descriptor is still open */
    base->ended = true;
    Py_CLEAR(base->protocol);
    base->losing = true;
    if (!self->base.core_ended)
        gy_dgram_close_now(&self->dgram);
    base->losing = false;
    if (raised != NULL)
        gpy_exc_give(raised);
    return result;
}

/* ---- the type
 * ------------------------------------------------------------------------------------------ */

static PyObject *
dgram_transport_repr(struct gpy_dgram_transport *self)
{
    struct gpy_transport *base = &self->base;
    PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(self), "__name__");
    if (name == NULL)
        return NULL;
    const char *state = base->ended ? " closed" : base->closing ? " closing" : "";
    PyObject *text;
    if (base->ended || base->loop->closed) {
        text = PyUnicode_FromFormat("<%U%s fd=%d>", name, state, (int)base->fd);
    } else {
        bool reading = !self->base.core_ended && (self->dgram.flags & GY_DGRAM_READING) != 0;
        text = PyUnicode_FromFormat("<%U%s fd=%d read=%s write=<%s, bufsize=%zu>>", name, state,
                                    (int)base->fd, reading ? "polling" : "idle",
                                    self->dgram.count ? "polling" : "idle", ops_buffer_size(base));
    }
    Py_DECREF(name);
    return text;
}

static int
dgram_transport_traverse(struct gpy_dgram_transport *self, visitproc visit, void *arg)
{
    Py_VISIT(self->address);
    return gpy_transport_traverse(&self->base, visit, arg);
}

static int
dgram_transport_clear(struct gpy_dgram_transport *self)
{
    Py_CLEAR(self->address);
    Py_CLEAR(self->last_to);
    gpy_transport_clear(&self->base);
    return 0;
}

static void
dgram_transport_finalize(struct gpy_dgram_transport *self)
{
    gpy_transport_finalize(&self->base, true);
}

static void
dgram_transport_dealloc(struct gpy_dgram_transport *self)
{
    if (!gpy_transport_dealloc_begin(&self->base))
        return;
    (void)dgram_transport_clear(self);
    gpy_peers_free(&self->peers);
    gpy_transport_dealloc_end(&self->base);
}

static PyMethodDef dgram_transport_methods[] = {
    GPY_TRANSPORT_METHODS,
    {"sendto", GPY_METHOD(gpy_dgram_transport_sendto),
     "sendto($self, data, addr=None)\n--\n\nSend data as one datagram."},
    GPY_TRANSPORT_READING_METHODS("datagrams"),
    {"close", (PyCFunction)dgram_transport_close, METH_NOARGS,
     "close($self)\n--\n\nClose when the buffer is sent; nothing more is received."},
    {"abort", (PyCFunction)gpy_transport_abort, METH_NOARGS,
     "abort($self)\n--\n\nClose now and drop the buffer."},
    {"_force_close", (PyCFunction)gpy_transport_force_close, METH_O, NULL},
    {"_call_connection_lost", (PyCFunction)dgram_transport_call_connection_lost, METH_O, NULL},
    {"_begin", (PyCFunction)dgram_transport_begin, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef dgram_transport_getset[] = {
    GPY_TRANSPORT_GETSET,
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef dgram_transport_members[] = {
    GPY_TRANSPORT_MEMBERS,
    {"_address", T_OBJECT, offsetof(struct gpy_dgram_transport, address), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot dgram_transport_slots[] = {
    {Py_tp_doc, "A datagram socket; made by the loop."},
    {Py_tp_repr, dgram_transport_repr},
    {Py_tp_traverse, dgram_transport_traverse},
    {Py_tp_clear, dgram_transport_clear},
    {Py_tp_finalize, dgram_transport_finalize},
    {Py_tp_dealloc, dgram_transport_dealloc},
    {Py_tp_methods, dgram_transport_methods},
    {Py_tp_getset, dgram_transport_getset},
    {Py_tp_members, dgram_transport_members},
    {0, NULL},
};

static PyType_Spec dgram_transport_spec = {
    .name = "gyre._gyre.DatagramTransport",
    .basicsize = sizeof(struct gpy_dgram_transport),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = dgram_transport_slots,
};

int
gpy_dgram_transport_exec(PyObject *module, struct gpy_state *state)
{
    PyTypeObject *type = gpy_transport_type_new(module, &dgram_transport_spec, "_FlowControlMixin",
                                                "DatagramTransport");
    PyObject *max_size = type ? PyLong_FromLong(GY_DGRAM_BYTES_MAX) : NULL;
    int rc = max_size ? PyObject_SetAttrString((PyObject *)type, "max_size", max_size) : -1;
    Py_XDECREF(max_size);
    state->dgram_transport_type = type;
    return rc;
}
