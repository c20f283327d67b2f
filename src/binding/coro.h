/* coro.h: coroutines without a Python frame: StreamReader.read(), readexactly(), readuntil(),
 * readline(), StreamWriter.drain(), loop.sock_recv(), sock_recv_into() and sock_sendall().
 *
 * To the outside they are coroutines: collections.abc.Coroutine, isinstance(types.CoroutineType),
 * nothing happens before the first step, and a warning comes if there never was one.
 * Thread: the loop's. */
#ifndef GPY_CORO_H
#define GPY_CORO_H

#include "stream_intake.h"

enum gpy_coro_call {
    GPY_STREAM_READ,
    GPY_STREAM_READEXACTLY,
    GPY_STREAM_READUNTIL,
    GPY_STREAM_READLINE,
    GPY_STREAM_DRAIN,
    GPY_SOCK_CALLS, /* from here on: of the loop */
    GPY_SOCK_CALL_RECV = GPY_SOCK_CALLS,
    GPY_SOCK_CALL_RECV_INTO,
    GPY_SOCK_CALL_SENDALL,
};

enum gpy_coro_phase {
    GPY_CORO_CREATED,
    GPY_CORO_RUNNING,
    GPY_CORO_WAITING,    /* for the intake's future, an exact gyre.Future       */
    GPY_CORO_DELEGATING, /* another awaitable's iterator is stepped in our stead */
    GPY_CORO_SLEEPING,   /* drain(): the sleep(0) of a closing transport         */
    GPY_CORO_HANDED,     /* another awaitable does the rest                      */
    GPY_CORO_DONE,
};

/* What to run; borrowed. */
struct gpy_coro_job {
    enum gpy_coro_call call;
    PyObject *owner;           /* the reader, writer or loop                        */
    PyObject *function;        /* in Python: gives the coroutine its names          */
    struct gpy_intake *intake; /* of a reader, or NULL                              */
    PyObject *argument; /* readuntil, readline: the separator, not empty; sock_*: the second */
    PyObject *sock;     /* sock_*, or NULL                                   */
    Py_ssize_t count;   /* read: not negative; readexactly: any              */
};

struct gpy_coro {
    PyObject_HEAD
    struct gpy_state *state;
    PyObject *owner;
    PyObject *function;
    struct gpy_intake *intake;
    PyObject *argument;
    PyObject *sock;
    PyObject *waiting; /* WAITING: the future; DELEGATING, HANDED: the iterator */
    PyObject *weakreflist;
    Py_ssize_t count;
    Py_ssize_t offset; /* readuntil: no separator begins before */
    uint8_t call;      /* enum gpy_coro_call                    */
    uint8_t phase;     /* enum gpy_coro_phase                   */
    bool running;
};

PyObject *gpy_coro_new(struct gpy_state *state, const struct gpy_coro_job *job);
/* `await awaitable`, up to its first yield; the phase is DELEGATING if it yields. */
PySendResult gpy_coro_delegate(struct gpy_coro *self, PyObject *awaitable, PyObject **result);
/* `return await awaitable` */
PySendResult gpy_coro_hand_over(struct gpy_coro *self, PyObject *awaitable, PyObject **result);
int gpy_coro_exec(PyObject *module, struct gpy_state *state);

#endif
