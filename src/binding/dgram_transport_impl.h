/* dgram_transport_impl.h: what dgram_transport.c and dgram_transport_send.c share. */
#ifndef GPY_DGRAM_TRANSPORT_IMPL_H
#define GPY_DGRAM_TRANSPORT_IMPL_H

#include "dgram_peers.h"
#include "transport.h"

#include "../core/dgram.h"

struct gpy_dgram_transport {
    struct gpy_transport base;
    struct gy_dgram dgram;
    struct gpy_peers *peers; /* who was heard from, once somebody was */
    PyObject *address;       /* remote_addr of create_datagram_endpoint(), or NULL          */
    PyObject *last_to;       /* an exact tuple, whose address is `last_target`, or NULL     */
    struct gy_address last_target;
    int family;
    bool connected; /* get_extra_info('peername') was true: addresses are not looked at */
    bool has_peer;  /* connected, perhaps to a UNIX socket without a name               */
    bool called;    /* inside of a method that sends what was held                      */
};

static inline struct gpy_dgram_transport *
gpy_dgram_transport_of(struct gy_dgram *dgram)
{
    return container_of(dgram, struct gpy_dgram_transport, dgram);
}

static inline struct gpy_dgram_transport *
gpy_dgram_transport_of_base(struct gpy_transport *base)
{
    return container_of(base, struct gpy_dgram_transport, base);
}

/* Schedules connection_lost(exc) unless it is already; exc NULL: None.  0 or -1. */
int gpy_dgram_transport_lose(struct gpy_dgram_transport *self, PyObject *exc);
/* protocol.error_received(exc), as a callback of the loop unless a method of ours runs; what it
 * raises is reported. */
void gpy_dgram_transport_error_received(struct gpy_dgram_transport *self, PyObject *exc);
/* A call of the socket module has raised.  -EAGAIN: it would have to wait.  0: the exception was
 * dealt with, as asyncio does. */
int gpy_dgram_transport_call_failed(struct gpy_dgram_transport *self, const char *message);

/* dgram_transport_send.c */
PyObject *gpy_dgram_transport_sendto(struct gpy_dgram_transport *self, PyObject *const *args,
                                     Py_ssize_t nargs, PyObject *kwnames);
ssize_t gpy_dgram_transport_send_foreign(struct gy_dgram *dgram, void *owner);

#endif
