/* streams.h: asyncio's streams on our transports, without Python in the way of the data.
 *
 *   stream_intake.c  what a reader has received      stream_adopt.c  how a reader gets an intake
 *   stream_calls.c   what their coroutines do        coro.c          coroutines in C
 *   streams.c        the two classes, their methods, and what must hold for all of it
 *
 * asyncio's classes stay in charge: everything here is a shortcut for the case that nothing was
 * changed.  A StreamReader, StreamWriter or StreamReaderProtocol of another class, a patched class,
 * an attribute set on the instance, a loop in debug mode: asyncio's own code runs. */
#ifndef GPY_STREAMS_H
#define GPY_STREAMS_H

#include "stream_intake.h"

/* The methods that are bypassed are asyncio's own, in all three classes.  Cheap. */
bool gpy_streams_pristine(struct gpy_state *state);

/* protocol._drain_helper() would return at once, and is asyncio's.  Never fails.  The intake of its
 * reader, or NULL, remembers. */
bool gpy_streams_drained(struct gpy_state *state, PyObject *protocol, struct gpy_intake *intake);

/* A transport will call this protocol.  If it is a plain StreamReaderProtocol, its reader is
 * adopted, and so will be the writer that its connection_made() makes.  Never fails. */
void gpy_streams_adopt(struct gpy_state *state, PyObject *protocol);

/* The intake that protocol.data_received(data) would do no more than to feed; NULL (no exception):
 * the protocol is to be called.  New reference. */
struct gpy_intake *gpy_streams_intake(struct gpy_state *state, PyObject *protocol);

int gpy_streams_exec(PyObject *module, struct gpy_state *state);

#endif
