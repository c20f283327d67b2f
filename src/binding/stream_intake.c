/* stream_intake.c: see stream_intake.h.  The attributes of adopted readers are in
 * stream_attributes.c.
 *
 * Invariants: either `buffer` has all of the data, or the chunks have it; chunks are never empty
 * and skip is less than the size of the first one.  A bytearray that others may hold stays in use
 * until it is empty and nobody else has a reference to it. */
#include "stream_intake.h"

#include "../core/base.h"
#include "future.h"

#include <string.h>

/* ---- where the data is -------------------------------------------------------------------------
 */

static void
drop_chunks(struct gpy_intake *self)
{
    for (uint32_t i = 0; i < self->chunk_count; i++)
        Py_CLEAR(self->chunks[i]);
    self->chunk_count = 0;
    self->skip = self->total = 0;
}

static void
copy_chunks(const struct gpy_intake *self, char *to, Py_ssize_t count)
{
    Py_ssize_t skip = self->skip;
    for (uint32_t i = 0; count > 0; i++) {
        GY_ASSERT(i < self->chunk_count);
        Py_ssize_t part = PyBytes_GET_SIZE(self->chunks[i]) - skip;
        if (part > count)
            part = count;
        memcpy(to, PyBytes_AS_STRING(self->chunks[i]) + skip, (size_t)part);
        to += part;
        count -= part;
        skip = 0;
    }
}

PyObject *
gpy_intake_bytearray(struct gpy_intake *self)
{
    if (self->buffer != NULL)
        return self->buffer;
    self->buffer = PyByteArray_FromStringAndSize(NULL, self->total);
    if (self->buffer == NULL)
        return NULL;
    copy_chunks(self, PyByteArray_AS_STRING(self->buffer), self->total);
    drop_chunks(self);
    return self->buffer;
}

/* Back to chunks, if the bytearray is empty and ours alone. */
static inline void
settle(struct gpy_intake *self)
{
    if (self->buffer != NULL && PyByteArray_GET_SIZE(self->buffer) == 0 &&
        Py_REFCNT(self->buffer) == 1)
        Py_CLEAR(self->buffer);
}

static int
append_memory(struct gpy_intake *self, const void *data, size_t len)
{
    Py_ssize_t old = PyByteArray_GET_SIZE(self->buffer);
    if (PyByteArray_Resize(self->buffer, old + (Py_ssize_t)len) < 0)
        return -1;
    memcpy(PyByteArray_AS_STRING(self->buffer) + old, data, len);
    return 0;
}

static int
append_chunk(struct gpy_intake *self, PyObject *bytes)
{
    if (self->chunk_count == GPY_INTAKE_CHUNKS) {
        if (gpy_intake_bytearray(self) == NULL)
            return -1;
        return append_memory(self, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
    }
    self->chunks[self->chunk_count++] = Py_NewRef(bytes);
    self->total += PyBytes_GET_SIZE(bytes);
    return 0;
}

/* ---- feeding -----------------------------------------------------------------------------------
 */

/* _wakeup_waiter() */
static int
wake(struct gpy_intake *self)
{
    struct gpy_state *state = self->state;
    PyObject *waiter = self->waiter;
    if (waiter == NULL)
        return 0;
    self->waiter = NULL;
    int rc = gpy_future_cancelled(state, waiter);
    if (rc == 0)
        rc = gpy_future_set_result(state, waiter, Py_None);
    Py_DECREF(waiter);
    return rc < 0 ? -1 : 0;
}

static GY_COLD int
pause_transport(struct gpy_intake *self)
{
    PyObject *transport = Py_NewRef(self->transport);
    PyObject *result = PyObject_CallMethodNoArgs(transport, self->state->str_pause_reading);
    Py_DECREF(transport);
    if (result != NULL) {
        Py_DECREF(result);
        self->paused = true;
        return 0;
    }
    if (!PyErr_ExceptionMatches(PyExc_NotImplementedError))
        return -1;
    PyErr_Clear();
    Py_SETREF(self->transport, Py_NewRef(Py_None)); /* so that nobody tries again */
    return 0;
}

static int
fed(struct gpy_intake *self)
{
    if (wake(self) < 0)
        return -1;
    if (GY_UNLIKELY(gpy_intake_len(self) > self->limit_twice) && !self->paused &&
        self->transport != Py_None)
        return pause_transport(self);
    return 0;
}

int
gpy_intake_feed(struct gpy_intake *self, PyObject *bytes)
{
    GY_ASSERT(!self->eof);
    settle(self);
    int rc = self->buffer == NULL
                 ? append_chunk(self, bytes)
                 : append_memory(self, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
    return rc < 0 ? -1 : fed(self);
}

int
gpy_intake_feed_memory(struct gpy_intake *self, const void *data, size_t len)
{
    GY_ASSERT(!self->eof);
    GY_ASSERT(len != 0);
    settle(self);
    int rc;
    if (self->buffer == NULL) {
        PyObject *bytes = PyBytes_FromStringAndSize(data, (Py_ssize_t)len);
        rc = bytes != NULL ? append_chunk(self, bytes) : -1;
        Py_XDECREF(bytes);
    } else {
        rc = append_memory(self, data, len);
    }
    return rc < 0 ? -1 : fed(self);
}

int
gpy_intake_feed_eof(struct gpy_intake *self)
{
    self->eof = true;
    return wake(self);
}

/* ---- reading -----------------------------------------------------------------------------------
 */

/* Forgets the first `count` bytes of the chunks. */
static void
skip_chunks(struct gpy_intake *self, Py_ssize_t count)
{
    uint32_t gone = 0;
    self->total -= count;
    self->skip += count;
    while (gone < self->chunk_count && self->skip >= PyBytes_GET_SIZE(self->chunks[gone])) {
        self->skip -= PyBytes_GET_SIZE(self->chunks[gone]);
        Py_CLEAR(self->chunks[gone]);
        gone++;
    }
    if (gone == 0)
        return;
    self->chunk_count -= gone;
    memmove(self->chunks, self->chunks + gone, self->chunk_count * sizeof(self->chunks[0]));
}

static PyObject *
take_from_bytearray(struct gpy_intake *self, Py_ssize_t count)
{
    PyObject *bytes = PyBytes_FromStringAndSize(PyByteArray_AS_STRING(self->buffer), count);
    if (bytes == NULL)
        return NULL;
    int rc = count == PyByteArray_GET_SIZE(self->buffer)
                 ? PyByteArray_Resize(self->buffer, 0)
                 : PySequence_DelSlice(self->buffer, 0, count);
    if (rc < 0)
        Py_CLEAR(bytes);
    return bytes;
}

PyObject *
gpy_intake_take(struct gpy_intake *self, Py_ssize_t count)
{
    if (count > gpy_intake_len(self))
        count = gpy_intake_len(self);
    if (self->buffer != NULL)
        return take_from_bytearray(self, count);
    if (GY_LIKELY(self->chunk_count == 1 && self->skip == 0 && count == self->total)) {
        PyObject *whole = self->chunks[0];
        self->chunks[0] = NULL;
        self->chunk_count = 0;
        self->total = 0;
        return whole;
    }
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, count);
    if (bytes != NULL && count != 0) {
        copy_chunks(self, PyBytes_AS_STRING(bytes), count);
        skip_chunks(self, count);
    }
    return bytes;
}

Py_ssize_t
gpy_intake_find(struct gpy_intake *self, PyObject *separator, Py_ssize_t start)
{
    if (self->buffer == NULL && self->chunk_count > 1 && gpy_intake_bytearray(self) == NULL)
        return -2;
    Py_ssize_t len = gpy_intake_len(self);
    if (start >= len)
        return -1;
    const char *data = self->buffer != NULL ? PyByteArray_AS_STRING(self->buffer)
                                            : PyBytes_AS_STRING(self->chunks[0]) + self->skip;
    Py_ssize_t count = PyBytes_GET_SIZE(separator);
    const char *found =
        count == 1 ? memchr(data + start, *PyBytes_AS_STRING(separator), (size_t)(len - start))
                   : memmem(data + start, (size_t)(len - start), PyBytes_AS_STRING(separator),
                            (size_t)count);
    return found != NULL ? found - data : -1;
}

int
gpy_intake_resume(struct gpy_intake *self)
{
    self->paused = false;
    PyObject *transport = Py_NewRef(self->transport);
    PyObject *result = PyObject_CallMethodNoArgs(transport, self->state->str_resume_reading);
    Py_DECREF(transport);
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

/* ---- the object --------------------------------------------------------------------------------
 */

static int
intake_traverse(struct gpy_intake *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->loop);
    Py_VISIT(self->transport);
    Py_VISIT(self->waiter);
    Py_VISIT(self->exception);
    return 0;
}

static int
intake_clear(struct gpy_intake *self)
{
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->exception);
    Py_XSETREF(self->transport, Py_NewRef(Py_None));
    Py_XSETREF(self->loop, Py_NewRef(Py_None));
    return 0;
}

static void
intake_dealloc(struct gpy_intake *self)
{
    PyTypeObject *type = Py_TYPE(self);
    struct gpy_state *state = self->state;
    PyObject_GC_UnTrack(self);
    (void)intake_clear(self);
    drop_chunks(self);
    Py_CLEAR(self->buffer);
    Py_CLEAR(self->limit_object);
    Py_CLEAR(self->transport);
    Py_CLEAR(self->loop);
    type->tp_free(self);
    Py_DECREF(type);
    gpy_state_release(state);
}

bool
gpy_intake_check(PyObject *object)
{
    return Py_TYPE(object)->tp_dealloc == (destructor)intake_dealloc;
}

static PyType_Slot intake_slots[] = {
    {Py_tp_doc, "What a StreamReader has received."},
    {Py_tp_traverse, intake_traverse},
    {Py_tp_clear, intake_clear},
    {Py_tp_dealloc, intake_dealloc},
    {0, NULL},
};

static PyType_Spec intake_spec = {
    .name = "gyre._gyre.StreamIntake",
    .basicsize = sizeof(struct gpy_intake),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = intake_slots,
};

int
gpy_intake_exec(PyObject *module, struct gpy_state *state)
{
    state->stream_intake_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &intake_spec, NULL);
    return state->stream_intake_type != NULL ? 0 : -1;
}
