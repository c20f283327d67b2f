/* transport.c: what all transports share; transport_life.c has their life, transport_extra.c extra
 * info and the socket object.
 *
 * Thread: the loop's.  Invariants: a transport is in loop->members and in the table of descriptors
 * exactly while its descriptor is open; conn_lost != 0 exactly when connection_lost() is scheduled
 * or was called; nothing is read from `loop` after the descriptor is closed. */
#include "transport.h"

#include "args.h"
#include "errors.h"
#include "pycompat.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_HIGH_WATER = 64 * 1024, DEFAULT_LOW_WATER = DEFAULT_HIGH_WATER / 4 };

/* ---- life ------------------------------------------------------------------------------------ */

static PyObject *
none_is_null(PyObject *object)
{
    return object == NULL || object == Py_None ? NULL : Py_NewRef(object);
}

int
gpy_transport_init(struct gpy_transport *self, const struct gpy_transport_ops *ops,
                   struct gpy_loop *loop, const struct gpy_transport_parts *parts)
{
    self->ops = ops;
    self->state = loop->state;
    self->loop = (struct gpy_loop *)Py_NewRef((PyObject *)loop);
    gy_list_init(&self->member.link);
    self->protocol = Py_NewRef(parts->protocol);
    self->context = Py_NewRef(parts->context);
    self->server = none_is_null(parts->server);
    self->extra = none_is_null(parts->extra);
    self->fd = parts->fd;
    self->high_water = DEFAULT_HIGH_WATER;
    self->low_water = DEFAULT_LOW_WATER;
    int kind = gpy_protocol_kind_of(self->state, parts->protocol);
    if (kind < 0)
        return -1;
    self->kind = (uint8_t)kind;
    if (parts->sock != NULL)
        gpy_transport_hold_sock(self, parts->sock);
    return 0;
}

int
gpy_transport_traverse(struct gpy_transport *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->extra);
    Py_VISIT((PyObject *)self->loop);
    Py_VISIT(self->protocol);
    Py_VISIT(self->context);
    Py_VISIT(self->server);
    Py_VISIT(self->sock);
    Py_VISIT(self->instance_dict);
    if (self->member.pinned != NULL && gpy_loop_member_is_at_rest(&self->member))
        Py_VISIT(self->member.pinned); /* else the loop does */
    return 0;
}

/* The loop stays: closing the descriptor needs it, and it is no way out of a cycle that the others
 * leave closed. */
void
gpy_transport_clear(struct gpy_transport *self)
{
    Py_CLEAR(self->extra);
    Py_CLEAR(self->protocol);
    Py_CLEAR(self->context);
    Py_CLEAR(self->server);
    Py_CLEAR(self->sock);
    Py_CLEAR(self->instance_dict);
}

void
gpy_transport_pin(struct gpy_transport *self)
{
    if (self->member.pinned == NULL)
        self->member.pinned = Py_NewRef((PyObject *)self);
}

void
gpy_transport_unpin(struct gpy_transport *self)
{
    GY_ASSERT(self->member.pinned == NULL || self->member.pinned == (PyObject *)self);
    Py_CLEAR(self->member.pinned);
}

/* ---- the loop's table of descriptors -----------------------------------------------------------
 */

struct gpy_transport *
gpy_transport_find(struct gpy_loop *loop, int fd)
{
    if (fd < 0 || (uint32_t)fd >= loop->transport_capacity)
        return NULL;
    return loop->transport_table[fd];
}

int
gpy_transport_free_fileno(struct gpy_loop *loop, PyObject *sock)
{
    PyObject *number = PyObject_CallMethodNoArgs(sock, loop->state->str_fileno);
    long fd = number ? PyLong_AsLong(number) : -1;
    Py_XDECREF(number);
    if (fd < 0 || fd > INT_MAX) {
        if (!PyErr_Occurred())
            (void)gpy_oserror_raise(-EBADF);
        return -1;
    }
    struct gpy_transport *other = gpy_transport_find(loop, (int)fd);
    if (other == NULL || other->closing || !gpy_transport_fd_is_ours(other))
        return (int)fd;
    PyErr_Format(PyExc_RuntimeError, "File descriptor %R is used by transport %R", sock, other);
    return -1;
}

static int
table_reserve(struct gpy_loop *loop, uint32_t fd)
{
    if (fd < loop->transport_capacity)
        return 0;
    uint32_t capacity = loop->transport_capacity ? loop->transport_capacity : 64;
    while (capacity <= fd)
        capacity *= 2;
    struct gpy_transport **table =
        realloc(loop->transport_table, capacity * sizeof(*loop->transport_table));
    if (table == NULL) {
        (void)PyErr_NoMemory();
        return -1;
    }
    memset(table + loop->transport_capacity, 0,
           (capacity - loop->transport_capacity) * sizeof(*table));
    loop->transport_table = table;
    loop->transport_capacity = capacity;
    return 0;
}

int
gpy_transport_enlist(struct gpy_transport *self)
{
    struct gpy_loop *loop = self->loop;
    GY_ASSERT(self->fd >= 0);
    if (table_reserve(loop, (uint32_t)self->fd) < 0)
        return -1;
    struct gpy_transport *older = loop->transport_table[self->fd];
    if (older != NULL)
        older->ops->disown(older);
    GY_ASSERT(loop->transport_table[self->fd] == NULL);
    loop->transport_table[self->fd] = self;
    gy_list_append(&loop->members, &self->member.link);
    return 0;
}

void
gpy_transport_forget_fd(struct gpy_transport *self)
{
    if (gpy_transport_find(self->loop, self->fd) == self)
        self->loop->transport_table[self->fd] = NULL;
}

void
gpy_transport_delist(struct gpy_transport *self)
{
    gpy_transport_forget_fd(self);
    gy_list_remove(&self->member.link);
}

void
gpy_transport_table_free(struct gpy_loop *loop)
{
    free(loop->transport_table);
    loop->transport_table = NULL;
    loop->transport_capacity = 0;
}

int
gpy_transport_leave_server(struct gpy_transport *self)
{
    PyObject *server = self->server;
    if (server == NULL)
        return 0;
    self->server = NULL; /* moved: _detach() runs foreign code */
    PyObject *stack[2] = {server, (PyObject *)self};
    PyObject *result = PyObject_VectorcallMethod(
        self->state->str__detach, stack,
        (GPY_SERVER_ATTACH_TAKES_TRANSPORT ? 2 : 1) | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_DECREF(server);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

/* ---- errors ------------------------------------------------------------------------------------
 */

/* logger.<level>(format, self[, arg], exc_info=exc) */
static int
log_line(struct gpy_transport *self, const char *level, const char *format, PyObject *arg,
         PyObject *exc)
{
    PyObject *method = PyObject_GetAttrString(self->state->asyncio_logger, level);
    PyObject *args = method ? (arg ? Py_BuildValue("(sOO)", format, self, arg)
                                   : Py_BuildValue("(sO)", format, self))
                            : NULL;
    PyObject *kwargs = args ? PyDict_New() : NULL;
    PyObject *result = NULL;
    if (kwargs != NULL && (exc == NULL || PyDict_SetItemString(kwargs, "exc_info", exc) == 0))
        result = PyObject_Call(method, args, kwargs);
    Py_XDECREF(method);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

void
gpy_transport_debug(struct gpy_transport *self, const char *format, PyObject *arg, PyObject *exc)
{
    if (GY_LIKELY(!self->loop->debug))
        return;
    if (log_line(self, "debug", format, arg, exc) < 0 && !gpy_loop_keep_raised(self->loop))
        PyErr_WriteUnraisable((PyObject *)self);
}

void
gpy_transport_info(struct gpy_transport *self, const char *format)
{
    if (GY_LIKELY(!self->loop->debug))
        return;
    if (log_line(self, "info", format, NULL, NULL) < 0 && !gpy_loop_keep_raised(self->loop))
        PyErr_WriteUnraisable((PyObject *)self);
}

void
gpy_transport_fatal_error(struct gpy_transport *self, const char *message)
{
    struct gpy_loop *loop = self->loop;
    if (gpy_loop_keep_raised(loop))
        return;
    PyObject *exc = gpy_exc_take();
    Py_INCREF(self); /* the handler may drop the last other reference */
    if (PyErr_GivenExceptionMatches(exc, PyExc_OSError)) {
        if (loop->debug) {
            PyObject *text = PyUnicode_FromString(message);
            gpy_transport_debug(self, "%r: %s", text, exc);
            Py_XDECREF(text);
        }
    } else {
        gpy_exc_give(Py_NewRef(exc));
        gpy_loop_report(loop, message, "transport", self, "protocol", self->protocol, NULL);
    }
    if (self->ops->force_close(self, exc) < 0 && !gpy_loop_keep_raised(loop))
        PyErr_WriteUnraisable((PyObject *)self);
    Py_DECREF(exc);
    Py_DECREF(self);
}

/* ---- flow control ------------------------------------------------------------------------------
 */

int
gpy_transport_maybe_pause(struct gpy_transport *self)
{
    if (GY_LIKELY(self->ops->buffer_size(self) <= self->high_water) || self->protocol_paused)
        return 0;
    /* What is only held back counts when the socket did not take it. */
    self->ops->flush(self);
    if (self->ops->buffer_size(self) <= self->high_water || self->protocol == NULL)
        return 0;
    self->protocol_paused = true;
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *result = PyObject_CallMethodNoArgs(protocol, self->state->str_pause_writing);
    int rc = 0;
    if (result == NULL) {
        if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) ||
            PyErr_ExceptionMatches(PyExc_SystemExit))
            rc = -1;
        else
            gpy_loop_report(self->loop, "protocol.pause_writing() failed", "transport", self,
                            "protocol", protocol, NULL);
    }
    Py_XDECREF(result);
    Py_DECREF(protocol);
    return rc;
}

void
gpy_transport_maybe_resume(struct gpy_transport *self)
{
    if (GY_LIKELY(!self->protocol_paused) || self->ops->buffer_size(self) > self->low_water ||
        self->protocol == NULL)
        return;
    self->protocol_paused = false;
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *result = gpy_protocol_call(self->loop, self->context, protocol,
                                         self->state->str_resume_writing, NULL);
    if (result == NULL && !gpy_loop_keep_raised(self->loop))
        gpy_loop_report(self->loop, "protocol.resume_writing() failed", "transport", self,
                        "protocol", protocol, NULL);
    Py_XDECREF(result);
    Py_DECREF(protocol);
}

int
gpy_transport_ignored_write(struct gpy_transport *self)
{
    GY_ASSERT(self->conn_lost != 0);
    int rc = 0;
    if (self->conn_lost >= GPY_LOG_THRESHOLD_FOR_CONNLOST_WRITES) {
        PyObject *result = PyObject_CallMethod(self->state->asyncio_logger, "warning", "s",
                                               "socket.send() raised exception.");
        Py_XDECREF(result);
        rc = result ? 0 : -1;
    }
    if (self->conn_lost < UINT32_MAX)
        self->conn_lost++;
    return rc;
}

int
gpy_transport_late_write(struct gpy_transport *self)
{
    if (self->conn_lost != 0)
        return gpy_transport_ignored_write(self);
    return gpy_loop_check_open(self->loop);
}

PyObject *
gpy_transport_get_write_buffer_size(struct gpy_transport *self, PyObject *Py_UNUSED(ignored))
{
    self->ops->flush(self);
    return PyLong_FromSize_t(self->ops->buffer_size(self));
}

PyObject *
gpy_transport_get_write_buffer_limits(struct gpy_transport *self, PyObject *Py_UNUSED(ignored))
{
    return Py_BuildValue("nn", (Py_ssize_t)self->low_water, (Py_ssize_t)self->high_water);
}

/* Any number, as asyncio takes it; huge ones are cut.  0 or -1. */
static int
water_mark(PyObject *value, Py_ssize_t *out)
{
    if (PyFloat_Check(value)) {
        double number = PyFloat_AS_DOUBLE(value);
        if (isnan(number)) {
            PyErr_SetString(PyExc_ValueError, "a water mark must be a number of bytes");
            return -1;
        }
        *out = number >= (double)PY_SSIZE_T_MAX ? PY_SSIZE_T_MAX
               : number < 0                     ? -1
                                                : (Py_ssize_t)number;
        return 0;
    }
    *out = PyNumber_AsSsize_t(value, NULL);
    return *out == -1 && PyErr_Occurred() ? -1 : 0;
}

PyObject *
gpy_transport_set_write_buffer_limits(struct gpy_transport *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"high", "low", NULL};
    PyObject *high_object = Py_None, *low_object = Py_None;
    Py_ssize_t high = DEFAULT_HIGH_WATER, low = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO:set_write_buffer_limits", names,
                                     &high_object, &low_object))
        return NULL;
    if (low_object != Py_None && water_mark(low_object, &low) < 0)
        return NULL;
    if (high_object != Py_None) {
        if (water_mark(high_object, &high) < 0)
            return NULL;
    } else if (low_object != Py_None) {
        high = low > PY_SSIZE_T_MAX / 4 ? PY_SSIZE_T_MAX : 4 * low;
    }
    if (low_object == Py_None)
        low = high >= 0 ? high / 4 : -((-(high + 1)) / 4) - 1; /* rounded as Python does */
    if (high < low || low < 0)
        return PyErr_Format(PyExc_ValueError, "high (%zd) must be >= low (%zd) must be >= 0", high,
                            low);
    self->high_water = (size_t)high;
    self->low_water = (size_t)low;
    if (gpy_transport_maybe_pause(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- the protocol and the rest ------------------------------------------------------------------
 */

PyObject *
gpy_transport_is_closing(struct gpy_transport *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->closing);
}

static PyObject *
transport_set_protocol(struct gpy_transport *self, PyObject *protocol)
{
    int kind = gpy_protocol_kind_of(self->state, protocol);
    if (kind < 0)
        return NULL;
    uint8_t old_kind = self->kind;
    self->kind = (uint8_t)kind;
    if (!self->ended && self->ops->set_protocol(self) < 0) {
        self->kind = old_kind;
        return NULL;
    }
    Py_XSETREF(self->protocol, Py_NewRef(protocol));
    Py_RETURN_NONE;
}

PyObject *
gpy_transport_set_protocol_method(struct gpy_transport *self, PyObject *const *args,
                                  Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *protocol = gpy_one_argument("set_protocol", "protocol", args, nargs, kwnames);
    return protocol ? transport_set_protocol(self, protocol) : NULL;
}

PyObject *
gpy_transport_get_protocol(struct gpy_transport *self, PyObject *Py_UNUSED(ignored))
{
    return gpy_transport_protocol_get(self, NULL);
}

PyObject *
gpy_transport_protocol_get(struct gpy_transport *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->protocol ? self->protocol : Py_None);
}

PyObject *
gpy_transport_connected_get(struct gpy_transport *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->protocol != NULL);
}

PyObject *
gpy_transport_loop_get(struct gpy_transport *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->ended ? Py_None : (PyObject *)self->loop);
}

static int
import_into(PyObject **slot, const char *module_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    if (module == NULL)
        return -1;
    *slot = PyObject_GetAttrString(module, name);
    Py_DECREF(module);
    return *slot ? 0 : -1;
}

int
gpy_transport_exec(struct gpy_state *state)
{
    if (import_into(&state->asyncio_logger, "asyncio.log", "logger") < 0 ||
        import_into(&state->buffered_protocol, "asyncio.protocols", "BufferedProtocol") < 0 ||
        import_into(&state->transport_socket, "asyncio.trsock", "TransportSocket") < 0 ||
        import_into(&state->socket_class, "socket", "socket") < 0 ||
        import_into(&state->socket_base, "_socket", "socket") < 0)
        return -1;
    state->socket_family = PyObject_GetAttr(state->socket_base, state->str_family);
    return state->socket_family ? 0 : -1;
}
