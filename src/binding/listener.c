/* listener.c: see listener.h.
 *
 * A Listener is a Python object that only the loop knows: it is pinned from the start of serving
 * until the core has let go of its descriptor.  The socket object stays the Server's: asyncio
 * closes it through _stop_serving, and so do we.  Thread: the loop's. */
#include "listener.h"

#include "errors.h"
#include "pycompat.h"
#include "stream_transport.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

struct gpy_listener {
    PyObject_HEAD
    struct gpy_loop *loop; /* strong */
    struct gpy_loop_member member;
    struct gy_listener listener;
    PyObject *sock;
    PyObject *factory;
    PyObject *context;  /* connections copy it                                        */
    PyObject *server;   /* or NULL                                                    */
    PyObject *tls_args; /* (sslcontext, handshake timeout, shutdown timeout), or NULL */
    bool is_tcp;
    bool ended; /* the core is done with it */
};

static struct gpy_listener *
listener_of(struct gy_listener *listener)
{
    return container_of(listener, struct gpy_listener, listener);
}

/* ---- pin ----------------------------------------------------------------------------------------
 */

static void
listener_pin(struct gpy_listener *self)
{
    GY_ASSERT(self->member.pinned == NULL);
    self->member.pinned = Py_NewRef((PyObject *)self);
}

/* The core is done with it.  May free self. */
static void
listener_end(struct gpy_listener *self)
{
    GY_ASSERT(!self->ended);
    self->ended = true;
    gy_list_remove(&self->member.link);
    Py_CLEAR(self->member.pinned);
}

static void
member_abandon(struct gpy_loop_member *member)
{
    struct gpy_listener *self = container_of(member, struct gpy_listener, member);
    gy_listener_abandon(&self->listener);
    listener_end(self);
}

static const struct gpy_loop_member_ops member_ops = {.abandon = member_abandon};

/* ---- a new connection
 * ----------------------------------------------------------------------------- */

/* What asyncio reports, in debug mode only; the exception is cleared. */
static void
report_failed(struct gpy_listener *self, PyObject *protocol)
{
    struct gpy_loop *loop = self->loop;
    if (gpy_loop_keep_raised(loop))
        return;
    if (loop->debug)
        gpy_loop_report(loop, "Error on transport creation for incoming connection", "protocol",
                        protocol, NULL);
    else
        PyErr_Clear();
}

/* loop._accept_tls(fd, is_tcp, protocol_factory, server, sslcontext, timeouts ...): it owns fd. */
static void
accept_tls(struct gpy_listener *self, PyObject *context, int fd)
{
    PyObject *method = PyObject_GetAttrString((PyObject *)self->loop, "_accept_tls");
    PyObject *args =
        method ? Py_BuildValue("(iOOOO)", fd, self->is_tcp ? Py_True : Py_False, self->factory,
                               self->server ? self->server : Py_None, self->tls_args)
               : NULL;
    PyObject *result =
        args ? gpy_loop_call(self->loop, context, method, method, ((PyTupleObject *)args)->ob_item,
                             (size_t)PyTuple_GET_SIZE(args))
             : NULL;
    if (args == NULL)
        (void)close(fd);
    if (result == NULL)
        report_failed(self, NULL);
    Py_XDECREF(result);
    Py_XDECREF(args);
    Py_XDECREF(method);
}

static void
accept_plain(struct gpy_listener *self, PyObject *context, int fd)
{
    PyObject *protocol = gpy_loop_call(self->loop, context, self->factory, self->factory, NULL, 0);
    struct gpy_transport_parts parts = {
        .fd = fd, .protocol = protocol, .server = self->server, .context = context};
    struct gpy_stream_transport *transport =
        protocol ? gpy_stream_transport_new(self->loop, &parts) : NULL;
    if (transport == NULL) {
        (void)close(fd);
        report_failed(self, protocol);
    } else {
        if (!self->is_tcp)
            gpy_stream_transport_not_tcp(transport);
        gpy_transport_debug(&transport->base, "%r is a new connection of %r",
                            self->server ? self->server : Py_None, NULL);
        if (gpy_stream_transport_start(transport, NULL) < 0) {
            gpy_stream_transport_discard(transport);
            report_failed(self, protocol);
        } else {
            Py_DECREF(transport); /* the ready queue has it, then its pin */
        }
    }
    Py_XDECREF(protocol);
}

static void
on_accepted(struct gy_listener *core, int fd)
{
    struct gpy_listener *self = listener_of(core);
    Py_INCREF(self); /* the factory may stop the server */
    PyObject *context = PyContext_Copy(self->context);
    if (context == NULL) {
        (void)close(fd);
        report_failed(self, NULL);
    } else if (self->tls_args != NULL) {
        accept_tls(self, context, fd);
    } else {
        accept_plain(self, context, fd);
    }
    Py_XDECREF(context);
    Py_DECREF(self);
}

static void
on_failed(struct gy_listener *core, int err, bool retry)
{
    struct gpy_listener *self = listener_of(core);
    if (gpy_oserror_raise(err) == NULL && gpy_loop_keep_raised(self->loop))
        return;
    PyObject *exc = gpy_exc_take();
    PyObject *socket = PyObject_CallOneArg(self->loop->state->transport_socket, self->sock);
    if (socket == NULL)
        PyErr_Clear();
    gpy_exc_give(exc);
    gpy_loop_report(self->loop,
                    retry ? "socket.accept() out of system resource" : "socket.accept() failed",
                    "socket", socket, NULL);
    Py_XDECREF(socket);
}

static void
on_detach(struct gy_listener *core)
{
    GY_UNUSED(core); /* the socket object is closed by _stop_serving, which called */
}

static void
on_closed(struct gy_listener *core)
{
    listener_end(listener_of(core));
}

static const struct gy_listener_host listener_host = {
    .accepted = on_accepted,
    .failed = on_failed,
    .detach = on_detach,
    .closed = on_closed,
};

/* ---- the loop's methods
 * ----------------------------------------------------------------------------- */

static int
fill(struct gpy_listener *self, struct gpy_loop *loop, PyObject *factory, PyObject *sock,
     PyObject *server, PyObject *context)
{
    gy_list_init(&self->member.link);
    self->member.ops = &member_ops;
    self->loop = (struct gpy_loop *)Py_NewRef((PyObject *)loop);
    self->sock = Py_NewRef(sock);
    self->factory = Py_NewRef(factory);
    self->server = server == Py_None ? NULL : Py_NewRef(server);
    self->context = context == Py_None ? PyContext_CopyCurrent() : Py_NewRef(context);
    return self->context ? 0 : -1;
}

PyObject *
gpy_loop_start_serving(struct gpy_loop *loop, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"protocol_factory",
                            "sock",
                            "sslcontext",
                            "server",
                            "backlog",
                            "ssl_handshake_timeout",
                            "ssl_shutdown_timeout",
                            "context",
                            NULL};
    PyObject *factory, *sock, *sslcontext = Py_None, *server = Py_None, *backlog = Py_None;
    PyObject *handshake_timeout = Py_None, *shutdown_timeout = Py_None, *context = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OOOOOO:_start_serving", names, &factory,
                                     &sock, &sslcontext, &server, &backlog, &handshake_timeout,
                                     &shutdown_timeout, &context) ||
        gpy_loop_check_open(loop) < 0)
        return NULL;
    PyObject *number = PyObject_CallMethodNoArgs(sock, loop->state->str_fileno);
    long fd = number && PyLong_Check(number) ? PyLong_AsLong(number) : -1;
    if (number != NULL && !PyLong_Check(number))
        PyErr_Format(PyExc_ValueError, "Invalid file object: %R", number);
    Py_XDECREF(number);
    if (fd < 0)
        return PyErr_Occurred()
                   ? NULL
                   : PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %ld", fd);
    PyTypeObject *type = loop->state->listener_type;
    struct gpy_listener *self = (struct gpy_listener *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->ended = true;
    if (fill(self, loop, factory, sock, server, context) < 0)
        goto fail;
    if (sslcontext != Py_None) {
        self->tls_args = PyTuple_Pack(3, sslcontext, handshake_timeout, shutdown_timeout);
        if (self->tls_args == NULL)
            goto fail;
    }
    /* Accepted sockets inherit it. */
    int on = 1;
    self->is_tcp = setsockopt((int)fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0;
    gy_listener_init(&self->listener, &loop->core, (int)fd, false, &listener_host);
    self->ended = false;
    gy_list_append(&loop->members, &self->member.link);
    listener_pin(self);
    gy_listener_start(&self->listener);
    Py_DECREF(self);
    Py_RETURN_NONE;
fail:
    Py_DECREF(self);
    return NULL;
}

static struct gpy_listener *
find_listener(struct gpy_loop *loop, PyObject *sock)
{
    for (struct gy_list *node = loop->members.next; node != &loop->members; node = node->next) {
        struct gpy_loop_member *member = container_of(node, struct gpy_loop_member, link);
        struct gpy_listener *self = container_of(member, struct gpy_listener, member);
        if (member->ops == &member_ops && self->sock == sock && !self->listener.closing)
            return self;
    }
    return NULL;
}

PyObject *
gpy_loop_stop_serving(struct gpy_loop *loop, PyObject *sock)
{
    struct gpy_listener *self;
    while ((self = find_listener(loop, sock)) != NULL)
        gy_listener_close(&self->listener);
    return PyObject_CallMethodNoArgs(sock, loop->state->str_close);
}

/* _make_accepted_transport(fd, is_tcp, protocol, server): for _accept_tls.  Owns fd if it succeeds.
 */
PyObject *
gpy_loop_make_accepted_transport(struct gpy_loop *loop, PyObject *args)
{
    int fd, is_tcp;
    PyObject *protocol, *server;
    if (!PyArg_ParseTuple(args, "ipOO:_make_accepted_transport", &fd, &is_tcp, &protocol,
                          &server) ||
        gpy_loop_check_open(loop) < 0)
        return NULL;
    PyObject *context = PyContext_CopyCurrent();
    if (context == NULL)
        return NULL;
    struct gpy_transport_parts parts = {
        .fd = fd, .protocol = protocol, .server = server, .context = context};
    struct gpy_stream_transport *self = gpy_stream_transport_new(loop, &parts);
    Py_DECREF(context);
    if (self == NULL)
        return NULL;
    if (!is_tcp)
        gpy_stream_transport_not_tcp(self);
    if (gpy_stream_transport_start(self, NULL) < 0) {
        self->stream.fd = -1; /* stays the caller's */
        self->base.fd_gone = true;
        gpy_stream_transport_discard(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* ---- the type
 * ------------------------------------------------------------------------------------------ */

static int
listener_traverse(struct gpy_listener *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)self->loop);
    Py_VISIT(self->sock);
    Py_VISIT(self->factory);
    Py_VISIT(self->context);
    Py_VISIT(self->server);
    Py_VISIT(self->tls_args);
    return 0;
}

static int
listener_clear(struct gpy_listener *self)
{
    Py_CLEAR(self->sock);
    Py_CLEAR(self->factory);
    Py_CLEAR(self->context);
    Py_CLEAR(self->server);
    Py_CLEAR(self->tls_args);
    return 0;
}

static void
listener_dealloc(struct gpy_listener *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    GY_ASSERT(self->ended);
    (void)listener_clear(self);
    Py_XDECREF((PyObject *)self->loop);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot listener_slots[] = {
    {Py_tp_doc, "A listening socket of a Server; made by the loop."},
    {Py_tp_traverse, listener_traverse},
    {Py_tp_clear, listener_clear},
    {Py_tp_dealloc, listener_dealloc},
    {0, NULL},
};

static PyType_Spec listener_spec = {
    .name = "gyre._gyre.Listener",
    .basicsize = sizeof(struct gpy_listener),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = listener_slots,
};

int
gpy_listener_exec(PyObject *module, struct gpy_state *state)
{
    state->listener_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &listener_spec, NULL);
    return state->listener_type ? 0 : -1;
}
