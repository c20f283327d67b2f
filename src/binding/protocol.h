/* protocol.h: calling the user's protocol.
 *
 * Methods are looked up at each call, as asyncio does, because protocols do replace them
 * (`self.data_received = self._read_body`).  The lookup of an interned name through the type cache,
 * without a bound method object, is what calling a cached bound method costs, too. */
#ifndef GPY_PROTOCOL_H
#define GPY_PROTOCOL_H

#include "loop.h"

enum gpy_protocol_kind {
    GPY_PROTOCOL_DATA,   /* data_received(bytes)                               */
    GPY_PROTOCOL_BUFFER, /* BufferedProtocol: get_buffer() and buffer_updated() */
    GPY_PROTOCOL_TLS,    /* ours (ssl.h), which takes the bytes without a call of Python's */
};

/* Which of the two it is: an instance of asyncio.BufferedProtocol, or an object that has get_buffer
 * and no data_received.  -1 with an exception. */
int gpy_protocol_kind_of(struct gpy_state *state, PyObject *protocol);

/* The two halves of a callback of the loop that calls no method of its own: enter() the context,
 * and leave() it, which logs protocol.name in debug mode if it took too long and sends what was
 * written. 0 or -1 with an exception; leave() follows a failed enter(), too, and keeps an
 * exception. */
struct gpy_protocol_frame {
    int64_t started_ns;
    bool was_busy;
    bool entered;
};
int gpy_protocol_enter(struct gpy_loop *loop, PyObject *context, struct gpy_protocol_frame *frame);
int gpy_protocol_leave(struct gpy_loop *loop, PyObject *context, struct gpy_protocol_frame *frame,
                       PyObject *protocol, PyObject *name);

/* protocol.name(arg) (arg may be NULL) as a callback of the loop in `context`: timed in debug mode;
 * what it wrote has left, as far as the socket took it, when this returns.  New reference, or NULL
 * with the exception set. */
PyObject *gpy_protocol_call(struct gpy_loop *loop, PyObject *context, PyObject *protocol,
                            PyObject *name, PyObject *arg);
/* The same for protocol.datagram_received(data, address). */
PyObject *gpy_protocol_call_datagram(struct gpy_loop *loop, PyObject *context, PyObject *protocol,
                                     PyObject *data, PyObject *address);

#endif
