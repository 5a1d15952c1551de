/* The wave equation on a membrane whose rim is held: explicit steps, rows divided over the ranks, one row exchanged with
 * each neighbour a step. mpicc -O2 -shared -fPIC -I../../module/include -o libwave.so wave.c */
#include <mpi.h>
#include <stdlib.h>

#include "commworld.h"

enum { UP = 1, DOWN = 2 };

/* Fills the rows before and after `rows` rows with those of the neighbours, or with 0 where the membrane ends. */
static int exchange_halo(const commworld_call *call, double *u, int rows, int columns) {
    MPI_Comm world = MPI_Comm_f2c(call->communicator);
    int above = call->rank > 0 ? call->rank - 1 : MPI_PROC_NULL;
    int below = call->rank + 1 < call->size ? call->rank + 1 : MPI_PROC_NULL;
    double *first = u + columns, *last = u + (size_t)rows * columns, *after = last + columns;
    int code = MPI_Sendrecv(first, columns, MPI_DOUBLE, above, UP, after, columns, MPI_DOUBLE, below, UP, world,
                            MPI_STATUS_IGNORE);
    if (code != MPI_SUCCESS) return code;
    return MPI_Sendrecv(last, columns, MPI_DOUBLE, below, DOWN, u, columns, MPI_DOUBLE, above, DOWN, world,
                        MPI_STATUS_IGNORE);
}

/* u(t + dt) = 2 u(t) - u(t - dt) + courant² (the sum of the four neighbours - 4 u(t)) */
static void step(const double *u, const double *before, double *next, int rows, int columns, double courant) {
    double factor = courant * courant;
    for (int i = 1; i <= rows; i++) {
        for (int j = 0; j < columns; j++) {
            size_t at = (size_t)i * columns + j;
            double left = j > 0 ? u[at - 1] : 0, right = j + 1 < columns ? u[at + 1] : 0;
            double around = u[at - columns] + u[at + columns] + left + right;
            next[at] = 2 * u[at] - before[at] + factor * (around - 4 * u[at]);
        }
    }
}

static int32_t wave(const commworld_call *call) {
    commworld_value u, before;
    int64_t steps;
    double courant;
    if (commworld_array(call, 0, COMMWORLD_F64, 2, COMMWORLD_C_ORDER, &u)) return 1;
    if (commworld_array(call, 1, COMMWORLD_F64, 2, COMMWORLD_C_ORDER, &before)) return 1;
    if (commworld_integer(call, 2, &steps) || commworld_real(call, 3, &courant)) return 1;
    if (!call->has_mpi) return commworld_fail(call, "RuntimeError", "this engine has no MPI; start it with --mpi");
    if (u.shape[0] != before.shape[0] || u.shape[1] != before.shape[1])
        return commworld_fail(call, "ValueError", "wave: both states must have the same shape");
    if (u.length == 0) return commworld_fail(call, "ValueError", "wave: rank %d has no row", call->rank);
    if (u.shape[0] > INT32_MAX || u.shape[1] > INT32_MAX)
        return commworld_fail(call, "ValueError", "wave: a side is longer than %d", INT32_MAX);
    if (!(courant > 0 && courant <= 0.7))
        return commworld_fail(call, "ValueError", "wave: with a Courant number of %g it is unstable; at most 0.7", courant);

    int rows = (int)u.shape[0], columns = (int)u.shape[1];
    size_t inner = (size_t)rows * columns, whole = inner + 2 * (size_t)columns;
    double *buffers = calloc(3 * whole, sizeof(double));
    if (buffers == NULL) return commworld_fail(call, "MemoryError", "wave: no memory for three states");
    double *now = buffers, *then = buffers + whole, *next = buffers + 2 * whole;
    memcpy(now + columns, u.data, inner * sizeof(double));
    memcpy(then + columns, before.data, inner * sizeof(double));

    int code = MPI_SUCCESS;
    for (int64_t i = 0; i < steps && code == MPI_SUCCESS; i++) {
        code = exchange_halo(call, now, rows, columns);
        step(now, then, next, rows, columns, courant);
        double *oldest = then;
        then = now, now = next, next = oldest;
    }
    if (code == MPI_SUCCESS) {
        double *result = commworld_give_array(call, COMMWORLD_F64, 2, u.shape);
        if (result != NULL) memcpy(result, now + columns, inner * sizeof(double));
        result = commworld_give_array(call, COMMWORLD_F64, 2, u.shape);
        if (result != NULL) memcpy(result, then + columns, inner * sizeof(double));
    } else {
        commworld_fail(call, "MPIError", "wave: the exchange with a neighbour failed with %d", code);
    }
    free(buffers);
    return code != MPI_SUCCESS;
}

COMMWORLD_MODULE(
    COMMWORLD_FUNCTION(wave, "wave(u, before, steps, courant)",
                       "[the state after so many steps, the one before it], of this rank's rows of a membrane; collective")
)
