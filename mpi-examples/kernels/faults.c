/* What can go wrong in a module: for the tests, and to see what each fault looks like at the prompt. */
#include <stdlib.h>
#include <unistd.h>

#include "commworld.h"

static int32_t refuse(const commworld_call *call) {
    return commworld_fail(call, "ValueError", "rank %d does not like it", call->rank);
}

static int32_t wordless(const commworld_call *call) {
    (void)call;
    return 7;
}

static int32_t crash(const commworld_call *call) {
    int64_t rank;
    if (commworld_integer(call, 0, &rank)) return 1;
    if (call->rank == rank) *(volatile int *)NULL = 1;
    return 0;
}

static int32_t too_much(const commworld_call *call) {
    int64_t shape[1] = {INT64_MAX / 8};
    return commworld_give_array(call, COMMWORLD_F64, 1, shape) == NULL;
}

static int32_t spin(const commworld_call *call) {
    while (!commworld_interrupted(call)) usleep(1000);
    return 1;
}

COMMWORLD_MODULE(
    COMMWORLD_FUNCTION(refuse, "refuse()", "fails with a ValueError")
    COMMWORLD_FUNCTION(wordless, "wordless()", "fails, and does not say why")
    COMMWORLD_FUNCTION(crash, "crash(rank)", "a SIGSEGV on that rank")
    COMMWORLD_FUNCTION(too_much, "too_much()", "asks for more memory than there is")
    COMMWORLD_FUNCTION(spin, "spin()", "computes until it is interrupted")
)
