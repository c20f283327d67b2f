/* ssl_read.c: from ciphertext to the application: asyncio's SSLProtocol._do_read() in C.
 *
 * As there, everything that one call brings is decrypted first and delivered by one
 * data_received(); nothing is delivered of a batch in which OpenSSL found an error.  Ciphertext
 * is read where it lies; behind what waits in the BIO it goes there too, in steps of
 * GPY_SSL_FEED_BYTES, so that the BIO stays small.  Thread: the loop's.  Invariants: no user code
 * runs while a step is under way (except callbacks of the SSLContext, which cannot reach this
 * connection's records); self->ssl_socket is asked again after each call into the application. */
#include "ssl_engine.h"

#include "pycompat.h"
#include "streams.h"

#include <string.h>

/* What reading returns when OpenSSL found the records to be wrong: an exception is set. */
enum { RECORDS_ARE_BAD = -2 };

/* Ciphertext that is not in the BIO yet. */
struct feed {
    const char *data;
    size_t len;
    size_t plaintext; /* bytes in the records that it completes */
};

/* ---- OpenSSL ------------------------------------------------------------------------------------
 */

static int
feed_step(struct gpy_ssl *self, struct feed *feed, size_t limit)
{
    struct gpy_ssl_pipe *pipe = &self->pipe;
    size_t part = feed->len < limit ? feed->len : limit;
    if (GY_LIKELY(self->ssl != NULL && !pipe->stored && pipe->in_bytes == 0)) {
        pipe->in = feed->data; /* read from where it lies */
        pipe->in_bytes = feed->len;
        feed->len = 0;
        return 0;
    }
    if (part != 0 && gpy_ssl_put(self, feed->data, part) < 0)
        return -1;
    feed->data += part;
    feed->len -= part;
    return 0;
}

static int
feed_rest(struct gpy_ssl *self, struct feed *feed)
{
    if (GY_UNLIKELY(gpy_ssl_pipe_keep_in(&self->pipe) < 0)) {
        (void)PyErr_NoMemory();
        return -1;
    }
    while (feed->len != 0) {
        size_t part = feed->len < INT_MAX ? feed->len : INT_MAX;
        if (gpy_ssl_put(self, feed->data, part) < 0)
            return -1;
        feed->data += part;
        feed->len -= part;
    }
    return 0;
}

/* Something that read(), which has filled `room` up to what is left of it, has not looked at:
 * without it one call less finds nothing.  Where room is left the record had no more. */
static bool
more_to_pull(struct gpy_ssl *self, size_t room_left)
{
    return gpy_ssl_incoming(self) != 0 || (room_left == 0 && gpy_ssl_buffered(self) != 0);
}

/* ---- data_received() ----------------------------------------------------------------------------
 */

/* The least that a record's body is longer than its plaintext: a tag, and in TLS 1.3 the type. */
enum { RECORD_OVERHEAD_BYTES = 17 };

size_t
gpy_ssl_frame_walk(struct gpy_ssl_frame *frame, const char *data, size_t len)
{
    size_t plaintext = 0;
    while (len != 0) {
        if (frame->left_bytes == 0) {
            frame->header[frame->header_bytes++] = (uint8_t)*data;
            data++;
            len--;
            if (frame->header_bytes < sizeof frame->header)
                continue;
            frame->header_bytes = 0;
            frame->body_bytes = (uint32_t)frame->header[3] << 8 | frame->header[4];
            frame->left_bytes = frame->body_bytes;
            continue;
        }
        size_t part = len < frame->left_bytes ? len : frame->left_bytes;
        frame->left_bytes -= (uint32_t)part;
        data += part;
        len -= part;
        if (frame->left_bytes == 0 && frame->body_bytes > RECORD_OVERHEAD_BYTES)
            plaintext += frame->body_bytes - RECORD_OVERHEAD_BYTES;
    }
    return plaintext;
}

/* Room for what the ciphertext and everything that waits will be, as a rule to the byte: an object
 * that is made smaller afterwards would have its pages mapped anew each time. */
static size_t
plaintext_bytes(struct gpy_ssl *self, const struct feed *feed)
{
    return feed->plaintext + gpy_ssl_incoming(self) + gpy_ssl_buffered(self);
}

struct batch {
    PyObject *bytes;
    size_t room;
    size_t have;
};

/* The batch is full.  As a rule nothing follows but the beginning of a record. */
static enum gpy_ssl_pull
pull_beyond(struct gpy_ssl *self, struct batch *batch)
{
    char spill[1024];
    size_t got = 0;
    enum gpy_ssl_pull what = gpy_ssl_pull(self, spill, sizeof spill, &got);
    if (GY_LIKELY(what != GPY_SSL_PULL_DATA))
        return what;
    batch->room += got + GPY_SSL_FEED_BYTES;
    if (_PyBytes_Resize(&batch->bytes, (Py_ssize_t)batch->room) < 0)
        return GPY_SSL_PULL_ERROR;
    memcpy(PyBytes_AS_STRING(batch->bytes) + batch->have, spill, got);
    batch->have += got;
    return GPY_SSL_PULL_DATA;
}

static enum gpy_ssl_pull
pull_one(struct gpy_ssl *self, struct batch *batch)
{
    size_t got = 0;
    if (batch->have == batch->room)
        return pull_beyond(self, batch);
    enum gpy_ssl_pull what = gpy_ssl_pull(self, PyBytes_AS_STRING(batch->bytes) + batch->have,
                                          batch->room - batch->have, &got);
    if (GY_LIKELY(what == GPY_SSL_PULL_DATA))
        batch->have += got;
    return what;
}

/* Fills the batch with all there is. */
static enum gpy_ssl_pull
pull_all(struct gpy_ssl *self, struct feed *feed, struct batch *batch)
{
    enum gpy_ssl_pull what = GPY_SSL_PULL_AGAIN;
    do {
        if (feed_step(self, feed, GPY_SSL_FEED_BYTES) < 0)
            return GPY_SSL_PULL_ERROR;
        do {
            what = pull_one(self, batch);
            if (what == GPY_SSL_PULL_DATA && !more_to_pull(self, batch->room - batch->have))
                what = GPY_SSL_PULL_AGAIN;
        } while (what == GPY_SSL_PULL_DATA);
    } while (what == GPY_SSL_PULL_AGAIN && feed->len != 0);
    return what;
}

static int
call_method(struct gpy_ssl *self, PyObject *name)
{
    PyObject *result = PyObject_CallMethodNoArgs((PyObject *)self, name);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

/* close_notify came. */
static GY_COLD int
end_of_data(struct gpy_ssl *self)
{
    return call_method(self, self->state->str__call_eof_received) < 0
               ? -1
               : call_method(self, self->state->str__start_shutdown);
}

/* app_protocol.data_received(bytes), or what a plain stream's would do. */
static int
deliver(struct gpy_ssl *self, PyObject *bytes)
{
    struct gpy_state *state = self->state;
    PyObject *protocol = Py_NewRef(self->app_protocol ? self->app_protocol : Py_None);
    struct gpy_intake *intake = NULL;
    if (self->loop != NULL && gpy_loop_direct(state, self->loop) != NULL)
        intake = gpy_streams_intake(state, protocol);
    int rc;
    if (intake != NULL) {
        rc = gpy_intake_feed(intake, bytes);
        Py_DECREF((PyObject *)intake);
    } else {
        PyObject *result = PyObject_CallMethodOneArg(protocol, state->str_data_received, bytes);
        rc = result != NULL ? 0 : -1;
        Py_XDECREF(result);
    }
    Py_DECREF(protocol);
    return rc;
}

static int
read_copied(struct gpy_ssl *self, struct feed *feed)
{
    size_t room = plaintext_bytes(self, feed);
    struct batch batch = {.room = room ? room : 1};
    batch.bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)batch.room);
    if (batch.bytes == NULL)
        return -1;
    enum gpy_ssl_pull what = pull_all(self, feed, &batch);
    int rc = what == GPY_SSL_PULL_ERROR ? RECORDS_ARE_BAD : feed_rest(self, feed);
    if (rc == 0 && batch.have != 0 && batch.have < batch.room)
        rc = _PyBytes_Resize(&batch.bytes, (Py_ssize_t)batch.have);
    if (rc == 0 && batch.have != 0)
        rc = deliver(self, batch.bytes);
    Py_XDECREF(batch.bytes);
    return rc == 0 && what == GPY_SSL_PULL_END ? end_of_data(self) : rc;
}

/* ---- get_buffer(), buffer_updated() -------------------------------------------------------------
 */

/* Fills the application's buffer; *filled bytes.  GPY_SSL_PULL_DATA: it is full, and there may be
 * more. */
static enum gpy_ssl_pull
pull_into(struct gpy_ssl *self, struct feed *feed, const Py_buffer *view, size_t *filled)
{
    size_t room = (size_t)view->len, have = 0;
    enum gpy_ssl_pull what = GPY_SSL_PULL_AGAIN;
    do {
        if (feed_step(self, feed, GPY_SSL_FEED_BYTES) < 0)
            return GPY_SSL_PULL_ERROR;
        do {
            size_t got = 0;
            what = gpy_ssl_pull(self, (char *)view->buf + have, room - have, &got);
            if (what == GPY_SSL_PULL_DATA)
                have += got;
            if (what == GPY_SSL_PULL_DATA && have < room && !more_to_pull(self, room - have))
                what = GPY_SSL_PULL_AGAIN;
        } while (what == GPY_SSL_PULL_DATA && have < room);
    } while (what == GPY_SSL_PULL_AGAIN && feed->len != 0);
    *filled = have;
    return feed_rest(self, feed) < 0 ? GPY_SSL_PULL_ERROR : what;
}

/* As asyncio: the hint is the size of the ciphertext, and an empty buffer is the end. */
static int
application_buffer(struct gpy_ssl *self, size_t hint_bytes, Py_buffer *view)
{
    PyObject *hint = PyLong_FromSize_t(hint_bytes);
    PyObject *get_buffer = Py_NewRef(self->app_get_buffer ? self->app_get_buffer : Py_None);
    PyObject *buffer = hint ? PyObject_CallOneArg(get_buffer, hint) : NULL;
    bool sized = buffer != NULL && PyObject_Size(buffer) >= 0; /* else what len() says */
    int rc = sized ? PyObject_GetBuffer(buffer, view, PyBUF_WRITABLE) : -1;
    if (GY_UNLIKELY(rc < 0 && sized)) /* in the words of _ssl's read() */
        PyErr_Format(PyExc_TypeError,
                     "read() argument 2 must be read-write bytes-like object, not %.50s",
                     Py_TYPE(buffer)->tp_name);
    Py_XDECREF(hint);
    Py_DECREF(get_buffer);
    Py_XDECREF(buffer); /* the view holds it */
    return rc;
}

/* get_buffer() raised.  The ciphertext waits for the next call: KeyboardInterrupt is no end. */
static GY_COLD int
keep_feed(struct gpy_ssl *self, struct feed *feed)
{
    PyObject *exc = gpy_exc_take();
    if (self->ssl_socket != NULL && feed_rest(self, feed) < 0)
        PyErr_Clear(); /* no memory: then it ends with the error of a record that is cut */
    gpy_exc_give(exc);
    return -1;
}

static int
read_buffered(struct gpy_ssl *self, struct feed *feed)
{
    Py_buffer view;
    size_t filled = 0;
    int rc = 0;
    if (application_buffer(self, gpy_ssl_incoming(self) + feed->len, &view) < 0)
        return keep_feed(self, feed);
    enum gpy_ssl_pull what = GPY_SSL_PULL_END;
    if (self->ssl_socket == NULL || view.len == 0)
        rc = feed_rest(self, feed);
    else
        what = pull_into(self, feed, &view, &filled);
    PyBuffer_Release(&view);
    if (what == GPY_SSL_PULL_ERROR || rc < 0)
        return rc < 0 ? rc : RECORDS_ARE_BAD;
    if (what == GPY_SSL_PULL_DATA) { /* full: the rest in a callback of its own */
        PyObject *again = PyObject_GetAttr((PyObject *)self, self->state->str__do_read);
        PyObject *handle =
            again ? PyObject_CallMethodOneArg(self->loop, self->state->str_call_soon, again) : NULL;
        Py_XDECREF(again);
        Py_XDECREF(handle);
        rc = handle ? 0 : -1;
    }
    if (rc == 0 && filled != 0) {
        PyObject *count = PyLong_FromSize_t(filled);
        PyObject *updated = Py_NewRef(self->app_buffer_updated);
        PyObject *result = count ? PyObject_CallOneArg(updated, count) : NULL;
        rc = result ? 0 : -1;
        Py_XDECREF(count);
        Py_DECREF(updated);
        Py_XDECREF(result);
    }
    return rc == 0 && what == GPY_SSL_PULL_END ? end_of_data(self) : rc;
}

/* ---- _do_read() ---------------------------------------------------------------------------------
 */

/* Ciphertext that the application does not want yet fills the BIO; then the transport pauses. */
static int
control_reading(struct gpy_ssl *self)
{
    Py_ssize_t size = (Py_ssize_t)gpy_ssl_incoming(self);
    if (GY_LIKELY(self->ssl_reading_paused ? size > self->incoming_low
                                           : size < self->incoming_high))
        return 0;
    PyObject *result = gpy_ssl_super(self, self->state->str__control_ssl_reading, NULL);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

static int
read_and_answer(struct gpy_ssl *self, struct feed *feed)
{
    int rc;
    if (self->app_reading_paused) {
        rc = feed_rest(self, feed);
    } else {
        gpy_ssl_forget_errors(self);
        rc = self->app_is_buffer ? read_buffered(self, feed) : read_copied(self, feed);
        if (rc < 0 || self->ssl_socket == NULL)
            return rc;
        Py_ssize_t waiting = self->backlog ? PyObject_Size(self->backlog) : 0;
        if (GY_UNLIKELY(waiting != 0))
            rc = waiting < 0 ? -1 : call_method(self, self->state->str__do_write);
        else
            rc = gpy_ssl_process_outgoing(self);
    }
    return rc < 0 || self->ssl_socket == NULL ? rc : control_reading(self);
}

int
gpy_ssl_read(struct gpy_ssl *self, const char *data, size_t len)
{
    struct feed feed = {data, len, gpy_ssl_frame_walk(&self->frame, data, len)};
    if (GY_LIKELY(self->ssl != NULL)) {
        self->pipe.stored = true; /* until we have looked */
        (void)gpy_ssl_pipe_incoming(&self->pipe);
    }
    int rc = read_and_answer(self, &feed);
    self->pipe.in_bytes = 0; /* not 0 only after bad records */
    if (GY_LIKELY(rc == 0))
        return 0;
    /* What was written before the failure leaves, as it would have at once.  Not OpenSSL's alert
     * about a bad record: asyncio aborts the connection. */
    PyObject *exc = gpy_exc_take();
    if (rc != RECORDS_ARE_BAD && self->feeding && self->ssl_socket != NULL &&
        gpy_ssl_drain(self) < 0)
        PyErr_Clear();
    gpy_exc_give(exc);
    return gpy_ssl_fatal_error(self);
}
