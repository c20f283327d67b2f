/* ring_epoll_watch.c: which descriptors epoll watches, and for which requests.
 *
 * A descriptor number has at most one registration, for all who wait for it in either direction.
 * It is edge-triggered while somebody waits who uses a readiness up (a multishot poll, or a request
 * whose call we make until -EAGAIN), else one-shot.  Never level-triggered: a file that lives on in
 * a duplicate after its number was closed cannot be taken out of epoll any more, and would end
 * every wait at once, for ever.
 *
 * Arming always makes one epoll_ctl(2).  It looks at the state anew, so nothing that came earlier
 * is missed; and it finds out whether the number is still the file that was registered: epoll's key
 * is the pair.  Before a call is made on a descriptor that was reported, the pair is checked again,
 * since its number may be another file by now.
 * Invariant: a registration of an older generation serves nobody. */
#include "ring_epoll.h"
#include "sys.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

enum { WATCHES_MIN = 64 };

static uint64_t
tag_of(int fd, uint32_t generation)
{
    return (uint64_t)generation << 32 | (uint32_t)fd;
}

static int
control(struct gy_epoll *epoll, int operation, int fd, uint32_t events)
{
    struct gy_epoll_watch *watch = &epoll->watches[fd];
    epoll->base.counters.controls++;
    return gy_sys_epoll_set(epoll->epoll_fd, operation, fd, events, tag_of(fd, watch->generation));
}

static struct gy_epoll_watch *
find(const struct gy_epoll *epoll, int fd)
{
    return (uint32_t)fd < epoll->watch_count ? &epoll->watches[fd] : NULL;
}

static int
find_or_grow(struct gy_epoll *epoll, int fd, struct gy_epoll_watch **out)
{
    if (GY_UNLIKELY(fd < 0))
        return -EBADF;
    if (GY_UNLIKELY((uint32_t)fd >= epoll->watch_count)) {
        struct gy_epoll_watch *watches;
        uint32_t count = epoll->watch_count ? epoll->watch_count : WATCHES_MIN;
        while (count <= (uint32_t)fd)
            count *= 2;
        watches = gy_realloc(epoll->watches, count * sizeof *watches);
        if (watches == NULL)
            return -ENOMEM;
        memset(&watches[epoll->watch_count], 0, (count - epoll->watch_count) * sizeof *watches);
        epoll->watches = watches;
        epoll->watch_count = count;
    }
    *out = &epoll->watches[fd];
    return 0;
}

/* ---- the list of a descriptor ---- */

static void
append(struct gy_epoll_watch *watch, struct gy_epoll_request *request)
{
    request->next = NULL;
    request->prev = watch->last;
    if (watch->last != NULL)
        watch->last->next = request;
    else
        watch->first = request;
    watch->last = request;
}

static void
take_out(struct gy_epoll_watch *watch, struct gy_epoll_request *request)
{
    if (request->prev != NULL)
        request->prev->next = request->next;
    else
        watch->first = request->next;
    if (request->next != NULL)
        request->next->prev = request->prev;
    else
        watch->last = request->prev;
}

void
gy_epoll_watch_remove(struct gy_epoll *epoll, struct gy_epoll_request *request)
{
    take_out(&epoll->watches[request->fd], request);
}

struct gy_epoll_request *
gy_epoll_watch_first(const struct gy_epoll *epoll, int fd)
{
    const struct gy_epoll_watch *watch = find(epoll, fd);
    return watch != NULL ? watch->first : NULL;
}

static void
fail_all(struct gy_epoll *epoll, int fd, int err)
{
    GY_ASSERT(err < 0);
    while (epoll->watches[fd].first != NULL)
        gy_epoll_finish(epoll, epoll->watches[fd].first, err);
}

/* ---- registrations ---- */

/* What epoll should report for those who wait. */
static uint32_t
wanted(const struct gy_epoll_watch *watch)
{
    uint32_t events = 0;
    bool edges = false;
    for (const struct gy_epoll_request *request = watch->first; request != NULL;
         request = request->next) {
        events |= request->mask;
        edges |= request->multishot || request->opcode != IORING_OP_POLL_ADD;
    }
    return events == 0 ? 0 : events | (edges ? (uint32_t)EPOLLET : (uint32_t)EPOLLONESHOT);
}

static int
add(struct gy_epoll *epoll, int fd, uint32_t events)
{
    struct gy_epoll_watch *watch = &epoll->watches[fd];
    int err;
    watch->generation++;
    err = control(epoll, EPOLL_CTL_ADD, fd, events);
    /* A file that was duplicated, closed here and moved back to its number. */
    if (err == -EEXIST)
        err = control(epoll, EPOLL_CTL_MOD, fd, events);
    if (err < 0)
        return err;
    watch->registered = true;
    watch->events = events;
    return 0;
}

/* Tells epoll what is wanted of fd; a state that is there already is reported again.  0, -ENOENT if
 * the number is another file than the one that was registered, or another -errno. */
static int
tell(struct gy_epoll *epoll, int fd)
{
    struct gy_epoll_watch *watch = &epoll->watches[fd];
    uint32_t events = wanted(watch);
    int err;
    GY_ASSERT(events != 0);
    if (!watch->registered)
        return add(epoll, fd, events);
    err = control(epoll, EPOLL_CTL_MOD, fd, events);
    if (err == 0)
        watch->events = events;
    else
        watch->registered = false;
    return err;
}

static void
forget(struct gy_epoll *epoll, int fd)
{
    struct gy_epoll_watch *watch = &epoll->watches[fd];
    if (!watch->registered)
        return;
    /* Fails if the user has closed it: then epoll has forgotten it before. */
    (void)control(epoll, EPOLL_CTL_DEL, fd, 0);
    watch->registered = false;
    watch->events = 0;
}

int
gy_epoll_watch_add(struct gy_epoll *epoll, struct gy_epoll_request *request)
{
    struct gy_epoll_watch *watch;
    int err = find_or_grow(epoll, request->fd, &watch);
    if (err < 0)
        return err;
    append(watch, request);
    err = tell(epoll, request->fd);
    if (GY_UNLIKELY(err == -ENOENT)) {
        /* Those before waited for a file that was closed behind our back. */
        take_out(watch, request);
        fail_all(epoll, request->fd, -EBADF);
        append(watch, request);
        err = tell(epoll, request->fd);
    }
    if (err < 0)
        take_out(watch, request);
    return err;
}

void
gy_epoll_watch_release(struct gy_epoll *epoll, int fd, uint8_t opcode)
{
    /* Who has cancelled another thing will close the number or wait again; if not, the next event
     * is nobody's, and then it is forgotten.  But forked workers share listeners. */
    if (opcode == IORING_OP_ACCEPT && epoll->watches[fd].first == NULL)
        forget(epoll, fd);
}

void
gy_epoll_watch_close(struct gy_epoll *epoll, int fd)
{
    struct gy_epoll_watch *watch = find(epoll, fd);
    if (watch == NULL)
        return;
    fail_all(epoll, fd, -EBADF);
    /* The close takes the file out of epoll; if it lives on in a duplicate, each of its edges is
     * an event for nobody.  That is too rare to pay a call for it per connection. */
    watch->registered = false;
    watch->events = 0;
}

/* ---- events ---- */

/* Is the number still the file that was reported?  Adding what is there fails, and changes nothing.
 */
static bool
same_file(struct gy_epoll *epoll, int fd)
{
    struct gy_epoll_watch *watch = &epoll->watches[fd];
    int err = control(epoll, EPOLL_CTL_ADD, fd, EPOLLONESHOT);
    if (GY_LIKELY(err == -EEXIST))
        return true;
    if (err == 0)
        (void)control(epoll, EPOLL_CTL_DEL, fd, 0);
    watch->registered = false;
    watch->events = 0;
    return false;
}

struct outcome {
    bool served; /* somebody waited for the event       */
    bool again;  /* somebody wants it reported again    */
};

static void
settle(struct gy_epoll *epoll, int fd, struct outcome outcome)
{
    struct gy_epoll_watch *watch = &epoll->watches[fd];
    uint32_t events = wanted(watch);
    int err;
    if (events == 0) {
        /* Kept while it is silent: who waited will often wait again. */
        if (!outcome.served && watch->events != 0)
            forget(epoll, fd);
        return;
    }
    /* Narrowed only when it has proved a nuisance. */
    if (!outcome.again && (watch->events & events) == events &&
        (outcome.served || watch->events == events))
        return;
    err = tell(epoll, fd);
    if (GY_UNLIKELY(err < 0))
        fail_all(epoll, fd, err == -ENOENT ? -EBADF : err);
}

/* One pass over those that wait: the calls, or the polls. */
static void
serve(struct gy_epoll *epoll, int fd, uint32_t events, bool polls, struct outcome *out)
{
    struct gy_epoll_request *request;
    struct gy_epoll_request *next;
    for (request = epoll->watches[fd].first; request != NULL; request = next) {
        next = request->next;
        if ((request->opcode == IORING_OP_POLL_ADD) != polls ||
            (events & (request->mask | EPOLLERR | EPOLLHUP)) == 0)
            continue;
        if (!polls && !out->served && !same_file(epoll, fd)) {
            fail_all(epoll, fd, -EBADF);
            return;
        }
        out->served = true;
        out->again |= gy_epoll_proceed(epoll, request, events);
    }
}

/* The calls go first: a send takes the error of a reset connection out of the socket, and a reader
 * that was told of the same reset before would find a plain end of the stream. */
void
gy_epoll_watch_event(struct gy_epoll *epoll, const struct epoll_event *event)
{
    int fd = (int)(uint32_t)event->data.u64;
    struct gy_epoll_watch *watch = find(epoll, fd);
    struct outcome outcome = {false, false};
    GY_ASSERT(watch != NULL);
    if (GY_UNLIKELY(watch->generation != (uint32_t)(event->data.u64 >> 32)))
        return; /* of a file that was closed here and lives on elsewhere */
    if (watch->events & EPOLLONESHOT)
        watch->events = 0;
    /* One poll and nothing else is the rule. */
    if (GY_UNLIKELY(watch->first != watch->last ||
                    (watch->first != NULL && watch->first->opcode != IORING_OP_POLL_ADD)))
        serve(epoll, fd, event->events, false, &outcome);
    serve(epoll, fd, event->events, true, &outcome);
    settle(epoll, fd, outcome);
}
