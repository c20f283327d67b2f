/* stream_calls.h: what the coroutines of streams do between two waits. */
#ifndef GPY_STREAM_CALLS_H
#define GPY_STREAM_CALLS_H

#include "loop.h"
#include "coro.h"

/* The call from where it stands (RUNNING at its beginning) to its next wait or its end. */
PySendResult gpy_stream_call_step(struct gpy_coro *self, PyObject **result);
/* What readline() makes of the exception that is set: it returns or raises. */
PySendResult gpy_stream_line_failed(struct gpy_coro *self, PyObject **result);

/* coro.c: _wait_for_data(method), up to its yield. */
PySendResult gpy_stream_wait(struct gpy_coro *self, const char *method, PyObject **result);

#endif
