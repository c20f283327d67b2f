/* schedule.h: the one door between Task/Future and the loop that runs them.
 *
 * future.c and task.c know no more of the loop than this; loop.c knows no more of them than
 * future.h and task.h.  A loop that is not ours, a subclass that overrides call_soon, and debug
 * mode all take the slow path: loop.call_soon(callback, *args, context=context). */
#ifndef GPY_SCHEDULE_H
#define GPY_SCHEDULE_H

#include "ready.h"
#include "state.h"

struct gpy_loop;

/* A task's step that is over may stay on asyncio's books as the current one until other code could
 * look: the next step then only has to replace it, or do nothing if it is the same task's.  In
 * struct gpy_loop, for the steps that its turn runs.  Used before 3.14 (task_registry.c). */
struct gpy_current_task {
    PyObject *loop;   /* the key in the books; borrowed, set for the run                      */
    PyObject *task;   /* borrowed: the books hold it while `version` is theirs; NULL: none    */
    uint64_t version; /* of the books when we wrote                                           */
};

/* The LoopCore behind `loop` if callbacks may go straight to its ready queue just now: it is ours,
 * open, neither its type nor the instance overrides call_soon/call_at/create_task, and debug is
 * off. Otherwise NULL (no exception set).  Borrowed.  Never fails, never runs Python code. Valid
 * only until the next call into Python: debug may be switched on at any time. */
struct gpy_loop *gpy_loop_direct(struct gpy_state *state, PyObject *loop);

/* The two halves of it: is it a loop of ours (borrowed, or NULL), and may entries go to its queue?
 */
struct gpy_loop *gpy_loop_check(struct gpy_state *state, PyObject *object);
bool gpy_loop_is_direct(const struct gpy_loop *loop);

/* Appends an entry to the loop's ready queue (ready.h says what owner, a and b are for each tag).
 * Wakes nothing: for the loop's own thread.  0, or -1 with MemoryError. */
int gpy_loop_schedule(struct gpy_loop *loop, enum gpy_ready_tag tag, PyObject *owner, PyObject *a,
                      PyObject *b);
/* The same, but the reference to `owner` moves into the queue unless it fails; b is NULL. */
int gpy_loop_schedule_moved(struct gpy_loop *loop, enum gpy_ready_tag tag, PyObject *owner,
                            PyObject *a);

#endif
