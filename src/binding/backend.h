/* backend.h: which kernel interface a loop runs on, and what is known about each. */
#ifndef GPY_BACKEND_H
#define GPY_BACKEND_H

#include "state.h"

struct gpy_loop;

/* Initializes loop->core on the backend that the argument (NULL or None: GYRE_BACKEND, else auto)
 * asks for.  0, or -1 with ValueError, TypeError or BackendError set. */
int gpy_backend_init_core(struct gpy_loop *loop, PyObject *backend);

/* gy_loop_begin().  A ring that cannot be set up at the first run ends in BackendError, or for a
 * loop whose backend nobody asked for on epoll.  0, or -1 with an exception set. */
int gpy_backend_begin(struct gpy_loop *loop);

/* OSError: the ring of a running loop failed with err (-errno).  -1. */
int gpy_backend_broke(int err);

/* BackendError and the function probe().  0 or -1. */
int gpy_backend_exec(PyObject *module, struct gpy_state *state);

#endif
