/* sim_host.h: an embedder of streams and listeners that checks every upcall against a model.
 *
 * Byte i of a direction of connection c is a function of c and i, so content, order and
 * completeness are checked without keeping anything.  Upcalls act at random on any connection. */
#ifndef SIM_HOST_H
#define SIM_HOST_H

#include "listener.h"
#include "loop.h"
#include "ring_sim.h"
#include "stream.h"

enum { CONNECTIONS_MAX = 24, NAMED_MAX = 4096 };

struct scene;

struct connection {
    struct gy_stream stream; /* reused for nobody else, so late upcalls are seen */
    struct scene *scene;
    struct sim_socket *socket;
    uint32_t number;
    uint64_t in_sent; /* by the remote */
    uint64_t in_seen; /* by the host   */
    uint64_t out_written;
    uint64_t out_seen;
    uint32_t owners; /* segments that are not yet released */
    bool in_use;
    bool reading;
    bool eof;
    bool error;
    bool detached;
    bool closed;
    bool close_called;
    bool shut_called;
    bool awaits_drain; /* wrote, and has not yet seen or heard that the queue is empty    */
    bool lossy;        /* the remote was reset or closed: what is on its way may be lost  */
    bool saw_end;      /* the remote read the end of our bytes                            */
    bool named_open;   /* buffer() was called: data, eof or unused has to follow         */
    size_t named_len;  /* what buffer() offered for the next data(), 0: nothing          */
    char named[NAMED_MAX];
};

struct scene {
    struct gy_loop loop;
    struct sim_world world;
    struct sim_rng rng; /* the test's own chance */
    struct connection connections[CONNECTIONS_MAX];
    uint32_t count;
    struct gy_listener listener;
    struct sim_socket *listener_socket;
    bool listener_open;
    bool listener_closed;
    uint32_t accepted;
    uint32_t upcall_depth;
    bool calm;  /* no more random acts */
    bool quiet; /* quiescing: only release may be called */
    uint64_t seed;
    uint32_t buffer_bytes;
    uint64_t data_calls;
    uint64_t held_seen; /* scenes in which bytes were held */
};

void scene_failed(const struct scene *scene, const char *what, int line)
    __attribute__((noreturn, cold));
#define EXPECT(scene, x)                                                                           \
    do {                                                                                           \
        if (!(x))                                                                                  \
            scene_failed((scene), #x, __LINE__);                                                   \
    } while (0)

void scene_init(struct scene *scene, uint64_t seed, uint32_t features);
void scene_deinit(struct scene *scene); /* every stream is closed; checks what must be balanced */

struct connection *scene_connect(struct scene *scene);
void scene_listen(struct scene *scene);
void scene_act(struct scene *scene);           /* the host does something        */
void scene_remotes_act(struct scene *scene);   /* a remote does something       */
void scene_drain_remotes(struct scene *scene); /* the remotes read everything */
/* What was paused hears the end again. */
void scene_read(struct connection *connection);
void scene_close(struct connection *connection);
void scene_check(struct scene *scene); /* invariants that hold at any time */

#endif
