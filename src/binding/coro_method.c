/* coro_method.c: see coro_method.h. */
#include "coro_method.h"

#include <stddef.h>
#include <structmember.h>

static PyObject *
method_descr_get(PyObject *self, PyObject *object, PyObject *Py_UNUSED(type))
{
    return object == NULL || object == Py_None ? Py_NewRef(self) : PyMethod_New(self, object);
}

/* All that is asked of it is asked of the function. */
static PyObject *
method_getattro(struct gpy_coro_method *self, PyObject *name)
{
    return PyObject_GetAttr(self->function, name);
}

static PyObject *
method_repr(struct gpy_coro_method *self)
{
    return PyObject_Repr(self->function);
}

static int
method_traverse(struct gpy_coro_method *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->base);
    Py_VISIT(self->function);
    return 0;
}

static int
method_clear(struct gpy_coro_method *self)
{
    Py_CLEAR(self->base);
    Py_CLEAR(self->function);
    Py_CLEAR(self->name);
    return 0;
}

static void
method_dealloc(struct gpy_coro_method *self)
{
    PyTypeObject *type = Py_TYPE(self);
    struct gpy_state *state = self->state;
    PyObject_GC_UnTrack(self);
    (void)method_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
    gpy_state_release(state);
}

static PyMemberDef method_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(struct gpy_coro_method, vectorcall), READONLY,
     NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot method_slots[] = {
    {Py_tp_doc, "A coroutine function, and its short cut."},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_descr_get, method_descr_get},
    {Py_tp_getattro, method_getattro},
    {Py_tp_repr, method_repr},
    {Py_tp_traverse, method_traverse},
    {Py_tp_clear, method_clear},
    {Py_tp_dealloc, method_dealloc},
    {Py_tp_members, method_members},
    {0, NULL},
};

static PyType_Spec method_spec = {
    .name = "gyre._gyre.CoroutineMethod",
    .basicsize = sizeof(struct gpy_coro_method),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
             Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = method_slots,
};

PyObject *
gpy_coro_method_new(struct gpy_state *state, vectorcallfunc vectorcall, PyObject *function,
                    uint8_t kind)
{
    PyTypeObject *type = state->coro_method_type;
    struct gpy_coro_method *self = (struct gpy_coro_method *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->state = state;
    gpy_state_hold(state);
    self->vectorcall = vectorcall;
    self->kind = kind;
    self->function = Py_NewRef(function);
    return (PyObject *)self;
}

int
gpy_coro_method_exec(PyObject *module, struct gpy_state *state)
{
    state->coro_method_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &method_spec, NULL);
    return state->coro_method_type ? 0 : -1;
}
