/* pipe_transport.h: the transports over one end of a pipe: loop._make_read_pipe_transport and
 * _make_write_pipe_transport (core: struct gy_stream with GY_STREAM_PIPE).
 *
 * The descriptor belongs to the user's pipe object, which alone closes it.  Its non-blocking mode
 * is left alone (core: sys_pipe.h).  Thread: the loop's. */
#ifndef GPY_PIPE_TRANSPORT_H
#define GPY_PIPE_TRANSPORT_H

#include "transport.h"

#include "../core/stream.h"
#include "../core/sys_pipe.h"

struct gpy_pipe_transport {
    struct gpy_transport base;
    struct gy_stream stream;
    PyObject *pipe;     /* NULL when it is closed                                            */
    bool pipe_is_plain; /* its descriptor is read at its place, not by fileno()              */
    bool writes;        /* the type: a WritePipeTransport                                    */
    bool watches;       /* writer: the other end's close is noticed                          */
    bool pipe_taken;    /* _pipe = None: as with asyncio's, somebody else closes it quietly    */
    bool own_fd;        /* stream.fd is not the pipe object's: a terminal, opened once more    */
    struct gy_pipe_mode mode; /* of what had to be put into non-blocking mode                  */
    PyObject *block; /* reader: bytes for the next large read, or NULL                    */
    uint8_t full;    /* how often in a row the pipe was full                              */
    bool is_fifo;    /* not a socket or a device                                         */
    bool is_socket;
    bool reads_large;     /* reader: the last read was large                                   */
    uint32_t lost_writes; /* writer: asyncio's _conn_lost: failed and ignored writes           */
};

/* The loop's methods. */
PyObject *gpy_loop_make_read_pipe_transport(struct gpy_loop *loop, PyObject *args,
                                            PyObject *kwargs);
PyObject *gpy_loop_make_write_pipe_transport(struct gpy_loop *loop, PyObject *args,
                                             PyObject *kwargs);

int gpy_pipe_transport_exec(PyObject *module, struct gpy_state *state);

/* pipe_transport_io.c: bytes, ends and errors. */
extern const struct gy_stream_host gpy_pipe_reader_host;
extern const struct gy_stream_host gpy_pipe_writer_host;

static inline struct gpy_pipe_transport *
gpy_pipe_transport_of(struct gy_stream *stream)
{
    return container_of(stream, struct gpy_pipe_transport, stream);
}

static inline struct gpy_pipe_transport *
gpy_pipe_transport_of_base(struct gpy_transport *base)
{
    return container_of(base, struct gpy_pipe_transport, base);
}

/* False if the pipe object was closed by somebody else: the number may belong to anything by now.
 */
bool gpy_pipe_transport_owns_fd(struct gpy_pipe_transport *self);
/* asyncio's _close(exc): drops what is not written and schedules connection_lost(exc); exc NULL:
 * None.  0 or -1. */
int gpy_pipe_transport_lose(struct gpy_pipe_transport *self, PyObject *exc);
/* Ends the core's half at once, without a word to the protocol, and closes the pipe.  May free
 * self. */
void gpy_pipe_transport_abandon(struct gpy_pipe_transport *self);
/* The core is done with the descriptor. */
void gpy_pipe_transport_on_detach(struct gy_stream *stream);
void gpy_pipe_transport_on_closed(struct gy_stream *stream);

PyObject *gpy_pipe_transport_write(struct gpy_pipe_transport *self, PyObject *data);
PyObject *gpy_pipe_transport_write_eof(struct gpy_pipe_transport *self, PyObject *ignored);

#endif
