/* file.h: the file operations of LoopCore: loop._file_*().
 *
 * Each returns an awaitable: a Ready that has the result already, or a Future.  What fails at once
 * raises at once.  python/gyre/files.py and path.py make files of them.
 *   file_ready.c  the Ready type        file_calls.c  the methods
 *   file.c        an operation that waits             file_stat.c   os.stat_result */
#ifndef GPY_FILE_H
#define GPY_FILE_H

#include "loop.h"

#include "../core/fileop.h"

/* What becomes of the number that the kernel answers. */
enum gpy_file_result {
    GPY_FILE_NONE,  /* None                          */
    GPY_FILE_INT,   /* the number                    */
    GPY_FILE_OPEN,  /* a descriptor                  */
    GPY_FILE_BYTES, /* `keep`, cut to what was read  */
    GPY_FILE_STAT,  /* `stat`                        */
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
    uint8_t result;
    bool waiting;
};

/* file.c */
/* A new operation for the SQE, whose result is made as `result` says. */
struct gpy_fileop *gpy_fileop_new(struct gpy_loop *loop, const struct io_uring_sqe *sqe,
                                  enum gpy_file_result result);
/* Submits it and returns its future; takes self over.  NULL with an exception. */
PyObject *gpy_fileop_start(struct gpy_fileop *self);
/* The Python value of a result; NULL with an exception. */
PyObject *gpy_fileop_value(struct gpy_fileop *self, int32_t res);

/* file_ready.c */
/* An awaitable that has its result.  Steals the reference; NULL stays NULL. */
PyObject *gpy_file_ready(struct gpy_state *state, PyObject *value);

/* file_stat.c */
PyObject *gpy_file_stat_result(struct gpy_state *state, const struct statx *from);

/* file_calls.c */
extern PyMethodDef gpy_loop_file_methods[];

int gpy_file_exec(PyObject *module, struct gpy_state *state);
int gpy_file_ready_exec(PyObject *module, struct gpy_state *state);
int gpy_file_stat_exec(struct gpy_state *state);

#endif
