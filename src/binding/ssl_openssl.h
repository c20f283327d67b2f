/* ssl_openssl.h: the interpreter's own OpenSSL, called directly.
 *
 * gyre does not link to OpenSSL.  What it calls is found at run time (dlsym) in the library that
 * Python's _ssl module has loaded; where that has no such symbols (a Python with OpenSSL built in,
 * or another library than OpenSSL) gyre goes through _ssl's own methods instead.
 *
 * Which SSL* belongs to an SSLObject is not read out of _ssl's structs: OpenSSL itself says it.  A
 * hook that it calls for each new SSL (CRYPTO_get_ex_new_index) notes the SSL that this thread has
 * just made, and that one is taken only if its application data, which _ssl sets to the Python
 * object, is the object in question.  A wrong guess therefore is a refusal and never a crash.
 *
 * Thread: any; calls on one SSL* are made with the GIL held throughout, as _ssl's methods that are
 * called on the loop's thread would not run at the same time either. */
#ifndef GPY_SSL_OPENSSL_H
#define GPY_SSL_OPENSSL_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>

enum { GPY_OPENSSL_WANT_READ = 2 }; /* SSL_ERROR_WANT_READ */

struct gpy_openssl {
    int (*SSL_read_ex)(void *ssl, void *into, size_t room, size_t *got);
    int (*SSL_write_ex)(void *ssl, const void *data, size_t len, size_t *written);
    int (*SSL_pending)(const void *ssl);
    int (*SSL_get_error)(const void *ssl, int rc);
    void *(*SSL_get_ex_data)(const void *ssl, int index);
    void *(*SSL_get_rbio)(const void *ssl);
    void *(*SSL_get_wbio)(const void *ssl);
    int (*BIO_write)(void *bio, const void *data, int len);
    int (*BIO_read)(void *bio, void *into, int len);
    size_t (*BIO_ctrl_pending)(void *bio);
    long (*BIO_ctrl)(void *bio, int command, long number, void *pointer);
    void *(*BIO_new)(const void *method);
    int (*BIO_up_ref)(void *bio);
    void (*BIO_set_init)(void *bio, int init);
    void (*BIO_set_data)(void *bio, void *data);
    void *(*BIO_get_data)(void *bio);
    void (*BIO_set_flags)(void *bio, int flags);
    void (*BIO_clear_flags)(void *bio, int flags);
    int (*BIO_test_flags)(const void *bio, int flags);
    void (*SSL_set0_rbio)(void *ssl, void *bio);
    void (*SSL_set0_wbio)(void *ssl, void *bio);
    unsigned long (*ERR_peek_error)(void);
    void (*ERR_clear_error)(void);
    void *pipe_method; /* ssl_pipe.c's, for BIO_new() */
};

/* The library behind the module in this file (NULL: built into the interpreter), whose version must
 * be `version`; NULL if it cannot be used, now and for ever.  Found once per process. */
const struct gpy_openssl *gpy_openssl_find(const char *module_file, const char *version);

/* From here on the SSL that this thread makes is noted. */
void gpy_openssl_watch(void);
/* The one that was noted, if `owner` is its application data; NULL otherwise.  Ends the watch. */
void *gpy_openssl_take(const struct gpy_openssl *lib, const PyObject *owner);
/* BIO_get_data(), for the functions of a BIO of ours. */
void *gpy_openssl_bio_data(void *bio);

#endif
