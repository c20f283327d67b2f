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

enum { GPY_FILE_SPARES = 2 };

/* How streams send: send= of the loop, the default first. */
enum gpy_send_policy { GPY_SEND_ADAPTIVE, GPY_SEND_IMMEDIATE, GPY_SEND_BATCHED };

struct gpy_ssl;

struct gpy_loop {
    PyObject_HEAD
    struct gpy_state *state; /* borrowed: the type keeps the module alive */
    struct gy_loop core;
    bool core_ready;        /* gy_loop_init succeeded                                             */
    struct gpy_ready ready; /* what runs next                                                     */
    struct gpy_ready due;   /* timers of this turn, after the events                              */
    bool direct;            /* schedule.h: entries may bypass call_soon                           */
    bool overridden;        /* the type or the instance overrides call_soon, call_at, create_task */
    bool time_overridden;   /* loop.time() is a subclass's or the user's: timers follow it */
    bool future_overridden; /* so is create_future() */
    bool debug;
    bool stopping;
    bool closed;
    bool in_run;          /* inside _run_once                                                   */
    bool forever;         /* inside run_forever(): _run_once turns until stop()                 */
    bool signals_foreign; /* this run is not in the main thread */
    bool signals_watched; /* there are handlers of add_signal_handler() */
    uint32_t turns;
    uint8_t recv_policy; /* enum gy_recv_policy of new streams */
    uint8_t send_policy; /* enum gpy_send_policy               */
    bool udp_offload;    /* new UDP transports use segmentation offload where the kernel has it */
    bool backend_auto;   /* nobody asked for a backend: the first run may change it            */
    bool busy;           /* a callback is running: small writes may wait for its end           */
    unsigned long thread_id; /* of the running thread, 0 while stopped (asyncio's _thread_id) */
    PyObject *slow_callback_duration; /* what the user set */
    PyObject *task_factory;    /* NULL: none                                                */
    PyObject *raised;          /* an exception that must leave _run_once after the current event */
    PyObject *current_handle;  /* debug mode: the Handle that runs; error reports show its origin */
    struct gy_pollset readers; /* add_reader/add_writer                                     */
    struct gpy_reader *reader_table; /* indexed by descriptor                                     */
    uint32_t reader_capacity;
    struct gy_poll signal_poll;      /* the read end of the signal socketpair                     */
    int signal_fds[2];               /* -1 until the main thread first blocks in a run            */
    PyObject *previous_wakeup_fd;    /* of signal.set_wakeup_fd while ours is set, else NULL      */
    struct gpy_current_task current; /* task.h: what asyncio's books say of this loop */
    struct gy_list members;          /* struct gpy_loop_member: open transports and listeners     */
    struct gpy_transport **transport_table; /* indexed by descriptor; transport.c */
    uint32_t transport_capacity;
    char *ssl_scratch;          /* ciphertext on its way out (ssl_write.c), or NULL */
    struct gpy_ssl *ssl_holder; /* whose it is at the moment, or NULL */
    uint64_t file_turn;         /* the turn of the loop in which file_inline counts       */
    uint32_t file_inline;       /* file operations that ended without waiting; file.c     */
    PyObject *sock_spare;       /* bytes that a sock_recv() has not filled, for the next; sock.c */
    PyObject *file_spares[GPY_FILE_SPARES]; /* large bytes that were read last; file_calls.c */
};

/* A transport or listener that the loop must let go of when it is closed or collected: linked into
 * loop->members from its creation until its stream or listener is closed. The pin of the object
 * (one strong reference for as long as the kernel may hold its ops) is kept here and counts as a
 * reference of the loop's: the collector sees it, so that a dropped loop and its open transports go
 * together.  `abandon` is called when the loop is closed or cleared, while nothing is in flight: it
 * drops core's state without upcalls to the protocol, closes the descriptor, unlinks the member and
 * drops the pin. */
struct gpy_loop_member {
    struct gy_list link;
    PyObject *pinned; /* the object itself, or NULL while it is not pinned */
    const struct gpy_loop_member_ops *ops;
};

struct gpy_loop_member_ops {
    void (*abandon)(struct gpy_loop_member *member);
    /* NULL: never.  While it is true the pin counts as the member's own: the member, which visits
     * it, may be collected together with what refers to it, as on a selector loop that has no
     * reader and no writer for it. */
    bool (*is_at_rest)(const struct gpy_loop_member *member);
};

static inline bool
gpy_loop_member_is_at_rest(const struct gpy_loop_member *member)
{
    return member->ops->is_at_rest != NULL && member->ops->is_at_rest(member);
}

/* Calls callable(*args) as a callback of the loop: in `context` (a PyContext; NULL: the current
 * one), timed and logged when slow in debug mode (`what` is the object whose repr the log shows),
 * with `busy` set, so that small writes wait; the held writes leave before it returns.  New
 * reference, or NULL with the exception set. */
PyObject *gpy_loop_call(struct gpy_loop *loop, PyObject *context, PyObject *what,
                        PyObject *callable, PyObject *const *args, size_t nargs);

/* The two halves of the slow-callback watch around a callback that does not go through
 * gpy_loop_call(): begin gives the time in debug mode, -1 otherwise, and makes `what`, if it is a
 * Handle, the current one; end logs `what` if it took too long.  Keep the exception that is set. */
int64_t gpy_loop_watch_begin(struct gpy_loop *loop, PyObject *what);
void gpy_loop_watch_end(struct gpy_loop *loop, PyObject *what, int64_t started_ns);

/* The exception that is set now came out of a callback: KeyboardInterrupt and SystemExit are kept
 * and leave run_forever after the current event (true); anything else stays set (false) for the
 * caller to report. */
bool gpy_loop_keep_raised(struct gpy_loop *loop);

/* What a callback has sent leaves, which may tell a protocol of an error; the exception that the
 * callback has raised stays set. */
void gpy_loop_flush_dirty_slow(struct gpy_loop *loop);
static inline void
gpy_loop_flush_dirty(struct gpy_loop *loop)
{
    if (GY_UNLIKELY(!gy_list_empty(&loop->core.dirty) || !gy_list_empty(&loop->core.bursts)))
        gpy_loop_flush_dirty_slow(loop);
}

/* Sets the kept exception again (if there is one) and forgets it. */
void gpy_loop_restore_raised(struct gpy_loop *loop);

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

/* The loop's clock in ns: CLOCK_MONOTONIC, or self.time() where that is overridden.  -1 with an
 * exception. */
int64_t gpy_loop_clock_ns(struct gpy_loop *loop);

/* The first nanosecond at which a clock that shows ns / 1e9 has reached `when` seconds; saturates.
 */
int64_t gpy_when_to_ns(double when);

/* loop_schedule.c, loop_run.c, loop_readers.c, loop_signals.c: the methods of their part, for
 * loop.c's table. */
extern PyMethodDef gpy_loop_schedule_methods[];
extern PyMethodDef gpy_loop_reader_methods[];
extern PyMethodDef gpy_loop_view_methods[];
PyObject *gpy_loop_run_once(struct gpy_loop *loop, PyObject *ignored);
void gpy_loop_signals_init(struct gpy_loop *loop);
void gpy_loop_signals_begin(struct gpy_loop *loop); /* of a run, or of the first handler in one */
int gpy_loop_signals_arm(struct gpy_loop *loop);    /* before a wait that can block; 0 or -1 */
void gpy_loop_signals_kept(struct gpy_loop *loop);  /* an exception ended a turn and was kept */
void gpy_loop_signals_restore(
    struct gpy_loop *loop); /* when the run ends; keeps the exception that is set */
void gpy_loop_signals_close(struct gpy_loop *loop);
void gpy_loop_readers_init(struct gpy_loop *loop);
void gpy_loop_readers_clear(struct gpy_loop *loop); /* drops the table; the pollset is the core's */
int gpy_loop_readers_traverse(struct gpy_loop *loop, visitproc visit, void *arg);
void gpy_loop_timers_clear(struct gpy_loop *loop);
int gpy_loop_timers_traverse(struct gpy_loop *loop, visitproc visit, void *arg);
void gpy_loop_update_direct(struct gpy_loop *loop);

int gpy_loop_exec(PyObject *module, struct gpy_state *state);

#endif
