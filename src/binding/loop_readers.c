/* loop_readers.c: add_reader and add_writer, over the core's pollset.
 *
 * The table is indexed by descriptor: libraries that live on these calls (database drivers, TLS and
 * curl bindings) change their interest with every message. */
#include "args.h"
#include "handle.h"
#include "loop.h"
#include "transport.h"

#include <sys/epoll.h>

enum { READER_TABLE_MIN = 64, READER_FD_MAX = 1 << 24 };

enum direction { DIRECTION_READ, DIRECTION_WRITE, DIRECTIONS };

static const uint32_t direction_mask[DIRECTIONS] = {EPOLLIN, EPOLLOUT};

struct gpy_reader {
    PyObject *file;                        /* what the user named the descriptor by: kept alive */
    struct gpy_handle *handle[DIRECTIONS]; /* NULL: no interest                                 */
};

static uint32_t
reader_mask(const struct gpy_reader *reader)
{
    return (reader->handle[DIRECTION_READ] ? (uint32_t)EPOLLIN : 0) |
           (reader->handle[DIRECTION_WRITE] ? (uint32_t)EPOLLOUT : 0);
}

static struct gpy_reader *
reader_find(struct gpy_loop *self, int fd)
{
    if (fd < 0 || (uint32_t)fd >= self->reader_capacity)
        return NULL;
    return &self->reader_table[fd];
}

static int
reader_reserve(struct gpy_loop *self, int fd)
{
    if ((uint32_t)fd < self->reader_capacity)
        return 0;
    uint32_t capacity = self->reader_capacity ? self->reader_capacity : READER_TABLE_MIN;
    while (capacity <= (uint32_t)fd)
        capacity *= 2;
    struct gpy_reader *table = PyMem_Realloc(self->reader_table, (size_t)capacity * sizeof(*table));
    if (table == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memset(table + self->reader_capacity, 0, (capacity - self->reader_capacity) * sizeof(*table));
    self->reader_table = table;
    self->reader_capacity = capacity;
    return 0;
}

/* The descriptor of an int or of an object with fileno(), with the errors of the selectors module,
 * which takes int(file.fileno()).  A number that no descriptor can have is one that is not open. */
static int
file_descriptor(struct gpy_loop *self, PyObject *file)
{
    int overflow = 0;
    long value;
    if (PyLong_Check(file)) {
        value = PyLong_AsLongAndOverflow(file, &overflow);
    } else {
        PyObject *number = PyObject_CallMethodNoArgs(file, self->state->str_fileno);
        PyObject *whole = number ? PyNumber_Long(number) : NULL;
        value = whole ? PyLong_AsLongAndOverflow(whole, &overflow) : -1;
        Py_XDECREF(whole);
        Py_XDECREF(number);
    }
    if (value == -1 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError) ||
            PyErr_ExceptionMatches(PyExc_TypeError) || PyErr_ExceptionMatches(PyExc_ValueError))
            PyErr_Format(PyExc_ValueError, "Invalid file object: %R", file);
        return -1;
    }
    if (overflow > 0 || value > READER_FD_MAX)
        return READER_FD_MAX;
    if (value < 0) {
        PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %ld", value);
        return -1;
    }
    return (int)value;
}

static int
set_os_error(int err)
{
    errno = -err;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* Puts `handle` (NULL: nothing) into a direction, tells the kernel, cancels what was there.
 * 0, or -1 with an exception and nothing changed. */
static int
reader_set(struct gpy_loop *self, PyObject *file, int fd, enum direction direction,
           struct gpy_handle *handle)
{
    struct gpy_reader *reader = &self->reader_table[fd];
    uint32_t was = reader_mask(reader);
    uint32_t wanted = handle ? was | direction_mask[direction] : was & ~direction_mask[direction];
    /* Also when nothing seems to change: the number may have come back as another file. */
    int err = gy_pollset_modify(&self->readers, fd, was, wanted);
    bool is_gone = err == -EBADF || err == -ENOENT || err == -EPERM;
    if (err < 0 && (handle != NULL || !is_gone))
        return set_os_error(err);
    struct gpy_handle *old = reader->handle[direction];
    reader->handle[direction] = (struct gpy_handle *)Py_XNewRef((PyObject *)handle);
    PyObject *old_file = reader->file;
    reader->file = wanted ? Py_NewRef(file) : NULL;
    if (old != NULL) {
        gpy_handle_cancel(old);
        Py_DECREF(old);
    }
    Py_XDECREF(old_file);
    return 0;
}

static const struct gpy_leading add_reader_takes = {"add_reader", 2, {"fd", "callback"}, false};
static const struct gpy_leading add_writer_takes = {"add_writer", 2, {"fd", "callback"}, false};
/* asyncio's own transports, some of which gyre borrows, pass their context from 3.15 on. */
static const struct gpy_leading add_reader_private_takes = {
    "_add_reader", 2, {"fd", "callback"}, true};
static const struct gpy_leading add_writer_private_takes = {
    "_add_writer", 2, {"fd", "callback"}, true};

static PyObject *
reader_add(struct gpy_loop *self, const struct gpy_call *call, enum direction direction)
{
    PyObject *const *args = call->args;
    if (gpy_loop_check_open(self) < 0)
        return NULL;
    int fd = file_descriptor(self, args[0]);
    if (fd < 0 || reader_reserve(self, fd) < 0)
        return NULL;
    struct gpy_handle *handle = gpy_handle_new(self, self->state->handle_type, args + 1,
                                               (size_t)call->nargs - 1, call->context);
    if (handle == NULL)
        return NULL;
    if (reader_set(self, args[0], fd, direction, handle) < 0)
        Py_CLEAR(handle);
    return (PyObject *)handle;
}

/* Removing by a file object that was closed meanwhile: its number is found by identity, as
 * selectors do. */
static int
removed_descriptor(struct gpy_loop *self, PyObject *file)
{
    int fd = file_descriptor(self, file);
    if (fd >= 0 || !PyErr_ExceptionMatches(PyExc_ValueError))
        return fd;
    for (uint32_t i = 0; i < self->reader_capacity; i++) {
        if (self->reader_table[i].file == file) {
            PyErr_Clear();
            return (int)i;
        }
    }
    return -1;
}

static PyObject *
reader_remove(struct gpy_loop *self, PyObject *file, enum direction direction)
{
    if (self->closed)
        Py_RETURN_FALSE;
    int fd = removed_descriptor(self, file);
    if (fd < 0)
        return NULL;
    struct gpy_reader *reader = reader_find(self, fd);
    if (reader == NULL || reader->handle[direction] == NULL)
        Py_RETURN_FALSE;
    PyObject *kept = Py_NewRef(reader->file);
    int rc = reader_set(self, kept, fd, direction, NULL);
    Py_DECREF(kept);
    if (rc < 0)
        return NULL;
    Py_RETURN_TRUE;
}

/* Are there transports of other libraries, which asyncio's own code keeps in a dict of weak
 * references?  1, also when that cannot be told, or 0. */
static int
has_foreign_transports(struct gpy_loop *self)
{
    PyObject *transports = PyObject_GetAttr((PyObject *)self, self->state->str__transports);
    PyObject *data = transports ? PyObject_GetAttr(transports, self->state->str_data) : NULL;
    int has = data == NULL || !PyDict_Check(data) || PyDict_GET_SIZE(data) != 0;
    Py_XDECREF(transports);
    Py_XDECREF(data);
    if (PyErr_Occurred())
        PyErr_Clear();
    return has;
}

/* 1 if no transport can have this descriptor; 0: ask the method in Python, which words the errors;
 * -1 with an exception that is none of its business. */
static int
is_free_descriptor(struct gpy_loop *self, PyObject *file)
{
    PyObject *number = PyLong_CheckExact(file)
                           ? Py_NewRef(file)
                           : PyObject_CallMethodNoArgs(file, self->state->str_fileno);
    long fd = number ? PyLong_AsLong(number) : -1;
    Py_XDECREF(number);
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_Exception))
            return -1;
        PyErr_Clear();
        return 0;
    }
    return fd >= 0 && fd <= READER_FD_MAX && gpy_transport_find(self, (int)fd) == NULL &&
           !has_foreign_transports(self);
}

static int
ensure_no_transport(struct gpy_loop *self, PyObject *file)
{
    int is_free = is_free_descriptor(self, file);
    if (is_free != 0)
        return is_free < 0 ? -1 : 0;
    PyObject *result =
        PyObject_CallMethodOneArg((PyObject *)self, self->state->str__ensure_fd_no_transport, file);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

static PyObject *
public_remove(struct gpy_loop *self, PyObject *file, enum direction direction)
{
    if (ensure_no_transport(self, file) < 0)
        return NULL;
    return reader_remove(self, file, direction);
}

static PyObject *
loop_add_reader(struct gpy_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    struct gpy_call call;
    if (gpy_call_parse(&call, &add_reader_takes, args, nargs, kwnames) < 0 ||
        ensure_no_transport(self, call.args[0]) < 0)
        return NULL;
    PyObject *handle = reader_add(self, &call, DIRECTION_READ);
    Py_XDECREF(handle);
    return handle ? Py_NewRef(Py_None) : NULL;
}

static PyObject *
loop_add_writer(struct gpy_loop *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    struct gpy_call call;
    if (gpy_call_parse(&call, &add_writer_takes, args, nargs, kwnames) < 0 ||
        ensure_no_transport(self, call.args[0]) < 0)
        return NULL;
    PyObject *handle = reader_add(self, &call, DIRECTION_WRITE);
    Py_XDECREF(handle);
    return handle ? Py_NewRef(Py_None) : NULL;
}

static PyObject *
loop_add_reader_private(struct gpy_loop *self, PyObject *const *args, Py_ssize_t nargs,
                        PyObject *kwnames)
{
    struct gpy_call call;
    if (gpy_call_parse(&call, &add_reader_private_takes, args, nargs, kwnames) < 0)
        return NULL;
    return reader_add(self, &call, DIRECTION_READ);
}

static PyObject *
loop_add_writer_private(struct gpy_loop *self, PyObject *const *args, Py_ssize_t nargs,
                        PyObject *kwnames)
{
    struct gpy_call call;
    if (gpy_call_parse(&call, &add_writer_private_takes, args, nargs, kwnames) < 0)
        return NULL;
    return reader_add(self, &call, DIRECTION_WRITE);
}

static PyObject *
loop_remove_reader(struct gpy_loop *self, PyObject *file)
{
    return public_remove(self, file, DIRECTION_READ);
}

static PyObject *
loop_remove_writer(struct gpy_loop *self, PyObject *file)
{
    return public_remove(self, file, DIRECTION_WRITE);
}

static PyObject *
loop_remove_reader_private(struct gpy_loop *self, PyObject *file)
{
    return reader_remove(self, file, DIRECTION_READ);
}

static PyObject *
loop_remove_writer_private(struct gpy_loop *self, PyObject *file)
{
    return reader_remove(self, file, DIRECTION_WRITE);
}

/* Runs one direction's callback; false when reaping must stop. */
static bool
reader_call(struct gpy_loop *self, struct gpy_handle *handle)
{
    Py_INCREF(handle);
    int64_t started_ns = gpy_loop_watch_begin(self, (PyObject *)handle);
    (void)gpy_handle_run(handle); /* what must leave the loop is kept in self->raised */
    gpy_loop_watch_end(self, (PyObject *)handle, started_ns);
    Py_DECREF(handle);
    if (self->core_ready)
        gy_loop_flush_dirty(&self->core);
    return self->core_ready && !self->core.interrupted;
}

/* An error or hang-up makes both directions ready, as in the selectors module. */
static void
on_ready(struct gy_pollset *set, int fd, uint32_t mask)
{
    struct gpy_loop *self = container_of(set, struct gpy_loop, readers);
    struct gpy_reader *reader = reader_find(self, fd);
    if (reader == NULL)
        return;
    /* Both handles are chosen before either runs: the first may replace the second. */
    struct gpy_handle *run[DIRECTIONS] = {NULL, NULL};
    if (mask & ~(uint32_t)EPOLLOUT)
        run[DIRECTION_READ] = reader->handle[DIRECTION_READ];
    if (mask & ~(uint32_t)EPOLLIN)
        run[DIRECTION_WRITE] = reader->handle[DIRECTION_WRITE];
    Py_XINCREF(run[DIRECTION_READ]);
    Py_XINCREF(run[DIRECTION_WRITE]);
    bool go_on = run[DIRECTION_READ] == NULL || reader_call(self, run[DIRECTION_READ]);
    if (go_on && run[DIRECTION_WRITE] != NULL)
        (void)reader_call(self, run[DIRECTION_WRITE]);
    Py_XDECREF(run[DIRECTION_READ]);
    Py_XDECREF(run[DIRECTION_WRITE]);
}

static const struct gy_pollset_host readers_host = {.ready = on_ready};

void
gpy_loop_readers_init(struct gpy_loop *self)
{
    gy_pollset_init(&self->readers, &self->core, &readers_host);
}

int
gpy_loop_readers_traverse(struct gpy_loop *self, visitproc visit, void *arg)
{
    for (uint32_t i = 0; i < self->reader_capacity; i++) {
        Py_VISIT(self->reader_table[i].file);
        Py_VISIT(self->reader_table[i].handle[DIRECTION_READ]);
        Py_VISIT(self->reader_table[i].handle[DIRECTION_WRITE]);
    }
    return 0;
}

void
gpy_loop_readers_clear(struct gpy_loop *self)
{
    struct gpy_reader *table = self->reader_table;
    uint32_t capacity = self->reader_capacity;
    self->reader_table = NULL;
    self->reader_capacity = 0;
    for (uint32_t i = 0; i < capacity; i++) {
        Py_XDECREF(table[i].file);
        Py_XDECREF(table[i].handle[DIRECTION_READ]);
        Py_XDECREF(table[i].handle[DIRECTION_WRITE]);
    }
    PyMem_Free(table);
}

GPY_ONE_ARGUMENT(loop_remove_reader_method, struct gpy_loop, loop_remove_reader, "remove_reader",
                 "fd")
GPY_ONE_ARGUMENT(loop_remove_writer_method, struct gpy_loop, loop_remove_writer, "remove_writer",
                 "fd")

PyMethodDef gpy_loop_reader_methods[] = {
    {"add_reader", GPY_METHOD(loop_add_reader),
     "add_reader($self, fd, callback, *args)\n--\n\nCall a function whenever a descriptor is "
     "readable."},
    {"add_writer", GPY_METHOD(loop_add_writer),
     "add_writer($self, fd, callback, *args)\n--\n\nCall a function whenever a descriptor is "
     "writable."},
    {"remove_reader", GPY_METHOD(loop_remove_reader_method),
     "remove_reader($self, fd)\n--\n\nEnd add_reader(); False if there was none."},
    {"remove_writer", GPY_METHOD(loop_remove_writer_method),
     "remove_writer($self, fd)\n--\n\nEnd add_writer(); False if there was none."},
    {"_add_reader", GPY_METHOD(loop_add_reader_private), NULL},
    {"_add_writer", GPY_METHOD(loop_add_writer_private), NULL},
    {"_remove_reader", (PyCFunction)loop_remove_reader_private, METH_O, NULL},
    {"_remove_writer", (PyCFunction)loop_remove_writer_private, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
