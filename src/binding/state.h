/* state.h: what one import of gyre._gyre owns.
 *
 * There are no C globals that hold Python objects: two subinterpreters each have a module state of
 * their own.  Each file of the binding adds its types and interned names to the X-macro lists
 * below, so that traverse and clear (module.c) can never forget one. Thread: any thread that holds
 * the GIL of the owning interpreter. */
#ifndef GPY_STATE_H
#define GPY_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#include "freelist.h"

/* Heap types that the module creates: GPY_TYPE(field). */
#define GPY_TYPES(X)                                                                               \
    X(loop_type)                                                                                   \
    X(handle_type)                                                                                 \
    X(timer_handle_type)                                                                           \
    X(threadsafe_handle_type)                                                                      \
    X(future_type)                                                                                 \
    X(task_type)                                                                                   \
    X(future_iter_type)                                                                            \
    X(dgram_transport_type)                                                                        \
    X(stream_transport_type)                                                                       \
    X(ssl_core_type)                                                                               \
    X(ssl_transport_core_type)                                                                     \
    X(read_pipe_type)                                                                              \
    X(write_pipe_type)                                                                             \
    X(listener_type)                                                                               \
    X(sockop_type)                                                                                 \
    X(fileop_type)                                                                                 \
    X(file_ready_type)                                                                             \
    X(file_buffer_type)                                                                            \
    X(stream_intake_type)                                                                          \
    X(coro_type)                                                                                   \
    X(coro_await_type)                                                                             \
    X(coro_method_type)                                                                            \
    X(stream_reader_type)                                                                          \
    X(stream_writer_type)

/* Objects looked up once, at import: GPY_OBJECT(field).  Who looks it up says so in its exec
 * function. */
#define GPY_OBJECTS(X)                                                                             \
    X(asyncio_handle_type)                                                                         \
    X(asyncio_timer_handle_type)                                                                   \
    X(asyncio_threadsafe_handle_type)                                                              \
    X(backend_error)                                                                               \
    X(base_event_loop)                                                                             \
    X(kwnames_warn_on_full_buffer)                                                                 \
    X(ready_view)                                                                                  \
    X(scheduled_view)                                                                              \
    X(report_callback_failed)                                                                      \
    X(report_slow_callback)                                                                        \
    X(signal_set_wakeup_fd)                                                                        \
    X(asyncio_future)                                                                              \
    X(asyncio_task)                                                                                \
    X(cancelled_error)                                                                             \
    X(invalid_state_error)                                                                         \
    X(future_repr)                                                                                 \
    X(extract_stack)                                                                               \
    X(get_event_loop)                                                                              \
    X(kwnames_context)                                                                             \
    X(task_repr)                                                                                   \
    X(task_get_stack)                                                                              \
    X(task_print_stack)                                                                            \
    X(iscoroutine)                                                                                 \
    X(coroutine_types)                                                                             \
    X(enter_task)                                                                                  \
    X(leave_task)                                                                                  \
    X(swap_current_task)                                                                           \
    X(register_task)                                                                               \
    X(unregister_task)                                                                             \
    X(register_eager_task)                                                                         \
    X(unregister_eager_task)                                                                       \
    X(add_to_awaited_by)                                                                           \
    X(discard_from_awaited_by)                                                                     \
    X(asyncio_logger)                                                                              \
    X(asyncio_ssl_protocol)                                                                        \
    X(ssl_do_handshake)                                                                            \
    X(ssl_wrapped)                                                                                 \
    X(ssl_flushing)                                                                                \
    X(ssl_shutdown)                                                                                \
    X(ssl_again_errors)                                                                            \
    X(ssl_object)                                                                                  \
    X(buffered_protocol)                                                                           \
    X(transport_socket)                                                                            \
    X(socket_class)                                                                                \
    X(socket_family)                                                                               \
    X(socket_base)                                                                                 \
    X(file_io)                                                                                     \
    X(current_tasks)                                                                               \
    X(stat_result_type)                                                                            \
    X(asyncio_stream_reader)                                                                       \
    X(asyncio_stream_writer)                                                                       \
    X(asyncio_stream_protocol)                                                                     \
    X(incomplete_read_error)                                                                       \
    X(limit_overrun_error)                                                                         \
    X(object_class)                                                                                \
    X(stream_newline)                                                                              \
    X(stream_originals)

/* Interned attribute and keyword names: GPY_NAME(identifier) is state->str_identifier. */
#define GPY_NAMES(X)                                                                               \
    X(time)                                                                                        \
    X(create_task)                                                                                 \
    X(call_at)                                                                                     \
    X(CANCELLED)                                                                                   \
    X(FINISHED)                                                                                    \
    X(PENDING)                                                                                     \
    X(_asyncio_future_blocking)                                                                    \
    X(_loop)                                                                                       \
    X(add_done_callback)                                                                           \
    X(call_exception_handler)                                                                      \
    X(call_soon)                                                                                   \
    X(cancel)                                                                                      \
    X(cancelled)                                                                                   \
    X(context)                                                                                     \
    X(done)                                                                                        \
    X(exception)                                                                                   \
    X(future)                                                                                      \
    X(get_debug)                                                                                   \
    X(get_loop)                                                                                    \
    X(is_running)                                                                                  \
    X(message)                                                                                     \
    X(msg)                                                                                         \
    X(result)                                                                                      \
    X(set_exception)                                                                               \
    X(set_result)                                                                                  \
    X(source_traceback)                                                                            \
    X(task)                                                                                        \
    X(throw)                                                                                       \
    X(datagram_received)                                                                           \
    X(error_received)                                                                              \
    X(sendto)                                                                                      \
    X(recvfrom)                                                                                    \
    X(data_received)                                                                               \
    X(get_buffer)                                                                                  \
    X(buffer_updated)                                                                              \
    X(_sslobj)                                                                                     \
    X(pending)                                                                                     \
    X(_do_handshake)                                                                               \
    X(_do_flush)                                                                                   \
    X(_do_shutdown)                                                                                \
    X(_do_read)                                                                                    \
    X(_do_write)                                                                                   \
    X(_write_appdata)                                                                              \
    X(_process_outgoing)                                                                           \
    X(_get_write_buffer_size)                                                                      \
    X(_control_app_writing)                                                                        \
    X(_control_ssl_reading)                                                                        \
    X(_call_eof_received)                                                                          \
    X(_start_shutdown)                                                                             \
    X(write)                                                                                       \
    X(eof_received)                                                                                \
    X(connection_made)                                                                             \
    X(connection_lost)                                                                             \
    X(pause_writing)                                                                               \
    X(resume_writing)                                                                              \
    X(_call_connection_lost)                                                                       \
    X(_begin)                                                                                      \
    X(_attach)                                                                                     \
    X(_detach)                                                                                     \
    X(fileno)                                                                                      \
    X(detach)                                                                                      \
    X(close)                                                                                       \
    X(socket)                                                                                      \
    X(sockname)                                                                                    \
    X(peername)                                                                                    \
    X(family)                                                                                      \
    X(create_future)                                                                               \
    X(_buffer)                                                                                     \
    X(_limit)                                                                                      \
    X(_eof)                                                                                        \
    X(_waiter)                                                                                     \
    X(_exception)                                                                                  \
    X(_transport)                                                                                  \
    X(_paused)                                                                                     \
    X(_intake)                                                                                     \
    X(_protocol)                                                                                   \
    X(_reader)                                                                                     \
    X(_drain_helper)                                                                               \
    X(_connection_lost)                                                                            \
    X(_stream_reader_wr)                                                                           \
    X(_client_connected_cb)                                                                        \
    X(pause_reading)                                                                               \
    X(resume_reading)                                                                              \
    X(is_closing)                                                                                  \
    X(_transports)                                                                                 \
    X(_ensure_fd_no_transport)                                                                     \
    X(data)                                                                                        \
    X(__class__)

/* Memory kept for the next object of a type: GPY_FREELIST(name) is state->free_name. */
#define GPY_FREELISTS(X)                                                                           \
    X(futures)                                                                                     \
    X(future_iters)                                                                                \
    X(handles)                                                                                     \
    X(timer_handles)                                                                               \
    X(coros)                                                                                       \
    X(sockops)

/* The slots of an asyncio type that ours calls; kept apart from the type object, which
 * module_clear() may drop before the last instance dies. */
struct gpy_base_slots {
    traverseproc tp_traverse;
    inquiry tp_clear;
    destructor tp_dealloc;
};

/* A node of a circular list of tasks; as asyncio's own from 3.14 on lays it out. */
struct gpy_task_node {
    struct gpy_task_node *next; /* NULL: in no list */
    struct gpy_task_node *prev;
};

enum { GPY_STAT_FIELDS = 16 };

struct gpy_state {
    struct gpy_base_slots base_future;
    struct gpy_base_slots base_task;
    uint64_t *task_names; /* the n of the last Task-n: asyncio's counter, or the next field */
    uint64_t own_task_names;
    struct gpy_task_node live_tasks; /* head: registered and not done, before 3.14             */
    unsigned int stream_versions[3]; /* of asyncio's stream classes when they were looked at */
    bool lists_tasks;                /* asyncio's set looks there; false: tasks are added to it */
    uint8_t stat_fields[GPY_STAT_FIELDS]; /* file_stat.c: the index of each in os.stat_result */
#define X(field) PyTypeObject *field;
    GPY_TYPES(X)
#undef X
#define X(field) PyObject *field;
    GPY_OBJECTS(X)
#undef X
#define X(name) PyObject *str_##name;
    GPY_NAMES(X)
#undef X
#define X(name) struct gpy_freelist free_##name;
    GPY_FREELISTS(X)
#undef X
    int nested_ends;  /* deallocations inside one another; gpy_state_nest() */
    Py_ssize_t users; /* live loops, futures and tasks: they look in here to their end */
    bool is_orphan;   /* the module is gone; the last user frees the state             */
};

extern struct PyModuleDef gpy_module_def;

static inline struct gpy_state *
gpy_state_of_module(PyObject *module)
{
    return *(struct gpy_state **)PyModule_GetState(module);
}

/* At interpreter exit one garbage collection takes module, types and instances in any order, and a
 * type's tp_clear lets go of its module: the state may not go with the module, nor be emptied
 * before its last user. */
void gpy_state_drop(struct gpy_state *state);

static inline void
gpy_state_hold(struct gpy_state *state)
{
    state->users++;
}

static inline void
gpy_state_release(struct gpy_state *state)
{
    if (--state->users == 0 && state->is_orphan)
        gpy_state_drop(state);
}

/* Chains of objects of ours may be longer than the stack.  A deallocation begins with this and
 * needs no trashcan, which costs more than the rest of it, if the answer is yes; then it ends with
 * gpy_state_unnest(), before it lets go of the state. */
enum { GPY_NESTED_ENDS_MAX = 40 };

static inline bool
gpy_state_nest(struct gpy_state *state)
{
    if (GY_UNLIKELY(state->nested_ends >= GPY_NESTED_ENDS_MAX))
        return false;
    state->nested_ends++;
    return true;
}

static inline void
gpy_state_unnest(struct gpy_state *state)
{
    state->nested_ends--;
}

/* The state behind any instance of one of our types or of a Python subclass of it.
 * NULL with TypeError set if the type does not come from this module. */
static inline struct gpy_state *
gpy_state_of_type(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &gpy_module_def);
    return module ? gpy_state_of_module(module) : NULL;
}

#endif
