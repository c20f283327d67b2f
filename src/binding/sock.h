/* sock.h: loop.sock_recv, sock_recv_into, sock_sendall, sock_accept and sock_connect, and
 * sock_recvfrom, sock_recvfrom_into and sock_sendto, which answer NotImplemented for addresses that
 * only the socket module knows.
 *
 * The coroutine functions are Python (python/gyre/_tcp.py): a few lines around the methods here,
 * which try at once and return the result, or a SockOp that is to be awaited.  sock_calls.h does
 * the same for the three that are called most. */
#ifndef GPY_SOCK_H
#define GPY_SOCK_H

#include "loop.h"

/* sock.family without the enum that Python's property makes of it; AF_UNSPEC if it is no number.
 * -1 with an exception. */
int gpy_sock_family(struct gpy_state *state, PyObject *sock);

int gpy_sock_exec(PyObject *module, struct gpy_state *state);

/* The loop's methods. */
PyObject *gpy_loop_sock_recv(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs);
PyObject *gpy_loop_sock_recv_into(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs);
PyObject *gpy_loop_sock_recvfrom(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs);
PyObject *gpy_loop_sock_recvfrom_into(struct gpy_loop *loop, PyObject *const *args,
                                      Py_ssize_t nargs);
PyObject *gpy_loop_sock_sendto(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs);
PyObject *gpy_loop_sock_wait(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs);
PyObject *gpy_loop_sock_sendall(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs);
PyObject *gpy_loop_sock_accept(struct gpy_loop *loop, PyObject *sock);
PyObject *gpy_loop_sock_connect(struct gpy_loop *loop, PyObject *const *args, Py_ssize_t nargs);

#endif
