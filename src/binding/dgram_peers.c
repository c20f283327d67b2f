/* dgram_peers.c: see dgram_peers.h.  Two tables of direct mapping: peers by the hash of their
 * sockaddr, and where the peer of an object is, by the object's address.  A collision costs a
 * conversion. */
#include "dgram_peers.h"

#include "sockaddr.h"

#include <netinet/in.h>
#include <stdint.h>
#include <string.h>

enum { PEERS = 64, SLOT_BITS = 6 };
_Static_assert(1 << SLOT_BITS == PEERS, "a slot per peer");

struct peer {
    PyObject *value; /* NULL: none */
    socklen_t len;
    char name[sizeof(struct sockaddr_in6)];
};

struct gpy_peers {
    struct peer peers[PEERS];
    uint8_t by_value[PEERS]; /* index in peers; may be out of date */
};

static unsigned
slot_of(uint64_t key)
{
    return (unsigned)((key * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - SLOT_BITS));
}

static unsigned
slot_of_value(PyObject *value)
{
    return slot_of((uint64_t)(uintptr_t)value);
}

/* False: of a family that is not kept. */
static bool
slot_of_address(const struct gy_address *address, unsigned *slot)
{
    const struct sockaddr_in *in = (const void *)&address->storage;
    const struct sockaddr_in6 *in6 = (const void *)&address->storage;
    uint64_t words[2];

    if (address->len == sizeof(*in) && in->sin_family == AF_INET) {
        *slot = slot_of((uint64_t)in->sin_addr.s_addr << 16 | in->sin_port);
        return true;
    }
    if (address->len != sizeof(*in6) || in6->sin6_family != AF_INET6)
        return false;
    memcpy(words, &in6->sin6_addr, sizeof(words));
    *slot = slot_of(words[0] ^ words[1] << 7 ^ (uint64_t)in6->sin6_port << 40);
    return true;
}

PyObject *
gpy_peers_to_python(struct gpy_peers **peers, const struct gy_address *address)
{
    unsigned slot;

    if (!slot_of_address(address, &slot))
        return gpy_sockaddr_to_python(&address->storage, address->len);
    if (*peers == NULL)
        *peers = PyMem_Calloc(1, sizeof(**peers));
    if (*peers == NULL)
        return PyErr_NoMemory();
    struct peer *peer = &(*peers)->peers[slot];
    if (peer->value != NULL && peer->len == address->len &&
        memcmp(peer->name, &address->storage, address->len) == 0)
        return Py_NewRef(peer->value);
    PyObject *value = gpy_sockaddr_to_python(&address->storage, address->len);
    if (value == NULL)
        return NULL;
    peer->len = address->len;
    memcpy(peer->name, &address->storage, address->len);
    Py_XSETREF(peer->value, Py_NewRef(value));
    (*peers)->by_value[slot_of_value(value)] = (uint8_t)slot;
    return value;
}

bool
gpy_peers_find(const struct gpy_peers *peers, PyObject *value, struct gy_address *address)
{
    if (peers == NULL)
        return false;
    const struct peer *peer = &peers->peers[peers->by_value[slot_of_value(value)]];
    if (peer->value != value)
        return false;
    address->len = peer->len;
    memcpy(&address->storage, peer->name, peer->len);
    return true;
}

void
gpy_peers_free(struct gpy_peers **peers)
{
    if (*peers == NULL)
        return;
    for (unsigned i = 0; i < PEERS; i++)
        Py_XDECREF((*peers)->peers[i].value);
    PyMem_Free(*peers);
    *peers = NULL;
}
