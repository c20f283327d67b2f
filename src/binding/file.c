/* file.c: a file operation that has to wait, and its future.
 *
 * Thread: the loop's.  Invariants: the future is settled at most once; the operation is pinned, and
 * its buffers are exported, until the core is done with it; a descriptor that nobody takes is
 * closed. */
#include "file.h"

#include "errors.h"
#include "future.h"
#include "pycompat.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

static struct gpy_fileop *
fileop_of(struct gy_fileop *op)
{
    return container_of(op, struct gpy_fileop, op);
}

/* ---- life ---------------------------------------------------------------------------------- */

static void
release_views(struct gpy_fileop *self)
{
    if (self->op.fixed != NULL)
        gpy_file_buffer_unuse(self);
    for (Py_ssize_t i = 0; i < self->view_count; i++)
        PyBuffer_Release(&self->views[i]);
    self->view_count = 0;
    PyMem_Free(self->views);
    self->views = NULL;
}

static void
fileop_pin(struct gpy_fileop *self)
{
    GY_ASSERT(self->member.pinned == NULL);
    self->waiting = true;
    self->member.pinned = Py_NewRef((PyObject *)self);
    gy_list_append(&self->loop->members, &self->member.link);
}

/* The core is done with it.  May free self. */
static void
fileop_unpin(struct gpy_fileop *self)
{
    GY_ASSERT(self->waiting);
    self->waiting = false;
    release_views(self);
    gy_list_remove(&self->member.link);
    Py_CLEAR(self->member.pinned);
}

static void
member_abandon(struct gpy_loop_member *member)
{
    struct gpy_fileop *self = container_of(member, struct gpy_fileop, member);
    bool never_ran = !gy_op_is_idle(&self->op.op);
    /* Nothing is in flight outside a run; what would not end keeps its memory for good. */
    if (gy_fileop_cancel(&self->op)) {
        if (self->op.sqe.opcode == IORING_OP_CLOSE && never_ran)
            (void)close(self->op.sqe.fd); /* nobody else will */
        fileop_unpin(self);
    } else {
        self->member.pinned = NULL;
    }
}

static const struct gpy_loop_member_ops member_ops = {.abandon = member_abandon};

PyObject *
gpy_fileop_value(struct gpy_fileop *self, int32_t res)
{
    if (GY_UNLIKELY(res < 0))
        return gpy_oserror_raise(res);
    switch ((enum gpy_file_result)self->result) {
    case GPY_FILE_NONE:
        Py_RETURN_NONE;
    case GPY_FILE_INT:
        return PyLong_FromSize_t(self->got + (size_t)res);
    case GPY_FILE_OPEN:
        self->fd = res;
        Py_RETURN_NONE;
    case GPY_FILE_VALUE:
        return self->value(self);
    case GPY_FILE_BYTES: {
        Py_ssize_t got = (Py_ssize_t)self->got + res;
        if (got != PyBytes_GET_SIZE(self->keep[0]) && _PyBytes_Resize(&self->keep[0], got) < 0)
            return NULL;
        return Py_NewRef(self->keep[0]);
    }
    case GPY_FILE_STAT:
        return gpy_file_stat_result(self->loop->state, self->stat);
    }
    GY_UNREACHABLE();
    return NULL;
}

static void
settle(struct gpy_fileop *self, int32_t res)
{
    struct gpy_state *state = self->loop->state;
    struct gpy_fut *fut = gpy_fut_of(self->future);
    if (fut->state != GPY_FUT_PENDING) { /* cancelled */
        if (self->result == GPY_FILE_OPEN && res >= 0)
            (void)close(res);
        return;
    }
    int rc = (int)gpy_fut_remove_callback(fut, (PyObject *)self);
    PyObject *value = NULL;
    if (rc >= 0) {
        rc = 0;
        if (res < 0 && self->got > 0)
            res = 0; /* what came before the error; the next call meets it again */
        value = gpy_fileop_value(self, res);
    }
    if (value != NULL) {
        rc = gpy_future_set_result(state, self->future, value);
        Py_DECREF(value);
    } else if (rc == 0) {
        PyObject *exc = gpy_exc_take();
        rc = gpy_future_set_exception(state, self->future, exc);
        Py_DECREF(exc);
    }
    if (rc < 0 && !gpy_loop_keep_raised(self->loop))
        PyErr_WriteUnraisable((PyObject *)self);
}

static void
on_done(struct gy_fileop *op, int32_t res)
{
    struct gpy_fileop *self = fileop_of(op);
    Py_INCREF(self);
    if (self->step != NULL && self->step(self, &res)) {
        Py_DECREF(self);
        return;
    }
    if (self->future != NULL) /* else the collector has cleared it */
        settle(self, res);
    else if (self->result == GPY_FILE_OPEN && res >= 0)
        (void)close(res);
    fileop_unpin(self);
    Py_DECREF(self);
}

static const struct gy_fileop_host fileop_host = {.done = on_done};

struct gpy_fileop *
gpy_fileop_new(struct gpy_loop *loop, const struct io_uring_sqe *sqe, enum gpy_file_result result)
{
    PyTypeObject *type = loop->state->fileop_type;
    struct gpy_fileop *self = (struct gpy_fileop *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->loop = (struct gpy_loop *)Py_NewRef((PyObject *)loop);
    gy_list_init(&self->member.link);
    self->member.ops = &member_ops;
    gy_fileop_init(&self->op, &loop->core, &fileop_host);
    self->op.sqe = *sqe;
    self->result = (uint8_t)result;
    self->limit = -1;
    self->fd = -1;
    return self;
}

/* Called when the future is cancelled: the operation is asked to end. */
static int
watch_future(struct gpy_fileop *self)
{
    PyObject *context = PyContext_CopyCurrent();
    int rc =
        context ? gpy_fut_add_callback(gpy_fut_of(self->future), (PyObject *)self, context) : -1;
    Py_XDECREF(context);
    return rc;
}

PyObject *
gpy_fileop_start(struct gpy_fileop *self)
{
    self->future = gpy_future_new(self->loop->state, (PyObject *)self->loop);
    if (self->future == NULL || watch_future(self) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    fileop_pin(self);
    gy_fileop_submit(&self->op);
    if (self->result == GPY_FILE_OPEN)
        return (PyObject *)self;
    PyObject *future = Py_NewRef(self->future);
    Py_DECREF(self);
    return future;
}

/* ---- results that are there at once -------------------------------------------------------- */

enum { INLINE_PER_TURN_MAX = 32 };

static PyObject *
value_kept(struct gpy_fileop *self)
{
    return Py_NewRef(self->keep[0]);
}

/* Steals value. */
static GY_COLD PyObject *
done_next_turn(struct gpy_loop *loop, PyObject *value)
{
    struct io_uring_sqe sqe = {.opcode = IORING_OP_NOP};
    struct gpy_fileop *self = gpy_fileop_new(loop, &sqe, GPY_FILE_VALUE);
    if (self == NULL) {
        Py_DECREF(value);
        return NULL;
    }
    self->keep[0] = value;
    self->value = value_kept;
    self->future = gpy_future_new(loop->state, (PyObject *)loop);
    if (self->future == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    fileop_pin(self);
    gy_fileop_defer(&self->op, 0);
    PyObject *future = Py_NewRef(self->future);
    Py_DECREF(self);
    return future;
}

PyObject *
gpy_file_done(struct gpy_loop *loop, PyObject *value)
{
    if (GY_UNLIKELY(value == NULL))
        return NULL;
    if (loop->file_turn != loop->core.turn) {
        loop->file_turn = loop->core.turn;
        loop->file_inline = 0;
    }
    if (GY_UNLIKELY(++loop->file_inline > INLINE_PER_TURN_MAX))
        return done_next_turn(loop, value);
    return gpy_file_ready(loop->state, value);
}

/* ---- the awaitable of an open --------------------------------------------------------------- */

static void
drop_descriptor(struct gpy_fileop *self)
{
    if (self->fd >= 0)
        (void)close(self->fd);
    self->fd = -1;
}

/* As a future's iterator, but the descriptor changes hands only here: a task that is cancelled
 * between the end of the open and its next step never gets it. */
static PySendResult
fileop_am_send(struct gpy_fileop *self, PyObject *unused, PyObject **result)
{
    PyObject *outcome;
    *result = NULL;
    if (self->future == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited file operation");
        return PYGEN_ERROR;
    }
    struct gpy_fut *fut = gpy_fut_of(self->future);
    if (fut->state == GPY_FUT_PENDING) {
        if (fut->blocking) {
            PyErr_SetString(PyExc_RuntimeError, "await wasn't used with future");
            return PYGEN_ERROR;
        }
        fut->blocking = true;
        *result = Py_NewRef(self->future);
        return PYGEN_NEXT;
    }
    int kind = gpy_fut_outcome(fut, &outcome);
    Py_CLEAR(self->future);
    if (kind == 0) {
        Py_DECREF(outcome);
        *result = PyLong_FromLong(self->fd);
        if (*result != NULL)
            self->fd = -1;
        return *result != NULL ? PYGEN_RETURN : PYGEN_ERROR;
    }
    if (kind == 1)
        gpy_exc_give(outcome);
    return PYGEN_ERROR;
}

static PyObject *
fileop_iternext(struct gpy_fileop *self)
{
    PyObject *result;
    PySendResult kind = fileop_am_send(self, Py_None, &result);
    if (kind != PYGEN_RETURN)
        return result;
    gpy_raise_stop_iteration(result);
    Py_DECREF(result);
    return NULL;
}

/* Nobody waits any more. */
static void
give_up(struct gpy_fileop *self)
{
    if (self->waiting && gy_fileop_cancel(&self->op))
        fileop_unpin(self);
    drop_descriptor(self);
}

static PyObject *
fileop_close(struct gpy_fileop *self, PyObject *unused)
{
    give_up(self);
    Py_RETURN_NONE;
}

static PyObject *
fileop_throw(struct gpy_fileop *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (gpy_throw(args, nargs) == 0)
        give_up(self);
    return NULL;
}

/* ---- the type ------------------------------------------------------------------------------ */

/* The future is done: cancelled, if the operation still waits.  A close goes on, since it must
 * happen. */
static PyObject *
fileop_call(struct gpy_fileop *self, PyObject *args, PyObject *kwargs)
{
    if (self->waiting && self->op.sqe.opcode != IORING_OP_CLOSE && gy_fileop_cancel(&self->op))
        fileop_unpin(self);
    Py_RETURN_NONE;
}

static int
fileop_traverse(struct gpy_fileop *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)self->loop);
    Py_VISIT(self->future);
    for (Py_ssize_t i = 0; i < self->view_count; i++)
        Py_VISIT(self->views[i].obj);
    return 0;
}

/* The buffers stay: the kernel may still use them. */
static int
fileop_clear(struct gpy_fileop *self)
{
    Py_CLEAR(self->future);
    return 0;
}

static void
fileop_dealloc(struct gpy_fileop *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    GY_ASSERT(!self->waiting);
    release_views(self);
    drop_descriptor(self);
    for (unsigned i = 0; i < GPY_FILE_KEEPS; i++)
        Py_XDECREF(self->keep[i]);
    PyMem_Free(self->stat);
    (void)fileop_clear(self);
    Py_XDECREF((PyObject *)self->loop);
    type->tp_free(self);
    Py_DECREF(type);
}

/* No send(): with it this would be a collections.abc.Coroutine, which a loop in debug mode refuses
 * as a callback.  What is sent to the awaiter comes by am_send or next(). */
static PyMethodDef fileop_methods[] = {
    {"throw", (PyCFunction)(void (*)(void))fileop_throw, METH_FASTCALL,
     PyDoc_STR("Cancel the operation and raise the exception.")},
    {"close", (PyCFunction)fileop_close, METH_NOARGS, PyDoc_STR("Cancel the operation.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot fileop_slots[] = {
    {Py_tp_doc, "A file operation that waits for the kernel."},
    {Py_tp_call, fileop_call},
    {Py_tp_methods, fileop_methods},
    {Py_am_await, PyObject_SelfIter},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, fileop_iternext},
    {Py_am_send, fileop_am_send},
    {Py_tp_traverse, fileop_traverse},
    {Py_tp_clear, fileop_clear},
    {Py_tp_dealloc, fileop_dealloc},
    {0, NULL},
};

static PyType_Spec fileop_spec = {
    .name = "gyre._gyre.FileOp",
    .basicsize = sizeof(struct gpy_fileop),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = fileop_slots,
};

int
gpy_file_exec(PyObject *module, struct gpy_state *state)
{
    state->fileop_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &fileop_spec, NULL);
    if (state->fileop_type == NULL || gpy_file_ready_exec(module, state) < 0 ||
        gpy_file_buffer_exec(module, state) < 0)
        return -1;
    return gpy_file_stat_exec(state);
}
