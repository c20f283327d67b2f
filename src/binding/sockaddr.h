/* sockaddr.h: socket addresses between the kernel's form and Python's, without a socket object. */
#ifndef GPY_SOCKADDR_H
#define GPY_SOCKADDR_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <sys/socket.h>

/* The address as socket.getsockname() gives it: a tuple for IPv4 and IPv6, a str or bytes for UNIX,
 * None for a family that is none of these.  New reference or NULL. */
PyObject *gpy_sockaddr_to_python(const struct sockaddr_storage *address, socklen_t len);

/* The other way, for addresses that need no lookup (numeric hosts, paths).
 * 1: *out and *len are set.  0: not of a form that is known here; the socket module has to look at
 * it.  -1: an exception is set. */
int gpy_sockaddr_parse(int family, PyObject *address, struct sockaddr_storage *out, socklen_t *len);

/* getsockname(2) and getpeername(2) as Python values; None if there is no such address.  The
 * peer's is still found after a reset, when getpeername(2) refuses.  New reference or NULL. */
PyObject *gpy_sockaddr_local(int fd);
PyObject *gpy_sockaddr_peer(int fd);

#endif
