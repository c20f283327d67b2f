/* ssl_openssl.c: see ssl_openssl.h.
 *
 * The only globals are function pointers and two words per thread; no Python object among them.
 * The hooks stay registered for the life of the process, as the extension stays loaded. */
#include "ssl_openssl.h"

#include "ssl_pipe.h"

#include "../core/base.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

enum { CLASS_SSL = 0 /* CRYPTO_EX_INDEX_SSL */, APP_DATA = 0 /* SSL_get_app_data() */ };
enum { SOURCE_SINK = 0x0400 /* BIO_TYPE_SOURCE_SINK */ };

typedef void ex_hook(void *parent, void *ptr, void *data, int index, long argl, void *argp);
typedef int ex_new_index(int class_index, long argl, void *argp, ex_hook *on_new, void *on_dup,
                         ex_hook *on_free);
typedef const char *version_text(int what);
typedef int bio_new_index(void);
typedef void *bio_meth_new(int type, const char *name);
typedef void any_function(void);
typedef int bio_meth_set(void *method, any_function *function);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool searched;
static bool usable;
static struct gpy_openssl library;

static _Thread_local bool watching;
static _Thread_local void *noted;

static void
on_new(void *parent, void *Py_UNUSED(ptr), void *Py_UNUSED(data), int Py_UNUSED(index),
       long Py_UNUSED(argl), void *Py_UNUSED(argp))
{
    if (watching)
        noted = parent;
}

static void
on_free(void *parent, void *Py_UNUSED(ptr), void *Py_UNUSED(data), int Py_UNUSED(index),
        long Py_UNUSED(argl), void *Py_UNUSED(argp))
{
    if (noted == parent)
        noted = NULL;
}

void
gpy_openssl_watch(void)
{
    noted = NULL;
    watching = true;
}

void *
gpy_openssl_take(const struct gpy_openssl *lib, const PyObject *owner)
{
    void *ssl = noted;
    watching = false;
    noted = NULL;
    return ssl != NULL && lib->SSL_get_ex_data(ssl, APP_DATA) == owner ? ssl : NULL;
}

/* *out = the function; data and function pointers are the same size on every Linux. */
static bool
find(void *handle, const char *name, void *out)
{
    void *symbol = dlsym(handle, name);
    memcpy(out, &symbol, sizeof symbol);
    return symbol != NULL;
}

static bool
find_all(void *handle)
{
#define FIND(name) find(handle, #name, &library.name)
    return FIND(SSL_read_ex) && FIND(SSL_write_ex) && FIND(SSL_pending) && FIND(SSL_get_error) &&
           FIND(SSL_get_ex_data) && FIND(SSL_get_rbio) && FIND(SSL_get_wbio) && FIND(BIO_write) &&
           FIND(BIO_read) && FIND(BIO_ctrl_pending) && FIND(BIO_ctrl) && FIND(BIO_new) &&
           FIND(BIO_up_ref) && FIND(BIO_set_init) && FIND(BIO_set_data) && FIND(BIO_get_data) &&
           FIND(BIO_set_flags) && FIND(BIO_clear_flags) && FIND(BIO_test_flags) &&
           FIND(SSL_set0_rbio) && FIND(SSL_set0_wbio) && FIND(ERR_peek_error) &&
           FIND(ERR_clear_error);
#undef FIND
}

/* The kind of BIO that a pipe is.  It stays for the life of the process. */
static bool
make_pipe_method(void *handle)
{
    bio_new_index *new_index;
    bio_meth_new *meth_new;
    bio_meth_set *set_read, *set_write, *set_ctrl;
    if (!find(handle, "BIO_get_new_index", &new_index) ||
        !find(handle, "BIO_meth_new", &meth_new) ||
        !find(handle, "BIO_meth_set_read_ex", &set_read) ||
        !find(handle, "BIO_meth_set_write_ex", &set_write) ||
        !find(handle, "BIO_meth_set_ctrl", &set_ctrl))
        return false;
    int index = new_index();
    library.pipe_method = index > 0 ? meth_new(index | SOURCE_SINK, "gyre") : NULL;
    return library.pipe_method != NULL &&
           set_read(library.pipe_method, (any_function *)gpy_ssl_pipe_read) == 1 &&
           set_write(library.pipe_method, (any_function *)gpy_ssl_pipe_write) == 1 &&
           set_ctrl(library.pipe_method, (any_function *)gpy_ssl_pipe_ctrl) == 1;
}

static bool
open_library(const char *module_file, const char *version)
{
    ex_new_index *new_index;
    version_text *text;
    if (strncmp(version, "OpenSSL ", 8) != 0) /* others have these names with other arguments */
        return false;
    void *handle = dlopen(module_file, RTLD_LAZY | RTLD_NOLOAD);
    if (handle == NULL)
        return false;
    /* The handle is kept: the module stays loaded anyway. */
    return find(handle, "OpenSSL_version", &text) && strcmp(text(0), version) == 0 &&
           find_all(handle) && make_pipe_method(handle) &&
           find(handle, "CRYPTO_get_ex_new_index", &new_index) &&
           new_index(CLASS_SSL, 0, NULL, on_new, NULL, on_free) >= 0;
}

const struct gpy_openssl *
gpy_openssl_find(const char *module_file, const char *version)
{
    pthread_mutex_lock(&lock);
    if (!searched) {
        usable = open_library(module_file, version);
        searched = true;
    }
    pthread_mutex_unlock(&lock);
    return usable ? &library : NULL;
}

void *
gpy_openssl_bio_data(void *bio)
{
    return library.BIO_get_data(bio);
}
