/* backend.c: the choice of the kernel interface, and probe(), which reports on one.
 *
 * auto takes io_uring where the kernel allows it, else epoll.  With GYRE_BACKEND=epoll no call of
 * io_uring is ever made: some sandboxes kill a process that tries one.
 *
 * A refusal is known when the first loop of a process is made.  The rings of later loops are set up
 * by their first run, where memory or descriptors may be wanting. */
#include "backend.h"
#include "loop.h"

#include "../core/pool.h"
#include "../core/probe.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum backend { BACKEND_AUTO, BACKEND_URING, BACKEND_EPOLL };

static const char *const backend_names[] = {"auto", "io_uring", "epoll"};

enum { EXPLANATION_BYTES = 1024 };

/* ---- the choice ---- */

static int
backend_of(const char *text, enum backend *out)
{
    for (size_t i = 0; i < sizeof backend_names / sizeof *backend_names; i++) {
        if (strcmp(text, backend_names[i]) == 0) {
            *out = (enum backend)i;
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError,
                 "unknown backend '%.100s': choose auto, io_uring or epoll "
                 "(argument backend= or environment variable GYRE_BACKEND)",
                 text);
    return -1;
}

static int
choose(PyObject *argument, enum backend *out)
{
    const char *text = getenv("GYRE_BACKEND");
    if (argument == NULL || argument == Py_None)
        return backend_of(text != NULL && *text != '\0' ? text : "auto", out);
    if (!PyUnicode_Check(argument)) {
        PyErr_Format(PyExc_TypeError, "backend must be a str or None, not %.100s",
                     Py_TYPE(argument)->tp_name);
        return -1;
    }
    Py_ssize_t length = 0;
    text = PyUnicode_AsUTF8AndSize(argument, &length);
    if (text != NULL && strlen(text) != (size_t)length) {
        PyErr_SetString(PyExc_ValueError, "backend: embedded null character");
        return -1;
    }
    return text != NULL ? backend_of(text, out) : -1;
}

static int
read_features(uint32_t *off)
{
    const char *text = getenv("GYRE_FEATURES");
    *off = 0;
    if (text == NULL || *text == '\0')
        return 0;
    const char *bad = text;
    if (gy_features_parse(text, off, &bad) < 0) {
        PyErr_Format(PyExc_ValueError,
                     "GYRE_FEATURES: cannot understand '%.100s'; expected a list like "
                     "-recv_multishot,-buf_ring",
                     bad);
        return -1;
    }
    return 0;
}

/* 0, or -errno with the cause and the remedy in text. */
static int
init_on_uring(struct gy_loop *core, const struct gy_ring_options *options, char *text)
{
    uint32_t features;
    enum gy_probe_stage stage;
    int err = gy_probe_uring(&features, &stage);
    if (err == 0) {
        stage = GY_PROBE_SETUP;
        err = gy_loop_init(core, options, gy_ring_uring_create);
    }
    if (err < 0)
        gy_probe_explain(err, stage, text, EXPLANATION_BYTES);
    return err;
}

static int
refuse_epoll(struct gpy_state *state, int err)
{
    const char *remedy = err == -EMFILE || err == -ENFILE
                             ? "Raise the limit of open files (ulimit -n) or close some."
                             : "Free some memory, or look into the sandbox that this runs in.";
    PyErr_Format(state->backend_error, "epoll could not be set up: %s. %s", strerror(-err), remedy);
    return -1;
}

/* One line, once: gyre._report remembers. */
static int
report_fallback(const char *text)
{
    PyObject *module = PyImport_ImportModule("gyre._report");
    PyObject *done =
        module != NULL ? PyObject_CallMethod(module, "io_uring_refused", "s", text) : NULL;
    Py_XDECREF(module);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

int
gpy_backend_init_core(struct gpy_loop *loop, PyObject *argument)
{
    struct gy_ring_options options = {.late = true};
    enum backend backend;
    char text[EXPLANATION_BYTES];
    int err;
    if (choose(argument, &backend) < 0 || read_features(&options.features_off) < 0)
        return -1;
    loop->backend_auto = backend == BACKEND_AUTO;
    if (backend != BACKEND_EPOLL) {
        err = init_on_uring(&loop->core, &options, text);
        if (err == 0)
            return 0;
        if (backend == BACKEND_URING) {
            PyErr_SetString(loop->state->backend_error, text);
            return -1;
        }
        if (report_fallback(text) < 0)
            return -1;
    }
    err = gy_loop_init(&loop->core, &options, gy_ring_epoll_create);
    return err < 0 ? refuse_epoll(loop->state, err) : 0;
}

/* The first run could not begin: the ring was to be set up now.  0: it runs on epoll. */
static GY_COLD int
begin_refused(struct gpy_loop *loop, int err)
{
    char text[EXPLANATION_BYTES];
    if (loop->core.ring_create != gy_ring_uring_create)
        return refuse_epoll(loop->state, err);
    gy_probe_explain(err, GY_PROBE_SETUP, text, sizeof text);
    if (!loop->backend_auto) {
        PyErr_SetString(loop->state->backend_error, text);
        return -1;
    }
    err = gy_loop_use_ring(&loop->core, gy_ring_epoll_create);
    if (err < 0)
        return refuse_epoll(loop->state, err);
    loop->in_run = true; /* a handler of the log can neither run nor close the loop */
    err = report_fallback(text);
    loop->in_run = false;
    if (err < 0)
        return -1;
    err = gy_loop_begin(&loop->core);
    return err < 0 ? refuse_epoll(loop->state, err) : 0;
}

int
gpy_backend_begin(struct gpy_loop *loop)
{
    int err = gy_loop_begin(&loop->core);
    if (GY_LIKELY(err == 0))
        return 0;
    if (!loop->core.enabled && err != -ECHILD && err != -EBUSY)
        return begin_refused(loop, err);
    return gpy_backend_broke(err);
}

int
gpy_backend_broke(int err)
{
    PyErr_Format(PyExc_OSError, "the event loop's kernel ring failed: %s", strerror(-err));
    return -1;
}

/* ---- probe() ---- */

static const char *
stage_name(enum gy_probe_stage stage)
{
    switch (stage) {
    case GY_PROBE_OK:
        return "ok";
    case GY_PROBE_SETUP:
        return "setup";
    case GY_PROBE_FLAGS:
        return "flags";
    case GY_PROBE_REGISTER:
        return "register";
    case GY_PROBE_ENTER:
        return "enter";
    }
    return "unknown";
}

static PyObject *
features_dict(uint32_t features)
{
    PyObject *dict = PyDict_New();
    for (uint32_t bit = 1; dict != NULL && bit <= GY_FEAT_ALL; bit <<= 1) {
        if (PyDict_SetItemString(dict, gy_feature_name(bit), features & bit ? Py_True : Py_False) <
            0)
            Py_CLEAR(dict);
    }
    return dict;
}

/* Makes a ring and waits on it for a nanosecond, which tells whether epoll_pwait2 is there. */
static int
probe_epoll(uint32_t *features)
{
    struct gy_ring_options options = {0};
    struct gy_ring *ring;
    int err = gy_ring_epoll_create(&options, &ring);
    if (err < 0)
        return err;
    (void)ring->ops->enter(ring, 1);
    *features = ring->features;
    ring->ops->destroy(ring, false);
    return 0;
}

/* What GYRE_FEATURES leaves of the features found; None: a loop would refuse the variable. */
static PyObject *
enabled_dict(uint32_t features)
{
    uint32_t off;
    if (read_features(&off) == 0)
        return features_dict(gy_features_effective(features, off));
    PyErr_Clear();
    return Py_NewRef(Py_None);
}

static PyObject *
probe_result(uint32_t features, int error, enum gy_probe_stage stage, const char *text)
{
    PyObject *found = features_dict(features);
    PyObject *enabled = found ? enabled_dict(features) : NULL;
    if (enabled == NULL) {
        Py_XDECREF(found);
        return NULL;
    }
    return Py_BuildValue("{s:i, s:s, s:s, s:N, s:N}", "errno", error, "stage", stage_name(stage),
                         "explanation", text, "features", found, "enabled", enabled);
}

static PyObject *
probe(PyObject *Py_UNUSED(module), PyObject *argument)
{
    uint32_t features = 0;
    enum gy_probe_stage stage = GY_PROBE_OK;
    enum backend backend;
    char text[EXPLANATION_BYTES] = "";
    int err;
    if (choose(argument, &backend) < 0)
        return NULL;
    if (backend == BACKEND_EPOLL) {
        err = probe_epoll(&features);
        if (err < 0)
            stage = GY_PROBE_SETUP;
    } else {
        err = gy_probe_uring(&features, &stage);
        if (err < 0)
            gy_probe_explain(err, stage, text, sizeof text);
    }
    return probe_result(features, -err, stage, text);
}

static PyMethodDef functions[] = {
    {"probe", probe, METH_O,
     "probe(backend, /): what 'io_uring' or 'epoll' can do here, as a dict: errno (0: usable), "
     "stage (the call that was refused), explanation, features, enabled (those that GYRE_FEATURES "
     "leaves; None: it cannot be read)."},
    {NULL, NULL, 0, NULL},
};

int
gpy_backend_exec(PyObject *module, struct gpy_state *state)
{
    state->backend_error =
        PyErr_NewExceptionWithDoc("gyre.BackendError",
                                  "The kernel interface that was asked for is refused here: the "
                                  "text says by what, and what to do.",
                                  PyExc_RuntimeError, NULL);
    if (state->backend_error == NULL ||
        PyModule_AddObjectRef(module, "BackendError", state->backend_error) < 0 ||
        PyModule_AddFunctions(module, functions) < 0 ||
        PyModule_AddIntConstant(module, "URING_WORKERS_MAX", GY_URING_WORKERS_MAX) < 0 ||
        PyModule_AddIntConstant(module, "POOL_THREADS_MAX", GY_POOL_THREADS_MAX) < 0)
        return -1;
    return PyModule_AddStringConstant(module, "LIBURING_VERSION", GPY_LIBURING_VERSION);
}
