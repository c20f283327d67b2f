/* tcp.h: everything of TCP that loop.c and module.c see: one table of methods, one exec function.
 */
#ifndef GPY_TCP_H
#define GPY_TCP_H

#include "loop.h"

/* _make_socket_transport, _start_serving, _stop_serving, sock_* and their like, for LoopCore. */
extern PyMethodDef gpy_loop_tcp_methods[];

/* The types and imports of transports, listeners and sock_*.  0 or -1. */
int gpy_tcp_exec(PyObject *module, struct gpy_state *state);

/* Frees what the transports keep per loop; when the loop is closed. */
void gpy_tcp_close(struct gpy_loop *loop);

#endif
