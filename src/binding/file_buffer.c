/* file_buffer.c: memory for O_DIRECT: an aligned, writable buffer; and what alignment a file wants.
 */
#include "file.h"

#include "errors.h"

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
};

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
    struct file_buffer *self = PyObject_New(struct file_buffer, loop->state->file_buffer_type);
    if (self == NULL) {
        free(memory);
        return NULL;
    }
    memset(memory, 0, (size_t)size);
    self->memory = memory;
    self->size = size;
    return (PyObject *)self;
}

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

static void
buffer_dealloc(struct file_buffer *self)
{
    PyTypeObject *type = Py_TYPE(self);
    free(self->memory);
    PyObject_Free(self);
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
    {Py_bf_getbuffer, buffer_getbuffer},
    {Py_sq_length, buffer_length},
    {0, NULL},
};

static PyType_Spec buffer_spec = {
    .name = "gyre._gyre.FileBuffer",
    .basicsize = sizeof(struct file_buffer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = buffer_slots,
};

int
gpy_file_buffer_exec(PyObject *module, struct gpy_state *state)
{
    state->file_buffer_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &buffer_spec, NULL);
    return state->file_buffer_type != NULL ? 0 : -1;
}
