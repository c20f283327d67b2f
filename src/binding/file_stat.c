/* file_stat.c: os.stat_result from what statx(2) says.
 *
 * The fields of os.stat_result lie where each version of Python puts them: an instance whose fields
 * are their own indices is made once, and asked for each name. */
#include "file.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

/* In the order of value_of(). */
static const char *const names[] = {
    "st_mode",     "st_ino",     "st_dev",    "st_nlink", "st_uid",      "st_gid",
    "st_size",     "st_atime",   "st_mtime",  "st_ctime", "st_atime_ns", "st_mtime_ns",
    "st_ctime_ns", "st_blksize", "st_blocks", "st_rdev",
};
enum {
    NAMES = sizeof names / sizeof names[0],
    FIRST_SECONDS = 7, /* the three whole seconds, which have no name */
};
_Static_assert((int)NAMES == (int)GPY_STAT_FIELDS, "state.h has room for them");

static PyObject *
seconds(const struct statx_timestamp *time)
{
    return PyFloat_FromDouble((double)time->tv_sec + 1e-9 * (double)time->tv_nsec);
}

static PyObject *
nanoseconds(const struct statx_timestamp *time)
{
    const long long limit = 9000000000LL; /* well inside 64 bits, in seconds */
    if (GY_LIKELY(time->tv_sec > -limit && time->tv_sec < limit))
        return PyLong_FromLongLong(time->tv_sec * GY_NS_PER_SECOND + time->tv_nsec);
    PyObject *whole = PyLong_FromLongLong(time->tv_sec);
    PyObject *billion = PyLong_FromLongLong(GY_NS_PER_SECOND);
    PyObject *rest = PyLong_FromUnsignedLong(time->tv_nsec);
    PyObject *product = whole && billion && rest ? PyNumber_Multiply(whole, billion) : NULL;
    PyObject *sum = product ? PyNumber_Add(product, rest) : NULL;
    Py_XDECREF(whole);
    Py_XDECREF(billion);
    Py_XDECREF(rest);
    Py_XDECREF(product);
    return sum;
}

static PyObject *
value_of(const struct statx *from, unsigned name)
{
    switch (name) {
    case 0:
        return PyLong_FromUnsignedLong(from->stx_mode);
    case 1:
        return PyLong_FromUnsignedLongLong(from->stx_ino);
    case 2:
        return PyLong_FromUnsignedLongLong(makedev(from->stx_dev_major, from->stx_dev_minor));
    case 3:
        return PyLong_FromUnsignedLong(from->stx_nlink);
    case 4:
        return PyLong_FromUnsignedLong(from->stx_uid);
    case 5:
        return PyLong_FromUnsignedLong(from->stx_gid);
    case 6:
        return PyLong_FromUnsignedLongLong(from->stx_size);
    case 7:
        return seconds(&from->stx_atime);
    case 8:
        return seconds(&from->stx_mtime);
    case 9:
        return seconds(&from->stx_ctime);
    case 10:
        return nanoseconds(&from->stx_atime);
    case 11:
        return nanoseconds(&from->stx_mtime);
    case 12:
        return nanoseconds(&from->stx_ctime);
    case 13:
        return PyLong_FromUnsignedLong(from->stx_blksize);
    case 14:
        return PyLong_FromUnsignedLongLong(from->stx_blocks);
    default:
        return PyLong_FromUnsignedLongLong(makedev(from->stx_rdev_major, from->stx_rdev_minor));
    }
}

static int
set_item(PyObject *result, Py_ssize_t index, PyObject *value)
{
    if (value == NULL)
        return -1;
    PyStructSequence_SetItem(result, index, value);
    return 0;
}

PyObject *
gpy_file_stat_result(struct gpy_state *state, const struct statx *from)
{
    const int64_t whole[] = {from->stx_atime.tv_sec, from->stx_mtime.tv_sec,
                             from->stx_ctime.tv_sec};
    if (state->stat_result_type == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "gyre's module state is gone");
        return NULL;
    }
    PyObject *result = PyStructSequence_New((PyTypeObject *)state->stat_result_type);
    for (unsigned i = 0; result != NULL && i < NAMES; i++) {
        if (set_item(result, state->stat_fields[i], value_of(from, i)) < 0)
            Py_CLEAR(result);
    }
    for (unsigned i = 0; result != NULL && i < 3; i++) {
        if (set_item(result, FIRST_SECONDS + (Py_ssize_t)i, PyLong_FromLongLong(whole[i])) < 0)
            Py_CLEAR(result);
    }
    return result;
}

/* An instance whose fields are their indices. */
static PyObject *
make_sample(PyObject *type)
{
    PyObject *number = PyObject_GetAttrString(type, "n_fields");
    Py_ssize_t count = number ? PyLong_AsSsize_t(number) : -1;
    Py_XDECREF(number);
    PyObject *indices = count > 0 ? PyTuple_New(count) : NULL;
    for (Py_ssize_t i = 0; indices != NULL && i < count; i++) {
        PyObject *index = PyLong_FromSsize_t(i);
        if (index == NULL)
            Py_CLEAR(indices);
        else
            PyTuple_SET_ITEM(indices, i, index);
    }
    PyObject *sample = indices ? PyObject_CallOneArg(type, indices) : NULL;
    Py_XDECREF(indices);
    return sample;
}

int
gpy_file_stat_exec(struct gpy_state *state)
{
    PyObject *os = PyImport_ImportModule("os");
    state->stat_result_type = os ? PyObject_GetAttrString(os, "stat_result") : NULL;
    Py_XDECREF(os);
    PyObject *sample = state->stat_result_type ? make_sample(state->stat_result_type) : NULL;
    int rc = sample ? 0 : -1;
    for (unsigned i = 0; rc == 0 && i < NAMES; i++) {
        PyObject *index = PyObject_GetAttrString(sample, names[i]);
        state->stat_fields[i] = index ? (uint8_t)PyLong_AsLong(index) : 0;
        if (index == NULL || PyErr_Occurred())
            rc = -1;
        Py_XDECREF(index);
    }
    Py_XDECREF(sample);
    return rc;
}
