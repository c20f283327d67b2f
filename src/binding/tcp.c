/* tcp.c: see tcp.h. */
#include "tcp.h"

#include "dgram_transport.h"
#include "listener.h"
#include "pipe_transport.h"
#include "sock.h"
#include "sockaddr.h"
#include "ssl.h"
#include "stream_transport.h"

/* The transport of a descriptor, for _ensure_fd_no_transport: one that is open and not closing. */
static PyObject *
loop_transport_of_fd(struct gpy_loop *loop, PyObject *number)
{
    long fd = PyLong_AsLong(number);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    struct gpy_transport *transport =
        fd >= 0 && fd <= INT_MAX ? gpy_transport_find(loop, (int)fd) : NULL;
    if (transport == NULL || transport->closing)
        Py_RETURN_NONE;
    return Py_NewRef((PyObject *)transport);
}

/* The peer's address of a descriptor; None: unknown, or of a family that only Python knows. */
static PyObject *
loop_peer_address(struct gpy_loop *Py_UNUSED(loop), PyObject *number)
{
    long fd = PyLong_AsLong(number);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    return gpy_sockaddr_peer((int)fd);
}

#define KEYWORDS(function) (PyCFunction)(void (*)(void))(function), METH_VARARGS | METH_KEYWORDS
#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL
PyMethodDef gpy_loop_tcp_methods[] = {
    {"_make_socket_transport", KEYWORDS(gpy_loop_make_socket_transport), NULL},
    {"_make_datagram_transport", KEYWORDS(gpy_loop_make_datagram_transport), NULL},
    {"_make_accepted_transport", (PyCFunction)gpy_loop_make_accepted_transport, METH_VARARGS, NULL},
    {"_make_read_pipe_transport", KEYWORDS(gpy_loop_make_read_pipe_transport), NULL},
    {"_make_write_pipe_transport", KEYWORDS(gpy_loop_make_write_pipe_transport), NULL},
    {"_start_serving", KEYWORDS(gpy_loop_start_serving), NULL},
    {"_stop_serving", (PyCFunction)gpy_loop_stop_serving, METH_O, NULL},
    {"_transport_of_fd", (PyCFunction)loop_transport_of_fd, METH_O, NULL},
    {"_peer_address", (PyCFunction)loop_peer_address, METH_O, NULL},
    {"_sock_recv", FAST(gpy_loop_sock_recv), NULL},
    {"_sock_recv_into", FAST(gpy_loop_sock_recv_into), NULL},
    {"_sock_recvfrom", FAST(gpy_loop_sock_recvfrom), NULL},
    {"_sock_recvfrom_into", FAST(gpy_loop_sock_recvfrom_into), NULL},
    {"_sock_sendto", FAST(gpy_loop_sock_sendto), NULL},
    {"_sock_wait", FAST(gpy_loop_sock_wait), NULL},
    {"_sock_sendall", FAST(gpy_loop_sock_sendall), NULL},
    {"_sock_accept", (PyCFunction)gpy_loop_sock_accept, METH_O, NULL},
    {"_sock_connect", FAST(gpy_loop_sock_connect), NULL},
    {NULL, NULL, 0, NULL},
};

int
gpy_tcp_exec(PyObject *module, struct gpy_state *state)
{
    if (gpy_transport_exec(state) < 0 || gpy_stream_transport_exec(module, state) < 0 ||
        gpy_ssl_exec(module, state) < 0 || gpy_pipe_transport_exec(module, state) < 0 ||
        gpy_dgram_transport_exec(module, state) < 0 || gpy_listener_exec(module, state) < 0)
        return -1;
    return gpy_sock_exec(module, state);
}

void
gpy_tcp_close(struct gpy_loop *loop)
{
    gpy_transport_table_free(loop);
}
