/* stream_intake.h: what an asyncio.StreamReader has received, kept in C.
 *
 * A plain StreamReader whose transport is ours is adopted: its class becomes `stream_reader_type`,
 * a subclass that adds nothing but descriptors, and what was in its `__dict__` moves into a struct
 * gpy_intake that takes its place there.  The attributes (`_buffer`, `_eof`, `_waiter` ...) read
 * and write the intake, so that asyncio's own methods, and people who look inside, see what they
 * always saw.  Bytes are kept as the objects they came in until somebody asks for `_buffer`.
 *
 * Owner: the reader's __dict__, and whoever feeds it or reads from it.  Thread: the loop's. */
#ifndef GPY_STREAM_INTAKE_H
#define GPY_STREAM_INTAKE_H

#include "state.h"

/* More chunks than this are joined in one bytearray. */
enum { GPY_INTAKE_CHUNKS = 10 };

struct gpy_intake {
    PyObject_HEAD
    struct gpy_state *state;
    PyObject *loop;
    PyObject *transport; /* None: not connected, or it cannot be paused                     */
    PyObject *waiter;    /* the future of the coroutine that waits for data, or NULL        */
    PyObject *exception; /* NULL: none                                                      */
    PyObject *limit_object;
    Py_ssize_t limit;       /* _limit, rounded down      */
    Py_ssize_t limit_twice; /* 2 * _limit, rounded down  */
    PyObject *buffer;       /* the bytearray that has all of the data, or NULL: it is in chunks   */
    PyObject *chunks[GPY_INTAKE_CHUNKS]; /* bytes objects, the oldest first                 */
    uint32_t chunk_count;
    Py_ssize_t skip;  /* so much of chunks[0] was read                                      */
    Py_ssize_t total; /* bytes in chunks                                                    */
    bool eof;
    bool paused;
    bool orphaned; /* the reader has let go of it */
    /* What drain() found last, as long as these __dict__ have not changed since; version 0: nothing
     * yet.  Borrowed: the writer has both. */
    uint64_t writer_version;
    PyObject *writer_transport; /* a transport of ours */
    PyObject *writer_protocol;
    uint64_t protocol_version; /* it is not paused, not lost, and no attribute hides a method */
};

static inline Py_ssize_t
gpy_intake_len(const struct gpy_intake *self)
{
    return self->buffer != NULL ? PyByteArray_GET_SIZE(self->buffer) : self->total;
}

/* Is it an intake, of whatever interpreter? */
bool gpy_intake_check(PyObject *object);

/* feed_data(): keeps `bytes`, an exact bytes object that is not empty, wakes who waits and pauses
 * the transport above the limit.  Not after feed_eof().  0 or -1. */
int gpy_intake_feed(struct gpy_intake *self, PyObject *bytes);
/* The same for memory that is valid during the call only. */
int gpy_intake_feed_memory(struct gpy_intake *self, const void *data, size_t len);
int gpy_intake_feed_eof(struct gpy_intake *self); /* wakes who waits.  0 or -1 */

/* The oldest `count` bytes (all of them if there are fewer), removed.  New reference. */
PyObject *gpy_intake_take(struct gpy_intake *self, Py_ssize_t count);
/* Where `separator` begins at or after `start`; -1: nowhere, -2: an exception. */
Py_ssize_t gpy_intake_find(struct gpy_intake *self, PyObject *separator, Py_ssize_t start);
/* All data as a bytearray that the reader shares with whoever asked.  Borrowed, or NULL. */
PyObject *gpy_intake_bytearray(struct gpy_intake *self);

/* Lets a paused transport go on: always, or if the limit allows.  0 or -1. */
int gpy_intake_resume(struct gpy_intake *self);
static inline int
gpy_intake_maybe_resume(struct gpy_intake *self)
{
    return self->paused && gpy_intake_len(self) <= self->limit ? gpy_intake_resume(self) : 0;
}

/* The intake of an adopted reader; NULL (no exception) if it has none.  Borrowed.
 * *untouched: the reader has no other attributes, and so none that hides a method. */
struct gpy_intake *gpy_intake_of(struct gpy_state *state, PyObject *reader, bool *untouched);

/* Adopts a plain StreamReader, or finds the intake of one that is adopted.  New reference; NULL
 * without an exception if this reader is not for us. */
struct gpy_intake *gpy_intake_adopt(struct gpy_state *state, PyObject *reader);

/* Is it one of the two classes that stand in for asyncio's, not what somebody derived from them? */
bool gpy_stream_class_is_ours(PyTypeObject *type);
/* object.__class__ = value, past the descriptor of these classes.  0 or -1. */
int gpy_stream_set_class(PyObject *object, PyObject *value);

/* Sets limit_object and what follows from it; false (no exception): not a number that we can keep.
 */
bool gpy_intake_set_limit(struct gpy_intake *self, PyObject *limit);

/* The attributes of stream_reader_type: added to its namespace. */
int gpy_intake_add_attributes(struct gpy_state *state, PyObject *namespace);
int gpy_intake_exec(PyObject *module, struct gpy_state *state);

#endif
