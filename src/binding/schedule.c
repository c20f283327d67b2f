/* schedule.c: stands in until the loop exists: no loop is ours, everything goes by call_soon(). */
#include "schedule.h"

struct gpy_loop *
gpy_loop_direct(struct gpy_state *state, PyObject *loop)
{
    return NULL;
}

int
gpy_loop_schedule(struct gpy_loop *loop, enum gpy_ready_tag tag, PyObject *owner, PyObject *a,
                  PyObject *b)
{
    Py_UNREACHABLE();
}
