/* file_calls.c: the methods loop._file_*(): arguments, the attempt that does not wait, and else an
 * operation.  Thread: the loop's. */
#include "errors.h"
#include "file.h"
#include "pycompat.h"

#include "../core/prep.h"
#include "../core/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

enum { CALL_BYTES_MAX = 0x7ffff000 }; /* the kernel's own limit of one call */

/* ---- arguments ----------------------------------------------------------------------------- */

struct call {
    struct gpy_loop *loop;
    PyObject *const *args;
    Py_ssize_t nargs;
};

static int
begin(struct call *call, const char *name, Py_ssize_t least, Py_ssize_t most)
{
    if (gpy_loop_check_open(call->loop) < 0)
        return -1;
    if (call->nargs >= least && call->nargs <= most)
        return 0;
    PyErr_Format(PyExc_TypeError, "%s() takes from %zd to %zd arguments (%zd given)", name, least,
                 most, call->nargs);
    return -1;
}

/* An argument, or its default where it was not given.  -1 may be an exception. */
static int64_t
integer(const struct call *call, Py_ssize_t index, int64_t otherwise)
{
    if (index >= call->nargs)
        return otherwise;
    return PyLong_AsLongLong(call->args[index]);
}

static int
descriptor(const struct call *call, Py_ssize_t index, int otherwise)
{
    int64_t value = integer(call, index, otherwise);
    if (value >= INT_MIN && value <= INT_MAX)
        return (int)value;
    PyErr_SetString(PyExc_OverflowError, "a descriptor is an int of C");
    return -1;
}

/* The bytes of a path, without NUL.  New reference or NULL. */
static PyObject *
path(const struct call *call, Py_ssize_t index)
{
    PyObject *bytes;
    return PyUnicode_FSConverter(call->args[index], &bytes) ? bytes : NULL;
}

static uint32_t
clamp(Py_ssize_t len)
{
    return len < CALL_BYTES_MAX ? (uint32_t)len : CALL_BYTES_MAX;
}

/* ---- the way of most: no attempt that does not wait ----------------------------------------- */

/* Takes the references in keep over. */
static PyObject *
submit(struct gpy_loop *loop, const struct io_uring_sqe *sqe, enum gpy_file_result result,
       PyObject *first, PyObject *second)
{
    struct gpy_fileop *self = gpy_fileop_new(loop, sqe, result);
    if (self == NULL) {
        Py_XDECREF(first);
        Py_XDECREF(second);
        return NULL;
    }
    self->keep[0] = first;
    self->keep[1] = second;
    return gpy_fileop_start(self);
}

static int32_t
attempt(struct gpy_loop *loop, const struct io_uring_sqe *sqe)
{
    struct gy_ring *ring = loop->core.ring;
    return ring->ops->file_nowait(ring, sqe);
}

/* ---- open and close ------------------------------------------------------------------------ */

static PyObject *
file_open(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    struct call call = {loop, args, nargs};
    if (begin(&call, "_file_open", 3, 4) < 0)
        return NULL;
    int64_t flags = integer(&call, 1, 0), mode = integer(&call, 2, 0);
    int directory = descriptor(&call, 3, AT_FDCWD);
    if (PyErr_Occurred())
        return NULL;
    PyObject *name = path(&call, 0);
    if (name == NULL)
        return NULL;
    struct io_uring_sqe sqe = {0};
    gy_prep_openat(&sqe, directory, PyBytes_AS_STRING(name), (int)flags, (uint32_t)mode);
    int32_t res = attempt(loop, &sqe);
    if (res == -EAGAIN)
        return submit(loop, &sqe, GPY_FILE_OPEN, name, NULL);
    Py_DECREF(name);
    return res < 0 ? gpy_oserror_raise(res) : gpy_file_ready(loop->state, PyLong_FromLong(res));
}

static PyObject *
file_close(struct gpy_loop *loop, PyObject *arg)
{
    struct call call = {loop, &arg, 1};
    struct io_uring_sqe sqe = {0};
    int fd = begin(&call, "_file_close", 1, 1) < 0 ? -1 : descriptor(&call, 0, -1);
    if (PyErr_Occurred())
        return NULL;
    gy_prep_close(&sqe, fd);
    int32_t res = attempt(loop, &sqe);
    if (res == -EAGAIN)
        return submit(loop, &sqe, GPY_FILE_NONE, NULL, NULL);
    return res < 0 ? gpy_oserror_raise(res) : gpy_file_done(loop, Py_NewRef(Py_None));
}

/* ---- read ---------------------------------------------------------------------------------- */

/* What is read or written directly waits for the disk even when it is asked not to. */
static bool
is_direct(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & O_DIRECT) != 0;
}

static bool
is_regular(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

enum { COPY_BYTES_MAX = 1024 * 1024 }; /* what a loop may copy by itself in one call */

/* A long copy is for a thread of the kernel's, though nothing keeps it waiting. */
static bool
is_long(struct io_uring_sqe *sqe, Py_ssize_t bytes)
{
    if (bytes <= COPY_BYTES_MAX || !is_regular(sqe->fd))
        return false;
    sqe->flags |= IOSQE_ASYNC;
    return true;
}

/* The result, or -EAGAIN for what has to wait or is long. */
static int32_t
attempt_copy(struct gpy_loop *loop, struct io_uring_sqe *sqe, Py_ssize_t bytes)
{
    return is_long(sqe, bytes) || is_direct(sqe->fd) ? -EAGAIN : attempt(loop, sqe);
}

/* A long copy counts as several answers of this turn: about 8 MiB, a millisecond, are all that a
 * task gets before the others have theirs. */
static void
count_copy(struct gpy_loop *loop, int32_t bytes)
{
    loop->file_inline += (uint32_t)bytes >> 18;
}

/* What can be read without waiting.  A short answer is the end of the file, or a part that is not
 * in memory: asking again tells.  true: *got is all there is to have now (or -errno); false: *got
 * bytes came, the rest has to wait, and the SQE asks for it.  `buffered`: the caller knows that the
 * file goes through the page cache. */
static bool
read_now(struct gpy_loop *loop, struct io_uring_sqe *sqe, bool buffered, int32_t *got)
{
    int32_t res = buffered && sqe->len <= COPY_BYTES_MAX ? attempt(loop, sqe)
                                                         : attempt_copy(loop, sqe, sqe->len);
    *got = res > 0 ? res : 0;
    while (res > 0 && (uint32_t)res < sqe->len) {
        sqe->addr += (uint32_t)res;
        sqe->len -= (uint32_t)res;
        if (sqe->off != UINT64_MAX)
            sqe->off += (uint32_t)res;
        res = attempt(loop, sqe);
        *got += res > 0 ? res : 0;
    }
    if (res == -EAGAIN)
        return *got > 0 && !is_regular(sqe->fd);
    if (*got == 0)
        *got = res;
    return true;
}

/* What was read last is kept, if it is large: once nobody else has it, the next read of that size
 * fills it again.  Fresh memory of that size may cost as much as the copy: libc gives it back to
 * the kernel, and then each page is a fault.  Two, because a future keeps its result until the task
 * that it woke waits again. */
enum { SPARE_BYTES_MIN = 128 * 1024 };

static PyObject *
bytes_to_fill(struct gpy_loop *loop, uint32_t len)
{
    for (unsigned i = 0; len >= SPARE_BYTES_MIN && i < GPY_FILE_SPARES; i++) {
        PyObject *spare = loop->file_spares[i];
        if (spare == NULL || PyBytes_GET_SIZE(spare) != len || Py_REFCNT(spare) != 1)
            continue;
        loop->file_spares[i] = NULL;
        gpy_bytes_changed(spare);
        return spare;
    }
    return PyBytes_FromStringAndSize(NULL, len);
}

static void
keep_spare(struct gpy_loop *loop, PyObject *bytes)
{
    Py_ssize_t len = PyBytes_GET_SIZE(bytes);
    if (len < SPARE_BYTES_MIN || len > COPY_BYTES_MAX)
        return;
    unsigned place = loop->file_spares[0] == NULL ? 0 : 1;
    Py_XSETREF(loop->file_spares[place], Py_NewRef(bytes));
}

/* What was read, of the bytes that were there to be filled, which it takes over. */
static PyObject *
bytes_filled(struct gpy_loop *loop, PyObject *bytes, int32_t got)
{
    if (got == 0 && PyBytes_GET_SIZE(bytes) > 0) { /* the end; it was not touched */
        keep_spare(loop, bytes);
        Py_DECREF(bytes);
        return PyBytes_FromStringAndSize(NULL, 0);
    }
    if (got != PyBytes_GET_SIZE(bytes) && _PyBytes_Resize(&bytes, got) < 0)
        return NULL;
    keep_spare(loop, bytes);
    return bytes;
}

static PyObject *
read_bytes(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs, bool buffered)
{
    struct call call = {loop, args, nargs};
    int32_t got;
    if (begin(&call, "_file_read", 2, 3) < 0)
        return NULL;
    int fd = descriptor(&call, 0, -1);
    int64_t len = integer(&call, 1, 0), offset = integer(&call, 2, -1);
    if ((len == -1 || fd == -1 || offset == -1) && PyErr_Occurred())
        return NULL;
    if (len < 0)
        return gpy_oserror_raise(-EINVAL);
    PyObject *bytes = bytes_to_fill(loop, clamp(len));
    if (bytes == NULL)
        return NULL;
    struct io_uring_sqe sqe = {0};
    gy_prep_read(&sqe, fd, PyBytes_AS_STRING(bytes), clamp(len), (uint64_t)offset);
    if (GY_LIKELY(read_now(loop, &sqe, buffered, &got))) {
        if (got < 0) {
            Py_DECREF(bytes);
            return gpy_oserror_raise(got);
        }
        PyObject *done = gpy_file_done(loop, bytes_filled(loop, bytes, got));
        count_copy(loop, got);
        return done;
    }
    struct gpy_fileop *self = gpy_fileop_new(loop, &sqe, GPY_FILE_BYTES);
    if (self == NULL) {
        Py_DECREF(bytes);
        return NULL;
    }
    self->keep[0] = bytes;
    self->got = (size_t)got;
    return gpy_fileop_start(self);
}

static PyObject *
file_read(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    return read_bytes(loop, args, nargs, false);
}

/* The same for a file that was not opened with O_DIRECT: a system call less. */
static PyObject *
file_read_buffered(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    return read_bytes(loop, args, nargs, true);
}

/* ---- reads and writes of the caller's buffers ----------------------------------------------- */

static void
release_all(Py_buffer *views, Py_ssize_t count)
{
    while (count > 0)
        PyBuffer_Release(&views[--count]);
    PyMem_Free(views);
}

/* One operation on one view, which it takes over. */
static PyObject *
start_with_views(struct gpy_loop *loop, const struct io_uring_sqe *sqe, Py_buffer *views,
                 Py_ssize_t count, size_t got)
{
    struct gpy_fileop *self = gpy_fileop_new(loop, sqe, GPY_FILE_INT);
    if (self == NULL) {
        release_all(views, count);
        return NULL;
    }
    self->views = views;
    self->view_count = count;
    self->got = got;
    if (count == 1)
        gpy_file_buffer_use(self, views[0].obj);
    return gpy_fileop_start(self);
}

static PyObject *
start_with_view(struct gpy_loop *loop, const struct io_uring_sqe *sqe, Py_buffer *view, size_t got)
{
    Py_buffer *kept = PyMem_Malloc(sizeof *kept);
    if (kept == NULL) {
        PyBuffer_Release(view);
        return PyErr_NoMemory();
    }
    *kept = *view;
    return start_with_views(loop, sqe, kept, 1, got);
}

static PyObject *
count_ready(struct gpy_loop *loop, int32_t res)
{
    if (res < 0)
        return gpy_oserror_raise(res);
    PyObject *done = gpy_file_done(loop, PyLong_FromLong(res));
    count_copy(loop, res);
    return done;
}

static PyObject *
file_readinto(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    struct call call = {loop, args, nargs};
    struct io_uring_sqe sqe = {0};
    Py_buffer view;
    int32_t got;
    if (begin(&call, "_file_readinto", 2, 3) < 0)
        return NULL;
    int fd = descriptor(&call, 0, -1);
    int64_t offset = integer(&call, 2, -1);
    if (PyErr_Occurred() || PyObject_GetBuffer(args[1], &view, PyBUF_WRITABLE) < 0)
        return NULL;
    gy_prep_read(&sqe, fd, view.buf, clamp(view.len), (uint64_t)offset);
    if (!read_now(loop, &sqe, false, &got))
        return start_with_view(loop, &sqe, &view, (size_t)got);
    PyBuffer_Release(&view);
    return count_ready(loop, got);
}

static PyObject *
file_write(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    struct call call = {loop, args, nargs};
    struct io_uring_sqe sqe = {0};
    Py_buffer view;
    if (begin(&call, "_file_write", 2, 3) < 0)
        return NULL;
    int fd = descriptor(&call, 0, -1);
    int64_t offset = integer(&call, 2, -1);
    if (PyErr_Occurred() || PyObject_GetBuffer(args[1], &view, PyBUF_SIMPLE) < 0)
        return NULL;
    gy_prep_write(&sqe, fd, view.buf, clamp(view.len), (uint64_t)offset);
    int32_t res = attempt_copy(loop, &sqe, view.len);
    if (res == -EAGAIN)
        return start_with_view(loop, &sqe, &view, 0);
    PyBuffer_Release(&view);
    return count_ready(loop, res);
}

/* The buffers of a sequence, and behind them in the same memory their iovecs.  NULL with an
 * exception. */
static Py_buffer *
get_views(PyObject *sequence, int flags, Py_ssize_t *count_out)
{
    PyObject *fast = PySequence_Fast(sequence, "the buffers are a sequence");
    Py_ssize_t count = fast ? PySequence_Fast_GET_SIZE(fast) : 0;
    if (fast != NULL && count > IOV_MAX) {
        Py_DECREF(fast);
        return (Py_buffer *)(void *)gpy_oserror_raise(-EINVAL);
    }
    size_t each = sizeof(Py_buffer) + sizeof(struct iovec);
    Py_buffer *views = fast ? PyMem_Malloc(count ? (size_t)count * each : 1) : NULL;
    if (views == NULL) {
        Py_XDECREF(fast);
        if (!PyErr_Occurred())
            (void)PyErr_NoMemory();
        return NULL;
    }
    struct iovec *iov = (struct iovec *)(void *)(views + count);
    for (Py_ssize_t i = 0; i < count; i++) {
        if (PyObject_GetBuffer(PySequence_Fast_GET_ITEM(fast, i), &views[i], flags) < 0) {
            release_all(views, i);
            Py_DECREF(fast);
            return NULL;
        }
        iov[i].iov_base = views[i].buf;
        iov[i].iov_len = (size_t)views[i].len;
    }
    Py_DECREF(fast);
    *count_out = count;
    return views;
}

static PyObject *
file_vector(struct call *call, const char *name, bool write)
{
    struct io_uring_sqe sqe = {0};
    Py_ssize_t count = 0;
    if (begin(call, name, 2, 3) < 0)
        return NULL;
    int fd = descriptor(call, 0, -1);
    int64_t offset = integer(call, 2, -1);
    if (PyErr_Occurred())
        return NULL;
    Py_buffer *views = get_views(call->args[1], write ? PyBUF_SIMPLE : PyBUF_WRITABLE, &count);
    if (views == NULL)
        return NULL;
    const struct iovec *iov = (const struct iovec *)(const void *)(views + count);
    if (count == 1 && write)
        gy_prep_write(&sqe, fd, iov->iov_base, clamp(views->len), (uint64_t)offset);
    else if (count == 1)
        gy_prep_read(&sqe, fd, iov->iov_base, clamp(views->len), (uint64_t)offset);
    else if (write)
        gy_prep_writev(&sqe, fd, iov, (uint32_t)count, (uint64_t)offset);
    else
        gy_prep_readv(&sqe, fd, iov, (uint32_t)count, (uint64_t)offset);
    Py_ssize_t bytes = 0;
    for (Py_ssize_t i = 0; i < count; i++)
        bytes += views[i].len;
    int32_t res = attempt_copy(call->loop, &sqe, bytes);
    if (res == -EAGAIN)
        return start_with_views(call->loop, &sqe, views, count, 0);
    release_all(views, count);
    return count_ready(call->loop, res);
}

static PyObject *
file_readv(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    struct call call = {loop, args, nargs};
    return file_vector(&call, "_file_readv", false);
}

static PyObject *
file_writev(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    struct call call = {loop, args, nargs};
    return file_vector(&call, "_file_writev", true);
}

/* ---- on descriptors ------------------------------------------------------------------------ */

static PyObject *
file_fsync(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    struct call call = {loop, args, nargs};
    struct io_uring_sqe sqe = {0};
    if (begin(&call, "_file_fsync", 1, 2) < 0)
        return NULL;
    int fd = descriptor(&call, 0, -1);
    int only_data = nargs > 1 ? PyObject_IsTrue(args[1]) : 0;
    if (PyErr_Occurred())
        return NULL;
    gy_prep_fsync(&sqe, fd, only_data != 0);
    return submit(loop, &sqe, GPY_FILE_NONE, NULL, NULL);
}

static PyObject *
file_fallocate(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    struct call call = {loop, args, nargs};
    struct io_uring_sqe sqe = {0};
    if (begin(&call, "_file_fallocate", 4, 4) < 0)
        return NULL;
    int fd = descriptor(&call, 0, -1), mode = descriptor(&call, 1, 0);
    int64_t offset = integer(&call, 2, 0), len = integer(&call, 3, 0);
    if (PyErr_Occurred())
        return NULL;
    gy_prep_fallocate(&sqe, fd, mode, (uint64_t)offset, (uint64_t)len);
    return submit(loop, &sqe, GPY_FILE_NONE, NULL, NULL);
}

static PyObject *
file_fadvise(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    struct call call = {loop, args, nargs};
    struct io_uring_sqe sqe = {0};
    if (begin(&call, "_file_fadvise", 4, 4) < 0)
        return NULL;
    int fd = descriptor(&call, 0, -1), advice = descriptor(&call, 3, 0);
    int64_t offset = integer(&call, 1, 0), len = integer(&call, 2, 0);
    if (PyErr_Occurred())
        return NULL;
    gy_prep_fadvise(&sqe, fd, (uint64_t)offset, (uint64_t)len, (uint32_t)advice);
    return submit(loop, &sqe, GPY_FILE_NONE, NULL, NULL);
}

/* loop._file_call(os.ftruncate, fd, len), where the ring has no such operation. */
static PyObject *
truncate_in_thread(struct gpy_loop *loop, int fd, int64_t len)
{
    PyObject *os = PyImport_ImportModule("os");
    PyObject *function = os ? PyObject_GetAttrString(os, "ftruncate") : NULL;
    PyObject *future = NULL;
    if (function != NULL)
        future = PyObject_CallMethod((PyObject *)loop, "_file_call", "OiL", function, fd,
                                     (long long)len);
    Py_XDECREF(function);
    Py_XDECREF(os);
    return future;
}

static PyObject *
file_truncate(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    struct call call = {loop, args, nargs};
    struct io_uring_sqe sqe = {0};
    if (begin(&call, "_file_truncate", 2, 2) < 0)
        return NULL;
    int fd = descriptor(&call, 0, -1);
    int64_t len = integer(&call, 1, 0);
    if (PyErr_Occurred())
        return NULL;
    if (!(loop->core.features & GY_FEAT_FTRUNCATE))
        return truncate_in_thread(loop, fd, len);
    gy_prep_ftruncate(&sqe, fd, (uint64_t)len);
    return submit(loop, &sqe, GPY_FILE_NONE, NULL, NULL);
}

static PyObject *
file_splice(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    struct call call = {loop, args, nargs};
    struct io_uring_sqe sqe = {0};
    if (begin(&call, "_file_splice", 5, 5) < 0)
        return NULL;
    int in = descriptor(&call, 0, -1), out = descriptor(&call, 2, -1);
    int64_t from = integer(&call, 1, -1), to = integer(&call, 3, -1), len = integer(&call, 4, 0);
    if (PyErr_Occurred())
        return NULL;
    if (len < 0)
        return gpy_oserror_raise(-EINVAL);
    gy_prep_splice_out(&sqe, out, (uint64_t)to, clamp(len), 0);
    sqe.splice_fd_in = in;
    sqe.splice_off_in = (uint64_t)from;
    return submit(loop, &sqe, GPY_FILE_INT, NULL, NULL);
}

/* ---- on paths ------------------------------------------------------------------------------ */

static PyObject *
file_stat(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    struct call call = {loop, args, nargs};
    struct io_uring_sqe sqe = {0};
    struct statx status;
    uint32_t flags = AT_STATX_SYNC_AS_STAT | AT_NO_AUTOMOUNT;
    PyObject *name = NULL;
    if (begin(&call, "_file_stat", 1, 3) < 0)
        return NULL;
    int directory = descriptor(&call, 1, AT_FDCWD);
    int follow = nargs > 2 ? PyObject_IsTrue(args[2]) : 1;
    if (PyErr_Occurred())
        return NULL;
    if (!follow)
        flags |= AT_SYMLINK_NOFOLLOW;
    if (PyLong_Check(args[0])) {
        directory = descriptor(&call, 0, -1);
        flags |= AT_EMPTY_PATH;
    } else {
        name = path(&call, 0);
    }
    if (PyErr_Occurred())
        return NULL;
    gy_prep_statx(&sqe, directory, name ? PyBytes_AS_STRING(name) : "", flags, &status);
    int32_t res = attempt(loop, &sqe);
    if (res != -EAGAIN) {
        Py_XDECREF(name);
        return res < 0 ? gpy_oserror_raise(res)
                       : gpy_file_done(loop, gpy_file_stat_result(loop->state, &status));
    }
    struct gpy_fileop *self = gpy_fileop_new(loop, &sqe, GPY_FILE_STAT);
    struct statx *kept = self ? PyMem_Malloc(sizeof *kept) : NULL;
    if (kept == NULL) {
        Py_XDECREF(self);
        Py_XDECREF(name);
        return PyErr_NoMemory();
    }
    self->keep[0] = name;
    self->stat = kept;
    self->op.sqe.off = gy_prep_address(kept);
    return gpy_fileop_start(self);
}

static PyObject *
file_unlink(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    struct call call = {loop, args, nargs};
    struct io_uring_sqe sqe = {0};
    if (begin(&call, "_file_unlink", 1, 2) < 0)
        return NULL;
    int is_dir = nargs > 1 ? PyObject_IsTrue(args[1]) : 0;
    PyObject *name = is_dir < 0 ? NULL : path(&call, 0);
    if (name == NULL)
        return NULL;
    gy_prep_unlinkat(&sqe, AT_FDCWD, PyBytes_AS_STRING(name), is_dir ? AT_REMOVEDIR : 0);
    return submit(loop, &sqe, GPY_FILE_NONE, name, NULL);
}

static PyObject *
file_mkdir(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    struct call call = {loop, args, nargs};
    struct io_uring_sqe sqe = {0};
    if (begin(&call, "_file_mkdir", 1, 2) < 0)
        return NULL;
    int mode = descriptor(&call, 1, 0777);
    PyObject *name = PyErr_Occurred() ? NULL : path(&call, 0);
    if (name == NULL)
        return NULL;
    gy_prep_mkdirat(&sqe, AT_FDCWD, PyBytes_AS_STRING(name), (uint32_t)mode);
    return submit(loop, &sqe, GPY_FILE_NONE, name, NULL);
}

/* The three calls on two paths. */
static PyObject *
two_paths(struct call *call, uint8_t opcode)
{
    struct io_uring_sqe sqe = {0};
    int flags = opcode == IORING_OP_RENAMEAT ? descriptor(call, 2, 0) : 0;
    PyObject *first = PyErr_Occurred() ? NULL : path(call, 0);
    PyObject *second = first ? path(call, 1) : NULL;
    if (second == NULL) {
        Py_XDECREF(first);
        return NULL;
    }
    const char *from = PyBytes_AS_STRING(first), *to = PyBytes_AS_STRING(second);
    if (opcode == IORING_OP_RENAMEAT)
        gy_prep_rename(&sqe, from, to, (uint32_t)flags);
    else if (opcode == IORING_OP_SYMLINKAT)
        gy_prep_symlink(&sqe, from, to);
    else
        gy_prep_link(&sqe, from, to);
    return submit(call->loop, &sqe, GPY_FILE_NONE, first, second);
}

static PyObject *
file_rename(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    struct call call = {loop, args, nargs};
    return begin(&call, "_file_rename", 2, 3) < 0 ? NULL : two_paths(&call, IORING_OP_RENAMEAT);
}

static PyObject *
file_symlink(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    struct call call = {loop, args, nargs};
    return begin(&call, "_file_symlink", 2, 2) < 0 ? NULL : two_paths(&call, IORING_OP_SYMLINKAT);
}

static PyObject *
file_link(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs)
{
    struct call call = {loop, args, nargs};
    return begin(&call, "_file_link", 2, 2) < 0 ? NULL : two_paths(&call, IORING_OP_LINKAT);
}

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL

PyMethodDef gpy_loop_file_methods[] = {
    {"_file_open", FAST(file_open), NULL},
    {"_file_close", (PyCFunction)file_close, METH_O, NULL},
    {"_file_read", FAST(file_read), NULL},
    {"_file_read_buffered", FAST(file_read_buffered), NULL},
    {"_file_readinto", FAST(file_readinto), NULL},
    {"_file_write", FAST(file_write), NULL},
    {"_file_readv", FAST(file_readv), NULL},
    {"_file_writev", FAST(file_writev), NULL},
    {"_file_fsync", FAST(file_fsync), NULL},
    {"_file_fallocate", FAST(file_fallocate), NULL},
    {"_file_fadvise", FAST(file_fadvise), NULL},
    {"_file_truncate", FAST(file_truncate), NULL},
    {"_file_splice", FAST(file_splice), NULL},
    {"_file_stat", FAST(file_stat), NULL},
    {"_file_unlink", FAST(file_unlink), NULL},
    {"_file_mkdir", FAST(file_mkdir), NULL},
    {"_file_rename", FAST(file_rename), NULL},
    {"_file_symlink", FAST(file_symlink), NULL},
    {"_file_link", FAST(file_link), NULL},
    {"_file_read_path", FAST(gpy_loop_file_read_path), NULL},
    {"_file_buffer", FAST(gpy_loop_file_buffer), NULL},
    {"_file_alignment", (PyCFunction)gpy_loop_file_alignment, METH_O, NULL},
    {"_file_register", (PyCFunction)gpy_loop_file_register, METH_O, NULL},
    {"_file_unregister", (PyCFunction)gpy_loop_file_unregister, METH_O, NULL},
    {"_file_idle", (PyCFunction)gpy_loop_file_idle, METH_O, NULL},
    {"_file_address", (PyCFunction)gpy_loop_file_address, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};
