/* floor.c: the least that any loop can do and still run a Python server. A module, not a program.
 *
 * A bare epoll server: accept4(2), epoll_wait(2) by edges, recv(2) into a bytes object, one
 * call of the program's Python, whose write() is a C method that calls send(2) at once, or, if so
 * asked, holds what is small and sends up to 32 such by one call into io_uring. What the socket
 * does not take is kept and sent before anything more is read: every byte arrives, in order,
 * and that is all that is promised. Everything else that asyncio asks of a loop is left out: there
 * is no flow control, no queue of callbacks (nothing is called soon, everything at once), no
 * contextvars, no task, future or handle, no timer, signal, thread, cancellation, error handler or
 * debug mode, no get_extra_info(), eof_received() or connection_lost(), and no write after the end
 * of the stream. So it is no loop; it says what a loop cannot beat with the same system calls.
 *
 * One object per connection is all that the program sees of the loop: the transport of a Protocol
 * or BufferedProtocol, or reader, writer and loop at once of a coroutine, which is resumed from
 * here without a task. The GIL is released around the wait and nowhere else. One thread, one
 * serve() at a time. */
#include "floor.h"
#include "limit.h"

#include <errno.h>
#include <malloc.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS_MAX = 512 };
/* The C library keeps what it has: what large messages cost must not be its calls to the kernel. */
enum { HEAP_BYTES = 256 << 20 };

struct server {
    PyTypeObject *type; /* of a flow */
    PyObject *make;     /* what makes a protocol, or a coroutine of a flow */
    enum floor_kind kind;
    int listener;
    int epoll_fd;
    int64_t spin_us; /* looks for so long before it sleeps */
};

/* All that wait: nobody is made to wait for others. */
static int
accept_all(struct server *server)
{
    for (;;) {
        int fd = accept4(server->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return 0;
        struct floor_flow *flow = (struct floor_flow *)server->type->tp_alloc(server->type, 0);
        if (flow == NULL) {
            close(fd);
            return -1;
        }
        flow->fd = fd;
        flow->epoll_fd = server->epoll_fd;
        int rc = floor_watch(server->epoll_fd, EPOLL_CTL_ADD, fd, FLOOR_EVENTS, flow);
        if (rc == 0)
            rc = floor_flow_connect(flow, server->make, server->kind);
        if (rc <= 0)
            floor_flow_close(flow);
        if (rc < 0)
            return -1;
    }
}

/* ---- the loop ---- */

static int
wait_for_events(const struct server *server, struct epoll_event *events)
{
    if (server->spin_us > 0) {
        int64_t until = 0;
        for (;;) {
            int count = epoll_wait(server->epoll_fd, events, EVENTS_MAX, 0);
            if (count != 0)
                return count;
            int64_t now = limit_now_us();
            if (until == 0)
                until = now + server->spin_us;
            else if (now >= until)
                break;
        }
    }
    return epoll_wait(server->epoll_fd, events, EVENTS_MAX, -1);
}

static int
turn(struct server *server)
{
    struct epoll_event events[EVENTS_MAX];
    int count;
    Py_BEGIN_ALLOW_THREADS
    count = wait_for_events(server, events);
    Py_END_ALLOW_THREADS
    for (int i = 0; i < count; i++) {
        struct floor_flow *flow = events[i].data.ptr;
        if (flow == NULL) {
            if (accept_all(server) < 0)
                return -1;
            continue;
        }
        int rc = floor_flow_ready(flow, server->kind, events[i].events);
        if (rc <= 0)
            floor_flow_close(flow);
        if (rc < 0)
            return -1;
    }
    return floor_sends_run();
}

static PyObject *
serve(PyObject *module, PyObject *args)
{
    struct server server = {.epoll_fd = -1};
    int kind, together;
    long long spin_us;
    if (!PyArg_ParseTuple(args, "iOiLp", &server.listener, &server.make, &kind, &spin_us,
                          &together))
        return NULL;
    if (kind < FLOOR_PROTOCOL || kind > FLOOR_COROUTINE) {
        PyErr_SetString(PyExc_ValueError, "no such kind");
        return NULL;
    }
    server.kind = (enum floor_kind)kind;
    server.spin_us = spin_us;
    server.type = (PyTypeObject *)PyObject_GetAttrString(module, "Flow");
    if (server.type == NULL || (together && floor_sends_open() < 0)) {
        Py_XDECREF(server.type);
        return NULL;
    }
    mallopt(M_MMAP_THRESHOLD, HEAP_BYTES);
    mallopt(M_TRIM_THRESHOLD, HEAP_BYTES);
    server.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (server.epoll_fd < 0)
        PyErr_SetFromErrno(PyExc_OSError);
    else if (floor_watch(server.epoll_fd, EPOLL_CTL_ADD, server.listener, EPOLLIN, NULL) == 0)
        while (turn(&server) == 0)
            ;
    if (server.epoll_fd >= 0)
        close(server.epoll_fd);
    Py_DECREF(server.type);
    return NULL; /* only an exception ends it */
}

/* ---- the module ---- */

static PyMethodDef module_methods[] = {
    {"serve", serve, METH_VARARGS,
     "serve(listener, make, kind, spin_us, together): serves until the process is ended or Python\n"
     "raises. kind 0, 1: make() is a Protocol or BufferedProtocol; 2: make(flow) is a coroutine.\n"
     "together: small sends leave by one call into io_uring."},
    {NULL, NULL, 0, NULL},
};

static int
module_exec(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&floor_flow_spec);
    if (type == NULL)
        return -1;
    int rc = PyModule_AddObjectRef(module, "Flow", type);
    Py_DECREF(type);
    return rc;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "floor",
    .m_methods = module_methods,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit_floor(void);

PyMODINIT_FUNC
PyInit_floor(void)
{
    return PyModuleDef_Init(&module_def);
}
