/* freelist.h: memory of the small objects that come and go with every callback, kept for the next.
 *
 * One list per exact type, in the module state: so one per interpreter, under its GIL.  What lies
 * in it is memory without an object: not tracked, no reference to its type.  At most `limit` pieces
 * each; 0 in builds with AddressSanitizer, which would not see a use after the end, and where tests
 * say so. */
#ifndef GPY_FREELIST_H
#define GPY_FREELIST_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <limits.h>
#include <string.h>

#include "../core/base.h"

struct gpy_freelist {
    PyObject *head; /* linked by the first word behind the object's head */
    unsigned count;
    unsigned limit;
};

#if defined(__SANITIZE_ADDRESS__) || defined(Py_GIL_DISABLED)
enum { GPY_FREELIST_LIMIT = 0 };
#else
enum { GPY_FREELIST_LIMIT = 256 };
#endif

static inline PyObject **
gpy_freelist_link(PyObject *object)
{
    return (PyObject **)(void *)((char *)object + sizeof(PyObject));
}

/* PyObject_Init() of memory that was an object of the same type before, whose head still says so.
 * A release build of Python would only tell tracemalloc that there is somebody new, who is then
 * taken for the first one. */
static inline PyObject *
gpy_freelist_revive(PyObject *object, PyTypeObject *type)
{
    GY_ASSERT(Py_IS_TYPE(object, type));
#if defined(Py_REF_DEBUG) || defined(Py_TRACE_REFS) || defined(Py_GIL_DISABLED)
    return PyObject_Init(object, type);
#else
    Py_INCREF(type);
    Py_SET_REFCNT(object, 1);
    return object;
#endif
}

/* memset() to zero of so few words that `rep stos`, which gcc makes of it, takes longer to begin
 * than to do it: the compiler does not learn that these are zeros.  `bytes` is known to it. */
static inline void
gpy_zero_words(void *begin, size_t bytes)
{
    typedef uintptr_t __attribute__((may_alias)) word;
    word *words = begin, zero = 0;
    GY_ASSERT(bytes % sizeof(*words) == 0);
    __asm__("" : "+r"(zero));
    for (size_t i = 0; i < bytes / sizeof(*words); i++)
        words[i] = zero;
}

/* A zeroed object of `type`, not tracked.  `type` has no items and is collected. */
static inline PyObject *
gpy_freelist_new_untracked(PyTypeObject *type)
{
    PyObject *object = PyObject_GC_New(PyObject, type);
    if (object != NULL)
        memset((void *)gpy_freelist_link(object), 0, (size_t)type->tp_basicsize - sizeof(PyObject));
    return object;
}

/* An object of the list as it was left there, but for the word of the link, which is zero: not
 * tracked.  NULL if the list is empty.  Runs no foreign code. */
static inline PyObject *
gpy_freelist_take(struct gpy_freelist *list, PyTypeObject *type)
{
    PyObject *object = list->head;
    if (object == NULL)
        return NULL;
    list->head = *gpy_freelist_link(object);
    list->count--;
    *gpy_freelist_link(object) = NULL;
    return gpy_freelist_revive(object, type);
}

/* A zeroed object, not tracked, by the list.  `bytes` is the type's size, known to the compiler.
 * Runs no foreign code if it comes from the list. */
static inline PyObject *
gpy_freelist_alloc_untracked(struct gpy_freelist *list, PyTypeObject *type, size_t bytes)
{
    PyObject *object = gpy_freelist_take(list, type);
    GY_ASSERT((size_t)type->tp_basicsize == bytes);
    if (object == NULL)
        return gpy_freelist_new_untracked(type);
    gpy_zero_words(gpy_freelist_link(object), bytes - sizeof(PyObject));
    return object;
}

/* The same, tracked, as its tp_alloc gives it. */
static inline PyObject *
gpy_freelist_alloc(struct gpy_freelist *list, PyTypeObject *type, size_t bytes)
{
    PyObject *object = gpy_freelist_alloc_untracked(list, type, bytes);
    if (object != NULL)
        PyObject_GC_Track(object);
    return object;
}

/* The end of a tp_dealloc: `object` has been untracked and is empty.  The reference to its type is
 * the caller's business. */
static inline void
gpy_freelist_free(struct gpy_freelist *list, PyObject *object)
{
    if (list->count >= list->limit) {
        PyObject_GC_Del(object);
        return;
    }
    *gpy_freelist_link(object) = list->head;
    list->head = object;
    list->count++;
}

/* Gives back what is above the limit. */
static inline void
gpy_freelist_trim(struct gpy_freelist *list)
{
    while (list->count > list->limit) {
        PyObject *object = list->head;
        list->head = *gpy_freelist_link(object);
        list->count--;
        PyObject_GC_Del(object);
    }
}

#endif
