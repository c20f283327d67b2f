/* file_path.c: loop._file_read_path(): all of a file, by its path.
 *
 * Open, read to the end, close.  Each step is first tried without waiting, and only what has to
 * wait goes to the ring: with everything in memory there is no turn of the loop at all.  The size
 * that the file tells is a hint for the memory; the end is where a read brings nothing, so files
 * that grow and files without a size (/proc) come whole.
 * Invariant: the descriptor is closed before the future is settled. */
#include "file.h"

#include "errors.h"

#include "../core/prep.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    UNKNOWN_BYTES = 16 * 1024,      /* the first read of a file without a size    */
    STEP_BYTES_MAX = 0x40000000,    /* one read                                   */
    INLINE_BYTES_MAX = 1024 * 1024, /* more is copied by a thread of the kernel's */
};

static PyObject **
content_of(struct gpy_fileop *self)
{
    return &self->keep[1];
}

static int32_t
attempt(struct gpy_fileop *self)
{
    struct gy_ring *ring = self->loop->core.ring;
    return ring->ops->file_nowait(ring, &self->op.sqe);
}

/* Room for what is likely to come, as far as the limit lets it. */
static int
make_room(struct gpy_fileop *self, Py_ssize_t bytes)
{
    if (self->limit >= 0 && bytes > self->limit)
        bytes = self->limit;
    if (*content_of(self) == NULL) {
        *content_of(self) = PyBytes_FromStringAndSize(NULL, bytes);
        return *content_of(self) != NULL ? 0 : -ENOMEM;
    }
    return _PyBytes_Resize(content_of(self), bytes) == 0 ? 0 : -ENOMEM;
}

static int
opened(struct gpy_fileop *self, int fd)
{
    struct stat status;
    off_t size = 0;
    self->fd = fd;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode))
        size = status.st_size;
    /* One more than it says: the read that finds no more comes with the last byte. */
    self->is_regular = size > 0;
    return make_room(self, size > 0 ? (Py_ssize_t)size + 1 : UNKNOWN_BYTES);
}

static void
prepare_read(struct gpy_fileop *self)
{
    char *memory = PyBytes_AS_STRING(*content_of(self));
    size_t room = (size_t)PyBytes_GET_SIZE(*content_of(self)) - self->got;
    struct io_uring_sqe *sqe = gy_fileop_sqe(&self->op);
    uint32_t step = room < STEP_BYTES_MAX ? (uint32_t)room : STEP_BYTES_MAX;
    gy_prep_read(sqe, self->fd, memory + self->got, step, UINT64_MAX);
    if (self->is_regular && step > INLINE_BYTES_MAX)
        sqe->flags |= IOSQE_ASYNC;
}

static void
close_file(struct gpy_fileop *self)
{
    struct gy_ring *ring = self->loop->core.ring;
    if (self->fd >= 0)
        ring->ops->close(ring, self->fd);
    self->fd = -1;
}

/* The read that was asked for has brought `res`.  0: the end, 1: read on, or -errno. */
static int
took(struct gpy_fileop *self, int32_t res)
{
    Py_ssize_t size = PyBytes_GET_SIZE(*content_of(self));
    if (res <= 0)
        return res;
    self->got += (size_t)res;
    if (self->limit >= 0 && self->got >= (size_t)self->limit)
        return 0;
    if ((Py_ssize_t)self->got < size)
        return 1;
    if (size > PY_SSIZE_T_MAX / 2)
        return -EFBIG;
    return make_room(self, size * 2) < 0 ? -ENOMEM : 1;
}

/* Reads until the end, or until something has to wait: -EAGAIN, and the SQE asks for it. */
static int
read_on(struct gpy_fileop *self)
{
    size_t limit = self->got + INLINE_BYTES_MAX;
    int more = self->limit == 0 ? 0 : 1;
    while (more > 0) {
        int32_t res;
        prepare_read(self);
        if (self->op.sqe.flags & IOSQE_ASYNC || self->got >= limit)
            return -EAGAIN;
        res = attempt(self);
        if (res == -EAGAIN)
            return -EAGAIN;
        more = took(self, res);
    }
    return more;
}

/* What follows after the step that ended with `res`: -EAGAIN: the SQE is to be submitted; 0: all is
 * there; or -errno. */
static int
advance(struct gpy_fileop *self, int32_t res)
{
    int err;
    if (self->fd < 0) {
        if (res < 0)
            return res;
        err = opened(self, res);
    } else {
        err = took(self, res);
        if (err == 0)
            return 0;
    }
    return err < 0 ? err : read_on(self);
}

static bool
on_step(struct gpy_fileop *self, int32_t *res)
{
    bool wanted = !self->op.cancelled && self->future != NULL;
    int err = wanted ? advance(self, *res) : -ECANCELED;
    if (err == -EAGAIN) {
        gy_fileop_submit(&self->op);
        return true;
    }
    close_file(self);
    PyErr_Clear(); /* of want of memory, which the number says */
    *res = err;
    return false;
}

static PyObject *
content(struct gpy_fileop *self)
{
    Py_ssize_t size = (Py_ssize_t)self->got;
    if (*content_of(self) == NULL)
        return PyBytes_FromStringAndSize(NULL, 0);
    if (size != PyBytes_GET_SIZE(*content_of(self)) && _PyBytes_Resize(content_of(self), size) < 0)
        return NULL;
    return Py_NewRef(*content_of(self));
}

PyObject *
gpy_loop_file_read_path(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    struct io_uring_sqe sqe = {0};
    PyObject *path;
    if (gpy_loop_check_open(loop) < 0)
        return NULL;
    if (nargs < 1 || nargs > 2) {
        PyErr_SetString(PyExc_TypeError, "_file_read_path() takes 1 or 2 arguments");
        return NULL;
    }
    Py_ssize_t limit = nargs > 1 ? PyNumber_AsSsize_t(args[1], NULL) : -1;
    if ((limit == -1 && PyErr_Occurred()) || !PyUnicode_FSConverter(args[0], &path))
        return NULL;
    gy_prep_openat(&sqe, AT_FDCWD, PyBytes_AS_STRING(path), O_RDONLY | O_CLOEXEC, 0);
    struct gpy_fileop *self = gpy_fileop_new(loop, &sqe, GPY_FILE_VALUE);
    if (self == NULL) {
        Py_DECREF(path);
        return NULL;
    }
    self->keep[0] = path;
    self->limit = limit;
    self->step = on_step;
    self->value = content;
    int32_t res = attempt(self);
    if (res != -EAGAIN)
        res = advance(self, res);
    if (res == -EAGAIN)
        return gpy_fileop_start(self);
    close_file(self);
    PyErr_Clear(); /* of want of memory, which the number says */
    PyObject *value = res < 0 ? gpy_oserror_raise(res) : content(self);
    Py_DECREF(self);
    return gpy_file_done(loop, value);
}
