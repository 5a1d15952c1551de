/* The parallel sum as a module in C: mpicc -shared -fPIC -I../../module/include -o libpsum_c.so psum.c */
#include <mpi.h>

#include "commworld.h"

static int32_t psum_c(const commworld_call *call) {
    commworld_value a;
    if (commworld_array(call, 0, COMMWORLD_F64, 1, COMMWORLD_C_ORDER, &a)) return 1;
    if (!call->has_mpi) return commworld_fail(call, "RuntimeError", "this engine has no MPI; start it with --mpi");

    const double *elements = (const double *)a.data;
    double own = 0, sum = 0;
    for (uint64_t i = 0; i < a.length; i++) own += elements[i];
    int code = MPI_Allreduce(&own, &sum, 1, MPI_DOUBLE, MPI_SUM, MPI_Comm_f2c(call->communicator));
    if (code != MPI_SUCCESS) return commworld_fail(call, "MPIError", "MPI_Allreduce failed with %d", code);
    return commworld_give_real(call, sum);
}

/* Several results, one of them an array. */
static int32_t moments_c(const commworld_call *call) {
    commworld_value a;
    if (commworld_array(call, 0, COMMWORLD_F64, -1, COMMWORLD_C_ORDER, &a)) return 1;
    if (a.length == 0) return commworld_fail(call, "ValueError", "moments_c: the array is empty");

    const double *elements = (const double *)a.data;
    double mean = 0;
    for (uint64_t i = 0; i < a.length; i++) mean += elements[i] / (double)a.length;
    double *centred = (double *)commworld_give_array(call, COMMWORLD_F64, a.axes, a.shape);
    if (centred == NULL) return 1;
    for (uint64_t i = 0; i < a.length; i++) centred[i] = elements[i] - mean;
    return commworld_give_real(call, mean);
}

COMMWORLD_MODULE(
    COMMWORLD_FUNCTION(psum_c, "psum_c(a)", "the sum of all elements of all ranks' arrays, in C")
    COMMWORLD_FUNCTION(moments_c, "moments_c(a)", "[a minus its mean, the mean] of this rank's array")
)
