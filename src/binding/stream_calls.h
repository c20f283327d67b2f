/* stream_calls.h: what the coroutines of stream_coro.c do between two waits. */
#ifndef GPY_STREAM_CALLS_H
#define GPY_STREAM_CALLS_H

#include "loop.h"
#include "stream_coro.h"

enum gpy_coro_phase {
    GPY_CORO_CREATED,
    GPY_CORO_RUNNING,
    GPY_CORO_WAITING,    /* for the intake's future, an exact gyre.Future       */
    GPY_CORO_DELEGATING, /* another awaitable's iterator is stepped in our stead */
    GPY_CORO_SLEEPING,   /* drain(): the sleep(0) of a closing transport         */
    GPY_CORO_HANDED,     /* asyncio's own coroutine does the rest                */
    GPY_CORO_DONE,
};

struct gpy_stream_coro {
    PyObject_HEAD
    struct gpy_state *state;
    PyObject *owner;
    PyObject *function;
    struct gpy_intake *intake;
    PyObject *separator;
    PyObject *waiting; /* WAITING: the future; DELEGATING, HANDED: the iterator */
    PyObject *weakreflist;
    Py_ssize_t count;
    Py_ssize_t offset; /* readuntil: no separator begins before */
    uint8_t call;      /* enum gpy_stream_call                  */
    uint8_t phase;     /* enum gpy_coro_phase                   */
    bool running;
};

/* The call from where it stands (RUNNING at its beginning) to its next wait or its end. */
PySendResult gpy_stream_call_step(struct gpy_stream_coro *self, PyObject **result);
/* What readline() makes of the exception that is set: it returns or raises. */
PySendResult gpy_stream_line_failed(struct gpy_stream_coro *self, PyObject **result);

/* stream_coro.c: _wait_for_data(method), up to its yield. */
PySendResult gpy_stream_wait(struct gpy_stream_coro *self, const char *method, PyObject **result);
/* `await awaitable`, up to its first yield; the phase is DELEGATING if it yields. */
PySendResult gpy_stream_delegate(struct gpy_stream_coro *self, PyObject *awaitable,
                                 PyObject **result);

#endif
