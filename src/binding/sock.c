/* sock.c: see sock.h.
 *
 * A SockOp exists for one call that had to wait.  It is a member of the loop and pinned from then
 * until the core is done with it; it keeps the buffer and the socket object meanwhile.
 * The coroutine of the sock_*() method awaits it; however that ends, the operation ends with it.
 * Thread: the loop's.  Invariants: the future is settled at most once; an operation whose future
 * was cancelled touches the socket no more; an accepted descriptor that nobody takes is closed. */
#include "sock.h"

#include "errors.h"
#include "future.h"
#include "pycompat.h"
#include "sockaddr.h"
#include "transport.h"

#include "../core/sockop.h"
#include <structmember.h>
#include <errno.h>
#include <unistd.h>

/* A buffer of up to so many bytes stays while its operation waits: about the operation's own size.
 */
enum { BYTES_KEPT_MAX = 256 };
/* The loop keeps one buffer of at most so much that was not filled... */
enum { SPARE_MAX = 256 * 1024 };
/* ... and what is received is copied, and the buffer kept, up to so much: memory that would be
 * allocated and cut off again costs more. */
enum { COPY_MAX = 4096 };

struct gpy_sockop {
    PyObject_HEAD
    struct gpy_loop *loop; /* strong */
    struct gpy_loop_member member;
    struct gy_sockop op;
    PyObject *sock;
    PyObject *future;        /* NULL until it has to wait, and once it was awaited     */
    PyObject *iterator;      /* the future's, while a coroutine waits                  */
    PyObject *bytes;         /* RECV, RECVFROM: what is filled; NULL while it waits    */
    PyObject *address;       /* CONNECT: for the words of an error                    */
    struct gy_address *peer; /* RECVFROM, SENDTO: allocated                      */
    Py_buffer view;          /* RECV_INTO, SENDALL; obj NULL: none                     */
    int accepted;            /* ACCEPT: a descriptor that nobody has taken yet, or -1  */
    bool waiting;            /* the core has it                                        */
    bool gave_back;          /* bytes are made when there is something to receive      */
};

static struct gpy_sockop *
sockop_of(struct gy_sockop *op)
{
    return container_of(op, struct gpy_sockop, op);
}

/* ---- life
 * ------------------------------------------------------------------------------------------ */

static void
sockop_pin(struct gpy_sockop *self)
{
    GY_ASSERT(self->member.pinned == NULL);
    self->waiting = true;
    self->member.pinned = Py_NewRef((PyObject *)self);
    gy_list_append(&self->loop->members, &self->member.link);
}

/* The core is done with it.  May free self. */
static void
sockop_unpin(struct gpy_sockop *self)
{
    GY_ASSERT(self->waiting);
    self->waiting = false;
    if (self->view.obj != NULL)
        PyBuffer_Release(&self->view);
    gy_list_remove(&self->member.link);
    Py_CLEAR(self->member.pinned);
}

static void
member_abandon(struct gpy_loop_member *member)
{
    struct gpy_sockop *self = container_of(member, struct gpy_sockop, member);
    /* Nothing is in flight outside a run; what would not end keeps its memory for good. */
    if (gy_sockop_cancel(&self->op))
        sockop_unpin(self);
    else
        self->member.pinned = NULL;
}

static const struct gpy_loop_member_ops member_ops = {.abandon = member_abandon};

static bool
on_valid(struct gy_sockop *op)
{
    struct gpy_sockop *self = sockop_of(op);
    struct gpy_state *state = self->loop->state;
    if (self->future == NULL || gpy_future_is_done(state, self->future) != 0)
        return false; /* cancelled: not one byte more */
    Py_INCREF(self);
    PyObject *number = PyObject_CallMethodNoArgs(self->sock, state->str_fileno);
    long fd = number ? PyLong_AsLong(number) : -1;
    Py_XDECREF(number);
    PyErr_Clear();
    if (GY_UNLIKELY(!self->waiting))
        return false; /* a fileno() of the user's cancelled us; on_done() drops the reference */
    Py_DECREF(self);
    return fd == self->op.fd;
}

/* Room for `len` bytes: the loop's spare one, or a new one. */
static PyObject *
take_room(struct gpy_loop *loop, Py_ssize_t len)
{
    PyObject *spare = loop->sock_spare;
    if (spare == NULL || PyBytes_GET_SIZE(spare) != len)
        return PyBytes_FromStringAndSize(NULL, len);
    loop->sock_spare = NULL;
    return spare;
}

/* Steals `bytes`, which nobody else has. */
static void
spare_room(struct gpy_loop *loop, PyObject *bytes)
{
    if (PyBytes_GET_SIZE(bytes) > SPARE_MAX || !loop->core_ready)
        Py_DECREF(bytes);
    else
        Py_XSETREF(loop->sock_spare, bytes);
}

/* A task that waits for data holds no memory for it: thousands of them may wait for good. */
static void
give_back_bytes(struct gpy_sockop *self)
{
    if (self->bytes == NULL || PyBytes_GET_SIZE(self->bytes) <= BYTES_KEPT_MAX)
        return;
    PyObject *bytes = self->bytes;
    self->gave_back = true;
    self->op.buf = NULL;
    self->bytes = NULL;
    spare_room(self->loop, bytes);
}

static bool
on_memory(struct gy_sockop *op)
{
    struct gpy_sockop *self = sockop_of(op);
    if (!self->gave_back || self->bytes != NULL)
        return true;
    self->bytes = take_room(self->loop, (Py_ssize_t)op->len);
    PyErr_Clear(); /* result_value() raises it */
    if (self->bytes != NULL)
        op->buf = PyBytes_AS_STRING(self->bytes);
    return self->bytes != NULL;
}

/* What a receive gave: the bytes, or their number if they lie in the user's buffer. */
static PyObject *
received(struct gpy_sockop *self, ssize_t result)
{
    PyObject *bytes = self->bytes;
    if (bytes == NULL)
        return PyLong_FromSsize_t(result);
    self->bytes = NULL;
    if (result == PyBytes_GET_SIZE(bytes))
        return bytes;
    if (result > COPY_MAX || PyBytes_GET_SIZE(bytes) <= BYTES_KEPT_MAX) {
        gpy_bytes_cut(&bytes, result);
        return bytes;
    }
    PyObject *copy = PyBytes_FromStringAndSize(PyBytes_AS_STRING(bytes), result);
    spare_room(self->loop, bytes);
    return copy;
}

/* (received, address) */
static PyObject *
received_from(struct gpy_sockop *self, ssize_t result)
{
    PyObject *what = received(self, result);
    PyObject *address = what ? gpy_sockaddr_to_python(&self->peer->storage, self->peer->len) : NULL;
    PyObject *both = address ? PyTuple_Pack(2, what, address) : NULL;
    Py_XDECREF(what);
    Py_XDECREF(address);
    return both;
}

/* The Python value of a result.  NULL: an exception is set. */
static PyObject *
result_value(struct gpy_sockop *self, ssize_t result)
{
    if (result < 0) {
        if (self->op.kind == GY_SOCK_CONNECT && self->future != NULL) {
            PyObject *text = PyUnicode_FromFormat("Connect call failed %S", self->address);
            PyObject *exc =
                text ? PyObject_CallFunction(PyExc_OSError, "iO", (int)-result, text) : NULL;
            Py_XDECREF(text);
            if (exc != NULL)
                gpy_exc_give(exc);
            return NULL;
        }
        if (result == -ENOMEM && self->gave_back && self->bytes == NULL)
            return PyErr_NoMemory();
        return gpy_oserror_raise((int)result);
    }
    switch ((enum gy_sockop_kind)self->op.kind) {
    case GY_SOCK_RECV:
        return received(self, result);
    case GY_SOCK_RECVFROM:
        return received_from(self, result);
    case GY_SOCK_SENDTO:
        return PyLong_FromSsize_t(result);
    case GY_SOCK_ACCEPT:
        if (self->future == NULL)
            return PyLong_FromSsize_t(result);
        self->accepted = (int)result; /* not the future's result, which may be lost */
        Py_RETURN_NONE;
    case GY_SOCK_SENDALL:
    case GY_SOCK_CONNECT:
    case GY_SOCK_READABLE:
    case GY_SOCK_WRITABLE:
        break;
    }
    Py_RETURN_NONE;
}

static void
settle_future(struct gpy_sockop *self, ssize_t result)
{
    struct gpy_state *state = self->loop->state;
    PyObject *future = self->future;
    int rc = gpy_future_is_done(state, future);
    if (rc > 0) { /* cancelled */
        if (self->op.kind == GY_SOCK_ACCEPT && result >= 0)
            (void)close((int)result);
        return;
    }
    if (rc == 0 && self->op.cancelled) { /* nobody awaits it any more */
        PyObject *cancelled = PyObject_CallMethodNoArgs(future, state->str_cancel);
        if (cancelled == NULL)
            PyErr_WriteUnraisable((PyObject *)self);
        Py_XDECREF(cancelled);
        return;
    }
    PyObject *value = rc == 0 ? result_value(self, result) : NULL;
    if (value != NULL) {
        rc = gpy_future_set_result(state, future, value);
        Py_DECREF(value);
    } else if (rc == 0) {
        PyObject *exc = gpy_exc_take();
        rc = gpy_future_set_exception(state, future, exc);
        Py_DECREF(exc);
    }
    if (rc < 0 && !gpy_loop_keep_raised(self->loop))
        PyErr_WriteUnraisable((PyObject *)self);
}

static void
on_done(struct gy_sockop *op, ssize_t result)
{
    struct gpy_sockop *self = sockop_of(op);
    if (GY_UNLIKELY(!self->waiting)) { /* cancelled and unpinned inside of on_valid() */
        Py_DECREF(self);
        return;
    }
    Py_INCREF(self);
    if (self->future != NULL) /* else the collector has cleared it */
        settle_future(self, result);
    else if (self->op.kind == GY_SOCK_ACCEPT && result >= 0)
        (void)close((int)result);
    sockop_unpin(self);
    Py_DECREF(self);
}

static const struct gy_sockop_host sockop_host = {
    .valid = on_valid, .memory = on_memory, .done = on_done};

/* ---- the methods
 * ------------------------------------------------------------------------------------ */

/* The socket's descriptor, or -1 and an exception. */
static int
descriptor_of(struct gpy_state *state, PyObject *sock)
{
    PyObject *number = PyObject_CallMethodNoArgs(sock, state->str_fileno);
    long value = number ? PyLong_AsLong(number) : -1;
    Py_XDECREF(number);
    if (value >= 0)
        return (int)value;
    if (!PyErr_Occurred())
        (void)gpy_oserror_raise(-EBADF);
    return -1;
}

/* An operation whose buffer is looked at before its socket, as the socket module does it. */
static struct gpy_sockop *
sockop_new_without_fd(struct gpy_loop *loop, PyObject *sock)
{
    PyTypeObject *type = loop->state->sockop_type;
    if (gpy_loop_check_open(loop) < 0)
        return NULL;
    struct gpy_sockop *self = (struct gpy_sockop *)gpy_freelist_alloc(
        &loop->state->free_sockops, type, sizeof(struct gpy_sockop));
    if (self == NULL)
        return NULL;
    self->loop = (struct gpy_loop *)Py_NewRef((PyObject *)loop);
    self->sock = Py_NewRef(sock);
    self->accepted = -1;
    gy_list_init(&self->member.link);
    self->member.ops = &member_ops;
    gy_sockop_init(&self->op, &loop->core, &sockop_host);
    return self;
}

static struct gpy_sockop *
sockop_new(struct gpy_loop *loop, PyObject *sock, int *fd)
{
    *fd = descriptor_of(loop->state, sock);
    return *fd >= 0 ? sockop_new_without_fd(loop, sock) : NULL;
}

/* The error of a buffer, in the words of a method that has it as its first argument. */
static GY_COLD void
raise_as_first_argument(PyObject *buffer, const char *format)
{
    PyObject *args = PyErr_ExceptionMatches(PyExc_TypeError) ? PyTuple_Pack(1, buffer) : NULL;
    if (args == NULL)
        return;
    Py_buffer view;
    PyErr_Clear();
    if (PyArg_ParseTuple(args, format, &view)) {
        PyBuffer_Release(&view); /* a buffer that cannot make up its mind */
        PyErr_SetString(PyExc_TypeError, "a bytes-like object is required");
    }
    Py_DECREF(args);
}

/* The call's buffer (format: of PyArg_Parse) and then the descriptor, which is left alone if there
 * is nothing to receive.  0, or -1 and self is gone. */
static int
take_buffer(struct gpy_sockop *self, PyObject *buffer, const char *format, int *fd)
{
    *fd = -1;
    bool taken = GY_LIKELY(PyBytes_CheckExact(buffer) && format[0] == 'y')
                     ? PyObject_GetBuffer(buffer, &self->view, PyBUF_SIMPLE) == 0
                     : PyArg_Parse(buffer, format, &self->view);
    if (!taken) {
        self->view.obj = NULL;
        raise_as_first_argument(buffer, format);
    } else if ((format[0] == 'w' && self->view.len == 0) ||
               (*fd = descriptor_of(self->loop->state, self->sock)) >= 0)
        return 0;
    Py_DECREF(self);
    return -1;
}

/* Nobody waits for the descriptor of an open transport, except a sendfile for its own. */
static int
check_no_transport(struct gpy_sockop *self)
{
    if (self->op.kind == GY_SOCK_READABLE || self->op.kind == GY_SOCK_WRITABLE)
        return 0;
    struct gpy_transport *other = gpy_transport_find(self->loop, self->op.fd);
    if (GY_LIKELY(other == NULL) || other->closing || !gpy_transport_fd_is_ours(other))
        return 0;
    PyErr_Format(PyExc_RuntimeError, "File descriptor %d is used by transport %R", self->op.fd,
                 (PyObject *)other);
    return -1;
}

/* The result of a call that was tried: its value, or self if it has to wait.  Takes self over. */
static PyObject *
finish_call(struct gpy_sockop *self, ssize_t result)
{
    PyObject *value;
    if (GY_LIKELY(result != -EINPROGRESS)) {
        value = result_value(self, result);
        if (self->view.obj != NULL)
            PyBuffer_Release(&self->view);
        Py_DECREF(self);
        return value;
    }
    if (check_no_transport(self) == 0)
        self->future =
            PyObject_CallMethodNoArgs((PyObject *)self->loop, self->loop->state->str_create_future);
    sockop_pin(self);
    give_back_bytes(self);
    if (self->future == NULL) {
        PyObject *exc = gpy_exc_take();
        if (gy_sockop_cancel(&self->op))
            sockop_unpin(self);
        Py_DECREF(self);
        gpy_exc_give(exc);
        return NULL;
    }
    return (PyObject *)self;
}

static int
check_args(const char *method, Py_ssize_t nargs, Py_ssize_t wanted)
{
    if (nargs == wanted)
        return 0;
    PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments", method, wanted);
    return -1;
}

int
gpy_sock_family(struct gpy_state *state, PyObject *sock)
{
    PyObject *family;
    if (PyObject_TypeCheck(sock, (PyTypeObject *)state->socket_base))
        family = Py_TYPE(state->socket_family)
                     ->tp_descr_get(state->socket_family, sock, (PyObject *)Py_TYPE(sock));
    else
        family = PyObject_GetAttr(sock, state->str_family);
    if (family == NULL)
        return -1;
    /* A stand-in for a socket: what it does is its own methods' business. */
    long number = PyLong_Check(family) ? PyLong_AsLong(family) : AF_UNSPEC;
    Py_DECREF(family);
    return number < 0 && PyErr_Occurred() ? -1 : (int)number;
}

/* 1: addresses of this socket are known here; 0: only to the socket module; -1: an exception. */
static int
family_is_known(struct gpy_state *state, PyObject *sock)
{
    int family = gpy_sock_family(state, sock);
    if (family < 0)
        return -1;
    return family == AF_INET || family == AF_INET6 || family == AF_UNIX;
}

static struct gpy_sockop *
sockop_new_with_peer(struct gpy_loop *loop, PyObject *sock)
{
    struct gpy_sockop *self = sockop_new_without_fd(loop, sock);
    if (self == NULL)
        return NULL;
    self->peer = PyMem_Malloc(sizeof(*self->peer));
    if (self->peer != NULL)
        return self;
    Py_DECREF(self);
    PyErr_NoMemory();
    return NULL;
}

PyObject *
gpy_loop_sock_recv(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    int fd;
    if (check_args("_sock_recv", nargs, 2) < 0)
        return NULL;
    Py_ssize_t len = PyNumber_AsSsize_t(args[1], PyExc_OverflowError);
    if (len == -1 && PyErr_Occurred())
        return NULL;
    if (len < 0) {
        PyErr_SetString(PyExc_ValueError, "negative buffersize in recv");
        return NULL;
    }
    if (len == 0)
        return PyBytes_FromStringAndSize(NULL, 0); /* the socket is not asked */
    struct gpy_sockop *self = sockop_new(loop, args[0], &fd);
    if (self == NULL)
        return NULL;
    self->bytes = take_room(loop, len);
    if (self->bytes == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return finish_call(self,
                       gy_sockop_recv(&self->op, fd, PyBytes_AS_STRING(self->bytes), (size_t)len));
}

PyObject *
gpy_loop_sock_recv_into(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    int fd;
    if (check_args("_sock_recv_into", nargs, 2) < 0)
        return NULL;
    struct gpy_sockop *self = sockop_new_without_fd(loop, args[0]);
    if (self == NULL || take_buffer(self, args[1], "w*:recv_into", &fd) < 0)
        return NULL;
    if (fd < 0)
        return finish_call(self, 0);
    return finish_call(self, gy_sockop_recv(&self->op, fd, self->view.buf, (size_t)self->view.len));
}

PyObject *
gpy_loop_sock_recvfrom(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    int fd;
    if (check_args("_sock_recvfrom", nargs, 2) < 0)
        return NULL;
    Py_ssize_t len = PyNumber_AsSsize_t(args[1], PyExc_OverflowError);
    if (len == -1 && PyErr_Occurred())
        return NULL;
    if (len < 0) {
        PyErr_SetString(PyExc_ValueError, "negative buffersize in recvfrom");
        return NULL;
    }
    int known = family_is_known(loop->state, args[0]);
    if (known <= 0)
        return known < 0 ? NULL : Py_NewRef(Py_NotImplemented);
    struct gpy_sockop *self = sockop_new_with_peer(loop, args[0]);
    if (self == NULL)
        return NULL;
    fd = descriptor_of(loop->state, args[0]);
    self->bytes = fd >= 0 ? take_room(loop, len) : NULL;
    if (self->bytes == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return finish_call(self, gy_sockop_recvfrom(&self->op, fd, PyBytes_AS_STRING(self->bytes),
                                                (size_t)len, self->peer));
}

/* The buffer of sock_recvfrom_into and how much of it to fill.  0 or -1. */
static int
take_writable(struct gpy_sockop *self, PyObject *buffer, PyObject *count, size_t *len)
{
    Py_ssize_t wanted = PyNumber_AsSsize_t(count, PyExc_OverflowError);
    if (wanted == -1 && PyErr_Occurred())
        return -1;
    if (wanted == 0 && (wanted = PyObject_Size(buffer)) < 0)
        return -1;
    if (!PyArg_Parse(buffer, "w*:recvfrom_into", &self->view)) {
        self->view.obj = NULL;
        raise_as_first_argument(buffer, "w*:recvfrom_into");
        return -1;
    }
    if (wanted < 0)
        PyErr_SetString(PyExc_ValueError, "negative buffersize in recvfrom_into");
    else if (wanted > self->view.len)
        PyErr_SetString(PyExc_ValueError, "nbytes is greater than the length of the buffer");
    *len = (size_t)wanted;
    return PyErr_Occurred() ? -1 : 0;
}

PyObject *
gpy_loop_sock_recvfrom_into(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    int fd;
    size_t len;
    if (check_args("_sock_recvfrom_into", nargs, 3) < 0)
        return NULL;
    int known = family_is_known(loop->state, args[0]);
    if (known <= 0)
        return known < 0 ? NULL : Py_NewRef(Py_NotImplemented);
    struct gpy_sockop *self = sockop_new_with_peer(loop, args[0]);
    if (self == NULL)
        return NULL;
    if (take_writable(self, args[1], args[2], &len) < 0 ||
        (fd = descriptor_of(loop->state, args[0])) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return finish_call(self, gy_sockop_recvfrom(&self->op, fd, self->view.buf, len, self->peer));
}

PyObject *
gpy_loop_sock_sendto(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    struct sockaddr_storage address;
    socklen_t len;
    int fd;
    if (check_args("_sock_sendto", nargs, 3) < 0)
        return NULL;
    int family = gpy_sock_family(loop->state, args[0]);
    if (family < 0)
        return NULL;
    int known = gpy_sockaddr_parse(family, args[2], &address, &len);
    if (known <= 0)
        return known < 0 ? NULL : Py_NewRef(Py_NotImplemented);
    struct gpy_sockop *self = sockop_new_with_peer(loop, args[0]);
    if (self == NULL || take_buffer(self, args[1], "y*:sendto", &fd) < 0)
        return NULL;
    self->peer->storage = address;
    self->peer->len = len;
    return finish_call(
        self, gy_sockop_sendto(&self->op, fd, self->view.buf, (size_t)self->view.len, self->peer));
}

PyObject *
gpy_loop_sock_sendall(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    int fd;
    if (check_args("_sock_sendall", nargs, 2) < 0)
        return NULL;
    struct gpy_sockop *self = sockop_new_without_fd(loop, args[0]);
    if (self == NULL || take_buffer(self, args[1], "y*:send", &fd) < 0)
        return NULL;
    return finish_call(self,
                       gy_sockop_sendall(&self->op, fd, self->view.buf, (size_t)self->view.len));
}

PyObject *
gpy_loop_sock_accept(struct gpy_loop *loop, PyObject *sock)
{
    int fd;
    struct gpy_sockop *self = sockop_new(loop, sock, &fd);
    if (self == NULL)
        return NULL;
    return finish_call(self, gy_sockop_accept(&self->op, fd));
}

/* NotImplemented: an address of a form that only the socket module knows. */
PyObject *
gpy_loop_sock_connect(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    struct sockaddr_storage address;
    socklen_t len;
    int fd;
    if (check_args("_sock_connect", nargs, 2) < 0)
        return NULL;
    int family = gpy_sock_family(loop->state, args[0]);
    if (family < 0)
        return NULL;
    int known = gpy_sockaddr_parse(family, args[1], &address, &len);
    if (known <= 0)
        return known < 0 ? NULL : Py_NewRef(Py_NotImplemented);
    struct gpy_sockop *self = sockop_new(loop, args[0], &fd);
    if (self == NULL)
        return NULL;
    self->address = Py_NewRef(args[1]);
    return finish_call(self,
                       gy_sockop_connect(&self->op, fd, (const struct sockaddr *)&address, len));
}

/* A wait for readiness alone: _sock_wait(sock, writable). */
PyObject *
gpy_loop_sock_wait(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    int fd;
    if (check_args("_sock_wait", nargs, 2) < 0)
        return NULL;
    int writable = PyObject_IsTrue(args[1]);
    struct gpy_sockop *self = writable < 0 ? NULL : sockop_new(loop, args[0], &fd);
    if (self == NULL)
        return NULL;
    gy_sockop_wait(&self->op, fd, writable ? GY_SOCK_WRITABLE : GY_SOCK_READABLE);
    return finish_call(self, -EINPROGRESS);
}

/* ---- SockOp
 * -------------------------------------------------------------------------------------------- */

/* Nobody waits any more, or whoever waited does not look at the result.  The exception that is set,
 * if any, stays. */
static void
give_up(struct gpy_sockop *self)
{
    PyObject *exc = PyErr_Occurred() ? gpy_exc_take() : NULL;
    if (self->accepted >= 0) {
        (void)close(self->accepted);
        self->accepted = -1;
    }
    if (self->waiting && !self->op.cancelled && gy_sockop_cancel(&self->op))
        sockop_unpin(self);
    else if (self->view.obj != NULL && self->op.cancelled)
        PyBuffer_Release(&self->view); /* the core does not touch it any more */
    if (exc != NULL)
        gpy_exc_give(exc);
}

/* It ends for its coroutine.  The future may hold an exception whose traceback holds the coroutine,
 * and so us. */
static void
let_go(struct gpy_sockop *self)
{
    Py_CLEAR(self->iterator);
    Py_CLEAR(self->future);
}

static int
begin_wait(struct gpy_sockop *self)
{
    if (self->iterator != NULL)
        return 0;
    if (self->future == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited operation");
        return -1;
    }
    PyAsyncMethods *methods = Py_TYPE(self->future)->tp_as_async;
    if (methods != NULL && methods->am_await != NULL)
        self->iterator = methods->am_await(self->future);
    else
        PyErr_SetString(PyExc_TypeError, "the loop's future cannot be awaited");
    return self->iterator != NULL ? 0 : -1;
}

/* As the future's iterator; but an accepted descriptor changes hands only here, and the end of the
 * wait, whatever it is, is the end of the operation. */
static PySendResult
sockop_am_send(struct gpy_sockop *self, PyObject *value, PyObject **result)
{
    *result = NULL;
    if (begin_wait(self) < 0)
        return PYGEN_ERROR;
    PySendResult status = PyIter_Send(self->iterator, value, result);
    if (status == PYGEN_NEXT)
        return status;
    PyObject *exc = status == PYGEN_ERROR ? gpy_exc_take() : NULL;
    let_go(self);
    if (exc != NULL) {
        give_up(self);
        gpy_exc_give(exc);
        return PYGEN_ERROR;
    }
    if (self->op.kind == GY_SOCK_ACCEPT) {
        Py_SETREF(*result, PyLong_FromLong(self->accepted));
        self->accepted = -1;
    }
    return *result != NULL ? PYGEN_RETURN : PYGEN_ERROR;
}

static PyObject *
sockop_iternext(struct gpy_sockop *self)
{
    PyObject *result;
    if (sockop_am_send(self, Py_None, &result) != PYGEN_RETURN)
        return result;
    gpy_raise_stop_iteration(result);
    Py_DECREF(result);
    return NULL;
}

static PyObject *
sockop_close(struct gpy_sockop *self, PyObject *Py_UNUSED(ignored))
{
    let_go(self);
    give_up(self);
    Py_RETURN_NONE;
}

static PyObject *
sockop_throw(struct gpy_sockop *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (gpy_throw(args, nargs) < 0)
        return NULL;
    PyObject *exc = gpy_exc_take();
    let_go(self);
    give_up(self);
    gpy_exc_give(exc);
    return NULL;
}

static int
sockop_traverse(struct gpy_sockop *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)self->loop);
    Py_VISIT(self->sock);
    Py_VISIT(self->future);
    Py_VISIT(self->iterator);
    Py_VISIT(self->address);
    Py_VISIT(self->view.obj);
    return 0;
}

/* The buffer stays: the core may still fill it. */
static int
sockop_clear(struct gpy_sockop *self)
{
    Py_CLEAR(self->sock);
    let_go(self);
    Py_CLEAR(self->address);
    return 0;
}

static void
sockop_dealloc(struct gpy_sockop *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    GY_ASSERT(!self->waiting);
    if (self->accepted >= 0)
        (void)close(self->accepted);
    if (self->view.obj != NULL)
        PyBuffer_Release(&self->view);
    Py_XDECREF(self->bytes);
    PyMem_Free(self->peer);
    (void)sockop_clear(self);
    struct gpy_loop *loop = self->loop;
    gpy_freelist_free(&loop->state->free_sockops, (PyObject *)self);
    Py_DECREF((PyObject *)loop);
    Py_DECREF(type);
}

/* No send(), as in file.c. */
static PyMethodDef sockop_methods[] = {
    {"throw", (PyCFunction)(void (*)(void))sockop_throw, METH_FASTCALL,
     "End the operation and raise the exception."},
    {"close", (PyCFunction)sockop_close, METH_NOARGS,
     "End the operation; nothing touches the socket or the buffer afterwards."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef sockop_members[] = {
    {"future", T_OBJECT_EX, offsetof(struct gpy_sockop, future), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot sockop_slots[] = {
    {Py_tp_doc, "A sock_*() call that waits for its socket: an awaitable."},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, sockop_am_send},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, sockop_iternext},
    {Py_tp_traverse, sockop_traverse},
    {Py_tp_clear, sockop_clear},
    {Py_tp_dealloc, sockop_dealloc},
    {Py_tp_methods, sockop_methods},
    {Py_tp_members, sockop_members},
    {0, NULL},
};

static PyType_Spec sockop_spec = {
    .name = "gyre._gyre.SockOp",
    .basicsize = sizeof(struct gpy_sockop),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = sockop_slots,
};

int
gpy_sock_exec(PyObject *module, struct gpy_state *state)
{
    state->sockop_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &sockop_spec, NULL);
    return state->sockop_type ? PyModule_AddType(module, state->sockop_type) : -1;
}
