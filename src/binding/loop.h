/* loop.h: LoopCore, the C half of gyre.Loop, as the other files of the binding see it.
 *
 * Owner of everything: the Python object.  Thread: the one that runs the loop, with the GIL, unless
 * a function says otherwise. */
#ifndef GPY_LOOP_H
#define GPY_LOOP_H

#include "ready.h"
#include "schedule.h"
#include "state.h"

#include "../core/loop.h"
#include "../core/poll.h"

struct gpy_loop {
    PyObject_HEAD
    struct gpy_state *state; /* borrowed: the type keeps the module alive */
    struct gy_loop core;
    bool core_ready;        /* gy_loop_init succeeded                                             */
    struct gpy_ready ready; /* what runs next                                                     */
    struct gpy_ready due;   /* timers of this turn, after the events                              */
    bool direct;            /* schedule.h: entries may bypass call_soon                           */
    bool overridden;        /* the type or the instance overrides call_soon, call_at, create_task */
    bool debug;
    bool stopping;
    bool closed;
    bool in_run; /* inside _run_once                                                   */
    bool busy;   /* a callback is running: small writes may wait for its end           */
    unsigned long thread_id; /* of the running thread, 0 while stopped (asyncio's _thread_id) */
    int64_t slow_callback_ns;
    PyObject *slow_callback_duration; /* what the user set */
    PyObject *task_factory; /* NULL: none                                                */
    PyObject *raised_type;  /* an exception that must leave _run_once (GPY_RAISED below) */
    PyObject *raised_value;
    PyObject *raised_traceback;
    struct gy_pollset readers;    /* add_reader/add_writer                                     */
    PyObject *reader_handles;     /* dict fd -> [mask, reader handle, writer handle], or NULL  */
    struct gy_poll signal_poll;   /* the read end of the signal socketpair                     */
    int signal_fds[2];            /* -1 until the main thread first blocks in a run            */
    PyObject *previous_wakeup_fd; /* of signal.set_wakeup_fd while ours is set, else NULL      */
    struct gy_list members;       /* struct gpy_loop_member: open transports and listeners     */
    PyObject *weakreflist;
};

/* A transport or listener that the loop must let go of when it is closed or collected: linked from
 * its creation until its stream or listener is closed.  `abandon` is called by loop.close(), after
 * everything in flight was cancelled and landed: close the descriptor, drop the pin, make no upcall
 * to the protocol. */
struct gpy_loop_member {
    struct gy_list link; /* in loop->members */
    void (*abandon)(struct gpy_loop_member *member);
};

/* The struct behind any LoopCore instance; NULL without exception if `object` is none. */
struct gpy_loop *gpy_loop_check(struct gpy_state *state, PyObject *object);

/* Calls callable(*args) as a callback of the loop: in `context` (a PyContext; NULL: the current
 * one), timed and logged when slow in debug mode (`what` is the object whose repr the log shows),
 * with `busy` set, so that small writes wait; the held writes leave before it returns.  New
 * reference, or NULL with the exception set. */
PyObject *gpy_loop_call(struct gpy_loop *loop, PyObject *context, PyObject *what,
                        PyObject *callable, PyObject *const *args, size_t nargs);

/* The exception that is set now came out of a callback: KeyboardInterrupt and SystemExit are kept
 * and leave run_forever after the current event (true); anything else stays set (false) for the
 * caller to report. */
bool gpy_loop_keep_raised(struct gpy_loop *loop);

/* loop.call_exception_handler({'message': message, 'exception': <the exception set now, cleared>,
 * key: value ...}). Pairs of (const char *key, PyObject *value), ended by NULL; NULL values are
 * left out.  Never fails: what the handler itself raises goes to keep_raised or sys.unraisablehook.
 */
void gpy_loop_report(struct gpy_loop *loop, const char *message, ...);

/* As loop.call_soon(callable, *args, context=context) without a Handle where possible; honours
 * debug mode and overrides.  At most one argument (NULL: none).  0 or -1. */
int gpy_loop_call_soon(struct gpy_loop *loop, PyObject *callable, PyObject *arg, PyObject *context);

/* RuntimeError 'Event loop is closed' and -1 if it is; also RuntimeError in a forked child. */
int gpy_loop_check_open(struct gpy_loop *loop);
/* In debug mode: RuntimeError and -1 unless called on the loop's thread. */
int gpy_loop_check_thread(struct gpy_loop *loop);

#endif
