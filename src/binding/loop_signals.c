/* loop_signals.c: a signal ends the loop's sleep.
 *
 * Python's C-level handler writes one byte to the descriptor of signal.set_wakeup_fd(), in whatever
 * thread the signal arrived.  While the main thread runs a loop that blocks or has signal handlers,
 * that descriptor is ours: a non-blocking socketpair (an eventfd refuses one-byte writes), whose
 * other end the ring polls.  The Python-level handlers then run by PyErr_CheckSignals().  The
 * user's own wakeup descriptor is put back when the run ends. */
#include "loop.h"
#include "pycompat.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

/* One byte per signal.  gyre.Loop hears of them, for those whose Python-level handler was replaced
 * after add_signal_handler(). */
static void
on_signal(struct gy_poll *poll, int Py_UNUSED(res))
{
    struct gpy_loop *self = container_of(poll, struct gpy_loop, signal_poll);
    char bytes[256];
    ssize_t got;
    do {
        got = recv(self->signal_fds[0], bytes, sizeof bytes, MSG_DONTWAIT);
        if (got <= 0 || !PyObject_HasAttrString((PyObject *)self, "_signals_came"))
            break;
        PyObject *done =
            PyObject_CallMethod((PyObject *)self, "_signals_came", "y#", bytes, (Py_ssize_t)got);
        if (done == NULL && !gpy_loop_keep_raised(self))
            PyErr_WriteUnraisable((PyObject *)self);
        Py_XDECREF(done);
    } while (got == (ssize_t)sizeof bytes && self->raised == NULL);
    /* Armed again before the next wait; the handlers run at the start of the next turn. */
}

static const struct gy_poll_host signal_host = {.ready = on_signal};

void
gpy_loop_signals_init(struct gpy_loop *self)
{
    self->signal_fds[0] = self->signal_fds[1] = -1;
    gy_poll_init(&self->signal_poll, &signal_host);
}

/* signal.set_wakeup_fd(fd, warn_on_full_buffer=False): the previous descriptor, or NULL with an
 * exception. */
static PyObject *
set_wakeup_fd(struct gpy_loop *self, PyObject *fd)
{
    PyObject *args[3] = {NULL, fd, Py_False};
    return PyObject_Vectorcall(self->state->signal_set_wakeup_fd, args + 1,
                               1 | PY_VECTORCALL_ARGUMENTS_OFFSET,
                               self->state->kwnames_warn_on_full_buffer);
}

static int
signals_take(struct gpy_loop *self)
{
    if (self->signal_fds[0] < 0 &&
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, self->signal_fds) < 0) {
        self->signal_fds[0] = self->signal_fds[1] = -1;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    PyObject *fd = PyLong_FromLong(self->signal_fds[1]);
    if (fd == NULL)
        return -1;
    self->previous_wakeup_fd = set_wakeup_fd(self, fd);
    Py_DECREF(fd);
    if (self->previous_wakeup_fd != NULL)
        return 0;
    if (!PyErr_ExceptionMatches(PyExc_ValueError))
        return -1;
    PyErr_Clear(); /* not the main thread of the main interpreter: signals are not ours */
    self->signals_foreign = true;
    return 0;
}

/* Before anything blocks: a program may replace the Python-level handler and raise the signal in
 * one callback, and the loop's handler is to be called as well. */
void
gpy_loop_signals_begin(struct gpy_loop *self)
{
    if (!self->signals_watched || self->signals_foreign || self->previous_wakeup_fd != NULL)
        return;
    if (signals_take(self) < 0)
        PyErr_Clear(); /* no descriptor left: the first wait says so */
}

int
gpy_loop_signals_arm(struct gpy_loop *self)
{
    if (self->signals_foreign)
        return 0;
    if (self->previous_wakeup_fd == NULL && signals_take(self) < 0)
        return -1;
    if (self->previous_wakeup_fd != NULL && gy_op_is_idle(&self->signal_poll.op))
        gy_poll_start(&self->core, &self->signal_poll, self->signal_fds[0], POLLIN);
    /* A signal before the descriptor was ours left no byte: look once more. */
    return PyErr_CheckSignals();
}

void
gpy_loop_signals_kept(struct gpy_loop *self)
{
    if (!PyObject_HasAttrString((PyObject *)self, "_look_for_signals"))
        return;
    PyObject *done = PyObject_CallMethod((PyObject *)self, "_look_for_signals", NULL);
    if (done == NULL)
        PyErr_WriteUnraisable((PyObject *)self);
    Py_XDECREF(done);
}

void
gpy_loop_signals_restore(struct gpy_loop *self)
{
    self->signals_foreign = false; /* the next run may be in another thread */
    PyObject *previous = self->previous_wakeup_fd;
    if (previous == NULL)
        return;
    self->previous_wakeup_fd = NULL;
    PyObject *exc = PyErr_Occurred() ? gpy_exc_take() : NULL;
    (void)gy_poll_cancel(&self->core, &self->signal_poll);
    PyObject *ours = set_wakeup_fd(self, previous);
    if (ours != NULL && PyLong_AsLong(ours) != self->signal_fds[1]) {
        /* Somebody set another one during the run: that one stays. */
        PyObject *again = set_wakeup_fd(self, ours);
        Py_XDECREF(again);
    }
    Py_XDECREF(ours);
    if (PyErr_Occurred()) /* the previous descriptor was closed meanwhile */
        PyErr_Clear();
    Py_DECREF(previous);
    if (exc != NULL)
        gpy_exc_give(exc);
}

void
gpy_loop_signals_close(struct gpy_loop *self)
{
    for (int i = 0; i < 2; i++) {
        if (self->signal_fds[i] >= 0)
            (void)close(self->signal_fds[i]);
        self->signal_fds[i] = -1;
    }
}
