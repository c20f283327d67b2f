/* stream_coro.h: the coroutines of StreamReader.read(), readexactly(), readuntil(), readline() and
 * StreamWriter.drain(), without a Python frame.
 *
 * To the outside they are coroutines: collections.abc.Coroutine, isinstance(types.CoroutineType),
 * nothing happens before the first step, and a warning comes if there never was one.
 * Thread: the loop's. */
#ifndef GPY_STREAM_CORO_H
#define GPY_STREAM_CORO_H

#include "stream_intake.h"

enum gpy_stream_call {
    GPY_STREAM_READ,
    GPY_STREAM_READEXACTLY,
    GPY_STREAM_READUNTIL,
    GPY_STREAM_READLINE,
    GPY_STREAM_DRAIN,
};

/* What to run; borrowed. */
struct gpy_stream_job {
    enum gpy_stream_call call;
    PyObject *owner;           /* the reader or writer                     */
    PyObject *function;        /* asyncio's: gives the coroutine its names */
    struct gpy_intake *intake; /* NULL for drain()                         */
    PyObject *separator;       /* readuntil, readline: not empty           */
    Py_ssize_t count;          /* read: not negative; readexactly: any     */
};

PyObject *gpy_stream_coro_new(struct gpy_state *state, const struct gpy_stream_job *job);
int gpy_stream_coro_exec(PyObject *module, struct gpy_state *state);

#endif
