/* file.h: the file operations of LoopCore: loop._file_*().
 *
 * Each returns an awaitable: a Ready that has the result already, or a Future.  What fails at once
 * raises at once.  python/gyre/files.py and path.py make files of them.
 *   file.c        an operation that waits    file_ready.c   the Ready type
 *   file_calls.c  the methods                file_stat.c    os.stat_result
 *   file_path.c   a whole file by its path   file_buffer.c  aligned memory */
#ifndef GPY_FILE_H
#define GPY_FILE_H

#include "loop.h"

#include "../core/fileop.h"

/* What becomes of the number that the kernel answers. */
enum gpy_file_result {
    GPY_FILE_NONE,  /* None                          */
    GPY_FILE_INT,   /* the number                    */
    GPY_FILE_OPEN,  /* a descriptor: kept in `fd` until the awaiter takes it */
    GPY_FILE_BYTES, /* `keep`, cut to what was read  */
    GPY_FILE_STAT,  /* `stat`                        */
    GPY_FILE_VALUE, /* what value() makes            */
};

enum { GPY_FILE_KEEPS = 2 };

struct statx;

/* An operation that did not end at once.  It is a member of the loop and pinned until its terminal
 * event: until then all that the kernel was given stays. */
struct gpy_fileop {
    PyObject_HEAD
    struct gpy_loop *loop; /* strong */
    struct gpy_loop_member member;
    struct gy_fileop op;
    PyObject *future;
    PyObject *keep[GPY_FILE_KEEPS]; /* BYTES: what is filled; else paths                  */
    Py_buffer *views;               /* NULL: none; followed in memory by their iovecs     */
    Py_ssize_t view_count;
    struct statx *stat;
    size_t got; /* bytes that came before the ring was asked                  */
    /* NULL, or: a step is over; true: it has submitted the next one, false: *res ends it all. */
    bool (*step)(struct gpy_fileop *self, int32_t *res);
    PyObject *(*value)(struct gpy_fileop *self);
    Py_ssize_t limit; /* file_path.c: bytes, or -1 */
    int fd;           /* a descriptor that is closed unless somebody takes it, or -1 */
    uint8_t result;
    bool is_regular; /* file_path.c: a file that knows its size */
    bool waiting;
};

/* file.c */
/* A new operation for the SQE, whose result is made as `result` says. */
struct gpy_fileop *gpy_fileop_new(struct gpy_loop *loop, const struct io_uring_sqe *sqe,
                                  enum gpy_file_result result);
/* Submits it and returns what to await: its future, or for an open itself.  Takes self over.  NULL
 * with an exception. */
PyObject *gpy_fileop_start(struct gpy_fileop *self);
/* The Python value of a result; NULL with an exception. */
PyObject *gpy_fileop_value(struct gpy_fileop *self, int32_t res);

/* file_ready.c */
/* An awaitable that has its result.  Steals the reference; NULL stays NULL. */
PyObject *gpy_file_ready(struct gpy_state *state, PyObject *value);
/* file.c: the same, as long as this turn of the loop has not seen too many: then a future that is
 * done in the next one, so that a task which never waits lets the others run. */
PyObject *gpy_file_done(struct gpy_loop *loop, PyObject *value);

/* file_stat.c */
PyObject *gpy_file_stat_result(struct gpy_state *state, const struct statx *from);

/* file_calls.c */
extern PyMethodDef gpy_loop_file_methods[];

/* file_path.c, file_buffer.c: methods for the table */
PyObject *gpy_loop_file_read_path(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs);
PyObject *gpy_loop_file_buffer(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs);
PyObject *gpy_loop_file_alignment(struct gpy_loop *loop, PyObject *arg);
PyObject *gpy_loop_file_register(struct gpy_loop *loop, PyObject *arg);
PyObject *gpy_loop_file_unregister(struct gpy_loop *loop, PyObject *arg);
PyObject *gpy_loop_file_idle(struct gpy_loop *loop, PyObject *arg);
PyObject *gpy_loop_file_address(struct gpy_loop *loop, PyObject *arg);

/* file_buffer.c: the operation reads or writes this object: if it is memory of _file_buffer() of
 * the same loop, that counts the operation until it is unused, and is used as registered. */
void gpy_file_buffer_use(struct gpy_fileop *op, PyObject *object);
/* op->op.fixed is set. */
void gpy_file_buffer_unuse(struct gpy_fileop *op);

int gpy_file_exec(PyObject *module, struct gpy_state *state);
int gpy_file_buffer_exec(PyObject *module, struct gpy_state *state);
int gpy_file_ready_exec(PyObject *module, struct gpy_state *state);
int gpy_file_stat_exec(struct gpy_state *state);

#endif
