/* listener.h: the accepting side of asyncio's Server: loop._start_serving and _stop_serving.
 *
 * From an accepted descriptor straight to a transport: no socket object, no task, no address
 * lookup. With an sslcontext the connection goes through Python once (loop._accept_tls). */
#ifndef GPY_LISTENER_H
#define GPY_LISTENER_H

#include "loop.h"

#include "../core/listener.h"

int gpy_listener_exec(PyObject *module, struct gpy_state *state);

/* The loop's methods. */
PyObject *gpy_loop_start_serving(struct gpy_loop *loop, PyObject *args, PyObject *kwargs);
PyObject *gpy_loop_stop_serving(struct gpy_loop *loop, PyObject *sock);
PyObject *gpy_loop_make_accepted_transport(struct gpy_loop *loop, PyObject *args);

#endif
