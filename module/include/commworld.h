/* Compiled kernels for the engines of Commworld, in C and C++: the whole interface, version 1.
 *
 * A module is a shared library:
 *
 *     #include <mpi.h>
 *     #include "commworld.h"
 *
 *     static int32_t psum_c(const commworld_call *call) {
 *         commworld_value a;
 *         if (commworld_array(call, 0, COMMWORLD_F64, 1, COMMWORLD_C_ORDER, &a)) return 1;
 *         const double *elements = a.data;
 *         double own = 0, sum = 0;
 *         for (uint64_t i = 0; i < a.length; i++) own += elements[i];
 *         MPI_Allreduce(&own, &sum, 1, MPI_DOUBLE, MPI_SUM, MPI_Comm_f2c(call->communicator));
 *         return commworld_give_real(call, sum);
 *     }
 *
 *     COMMWORLD_MODULE(
 *         COMMWORLD_FUNCTION(psum_c, "psum_c(a)", "the sum of all elements of all ranks' arrays")
 *     )
 *
 * built by `mpicc -shared -fPIC -o libpsum.so psum.c`, loaded by `load("libpsum.so")` at the prompt or by
 * `client load libpsum.so`.
 *
 * Rules. Arguments are read only: their memory may be shared. A call and all that belongs to it is valid until the
 * function returns, on the thread that was called. A function that returns 0 has succeeded; one that fails returns
 * anything else, and says why by commworld_fail. C++ exceptions must not leave a function. What MPI itself waits for
 * ends at an interrupt; a long loop should ask commworld_interrupted now and then.
 */
#ifndef COMMWORLD_H
#define COMMWORLD_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define COMMWORLD_ABI 1

/* What kind of value it is. */
enum {
    COMMWORLD_NONE = 0,
    COMMWORLD_TRUTH = 1,   /* integer: 0 or 1 */
    COMMWORLD_INT = 2,     /* integer */
    COMMWORLD_FLOAT = 3,   /* real */
    COMMWORLD_COMPLEX = 4, /* real, imaginary */
    COMMWORLD_TEXT = 5,    /* UTF-8 of length bytes at data, not terminated */
    COMMWORLD_ARRAY = 6    /* length elements of type dtype at data */
};

/* Element types. */
enum {
    COMMWORLD_ANY = 0,
    COMMWORLD_F64 = 1,  /* double */
    COMMWORLD_F32 = 2,  /* float */
    COMMWORLD_I64 = 3,  /* int64_t */
    COMMWORLD_I32 = 4,  /* int32_t */
    COMMWORLD_U8 = 5,   /* uint8_t */
    COMMWORLD_BOOL = 6, /* one byte, 0 or 1 */
    COMMWORLD_C64 = 7   /* two double: real and imaginary part */
};

/* How the elements of an array must lie in memory. */
enum {
    COMMWORLD_ANY_LAYOUT = 0, /* as they are; see strides */
    COMMWORLD_C_ORDER = 1     /* in C order without gaps; a view that is not so is copied */
};

/* An argument or a result. */
typedef struct commworld_value {
    int32_t kind;
    int32_t dtype;
    int64_t integer;
    double real;
    double imaginary;
    const void *data;
    uint64_t length;
    uint32_t axes;
    uint32_t contiguous;    /* 1: in C order without gaps */
    const int64_t *shape;   /* elements along each axis */
    const int64_t *strides; /* bytes from one element to the next along each axis; may be negative */
} commworld_value;

struct commworld_engine;

/* One call of a function. */
typedef struct commworld_call {
    uint32_t version;
    uint32_t count;       /* arguments */
    int32_t rank;
    int32_t size;
    int32_t has_mpi;      /* 1: communicator can be used */
    int32_t communicator; /* the world: MPI_Comm_f2c(call->communicator) */
    const commworld_value *arguments;
    const struct commworld_engine *engine;
    void *state;
} commworld_call;

typedef int32_t (*commworld_function)(const commworld_call *call);

/* What the engine does for a function: use the commworld_… functions below. */
typedef struct commworld_engine {
    void (*print)(const commworld_call *, int32_t stream, const char *text, uint64_t length);
    int32_t (*interrupted)(const commworld_call *);
    void (*fail)(const commworld_call *, const char *name, uint64_t name_length, const char *text, uint64_t length);
    int32_t (*array)(const commworld_call *, uint32_t at, int32_t dtype, int32_t axes, int32_t layout,
                     commworld_value *found);
    int32_t (*integer)(const commworld_call *, uint32_t at, int64_t *found);
    int32_t (*real)(const commworld_call *, uint32_t at, double *found);
    int32_t (*text)(const commworld_call *, uint32_t at, const char **found, uint64_t *length);
    int32_t (*give)(const commworld_call *, const commworld_value *result);
    void *(*give_array)(const commworld_call *, int32_t dtype, uint32_t axes, const int64_t *shape);
} commworld_engine;

typedef struct commworld_registrar {
    uint32_t version;
    int32_t (*define)(const struct commworld_registrar *, const char *name, const char *signature, const char *help,
                      commworld_function function);
    void *state;
} commworld_registrar;

/* Arguments, from 0. Each returns 0, or another number if the argument is missing or of another type: then the error
 * is said already, and the function only has to return a number other than 0. */

/* An array of that element type (or COMMWORLD_ANY) and that many axes (or -1). */
static inline int32_t commworld_array(const commworld_call *call, uint32_t at, int32_t dtype, int32_t axes,
                                      int32_t layout, commworld_value *found) {
    return call->engine->array(call, at, dtype, axes, layout, found);
}
static inline int32_t commworld_integer(const commworld_call *call, uint32_t at, int64_t *found) {
    return call->engine->integer(call, at, found);
}
static inline int32_t commworld_real(const commworld_call *call, uint32_t at, double *found) {
    return call->engine->real(call, at, found);
}
/* UTF-8, not terminated. */
static inline int32_t commworld_text(const commworld_call *call, uint32_t at, const char **found, uint64_t *length) {
    return call->engine->text(call, at, found, length);
}

/* Results. A function that gives several has a list of them as its value; one that gives none has no value. */

static inline int32_t commworld_give_real(const commworld_call *call, double number) {
    commworld_value value;
    memset(&value, 0, sizeof value);
    value.kind = COMMWORLD_FLOAT;
    value.real = number;
    return call->engine->give(call, &value);
}
static inline int32_t commworld_give_integer(const commworld_call *call, int64_t number) {
    commworld_value value;
    memset(&value, 0, sizeof value);
    value.kind = COMMWORLD_INT;
    value.integer = number;
    return call->engine->give(call, &value);
}
static inline int32_t commworld_give_text(const commworld_call *call, const char *text) {
    commworld_value value;
    memset(&value, 0, sizeof value);
    value.kind = COMMWORLD_TEXT;
    value.data = text;
    value.length = strlen(text);
    return call->engine->give(call, &value);
}
/* An array: the memory of its elements, in C order and all 0, to be written until the function returns. NULL if there
 * is not enough: then the error is said already. */
static inline void *commworld_give_array(const commworld_call *call, int32_t dtype, uint32_t axes,
                                         const int64_t *shape) {
    return call->engine->give_array(call, dtype, axes, shape);
}

/* Output, as printf does it; at most 4,095 bytes at a time. */
static inline void commworld_print(const commworld_call *call, const char *format, ...) {
    char text[4096];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    call->engine->print(call, 1, text, strlen(text));
}

/* Says why the call failed, as printf does it, and returns 1. The name is that of an error of Python's:
 * "ValueError", "TypeError", "RuntimeError", ... */
static inline int32_t commworld_fail(const commworld_call *call, const char *name, const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    call->engine->fail(call, name, strlen(name), text, strlen(text));
    return 1;
}

/* Whether the user wants the call to end. */
static inline int commworld_interrupted(const commworld_call *call) {
    return call->engine->interrupted(call) != 0;
}

/* The module's own functions, once in a library. */
#ifdef __cplusplus
#define COMMWORLD_EXPORT extern "C" __attribute__((visibility("default")))
#else
#define COMMWORLD_EXPORT __attribute__((visibility("default")))
#endif
#define COMMWORLD_FUNCTION(function, signature, help) \
    if (registrar->define(registrar, #function, signature, help, function) != 0) return 1;
#define COMMWORLD_MODULE(functions)                                             \
    COMMWORLD_EXPORT uint32_t commworld_abi(void);                              \
    COMMWORLD_EXPORT int32_t commworld_register(const commworld_registrar *);   \
    uint32_t commworld_abi(void) { return COMMWORLD_ABI; }                      \
    int32_t commworld_register(const commworld_registrar *registrar) {          \
        functions                                                               \
        return 0;                                                               \
    }

#ifdef __cplusplus
}
#endif

#endif
