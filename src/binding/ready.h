/* ready.h: the FIFO of what runs next, without one object per entry.
 *
 * asyncio keeps a deque of Handles.  Here an entry is three words: a tagged owner and two
 * arguments. A task wake-up or a future's callback costs no allocation and no Handle; only
 * call_soon(), whose caller gets a Handle to keep, makes one.
 *
 * Owner: struct gpy_loop.  Thread: whoever holds the GIL (call_soon_threadsafe pushes from other
 * threads).  Every reference in an entry is strong and owned by the entry. */
#ifndef GPY_READY_H
#define GPY_READY_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#include "../core/base.h"

enum gpy_ready_tag {
    GPY_READY_HANDLE = 0,    /* owner: our Handle or any object with _run()          */
    GPY_READY_TASK_STEP = 1, /* owner: our Task;  a: exception to throw, or NULL     */
    GPY_READY_TASK_WAKE = 2, /* owner: our Task;  a: the future that is done         */
    GPY_READY_CALLBACK = 3,  /* owner: callable;  a: its only argument;  b: context  */
    /* owner: our Handle, of which the collector does not know yet: a running loop, which is alive,
     * holds it.  Most die without it ever hearing of them, and its young generation stays small.
     * What leaves the queue and lives on, or outlasts the run, is tracked then. */
    GPY_READY_FRESH_HANDLE = 4,
};

/* PyObjects are aligned to 8 bytes or more: the tag lives in the low three bits of the owner. */
struct gpy_ready_entry {
    uintptr_t tagged;
    PyObject *a;
    PyObject *b;
};

struct gpy_ready {
    struct gpy_ready_entry *entries; /* a ring of `capacity` entries, a power of two, or NULL */
    size_t capacity;
    size_t head;
    size_t count;
};

static inline enum gpy_ready_tag
gpy_ready_entry_tag(const struct gpy_ready_entry *entry)
{
    return (enum gpy_ready_tag)(entry->tagged & 7u);
}

static inline PyObject *
gpy_ready_entry_owner(const struct gpy_ready_entry *entry)
{
    return (PyObject *)(entry->tagged & ~(uintptr_t)7u);
}

/* Doubles the ring (first 64 entries).  0, or -1 with MemoryError set. */
int gpy_ready_grow(struct gpy_ready *ready);

static inline struct gpy_ready_entry *
gpy_ready_at(const struct gpy_ready *ready, size_t i)
{
    return &ready->entries[(ready->head + i) & (ready->capacity - 1)];
}

/* The free slot at the end; the queue is not full. */
static inline struct gpy_ready_entry *
gpy_ready_slot(struct gpy_ready *ready)
{
    return gpy_ready_at(ready, ready->count);
}

/* Appends an entry and takes new references to owner, a and b (a and b may be NULL).
 * 0, or -1 with MemoryError set and nothing taken. */
static inline int
gpy_ready_push(struct gpy_ready *ready, enum gpy_ready_tag tag, PyObject *owner, PyObject *a,
               PyObject *b)
{
    if (ready->count == ready->capacity && gpy_ready_grow(ready) < 0)
        return -1;
    struct gpy_ready_entry *entry = gpy_ready_slot(ready);
    entry->tagged = (uintptr_t)Py_NewRef(owner) | (uintptr_t)tag;
    entry->a = Py_XNewRef(a);
    entry->b = Py_XNewRef(b);
    ready->count++;
    return 0;
}

/* The same, but the reference to `owner` moves into the entry. */
static inline int
gpy_ready_push_moved(struct gpy_ready *ready, enum gpy_ready_tag tag, PyObject *owner, PyObject *a)
{
    if (GY_UNLIKELY(ready->count == ready->capacity) && gpy_ready_grow(ready) < 0)
        return -1;
    struct gpy_ready_entry *entry = gpy_ready_slot(ready);
    entry->tagged = (uintptr_t)owner | (uintptr_t)tag;
    entry->a = Py_XNewRef(a);
    entry->b = NULL;
    ready->count++;
    return 0;
}

/* Appends a fresh handle, whose reference moves into the entry.  The queue is not full. */
static inline void
gpy_ready_put_fresh(struct gpy_ready *ready, PyObject *handle)
{
    struct gpy_ready_entry *entry = gpy_ready_slot(ready);
    entry->tagged = (uintptr_t)handle | (uintptr_t)GPY_READY_FRESH_HANDLE;
    entry->a = NULL;
    entry->b = NULL;
    ready->count++;
}

/* Moves the oldest entry out; its references now belong to the caller.  The queue is not empty. */
static inline struct gpy_ready_entry
gpy_ready_pop(struct gpy_ready *ready)
{
    struct gpy_ready_entry entry = ready->entries[ready->head];
    ready->head = (ready->head + 1) & (ready->capacity - 1);
    ready->count--;
    return entry;
}

/* The same if it is a fresh handle, which is all there is to such an entry; else NULL. */
static inline PyObject *
gpy_ready_pop_fresh(struct gpy_ready *ready)
{
    uintptr_t tagged = ready->entries[ready->head].tagged;
    if ((tagged & 7u) != GPY_READY_FRESH_HANDLE)
        return NULL;
    ready->head = (ready->head + 1) & (ready->capacity - 1);
    ready->count--;
    return (PyObject *)(tagged ^ GPY_READY_FRESH_HANDLE);
}

/* A fresh handle that is about to leave the queue, with one reference of the queue's. */
static inline void
gpy_ready_track_survivor(PyObject *handle)
{
    if (Py_REFCNT(handle) > 1)
        PyObject_GC_Track(handle);
}

/* The references of an entry that was moved out and has run. */
static inline void
gpy_ready_entry_release(struct gpy_ready_entry *entry)
{
    Py_DECREF(gpy_ready_entry_owner(entry));
    Py_XDECREF(entry->a);
    Py_XDECREF(entry->b);
}

void gpy_ready_entry_drop(struct gpy_ready_entry *entry); /* of one that will not run */
void gpy_ready_track_fresh(struct gpy_ready *ready);      /* the end of a run */
/* Appends all of `from` to `to`.  0, or -1 with MemoryError; what was not moved stays in `from`. */
int gpy_ready_move(struct gpy_ready *to, struct gpy_ready *from);
/* The oldest `count` go behind all others. */
void gpy_ready_rotate(struct gpy_ready *ready, size_t count);
int gpy_ready_traverse(struct gpy_ready *ready, visitproc visit, void *arg);
void gpy_ready_clear(struct gpy_ready *ready); /* drops all entries; may run arbitrary code */
void gpy_ready_free(struct gpy_ready *ready);  /* gpy_ready_clear() and the memory           */

#endif
