/* sockaddr.c: see sockaddr.h.  Thread: any that holds the GIL. */
#include "sockaddr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>

static PyObject *
unix_to_python(const struct sockaddr_un *address, socklen_t len)
{
    size_t path_len = 0;
    if (len > offsetof(struct sockaddr_un, sun_path))
        path_len = len - offsetof(struct sockaddr_un, sun_path);
    if (path_len > sizeof(address->sun_path))
        path_len = sizeof(address->sun_path);
    if (path_len > 0 && address->sun_path[0] == '\0') /* the abstract namespace */
        return PyBytes_FromStringAndSize(address->sun_path, (Py_ssize_t)path_len);
    return PyUnicode_DecodeFSDefaultAndSize(address->sun_path,
                                            (Py_ssize_t)strnlen(address->sun_path, path_len));
}

/* "127.0.0.1" without the C library's printf. */
static PyObject *
ipv4_text(const struct in_addr *address)
{
    uint8_t part[4];
    char text[INET_ADDRSTRLEN];
    char *end = text;
    memcpy(part, address, sizeof(part));
    for (size_t i = 0; i < sizeof(part); i++) {
        if (i > 0)
            *end++ = '.';
        if (part[i] >= 100)
            *end++ = (char)('0' + part[i] / 100);
        if (part[i] >= 10)
            *end++ = (char)('0' + part[i] / 10 % 10);
        *end++ = (char)('0' + part[i] % 10);
    }
    return PyUnicode_FromKindAndData(PyUnicode_1BYTE_KIND, text, end - text);
}

/* (host, port); takes the reference of both, which may be NULL. */
static PyObject *
pair(PyObject *host, PyObject *port)
{
    PyObject *result = host && port ? PyTuple_New(2) : NULL;
    if (result != NULL) {
        PyTuple_SET_ITEM(result, 0, host);
        PyTuple_SET_ITEM(result, 1, port);
        return result;
    }
    Py_XDECREF(host);
    Py_XDECREF(port);
    return NULL;
}

PyObject *
gpy_sockaddr_to_python(const struct sockaddr_storage *address, socklen_t len)
{
    char host[INET6_ADDRSTRLEN];
    if (len >= sizeof(struct sockaddr_in) && address->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)address;
        return pair(ipv4_text(&in->sin_addr), PyLong_FromLong(ntohs(in->sin_port)));
    }
    if (len >= sizeof(struct sockaddr_in6) && address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)address;
        if (inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host)) == NULL)
            return PyErr_SetFromErrno(PyExc_OSError);
        return Py_BuildValue("siII", host, (int)ntohs(in6->sin6_port),
                             (unsigned)ntohl(in6->sin6_flowinfo), (unsigned)in6->sin6_scope_id);
    }
    if (len >= sizeof(address->ss_family) && address->ss_family == AF_UNIX)
        return unix_to_python((const void *)address, len);
    Py_RETURN_NONE;
}

/* 0: does not fit here. */
static int
unsigned_at(PyObject *tuple, Py_ssize_t i, unsigned long limit, unsigned long *out)
{
    PyObject *item = PyTuple_GET_ITEM(tuple, i);
    if (!PyLong_CheckExact(item))
        return 0;
    unsigned long value = PyLong_AsUnsignedLong(item);
    if (value == ULONG_MAX && PyErr_Occurred()) {
        PyErr_Clear(); /* the socket module has the words for it */
        return 0;
    }
    *out = value;
    return value <= limit;
}

static int
inet_parse(int family, PyObject *address, struct sockaddr_storage *out, socklen_t *len)
{
    Py_ssize_t count = PyTuple_Check(address) ? PyTuple_GET_SIZE(address) : 0;
    unsigned long port, flowinfo = 0, scope_id = 0;
    if (count < 2 || count > (family == AF_INET ? 2 : 4) ||
        !PyUnicode_Check(PyTuple_GET_ITEM(address, 0)) || !unsigned_at(address, 1, 65535, &port) ||
        (count > 2 && !unsigned_at(address, 2, 0xfffff, &flowinfo)) ||
        (count > 3 && !unsigned_at(address, 3, UINT_MAX, &scope_id)))
        return 0;
    const char *host = PyUnicode_AsUTF8(PyTuple_GET_ITEM(address, 0));
    if (host == NULL) {
        PyErr_Clear();
        return 0;
    }
    memset(out, 0, sizeof(*out));
    if (family == AF_INET) {
        struct sockaddr_in *in = (void *)out;
        in->sin_family = AF_INET;
        in->sin_port = htons((uint16_t)port);
        *len = sizeof(*in);
        return inet_pton(AF_INET, host, &in->sin_addr) == 1;
    }
    struct sockaddr_in6 *in6 = (void *)out;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons((uint16_t)port);
    in6->sin6_flowinfo = htonl((uint32_t)flowinfo);
    in6->sin6_scope_id = (uint32_t)scope_id;
    *len = sizeof(*in6);
    return inet_pton(AF_INET6, host, &in6->sin6_addr) == 1;
}

static int
unix_parse(PyObject *address, struct sockaddr_storage *out, socklen_t *len)
{
    PyObject *path = NULL;
    if (!PyUnicode_Check(address) && !PyBytes_Check(address))
        return 0;
    if (!PyUnicode_FSConverter(address, &path)) {
        PyErr_Clear(); /* a NUL inside: the abstract namespace, which the socket module knows */
        return 0;
    }
    struct sockaddr_un *un = (void *)out;
    size_t path_len = (size_t)PyBytes_GET_SIZE(path);
    if (path_len == 0 || path_len >= sizeof(un->sun_path)) {
        Py_DECREF(path);
        return 0;
    }
    memset(out, 0, sizeof(*out));
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, PyBytes_AS_STRING(path), path_len);
    *len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path_len + 1);
    Py_DECREF(path);
    return 1;
}

int
gpy_sockaddr_parse(int family, PyObject *address, struct sockaddr_storage *out, socklen_t *len)
{
    if (family == AF_INET || family == AF_INET6)
        return inet_parse(family, address, out, len);
    if (family == AF_UNIX)
        return unix_parse(address, out, len);
    return 0;
}

PyObject *
gpy_sockaddr_local(int fd)
{
    struct sockaddr_storage address = {0};
    socklen_t len = sizeof(address);
    if (getsockname(fd, (struct sockaddr *)&address, &len) < 0)
        Py_RETURN_NONE;
    return gpy_sockaddr_to_python(&address, len);
}

PyObject *
gpy_sockaddr_peer(int fd)
{
    struct sockaddr_storage address = {0};
    socklen_t len = sizeof(address);
    if (getpeername(fd, (struct sockaddr *)&address, &len) == 0)
        return gpy_sockaddr_to_python(&address, len);
    /* A reset connection still knows its peer; SO_PEERNAME tells, for the exact length only. */
    static const socklen_t lengths[] = {sizeof(struct sockaddr_in6), sizeof(struct sockaddr_in)};
    for (size_t i = 0; errno == ENOTCONN && i < sizeof(lengths) / sizeof(*lengths); i++) {
        len = lengths[i];
        if (getsockopt(fd, SOL_SOCKET, SO_PEERNAME, &address, &len) == 0)
            return gpy_sockaddr_to_python(&address, len);
        errno = errno == EINVAL ? ENOTCONN : errno;
    }
    Py_RETURN_NONE;
}
