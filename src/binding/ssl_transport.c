/* ssl_transport.c: SSLTransportCore, the C half of the transport that a TLS application holds.
 *
 * gyre's class is (SSLTransportCore, asyncio's _SSLProtocolTransport): what is called per packet is
 * here, the rest is asyncio's.  As every transport it begins with the five slots of asyncio's
 * _FlowControlMixin (transport.h).
 * Owner: Python references.  Thread: the loop's. */
#include "ssl.h"

#include "args.h"

#include <structmember.h>

struct gpy_ssl_transport {
    PyObject_HEAD
    PyObject *mixin_slots[5];
    struct gpy_state *state;
    PyObject *protocol; /* _ssl_protocol */
    char closed;        /* _closed       */
};

static GY_COLD PyObject *
refuse_type(PyObject *data)
{
    PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(data), "__name__");
    if (name != NULL)
        PyErr_Format(PyExc_TypeError, "data: expecting a bytes-like instance, got %U", name);
    Py_XDECREF(name);
    return NULL;
}

static PyObject *
write_to(struct gpy_ssl_transport *self, PyObject *list)
{
    PyObject *protocol = Py_NewRef(self->protocol ? self->protocol : Py_None);
    PyObject *result = PyObject_CallMethodOneArg(protocol, self->state->str__write_appdata, list);
    Py_DECREF(protocol);
    Py_XDECREF(result);
    return result ? Py_NewRef(Py_None) : NULL;
}

static PyObject *
transport_write(struct gpy_ssl_transport *self, PyObject *data)
{
    if (GY_UNLIKELY(!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data)))
        return refuse_type(data);
    int some = PyObject_IsTrue(data);
    if (some <= 0)
        return some < 0 ? NULL : Py_NewRef(Py_None);
    struct gpy_ssl *ssl = self->protocol ? gpy_ssl_check(self->state, self->protocol) : NULL;
    if (GY_LIKELY(ssl != NULL)) {
        Py_INCREF(ssl);
        PyObject *result = gpy_ssl_write(ssl, data);
        Py_DECREF(ssl);
        return result;
    }
    PyObject *list = PyTuple_Pack(1, data);
    PyObject *result = list ? write_to(self, list) : NULL;
    Py_XDECREF(list);
    return result;
}

GPY_ONE_ARGUMENT(ssl_transport_write, struct gpy_ssl_transport, transport_write, "write", "data")
GPY_ONE_ARGUMENT(ssl_transport_writelines, struct gpy_ssl_transport, write_to, "writelines",
                 "list_of_data")

static PyMethodDef ssl_transport_methods[] = {
    {"write", GPY_METHOD(ssl_transport_write),
     "write($self, data)\n--\n\nEncrypt and send bytes; never blocks."},
    {"writelines", GPY_METHOD(ssl_transport_writelines),
     "writelines($self, list_of_data)\n--\n\nEncrypt and send several bytes objects."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef ssl_transport_members[] = {
    {"_ssl_protocol", T_OBJECT, offsetof(struct gpy_ssl_transport, protocol), 0, NULL},
    {"_closed", T_BOOL, offsetof(struct gpy_ssl_transport, closed), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyObject *
ssl_transport_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    struct gpy_state *state = gpy_state_of_type(type);
    struct gpy_ssl_transport *self =
        state ? (struct gpy_ssl_transport *)type->tp_alloc(type, 0) : NULL;
    if (self == NULL)
        return NULL;
    self->state = state;
    gpy_state_hold(state);
    return (PyObject *)self;
}

static int
ssl_transport_traverse(struct gpy_ssl_transport *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    for (int i = 0; i < 5; i++)
        Py_VISIT(self->mixin_slots[i]);
    Py_VISIT(self->protocol);
    return 0;
}

static int
ssl_transport_clear(struct gpy_ssl_transport *self)
{
    for (int i = 0; i < 5; i++)
        Py_CLEAR(self->mixin_slots[i]);
    Py_CLEAR(self->protocol);
    return 0;
}

static void
ssl_transport_dealloc(struct gpy_ssl_transport *self)
{
    PyTypeObject *type = Py_TYPE(self);
    struct gpy_state *state = self->state;
    PyObject_GC_UnTrack(self);
    (void)ssl_transport_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
    gpy_state_release(state);
}

static PyType_Slot ssl_transport_slots[] = {
    {Py_tp_doc, "The C half of a TLS transport; made by the loop."},
    {Py_tp_new, ssl_transport_new},
    {Py_tp_dealloc, ssl_transport_dealloc},
    {Py_tp_traverse, ssl_transport_traverse},
    {Py_tp_clear, ssl_transport_clear},
    {Py_tp_methods, ssl_transport_methods},
    {Py_tp_members, ssl_transport_members},
    {0, NULL},
};

static PyType_Spec ssl_transport_spec = {
    .name = "gyre._gyre.SSLTransportCore",
    .basicsize = sizeof(struct gpy_ssl_transport),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = ssl_transport_slots,
};

int
gpy_ssl_transport_exec(PyObject *module, struct gpy_state *state)
{
    PyObject *transports = PyImport_ImportModule("asyncio.transports");
    PyObject *base = transports ? PyObject_GetAttrString(transports, "_FlowControlMixin") : NULL;
    PyObject *bases = NULL;
    int rc = -1;
    if (base == NULL)
        goto done;
    if (!PyType_Check(base) || ((PyTypeObject *)base)->tp_basicsize !=
                                   (Py_ssize_t)offsetof(struct gpy_ssl_transport, state)) {
        PyErr_SetString(PyExc_ImportError,
                        "asyncio's transports of this Python has fields that gyre does not know");
        goto done;
    }
    bases = PyTuple_Pack(1, base);
    if (bases != NULL)
        state->ssl_transport_core_type =
            (PyTypeObject *)PyType_FromModuleAndSpec(module, &ssl_transport_spec, bases);
    if (state->ssl_transport_core_type != NULL)
        rc = PyModule_AddType(module, state->ssl_transport_core_type);
done:
    Py_XDECREF(transports);
    Py_XDECREF(base);
    Py_XDECREF(bases);
    return rc;
}
