/* dgram_transport.h: the transport over a datagram socket (core: struct gy_dgram). */
#ifndef GPY_DGRAM_TRANSPORT_H
#define GPY_DGRAM_TRANSPORT_H

#include "loop.h"

/* The loop's method: _make_datagram_transport(sock, protocol, address=None, waiter=None,
 * extra=None). */
PyObject *gpy_loop_make_datagram_transport(struct gpy_loop *loop, PyObject *args, PyObject *kwargs);

int gpy_dgram_transport_exec(PyObject *module, struct gpy_state *state);

#endif
