/* pipe_transport.c: the transports over one end of a pipe: life, Python methods, types.
 *
 * Owner: Python references, and the loop's pin from the first operation until the core has let go
 * of the descriptor.  Thread: the loop's. Invariants: connection_lost() is called at most once; the
 * pipe object is closed exactly once, right after it as in asyncio (a poll in flight keeps the
 * file, not the number, and is cancelled by then), or when the transport is abandoned; the core
 * closes no descriptor but the one that a terminal was opened by once more. */
#include "pipe_transport.h"

#include "args.h"
#include "errors.h"
#include "future.h"
#include "pycompat.h"

#include "../core/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

/* ---- the pipe object ------------------------------------------------------------------------- */

/* Where CPython keeps the descriptor of a FileIO and of a socket. */
static int
fd_at_its_place(PyObject *object)
{
    return *(const int *)((const char *)object + sizeof(PyObject));
}

static bool
is_plain(struct gpy_state *state, PyObject *pipe, int fd)
{
    PyTypeObject *types[] = {(PyTypeObject *)state->file_io, (PyTypeObject *)state->socket_base};
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
        if (PyObject_TypeCheck(pipe, types[i]))
            return (size_t)types[i]->tp_basicsize >= sizeof(PyObject) + sizeof(int) &&
                   fd_at_its_place(pipe) == fd;
    }
    return false;
}

static int
fileno_of(struct gpy_state *state, PyObject *pipe)
{
    PyObject *number = PyObject_CallMethodNoArgs(pipe, state->str_fileno);
    long fd = number ? PyLong_AsLong(number) : -1;
    Py_XDECREF(number);
    if ((fd < 0 || fd > INT_MAX) && !PyErr_Occurred())
        (void)gpy_oserror_raise(-EBADF);
    return PyErr_Occurred() ? -1 : (int)fd;
}

bool
gpy_pipe_transport_owns_fd(struct gpy_pipe_transport *self)
{
    if (self->pipe == NULL)
        return false;
    if (GY_LIKELY(self->pipe_is_plain))
        return fd_at_its_place(self->pipe) == self->base.fd;
    int fd = fileno_of(self->base.state, self->pipe);
    if (fd < 0)
        PyErr_Clear();
    return fd == self->base.fd;
}

/* Closes the pipe object, once.  The exception that is set stays.  0 or -1. */
static int
close_pipe(struct gpy_pipe_transport *self)
{
    PyObject *exc = PyErr_Occurred() ? gpy_exc_take() : NULL;
    /* Without a pipe object the number may still be there: the mode looks. */
    gy_pipe_mode_end(&self->mode, self->pipe == NULL || gpy_pipe_transport_owns_fd(self));
    PyObject *pipe = self->pipe;
    self->base.fd_gone = true;
    self->pipe = NULL;
    if (pipe == NULL) {
        if (exc != NULL)
            gpy_exc_give(exc);
        return 0;
    }
    PyObject *result = PyObject_CallMethodNoArgs(pipe, self->base.state->str_close);
    int rc = result ? 0 : -1;
    Py_XDECREF(result);
    Py_DECREF(pipe);
    if (exc != NULL)
        gpy_exc_chain(exc);
    return rc;
}

static void
close_pipe_unheard(struct gpy_pipe_transport *self)
{
    PyObject *exc = PyErr_Occurred() ? gpy_exc_take() : NULL;
    if (close_pipe(self) < 0)
        PyErr_WriteUnraisable((PyObject *)self);
    if (exc != NULL)
        gpy_exc_give(exc);
}

/* ---- the core's upcalls about the end --------------------------------------------------------
 */

void
gpy_pipe_transport_on_detach(struct gy_stream *stream)
{
    if (!gpy_pipe_transport_of(stream)->own_fd)
        stream->fd = -1; /* the pipe object closes it */
}

void
gpy_pipe_transport_on_closed(struct gy_stream *stream)
{
    struct gpy_pipe_transport *self = gpy_pipe_transport_of(stream);
    self->base.core_ended = true;
    gy_list_remove(&self->base.member.link);
    gpy_transport_unpin(&self->base); /* may free self */
}

void
gpy_pipe_transport_abandon(struct gpy_pipe_transport *self)
{
    if (self->base.core_ended)
        return;
    gy_stream_abandon(&self->stream);
    self->base.core_ended = true;
    gy_list_remove(&self->base.member.link);
    close_pipe_unheard(self);
    gpy_transport_unpin(&self->base); /* may free self */
}

static void
ops_drop(struct gpy_transport *base)
{
    struct gpy_pipe_transport *self = gpy_pipe_transport_of_base(base);
    bool done = gy_stream_drop(&self->stream);
    if (done) {
        base->core_ended = true;
        gy_list_remove(&base->member.link);
    } else if (!self->own_fd) {
        self->stream.fd = -1; /* a poll in flight keeps the file, not the number */
    }
    close_pipe_unheard(self);
    if (done)
        gpy_transport_unpin(base);
}

static void
member_abandon(struct gpy_loop_member *member)
{
    gpy_pipe_transport_abandon(gpy_pipe_transport_of_base(gpy_transport_of_member(member)));
}

static bool
member_is_at_rest(const struct gpy_loop_member *member)
{
    const struct gpy_transport *base = container_of(member, const struct gpy_transport, member);
    const struct gpy_pipe_transport *self =
        container_of(base, const struct gpy_pipe_transport, base);
    return !base->core_ended && gy_stream_is_at_rest(&self->stream);
}

static const struct gpy_loop_member_ops member_ops = {
    .abandon = member_abandon,
    .is_at_rest = member_is_at_rest,
};

/* ---- what the kinds of transports do differently ---------------------------------------------
 */

static size_t
ops_buffer_size(struct gpy_transport *base)
{
    struct gpy_pipe_transport *self = gpy_pipe_transport_of_base(base);
    return base->conn_lost || self->base.core_ended ? 0 : gy_stream_queued(&self->stream);
}

static void
ops_flush(struct gpy_transport *base)
{
    GY_UNUSED(base); /* nothing is ever held back */
}

int
gpy_pipe_transport_lose(struct gpy_pipe_transport *self, PyObject *exc)
{
    struct gpy_transport *base = &self->base;
    if (base->conn_lost)
        return 0;
    base->closing = true;
    base->conn_lost = 1;
    if (!self->base.core_ended) {
        gy_stream_stop_receive(&self->stream);
        if (gy_stream_queued(&self->stream) != 0)
            gy_stream_close(&self->stream); /* nothing more may leave */
    }
    return gpy_transport_schedule_lost(base, exc);
}

static int
ops_force_close(struct gpy_transport *base, PyObject *exc)
{
    return gpy_pipe_transport_lose(gpy_pipe_transport_of_base(base), exc);
}

static int
ops_set_protocol(struct gpy_transport *base)
{
    GY_UNUSED(base); /* asyncio's pipes know data_received() alone */
    return 0;
}

static void
ops_disown(struct gpy_transport *base)
{
    GY_UNUSED(base); /* not in the table of descriptors: two pipes may share one */
}

static void
ops_pause(struct gpy_transport *base)
{
    gy_stream_pause(&gpy_pipe_transport_of_base(base)->stream);
}

static void
ops_resume(struct gpy_transport *base)
{
    gy_stream_resume(&gpy_pipe_transport_of_base(base)->stream);
}

static void
ops_abandon(struct gpy_transport *base)
{
    gpy_pipe_transport_abandon(gpy_pipe_transport_of_base(base));
}

static const struct gpy_transport_ops pipe_transport_ops = {
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

/* ---- birth -----------------------------------------------------------------------------------
 */

/* Is it of a kind that asyncio takes?  0 or -1. */
static int
check_kind(struct gpy_pipe_transport *self, int fd)
{
    struct stat status;
    if (fstat(fd, &status) < 0) {
        (void)gpy_oserror_raise(-errno);
        return -1;
    }
    bool is_fifo = S_ISFIFO(status.st_mode), is_socket = S_ISSOCK(status.st_mode);
    if (!is_fifo && !is_socket && !S_ISCHR(status.st_mode)) {
        PyErr_SetString(PyExc_ValueError,
                        self->writes
                            ? "Pipe transport is only for pipes, sockets and character devices"
                            : "Pipe transport is for pipes/sockets only.");
        return -1;
    }
    self->is_fifo = is_fifo;
    self->is_socket = is_socket;
    self->watches = is_fifo || is_socket; /* a terminal has something to read for others */
    return 0;
}

/* Finds the way to call the kernel without waiting: by the call itself, by a description of our
 * own, or, where neither can be had, in non-blocking mode.  *flags and *stream_fd are the stream's.
 * 0 or -1. */
static int
avoid_waiting(struct gpy_pipe_transport *self, uint32_t *flags, int *stream_fd)
{
    int fd = self->base.fd;
    *stream_fd = fd;
    *flags = GY_STREAM_SOCKET;
    if (self->is_socket)
        return 0;
    *flags = GY_STREAM_NOWAIT;
    if (self->is_fifo && (self->base.loop->core.features & GY_FEAT_PIPE_NOWAIT) != 0 &&
        gy_sys_is_pipe(fd))
        return 0;
    *flags = 0;
    int own = self->is_fifo ? -ENOTTY : gy_sys_reopen_terminal(fd);
    if (own >= 0) {
        self->own_fd = true;
        *stream_fd = own;
        return 0;
    }
    int err = gy_pipe_mode_begin(&self->mode, fd);
    if (err < 0)
        (void)gpy_oserror_raise(err);
    return err < 0 ? -1 : 0;
}

static PyObject *
extra_of(PyObject *extra, PyObject *pipe)
{
    PyObject *dict = PyDict_New();
    if (dict != NULL && extra != Py_None && PyDict_Update(dict, extra) < 0)
        Py_CLEAR(dict);
    if (dict != NULL && PyDict_SetItemString(dict, "pipe", pipe) < 0)
        Py_CLEAR(dict);
    return dict;
}

static void
begin_stream(struct gpy_pipe_transport *self, uint32_t flags, int fd)
{
    struct gpy_loop *loop = self->base.loop;
    gy_stream_init(&self->stream, &loop->core, fd,
                   self->writes ? &gpy_pipe_writer_host : &gpy_pipe_reader_host, GY_RECV_POLL);
    /* A short read says nothing: a terminal gives lines, a pipe in packet mode packets. */
    self->stream.flags |= flags | GY_STREAM_PIPE |
                          (self->writes ? (uint32_t)GY_STREAM_WATCH : (uint32_t)GY_STREAM_READ_OUT);
    self->base.core_ended = false;
    self->base.ended = false;
    self->base.member.ops = &member_ops;
    gy_list_append(&loop->members, &self->base.member.link);
}

/* 0 or -1; after -1 the pipe is still the caller's. */
static int
start(struct gpy_pipe_transport *self, struct gpy_loop *loop, PyObject *pipe, PyObject *protocol,
      PyObject *waiter, PyObject *extra)
{
    int fd = fileno_of(loop->state, pipe);
    if (fd < 0)
        return -1;
    PyObject *context = PyContext_CopyCurrent();
    PyObject *all_extra = context ? extra_of(extra, pipe) : NULL;
    struct gpy_transport_parts parts = {
        .fd = fd, .protocol = protocol, .extra = all_extra, .context = context};
    int rc = -1;
    if (all_extra != NULL &&
        gpy_transport_init(&self->base, &pipe_transport_ops, loop, &parts) == 0)
        rc = 0;
    Py_XDECREF(context);
    Py_XDECREF(all_extra);
    uint32_t flags;
    int stream_fd;
    if (rc < 0 || check_kind(self, fd) < 0 || avoid_waiting(self, &flags, &stream_fd) < 0)
        return -1;
    self->pipe_is_plain = is_plain(loop->state, pipe, fd);
    begin_stream(self, flags, stream_fd);
    if (gpy_transport_schedule_start(&self->base, waiter) == 0) {
        self->pipe = Py_NewRef(pipe);
        return 0;
    }
    self->base.ended = true; /* nobody has seen it: no warning */
    PyObject *exc = gpy_exc_take();
    gpy_pipe_transport_abandon(self);
    gpy_exc_give(exc);
    return -1;
}

static PyObject *
make(struct gpy_loop *loop, bool writes, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"pipe", "protocol", "waiter", "extra", NULL};
    PyObject *pipe, *protocol, *waiter = Py_None, *extra = Py_None;
    const char *format =
        writes ? "OO|OO:_make_write_pipe_transport" : "OO|OO:_make_read_pipe_transport";
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, format, names, &pipe, &protocol, &waiter,
                                     &extra) ||
        gpy_loop_check_open(loop) < 0)
        return NULL;
    PyTypeObject *type = writes ? loop->state->write_pipe_type : loop->state->read_pipe_type;
    struct gpy_pipe_transport *self = (struct gpy_pipe_transport *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->writes = writes;
    self->base.core_ended = true; /* until it has begun */
    self->base.ended = true;
    if (start(self, loop, pipe, protocol, waiter, extra) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

PyObject *
gpy_loop_make_read_pipe_transport(struct gpy_loop *loop, PyObject *args, PyObject *kwargs)
{
    return make(loop, false, args, kwargs);
}

PyObject *
gpy_loop_make_write_pipe_transport(struct gpy_loop *loop, PyObject *args, PyObject *kwargs)
{
    return make(loop, true, args, kwargs);
}

static PyObject *
pipe_begin(struct gpy_pipe_transport *self, PyObject *waiter)
{
    struct gpy_transport *base = &self->base;
    bool reads = self->writes ? self->watches && !base->conn_lost : !base->closing && !base->paused;
    return gpy_transport_begin(base, reads, waiter);
}

/* ---- ends ------------------------------------------------------------------------------------
 */

/* A reader's close(): nothing if it is closing already, or if the loop's close() has closed it. */
static PyObject *
reader_close(struct gpy_pipe_transport *self, PyObject *Py_UNUSED(ignored))
{
    if (self->base.closing || self->base.core_ended)
        Py_RETURN_NONE;
    return gpy_none_or_error(gpy_pipe_transport_lose(self, NULL));
}

static PyObject *
pipe_call_connection_lost(struct gpy_pipe_transport *self, PyObject *exc)
{
    struct gpy_transport *base = &self->base;
    if (base->ended)
        Py_RETURN_NONE;
    PyObject *result = gpy_transport_tell_lost(base, exc);
    base->ended = true;
    if (!self->base.core_ended && self->own_fd) {
        gy_stream_close_now(&self->stream);
    } else if (!self->base.core_ended) {
        gy_stream_close(&self->stream);
        self->stream.fd = -1;
    }
    if (close_pipe(self) < 0)
        Py_CLEAR(result);
    Py_CLEAR(base->protocol);
    return result;
}

/* ---- the types -------------------------------------------------------------------------------
 */

static PyObject *
pipe_repr(struct gpy_pipe_transport *self)
{
    struct gpy_transport *base = &self->base;
    PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(self), "__name__");
    if (name == NULL)
        return NULL;
    const char *state = base->ended ? " closed" : base->closing ? " closing" : "";
    PyObject *text;
    if (base->ended || self->base.core_ended) { /* open: only the loop is closed */
        text = PyUnicode_FromFormat("<%U%s fd=%d %s>", name, state, (int)base->fd,
                                    base->ended ? "closed" : "open");
    } else if (self->writes) {
        size_t queued = ops_buffer_size(base);
        text = PyUnicode_FromFormat("<%U%s fd=%d %s bufsize=%zu>", name, state, (int)base->fd,
                                    queued ? "polling" : "idle", queued);
    } else {
        bool reading = (self->stream.flags & GY_STREAM_READING) != 0;
        text = PyUnicode_FromFormat("<%U%s fd=%d %s>", name, state, (int)base->fd,
                                    reading ? "polling" : "idle");
    }
    Py_DECREF(name);
    return text;
}

static int
pipe_traverse(struct gpy_pipe_transport *self, visitproc visit, void *arg)
{
    Py_VISIT(self->pipe);
    return gpy_transport_traverse(&self->base, visit, arg);
}

static int
pipe_clear(struct gpy_pipe_transport *self)
{
    gpy_transport_drop_again(&self->base);
    gpy_transport_clear(&self->base);
    return 0;
}

static void
pipe_finalize(struct gpy_pipe_transport *self)
{
    gpy_transport_finalize(&self->base, !self->pipe_taken);
}

static void
pipe_dealloc(struct gpy_pipe_transport *self)
{
    if (!gpy_transport_dealloc_begin(&self->base))
        return;
    gy_pipe_mode_end(&self->mode, false);
    Py_CLEAR(self->pipe);
    Py_CLEAR(self->block);
    gpy_transport_dealloc_end(&self->base);
}

static PyObject *
pipe_pipe_get(struct gpy_pipe_transport *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->pipe ? self->pipe : Py_None);
}

static int
pipe_pipe_set(struct gpy_pipe_transport *self, PyObject *value, void *Py_UNUSED(closure))
{
    self->pipe_taken = value == NULL || value == Py_None;
    self->pipe_is_plain = false; /* of this one nothing is known */
    Py_XSETREF(self->pipe, self->pipe_taken ? NULL : Py_NewRef(value));
    return 0;
}

GPY_ONE_ARGUMENT(writer_write, struct gpy_pipe_transport, gpy_pipe_transport_write, "write", "data")

#define COMMON_METHODS                                                                             \
    {"is_closing", (PyCFunction)gpy_transport_is_closing, METH_NOARGS,                             \
     "is_closing($self)\n--\n\nTrue if it is closed or being closed."},                            \
        {"set_protocol", GPY_METHOD(gpy_transport_set_protocol_method),                            \
         "set_protocol($self, protocol)\n--\n\nSet a new protocol."},                              \
        {"get_protocol", (PyCFunction)gpy_transport_get_protocol, METH_NOARGS,                     \
         "get_protocol($self)\n--\n\nThe current protocol."},                                      \
        {"_call_connection_lost", (PyCFunction)pipe_call_connection_lost, METH_O, NULL},           \
    {                                                                                              \
        "_begin", (PyCFunction)pipe_begin, METH_O, NULL                                            \
    }

static PyMethodDef reader_methods[] = {
    COMMON_METHODS,
    GPY_TRANSPORT_READING_METHODS("data"),
    {"close", (PyCFunction)reader_close, METH_NOARGS, "close($self)\n--\n\nClose the pipe."},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef writer_methods[] = {
    COMMON_METHODS,
    {"write", GPY_METHOD(writer_write),
     "write($self, data)\n--\n\nWrite bytes; what the pipe does not take at once is buffered."},
    {"write_eof", (PyCFunction)gpy_pipe_transport_write_eof, METH_NOARGS,
     "write_eof($self)\n--\n\nClose the pipe when the buffer is written."},
    {"can_write_eof", (PyCFunction)gpy_transport_can_write_eof, METH_NOARGS,
     "can_write_eof($self)\n--\n\nTrue."},
    {"close", (PyCFunction)gpy_pipe_transport_write_eof, METH_NOARGS,
     "close($self)\n--\n\nClose the pipe when the buffer is written."},
    {"abort", (PyCFunction)gpy_transport_abort, METH_NOARGS,
     "abort($self)\n--\n\nClose now and drop the buffer."},
    {"get_write_buffer_size", (PyCFunction)gpy_transport_get_write_buffer_size, METH_NOARGS,
     "get_write_buffer_size($self)\n--\n\nBytes not yet taken by the kernel."},
    {"get_write_buffer_limits", (PyCFunction)gpy_transport_get_write_buffer_limits, METH_NOARGS,
     "get_write_buffer_limits($self)\n--\n\n(low, high) water marks of the write buffer."},
    {"set_write_buffer_limits", (PyCFunction)(void (*)(void))gpy_transport_set_write_buffer_limits,
     METH_VARARGS | METH_KEYWORDS,
     "set_write_buffer_limits($self, high=None, low=None)\n--\n\nSet the water marks of the write "
     "buffer."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef pipe_getset[] = {
    {"_loop", (getter)gpy_transport_loop_get, NULL, NULL, NULL},
    {"_protocol", (getter)gpy_transport_protocol_get, NULL, NULL, NULL},
    {"_pipe", (getter)pipe_pipe_get, (setter)pipe_pipe_set, NULL, NULL},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

#define BASE_FIELD(name, kind, field)                                                              \
    {                                                                                              \
        name, kind, offsetof(struct gpy_transport, field), READONLY, NULL                          \
    }

static PyMemberDef pipe_members[] = {
    BASE_FIELD("_fileno", T_INT, fd),
    BASE_FIELD("_closing", T_BOOL, closing),
    BASE_FIELD("_paused", T_BOOL, paused),
    BASE_FIELD("_protocol_paused", T_BOOL, protocol_paused),
    BASE_FIELD("_high_water", T_PYSSIZET, high_water),
    BASE_FIELD("_low_water", T_PYSSIZET, low_water),
    {"_conn_lost", T_UINT, offsetof(struct gpy_pipe_transport, lost_writes), READONLY, NULL},
    BASE_FIELD("__dictoffset__", T_PYSSIZET, instance_dict),
    BASE_FIELD("__weaklistoffset__", T_PYSSIZET, weakreflist),
    {NULL, 0, 0, 0, NULL},
};

#define PIPE_SLOTS(doc, methods)                                                                   \
    {                                                                                              \
        {Py_tp_doc, doc}, {Py_tp_repr, pipe_repr}, {Py_tp_traverse, pipe_traverse},                \
            {Py_tp_clear, pipe_clear}, {Py_tp_finalize, pipe_finalize},                            \
            {Py_tp_dealloc, pipe_dealloc}, {Py_tp_methods, methods}, {Py_tp_getset, pipe_getset},  \
            {Py_tp_members, pipe_members}, {0, NULL},                                              \
    }

static PyType_Slot reader_slots[] =
    PIPE_SLOTS("The end of a pipe that is read; made by the loop.", reader_methods);
static PyType_Slot writer_slots[] =
    PIPE_SLOTS("The end of a pipe that is written; made by the loop.", writer_methods);

static PyType_Spec reader_spec = {
    .name = "gyre._gyre.ReadPipeTransport",
    .basicsize = sizeof(struct gpy_pipe_transport),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = reader_slots,
};

static PyType_Spec writer_spec = {
    .name = "gyre._gyre.WritePipeTransport",
    .basicsize = sizeof(struct gpy_pipe_transport),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = writer_slots,
};

int
gpy_pipe_transport_exec(PyObject *module, struct gpy_state *state)
{
    PyObject *io = PyImport_ImportModule("_io");
    state->file_io = io ? PyObject_GetAttrString(io, "FileIO") : NULL;
    Py_XDECREF(io);
    if (state->file_io == NULL)
        return -1;
    state->read_pipe_type = gpy_transport_type_new(module, &reader_spec, "ReadTransport", NULL);
    state->write_pipe_type =
        gpy_transport_type_new(module, &writer_spec, "_FlowControlMixin", NULL);
    PyObject *max_size = PyLong_FromLong(GY_RECV_BYTES_MAX);
    int rc = -1;
    if (max_size != NULL && state->read_pipe_type != NULL && state->write_pipe_type != NULL)
        rc = PyObject_SetAttrString((PyObject *)state->read_pipe_type, "max_size", max_size);
    Py_XDECREF(max_size);
    return rc;
}
