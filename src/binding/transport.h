/* transport.h: what every transport has: its loop, protocol, extra info, closing state, flow
 * control of writes, and its place among the loop's members.
 *
 * A transport type is a real subclass of asyncio's _FlowControlMixin, and so of asyncio.Transport:
 * those add five slots to object, and struct gpy_transport begins with exactly these.  Only
 * `_extra` is used; the attributes of the others are ours.
 *
 * Life: the loop holds one reference (the pin) from the moment an operation may be in flight until
 * the descriptor is closed; it is visible to the garbage collector through the loop, or, while
 * nothing can come to the protocol (reading is paused, or the end was told, and nothing is queued),
 * through the transport itself: then one that nobody refers to is collected and warns, as
 * asyncio's. Owner: Python references and the pin.  Thread: the loop's. */
#ifndef GPY_TRANSPORT_H
#define GPY_TRANSPORT_H

#include "loop.h"
#include "protocol.h"

#include <structmember.h>

/* asyncio starts to log ignored writes after so many of them. */
enum { GPY_LOG_THRESHOLD_FOR_CONNLOST_WRITES = 5 };

struct gpy_transport;

/* What the kinds of transports do differently. */
struct gpy_transport_ops {
    size_t (*buffer_size)(struct gpy_transport *self); /* bytes not yet taken by the kernel */
    /* Tries to make it smaller without waiting. */
    void (*flush)(struct gpy_transport *self);
    /* Drops what is not sent and schedules connection_lost(exc); exc NULL: None.  0 or -1. */
    int (*force_close)(struct gpy_transport *self, PyObject *exc);
    /* self->kind has changed.  0 or -1. */
    int (*set_protocol)(struct gpy_transport *self);
    /* The descriptor's number belongs to somebody else now: forget it, fail. */
    void (*disown)(struct gpy_transport *self);
    /* Of the core's half, while it has not ended: */
    void (*pause)(struct gpy_transport *self);
    void (*resume)(struct gpy_transport *self);
    /* Ends it at once, if it has not ended, without a word to the protocol: the loop is closed, or
     * we die.  May free self. */
    void (*abandon)(struct gpy_transport *self);
    /* The same of one that is at rest and was collected; if the kernel holds an operation, when it
     * has let go: until then the pin keeps self alive.  NULL where that never happens. */
    void (*drop)(struct gpy_transport *self);
};

struct gpy_transport {
    PyObject_HEAD
    PyObject *extra; /* asyncio.BaseTransport's slot `_extra`: a dict once somebody asked */
    PyObject *mixin_slots[4]; /* _FlowControlMixin's: NULL for ever                            */
    const struct gpy_transport_ops *ops;
    struct gpy_state *state;
    struct gpy_loop *loop; /* strong; `ended` hides it from Python             */
    struct gpy_loop_member member;
    PyObject *protocol; /* NULL after connection_lost                       */
    PyObject *context;  /* in which its callbacks run                       */
    PyObject *server;   /* asyncio's Server that counts us, or NULL         */
    PyObject *sock;     /* the socket object over fd, if there is one       */
    PyObject *instance_dict;
    PyObject *weakreflist;
    size_t high_water;
    size_t low_water;
    uint64_t inode;         /* of the socket when its number became known to others, 0 before */
    uint32_t conn_lost;     /* connection_lost is scheduled; counts ignored writes on top */
    int32_t fd;             /* stays after the end, for the repr                */
    uint8_t kind;           /* enum gpy_protocol_kind                           */
    bool closing;           /* close() or abort() was called, or it failed      */
    bool paused;            /* pause_reading()                                  */
    bool protocol_paused;   /* pause_writing() was called                       */
    bool ended;             /* connection_lost was called                       */
    bool core_ended;        /* the core has closed its half, or abandoned it    */
    bool fd_gone;           /* fd is closed, or was closed under us             */
    bool sock_is_plain : 1; /* sock's descriptor is read at its place, not by fileno() */
    bool losing : 1;        /* the loop calls _call_connection_lost(): one reference is its */
};

static inline struct gpy_transport *
gpy_transport_of_member(struct gpy_loop_member *member)
{
    return container_of(member, struct gpy_transport, member);
}

/* What a transport is made of; borrowed. */
struct gpy_transport_parts {
    int fd;
    PyObject *sock; /* the socket object over fd, or NULL */
    PyObject *protocol;
    PyObject *extra;   /* a dict, or NULL or None */
    PyObject *server;  /* or NULL or None         */
    PyObject *context; /* in which callbacks run  */
};

/* Sets the fields of a zeroed object; takes new references.  0 or -1 (the object can be
 * deallocated). */
int gpy_transport_init(struct gpy_transport *self, const struct gpy_transport_ops *ops,
                       struct gpy_loop *loop, const struct gpy_transport_parts *parts);
int gpy_transport_traverse(struct gpy_transport *self, visitproc visit, void *arg);
void gpy_transport_clear(struct gpy_transport *self);

/* One reference while the kernel may hold an operation of ours.  Unpin may free self. */
void gpy_transport_pin(struct gpy_transport *self);
void gpy_transport_unpin(struct gpy_transport *self);

/* Registers with the loop: its members and its table of descriptors.  An older transport with the
 * same number had its descriptor closed by somebody else: it lets go of the number.  0 or -1. */
int gpy_transport_enlist(struct gpy_transport *self);
void gpy_transport_delist(struct gpy_transport *self);
/* Only out of the table: the number may come back at once. */
void gpy_transport_forget_fd(struct gpy_transport *self);
/* The open transport of this descriptor, or NULL.  Borrowed. */
struct gpy_transport *gpy_transport_find(struct gpy_loop *loop, int fd);
/* The descriptor of a socket object that no open transport has.  -1 with an exception. */
int gpy_transport_free_fileno(struct gpy_loop *loop, PyObject *sock);
void gpy_transport_table_free(struct gpy_loop *loop);

/* Keeps `sock`, a socket object over our descriptor. */
void gpy_transport_hold_sock(struct gpy_transport *self, PyObject *sock);
/* False if the socket object over our descriptor was closed by somebody else: the number may belong
 * to anything by now. */
bool gpy_transport_owns_fd(struct gpy_transport *self);
/* The same, asked of the kernel: true if the number still is the socket that others came to know.
 */
bool gpy_transport_fd_is_ours(struct gpy_transport *self);
/* Just before the descriptor is closed: keeps the names if somebody may still ask, detaches the
 * socket object.  False: the descriptor is not ours to close, or never was. */
bool gpy_transport_detach(struct gpy_transport *self);
/* Tells asyncio's Server that this connection is over.  0 or -1. */
int gpy_transport_leave_server(struct gpy_transport *self);

/* ---- life: transport_life.c ------------------------------------------------------------------ */

/* Schedules asyncio's order: connection_made, then _begin(waiter), which starts to read and tells
 * the waiter (None: nobody).  0 or -1. */
int gpy_transport_schedule_start(struct gpy_transport *self, PyObject *waiter);
/* _begin(waiter).  `reads`: the core is to begin to read. */
PyObject *gpy_transport_begin(struct gpy_transport *self, bool reads, PyObject *waiter);
/* Schedules connection_lost(exc); exc NULL: None.  0 or -1. */
int gpy_transport_schedule_lost(struct gpy_transport *self, PyObject *exc);
/* protocol.connection_lost(exc); None, or NULL with what it raised. */
PyObject *gpy_transport_tell_lost(struct gpy_transport *self, PyObject *exc);

/* The collector found it at rest, in whatever thread: lets the core's half go. */
void gpy_transport_drop(struct gpy_transport *self);
/* tp_clear: the same, for one whose finaliser has run before and let it live on. */
static inline void
gpy_transport_drop_again(struct gpy_transport *self)
{
    if (!self->core_ended && self->member.pinned != NULL)
        gpy_transport_drop(self);
}
/* tp_finalize: warns, if `warns` and it was not closed, and abandons. */
void gpy_transport_finalize(struct gpy_transport *self, bool warns);
/* The first half of tp_dealloc; false: it lives again. */
bool gpy_transport_dealloc_begin(struct gpy_transport *self);
/* The last half: frees the memory. */
void gpy_transport_dealloc_end(struct gpy_transport *self);

/* Methods that are the same for all that read, or for all that can be aborted. */
PyObject *gpy_transport_is_reading(struct gpy_transport *self, PyObject *ignored);
PyObject *gpy_transport_pause_reading(struct gpy_transport *self, PyObject *ignored);
PyObject *gpy_transport_resume_reading(struct gpy_transport *self, PyObject *ignored);
PyObject *gpy_transport_abort(struct gpy_transport *self, PyObject *ignored);
PyObject *gpy_transport_force_close(struct gpy_transport *self, PyObject *exc);
PyObject *gpy_transport_can_write_eof(struct gpy_transport *self, PyObject *ignored);

/* A type over asyncio's abstract ones of these names (the second may be NULL), whose fields are at
 * most those with which struct gpy_transport begins; added to the module.  New reference. */
PyTypeObject *gpy_transport_type_new(PyObject *module, PyType_Spec *spec, const char *base,
                                     const char *second_base);

static inline PyObject *
gpy_none_or_error(int rc)
{
    return rc < 0 ? NULL : Py_NewRef(Py_None);
}

/* ---- errors ---------------------------------------------------------------------------------- */

/* The exception that is set ends the transport: an OSError silently (a line in debug mode), any
 * other with a report to the exception handler; KeyboardInterrupt and SystemExit leave the loop and
 * the transport goes on.  The exception is cleared. */
void gpy_transport_fatal_error(struct gpy_transport *self, const char *message);
/* logger.debug(format, self, *...) in debug mode only; NULL or one further argument. */
void gpy_transport_debug(struct gpy_transport *self, const char *format, PyObject *arg,
                         PyObject *exc);

/* logger.info(format, self) in debug mode only. */
void gpy_transport_info(struct gpy_transport *self, const char *format);

/* ---- flow control of writes ------------------------------------------------------------------ */

/* protocol.pause_writing() if the buffer is above the high-water mark.  0, or -1 (KeyboardInterrupt
 * or SystemExit). */
int gpy_transport_maybe_pause(struct gpy_transport *self);
/* protocol.resume_writing() if it is not above the low-water mark any more; from an upcall. */
void gpy_transport_maybe_resume(struct gpy_transport *self);
/* A write after the end: counted, and logged from the fifth on.  0 or -1. */
int gpy_transport_ignored_write(struct gpy_transport *self);
/* The same, or the loop was closed, and with it the descriptor: RuntimeError. */
int gpy_transport_late_write(struct gpy_transport *self);

/* ---- Python methods and attributes that all transports share ----------------------------------
 */

#define GPY_TRANSPORT_READING_METHODS(what)                                                        \
    {"is_reading", (PyCFunction)gpy_transport_is_reading, METH_NOARGS,                             \
     "is_reading($self)\n--\n\nTrue if the protocol may be given " what "."},                      \
        {"pause_reading", (PyCFunction)gpy_transport_pause_reading, METH_NOARGS,                   \
         "pause_reading($self)\n--\n\nThe protocol is given no " what " until resume_reading()."}, \
    {                                                                                              \
        "resume_reading", (PyCFunction)gpy_transport_resume_reading, METH_NOARGS,                  \
            "resume_reading($self)\n--\n\nEnd a pause_reading()."                                  \
    }

#define GPY_TRANSPORT_METHODS                                                                      \
    {"get_extra_info", (PyCFunction)(void (*)(void))gpy_transport_get_extra_info,                  \
     METH_FASTCALL | METH_KEYWORDS,                                                                \
     "get_extra_info($self, name, default=None)\n--\n\nInformation about the transport."},         \
        {"is_closing", (PyCFunction)gpy_transport_is_closing, METH_NOARGS,                         \
         "is_closing($self)\n--\n\nTrue if it is closed or being closed."},                        \
        {"set_protocol", (PyCFunction)(void (*)(void))gpy_transport_set_protocol_method,           \
         METH_FASTCALL | METH_KEYWORDS,                                                            \
         "set_protocol($self, protocol)\n--\n\nSet a new protocol."},                              \
        {"get_protocol", (PyCFunction)gpy_transport_get_protocol, METH_NOARGS,                     \
         "get_protocol($self)\n--\n\nThe current protocol."},                                      \
        {"get_write_buffer_size", (PyCFunction)gpy_transport_get_write_buffer_size, METH_NOARGS,   \
         "get_write_buffer_size($self)\n--\n\nBytes not yet taken by the kernel."},                \
        {"get_write_buffer_limits", (PyCFunction)gpy_transport_get_write_buffer_limits,            \
         METH_NOARGS,                                                                              \
         "get_write_buffer_limits($self)\n--\n\n(low, high) water marks of the write buffer."},    \
    {                                                                                              \
        "set_write_buffer_limits",                                                                 \
            (PyCFunction)(void (*)(void))gpy_transport_set_write_buffer_limits,                    \
            METH_VARARGS | METH_KEYWORDS,                                                          \
            "set_write_buffer_limits($self, high=None, low=None)\n--\n\nSet the water marks of "   \
            "the write buffer."                                                                    \
    }

PyObject *gpy_transport_get_extra_info(struct gpy_transport *self, PyObject *const *args,
                                       Py_ssize_t nargs, PyObject *kwnames);
PyObject *gpy_transport_is_closing(struct gpy_transport *self, PyObject *ignored);
PyObject *gpy_transport_set_protocol_method(struct gpy_transport *self, PyObject *const *args,
                                            Py_ssize_t nargs, PyObject *kwnames);
PyObject *gpy_transport_get_protocol(struct gpy_transport *self, PyObject *ignored);
PyObject *gpy_transport_get_write_buffer_size(struct gpy_transport *self, PyObject *ignored);
PyObject *gpy_transport_get_write_buffer_limits(struct gpy_transport *self, PyObject *ignored);
PyObject *gpy_transport_set_write_buffer_limits(struct gpy_transport *self, PyObject *args,
                                                PyObject *kwargs);

/* The private attributes of asyncio's transports that its own modules, tests and applications
 * read; `closure` is unused. */
#define GPY_TRANSPORT_GETSET                                                                       \
    {"_extra", (getter)gpy_transport_extra_get, (setter)gpy_transport_extra_set, NULL, NULL},      \
        {"_loop", (getter)gpy_transport_loop_get, NULL, NULL, NULL},                               \
        {"_sock", (getter)gpy_transport_sock_get, NULL, NULL, NULL},                               \
        {"_protocol", (getter)gpy_transport_protocol_get, NULL, NULL, NULL},                       \
        {"_protocol_connected", (getter)gpy_transport_connected_get, NULL, NULL, NULL},            \
    {                                                                                              \
        "__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL                   \
    }

/* The same for those that are plain fields. */
#define GPY_TRANSPORT_MEMBERS                                                                      \
    {"_sock_fd", T_INT, offsetof(struct gpy_transport, fd), READONLY, NULL},                       \
        {"_conn_lost", T_UINT, offsetof(struct gpy_transport, conn_lost), READONLY, NULL},         \
        {"_closing", T_BOOL, offsetof(struct gpy_transport, closing), READONLY, NULL},             \
        {"_paused", T_BOOL, offsetof(struct gpy_transport, paused), READONLY, NULL},               \
        {"_protocol_paused", T_BOOL, offsetof(struct gpy_transport, protocol_paused), READONLY,    \
         NULL},                                                                                    \
        {"_server", T_OBJECT, offsetof(struct gpy_transport, server), READONLY, NULL},             \
        {"_high_water", T_PYSSIZET, offsetof(struct gpy_transport, high_water), READONLY, NULL},   \
        {"_low_water", T_PYSSIZET, offsetof(struct gpy_transport, low_water), READONLY, NULL},     \
        {"__dictoffset__", T_PYSSIZET, offsetof(struct gpy_transport, instance_dict), READONLY,    \
         NULL},                                                                                    \
    {                                                                                              \
        "__weaklistoffset__", T_PYSSIZET, offsetof(struct gpy_transport, weakreflist), READONLY,   \
            NULL                                                                                   \
    }

PyObject *gpy_transport_extra_get(struct gpy_transport *self, void *closure);
int gpy_transport_extra_set(struct gpy_transport *self, PyObject *value, void *closure);
PyObject *gpy_transport_loop_get(struct gpy_transport *self, void *closure);
PyObject *gpy_transport_sock_get(struct gpy_transport *self, void *closure);
PyObject *gpy_transport_protocol_get(struct gpy_transport *self, void *closure);
PyObject *gpy_transport_connected_get(struct gpy_transport *self, void *closure);

int gpy_transport_exec(struct gpy_state *state);

#endif
