/* floor.h: what the parts of the floor share. See floor.c. */
#ifndef BENCH_FLOOR_H
#define BENCH_FLOOR_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

/* What the program is; the values of serve()'s argument. */
enum floor_kind { FLOOR_PROTOCOL, FLOOR_BUFFERED, FLOOR_COROUTINE };

enum floor_wait { FLOOR_FOR_DATA, FLOOR_FOR_ROOM };

/* One connection: all that the program sees of the loop. */
struct floor_flow {
    PyObject ob_base;
    int fd;
    int epoll_fd;
    enum floor_wait waits_for;
    bool readable;    /* an edge came that is not used up */
    bool hung_up;     /* the end is near: read on until it comes */
    bool held;        /* something of it is in floor_sends.c */
    size_t room;      /* bytes of the next receive */
    PyObject *call;   /* data_received, buffer_updated or the coroutine */
    PyObject *buffer; /* get_buffer */
    PyObject *data;   /* received, and not yet taken by the coroutine */
    PyObject *rest;   /* what the socket has not taken (then nothing is received), or NULL */
    size_t rest_sent;
};

/* ---- floor_flow.c: these return 1 as long as the connection is wanted, 0, or -1 with an exception
 */

extern PyType_Spec floor_flow_spec;

/* Makes the protocol, or the coroutine and runs its beginning. */
int floor_flow_connect(struct floor_flow *flow, PyObject *make, enum floor_kind kind);
/* epoll has something for it. */
int floor_flow_ready(struct floor_flow *flow, enum floor_kind kind, uint32_t events);
void floor_flow_close(struct floor_flow *flow);
/* Keeps what the socket did not take; 0, or -1 with an exception. */
int floor_flow_keep(struct floor_flow *flow, const char *data, size_t size);
/* What epoll is asked for. Edges: a level is looked at twice for each message. */
enum { FLOOR_EVENTS = EPOLLIN | EPOLLRDHUP | EPOLLET };
/* epoll_ctl(2); 0, or -1 with an exception. */
int floor_watch(int epoll_fd, int operation, int fd, uint32_t events, void *data);

/* ---- floor_sends.c: small sends of many connections by one call ---- */

/* From now on they are held; -1 with an exception where there is no io_uring. */
int floor_sends_open(void);
bool floor_sends_wanted(size_t size);
/* 0, or -1 with an exception. */
int floor_sends_add(struct floor_flow *flow, PyObject *data);
int floor_sends_run(void);

#endif
