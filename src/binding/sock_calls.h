/* sock_calls.h: loop.sock_recv(), sock_recv_into() and sock_sendall() as coroutines in C.
 *
 * The functions are those of python/gyre/_tcp.py.  A plain call (the loop is not in debug mode, the
 * socket is exactly a socket.socket) does here what they do; any other is theirs. */
#ifndef GPY_SOCK_CALLS_H
#define GPY_SOCK_CALLS_H

#include "coro.h"

/* The call to its end, or to where something is awaited in its stead. */
PySendResult gpy_sock_call_step(struct gpy_coro *self, PyObject **result);

/* The module's function: a method in place of one of the three. */
PyObject *gpy_sock_method(PyObject *module, PyObject *function);

#endif
