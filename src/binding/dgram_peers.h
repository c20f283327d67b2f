/* dgram_peers.h: the addresses that a datagram socket has lately heard from, in both forms.
 *
 * A datagram's address is a tuple for Python and a sockaddr for the kernel; a server sees the same
 * few again and again, and answers to the very tuple that it was given.  Exact tuples of a str and
 * numbers never change, so one object may serve for all datagrams of a peer, and its identity
 * stands for the address.  Owner: the transport.  Thread: the loop's. */
#ifndef GPY_DGRAM_PEERS_H
#define GPY_DGRAM_PEERS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>

#include "../core/ring.h"

struct gpy_peers;

/* The Python value of an address (sockaddr.h); *peers, NULL at first, keeps those of IPv4 and IPv6.
 * New reference or NULL. */
PyObject *gpy_peers_to_python(struct gpy_peers **peers, const struct gy_address *address);
/* The address behind a value that gpy_peers_to_python() gave, if it is still known. */
bool gpy_peers_find(const struct gpy_peers *peers, PyObject *value, struct gy_address *address);
void gpy_peers_free(struct gpy_peers **peers);

#endif
