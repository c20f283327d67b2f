/* floor_sends.c: small sends of many connections by one call into a ring. See floor.c and floor.h.
 *
 * Each send has MSG_DONTWAIT, so it has ended when the call returns. Invariant: a flow is in the
 * list once at most, and is alive as long. */
#include "floor.h"

#include <errno.h>
#include <liburing.h>
#include <string.h>
#include <sys/socket.h>

enum { HELD_MAX = 32, HELD_BYTES_MAX = 4096 };

static struct io_uring ring;
static bool is_open;
static struct held {
    struct floor_flow *flow;
    PyObject *data;
} list[HELD_MAX];
static unsigned count;

int
floor_sends_open(void)
{
    struct io_uring_params params = {.flags =
                                         IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    int err = is_open ? 0 : io_uring_queue_init_params(HELD_MAX, &ring, &params);
    if (err < 0) {
        errno = -err;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    is_open = true;
    return 0;
}

bool
floor_sends_wanted(size_t size)
{
    return is_open && size <= HELD_BYTES_MAX;
}

int
floor_sends_add(struct floor_flow *flow, PyObject *data)
{
    if ((flow->held || count == HELD_MAX) && floor_sends_run() < 0)
        return -1;
    if (flow->rest != NULL) /* just now */
        return floor_flow_keep(flow, PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data));
    flow->held = true;
    list[count++] = (struct held){(struct floor_flow *)Py_NewRef(flow), Py_NewRef(data)};
    return 0;
}

/* An error counts as all: the next receive tells of it. */
static int
ended(struct held *item, int res)
{
    size_t size = (size_t)PyBytes_GET_SIZE(item->data);
    size_t sent = res == -EAGAIN ? 0 : res < 0 ? size : (size_t)res;
    return sent == size
               ? 0
               : floor_flow_keep(item->flow, PyBytes_AS_STRING(item->data) + sent, size - sent);
}

int
floor_sends_run(void)
{
    int rc = 0;
    int results[HELD_MAX];
    if (count == 0)
        return 0;
    for (unsigned i = 0; i < count; i++) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
        io_uring_prep_send(sqe, list[i].flow->fd, PyBytes_AS_STRING(list[i].data),
                           (size_t)PyBytes_GET_SIZE(list[i].data), MSG_DONTWAIT | MSG_NOSIGNAL);
        sqe->user_data = i;
    }
    int taken = io_uring_submit_and_wait(&ring, count);
    if (taken != (int)count) {
        PyErr_Format(PyExc_OSError, "the ring took %d of %u sends", taken, count);
        return -1;
    }
    for (unsigned i = 0; i < count; i++) {
        struct io_uring_cqe *cqe;
        io_uring_wait_cqe(&ring, &cqe);
        results[cqe->user_data] = cqe->res;
        io_uring_cqe_seen(&ring, cqe);
    }
    for (unsigned i = 0; i < count; i++) {
        list[i].flow->held = false;
        if (ended(&list[i], results[i]) < 0)
            rc = -1;
        Py_DECREF(list[i].data);
        Py_DECREF(list[i].flow);
    }
    count = 0;
    return rc;
}
