/* file_buffer.c: memory for O_DIRECT: an aligned, writable buffer, which may be registered with the
 * kernel; and what alignment a file wants.
 *
 * A buffer knows its loop without holding it: the pointer means something while `fixed` is linked,
 * and the loop unlinks it when it is closed. */
#include "file.h"

#include "errors.h"
#include "future.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

enum {
    ALIGNMENT_MAX = 1 << 30,
    /* STATX_DIOALIGN (6.1) and its two fields, which libraries of that time do not name. */
    DIOALIGN = 0x2000,
    MEMORY_ALIGN_AT = 0x98,
    OFFSET_ALIGN_AT = 0x9c,
};

struct file_buffer {
    PyObject_HEAD
    void *memory;
    Py_ssize_t size;
    struct gpy_loop *loop;
    struct gy_fixed fixed;
    PyObject *idle; /* a future for the end of what is in flight, or NULL */
    uint32_t in_flight;
};

static struct file_buffer *
buffer_of(PyObject *object)
{
    return (struct file_buffer *)(void *)object;
}

PyObject *
gpy_loop_file_buffer(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    void *memory;
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "_file_buffer() takes 2 arguments");
        return NULL;
    }
    Py_ssize_t size = PyNumber_AsSsize_t(args[0], PyExc_OverflowError);
    Py_ssize_t alignment =
        size == -1 && PyErr_Occurred() ? -1 : PyNumber_AsSsize_t(args[1], PyExc_OverflowError);
    if (PyErr_Occurred())
        return NULL;
    if (size < 0 || alignment <= 0 || alignment > ALIGNMENT_MAX ||
        (alignment & (alignment - 1)) != 0) {
        PyErr_SetString(PyExc_ValueError,
                        "the size is not negative and the alignment a power of two");
        return NULL;
    }
    size_t aligned = (size_t)alignment < sizeof(void *) ? sizeof(void *) : (size_t)alignment;
    if (posix_memalign(&memory, aligned, size ? (size_t)size : 1) != 0)
        return PyErr_NoMemory();
    struct file_buffer *self = PyObject_GC_New(struct file_buffer, loop->state->file_buffer_type);
    if (self == NULL) {
        free(memory);
        return NULL;
    }
    memset(memory, 0, (size_t)size);
    self->memory = memory;
    self->size = size;
    self->loop = loop;
    gy_fixed_init(&self->fixed, memory, (size_t)size);
    self->idle = NULL;
    self->in_flight = 0;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

/* ---- registered memory --------------------------------------------------------------------- */

/* The buffer behind an object: itself, or a view of it or of a part of it.  NULL: none. */
static struct file_buffer *
buffer_behind(const struct gpy_state *state, PyObject *object)
{
    if (PyMemoryView_Check(object))
        object = PyMemoryView_GET_BASE(object);
    if (object == NULL || !Py_IS_TYPE(object, state->file_buffer_type))
        return NULL;
    return buffer_of(object);
}

void
gpy_file_buffer_use(struct gpy_fileop *op, PyObject *object)
{
    struct file_buffer *self = buffer_behind(op->loop->state, object);
    if (self == NULL || self->loop != op->loop)
        return;
    self->in_flight++;
    op->op.fixed = &self->fixed;
}

void
gpy_file_buffer_unuse(struct gpy_fileop *op)
{
    struct file_buffer *self = container_of(op->op.fixed, struct file_buffer, fixed);
    PyObject *idle = self->idle;
    op->op.fixed = NULL;
    if (--self->in_flight > 0 || idle == NULL)
        return;
    self->idle = NULL;
    if (gpy_fut_of(idle)->state == GPY_FUT_PENDING &&
        gpy_future_set_result(op->loop->state, idle, Py_None) < 0 &&
        !gpy_loop_keep_raised(op->loop))
        PyErr_WriteUnraisable(idle);
    Py_DECREF(idle);
}

static struct file_buffer *
checked_buffer(struct gpy_loop *loop, PyObject *arg)
{
    if (gpy_loop_check_open(loop) < 0)
        return NULL;
    if (Py_IS_TYPE(arg, loop->state->file_buffer_type) && buffer_of(arg)->loop == loop)
        return buffer_of(arg);
    PyErr_SetString(PyExc_TypeError, "this is no buffer of the loop's _file_buffer()");
    return NULL;
}

PyObject *
gpy_loop_file_register(struct gpy_loop *loop, PyObject *arg)
{
    struct file_buffer *self = checked_buffer(loop, arg);
    int err = 0;
    if (self == NULL)
        return NULL;
    if (!gy_list_linked(&self->fixed.link))
        err = gy_fixed_add(&loop->core.fixed, loop->core.ring, &self->fixed);
    return err == -EOPNOTSUPP ? Py_NewRef(Py_False)
           : err < 0          ? gpy_oserror_raise(err)
                              : PyBool_FromLong(self->fixed.slot >= 0);
}

/* A child of fork() has no business with its parent's ring. */
static void
unregister(struct file_buffer *self)
{
    struct gy_ring *ring = NULL;
    if (!gy_list_linked(&self->fixed.link))
        return;
    if (!gy_loop_forked(&self->loop->core))
        ring = self->loop->core.ring;
    gy_fixed_remove(ring, &self->fixed);
}

PyObject *
gpy_loop_file_unregister(struct gpy_loop *loop, PyObject *arg)
{
    struct file_buffer *self = checked_buffer(loop, arg);
    if (self == NULL)
        return NULL;
    unregister(self);
    Py_RETURN_NONE;
}

/* None, or a future for the moment when the kernel has nothing more to do with it. */
PyObject *
gpy_loop_file_idle(struct gpy_loop *loop, PyObject *arg)
{
    struct file_buffer *self = checked_buffer(loop, arg);
    if (self == NULL)
        return NULL;
    if (self->in_flight == 0)
        Py_RETURN_NONE;
    if (self->idle == NULL || gpy_fut_of(self->idle)->state != GPY_FUT_PENDING)
        Py_XSETREF(self->idle, gpy_future_new(loop->state, (PyObject *)loop));
    return Py_XNewRef(self->idle);
}

PyObject *
gpy_loop_file_address(struct gpy_loop *Py_UNUSED(loop), PyObject *arg)
{
    Py_buffer view;
    if (PyObject_GetBuffer(arg, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *address = PyLong_FromVoidPtr(view.buf);
    PyBuffer_Release(&view);
    return address;
}

/* ---- the type ------------------------------------------------------------------------------ */

static int
buffer_getbuffer(struct file_buffer *self, Py_buffer *view, int flags)
{
    return PyBuffer_FillInfo(view, (PyObject *)self, self->memory, self->size, 0, flags);
}

static Py_ssize_t
buffer_length(struct file_buffer *self)
{
    return self->size;
}

static int
buffer_traverse(struct file_buffer *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->idle);
    return 0;
}

static int
buffer_clear(struct file_buffer *self)
{
    Py_CLEAR(self->idle);
    return 0;
}

static void
buffer_dealloc(struct file_buffer *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    GY_ASSERT(self->in_flight == 0);
    unregister(self);
    free(self->memory);
    (void)buffer_clear(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

/* ---- what a file wants --------------------------------------------------------------------- */

struct alignment {
    uint32_t memory;
    uint32_t offset;
};

/* 0 or -errno; zeros: the file does not say. */
static int
ask_statx(int fd, struct alignment *out)
{
    struct statx status;
    memset(&status, 0, sizeof status);
    if (statx(fd, "", AT_EMPTY_PATH, DIOALIGN, &status) < 0)
        return errno == ENOSYS || errno == EINVAL ? 0 : -errno;
    if (status.stx_mask & DIOALIGN) {
        memcpy(&out->memory, (char *)&status + MEMORY_ALIGN_AT, sizeof out->memory);
        memcpy(&out->offset, (char *)&status + OFFSET_ALIGN_AT, sizeof out->offset);
    }
    return 0;
}

/* Where statx does not say: the block of a device, or of the file system, which no device exceeds.
 */
static int
guess(int fd, struct alignment *out)
{
    struct stat status;
    int block = 0;
    if (fstat(fd, &status) < 0)
        return -errno;
    if (!S_ISBLK(status.st_mode) || ioctl(fd, BLKSSZGET, &block) < 0 || block <= 0)
        block = (int)status.st_blksize;
    out->memory = out->offset = (uint32_t)block;
    return 0;
}

PyObject *
gpy_loop_file_alignment(struct gpy_loop *Py_UNUSED(loop), PyObject *arg)
{
    struct alignment found = {0, 0};
    int fd = PyObject_AsFileDescriptor(arg);
    if (fd < 0)
        return NULL;
    int err = ask_statx(fd, &found);
    if (err == 0 && (found.memory == 0 || found.offset == 0))
        err = guess(fd, &found);
    if (err < 0)
        return gpy_oserror_raise(err);
    return Py_BuildValue("II", found.memory, found.offset);
}

static PyType_Slot buffer_slots[] = {
    {Py_tp_doc, "Memory with the alignment that was asked for."},
    {Py_tp_dealloc, buffer_dealloc},
    {Py_tp_traverse, buffer_traverse},
    {Py_tp_clear, buffer_clear},
    {Py_bf_getbuffer, buffer_getbuffer},
    {Py_sq_length, buffer_length},
    {0, NULL},
};

static PyType_Spec buffer_spec = {
    .name = "gyre._gyre.FileBuffer",
    .basicsize = sizeof(struct file_buffer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = buffer_slots,
};

int
gpy_file_buffer_exec(PyObject *module, struct gpy_state *state)
{
    state->file_buffer_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &buffer_spec, NULL);
    return state->file_buffer_type != NULL ? 0 : -1;
}
