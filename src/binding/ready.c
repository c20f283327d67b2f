/* ready.c: growth and teardown of the ready FIFO; the hot paths are inline in ready.h. */
#include "ready.h"

enum { READY_FIRST_CAPACITY = 64 };

int
gpy_ready_grow(struct gpy_ready *ready)
{
    size_t capacity = ready->capacity ? ready->capacity * 2 : READY_FIRST_CAPACITY;
    struct gpy_ready_entry *entries = PyMem_New(struct gpy_ready_entry, capacity);
    if (entries == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < ready->count; i++)
        entries[i] = *gpy_ready_at(ready, i);
    PyMem_Free(ready->entries);
    ready->entries = entries;
    ready->capacity = capacity;
    ready->head = 0;
    return 0;
}

int
gpy_ready_move(struct gpy_ready *to, struct gpy_ready *from)
{
    while (from->count != 0) {
        if (to->count == to->capacity && gpy_ready_grow(to) < 0)
            return -1;
        *gpy_ready_slot(to) = gpy_ready_pop(from);
        to->count++;
    }
    return 0;
}

void
gpy_ready_rotate(struct gpy_ready *ready, size_t count)
{
    for (; count != 0; count--) {
        struct gpy_ready_entry entry = gpy_ready_pop(ready);
        *gpy_ready_slot(ready) = entry;
        ready->count++;
    }
}

void
gpy_ready_entry_drop(struct gpy_ready_entry *entry)
{
    if (gpy_ready_entry_tag(entry) == GPY_READY_FRESH_HANDLE)
        gpy_ready_track_survivor(gpy_ready_entry_owner(entry));
    gpy_ready_entry_release(entry);
}

void
gpy_ready_track_fresh(struct gpy_ready *ready)
{
    for (size_t i = 0; i < ready->count; i++) {
        struct gpy_ready_entry *entry = gpy_ready_at(ready, i);
        if (gpy_ready_entry_tag(entry) != GPY_READY_FRESH_HANDLE)
            continue;
        PyObject_GC_Track(gpy_ready_entry_owner(entry));
        entry->tagged ^= GPY_READY_FRESH_HANDLE ^ GPY_READY_HANDLE;
    }
}

int
gpy_ready_traverse(struct gpy_ready *ready, visitproc visit, void *arg)
{
    for (size_t i = 0; i < ready->count; i++) {
        const struct gpy_ready_entry *entry = gpy_ready_at(ready, i);
        Py_VISIT(gpy_ready_entry_owner(entry));
        Py_VISIT(entry->a);
        Py_VISIT(entry->b);
    }
    return 0;
}

void
gpy_ready_clear(struct gpy_ready *ready)
{
    /* Dropping a reference may run code that pushes: only what is there now goes. */
    for (size_t left = ready->count; left != 0 && ready->count != 0; left--) {
        struct gpy_ready_entry entry = gpy_ready_pop(ready);
        gpy_ready_entry_drop(&entry);
    }
}

void
gpy_ready_free(struct gpy_ready *ready)
{
    while (ready->count != 0)
        gpy_ready_clear(ready);
    PyMem_Free(ready->entries);
    *ready = (struct gpy_ready){0};
}
