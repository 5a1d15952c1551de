/* User code that calls MPI itself, as a library that an engine loads. Every function returns MPI's code, or WRONG if
 * MPI said that all is well and the result is not. */

#include <mpi.h>
#include <stdlib.h>
#include <string.h>

#define WRONG (-1)
#define N_MAX 4096
#define RANKS_MAX 16

static int sum_of_ranks(int size) { return size * (size - 1) / 2; }

/* Calls collective number `which` on `n` numbers per rank. Every number is told apart by `salt`. */
int kernel_collective(int which, MPI_Fint handle, int root, int n, int salt) {
  static int out[N_MAX * RANKS_MAX], in[N_MAX * RANKS_MAX];
  MPI_Comm comm = MPI_Comm_f2c(handle);
  int rank, size, code, counts[RANKS_MAX], starts[RANKS_MAX], bytes[RANKS_MAX];
  MPI_Datatype types[RANKS_MAX];
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &size);
  int total = sum_of_ranks(size) + salt * size;
  for (int r = 0; r < size; r++) {
    counts[r] = n;
    starts[r] = r * n;
    bytes[r] = r * n * (int)sizeof(int);
    types[r] = MPI_INT;
  }
  for (int i = 0; i < n * size; i++) {
    out[i] = rank + salt;
    in[i] = -7;
  }
#define DONE(call)                      \
  code = call;                          \
  if (code != MPI_SUCCESS) return code; \
  break
#define EXPECT(from, to, value) \
  for (int i = from; i < (to); i++) if (in[i] != (value)) return WRONG
  switch (which) {
    case 0: DONE(MPI_Barrier(comm));
    case 1:
      for (int i = 0; i < n; i++) in[i] = rank == root ? salt : -7;
      DONE(MPI_Bcast(in, n, MPI_INT, root, comm));
    case 2:
      if (rank == root) memcpy(in, out, n * sizeof *in);
      DONE(MPI_Reduce(rank == root ? MPI_IN_PLACE : out, in, n, MPI_INT, MPI_SUM, root, comm));
    case 3: DONE(MPI_Allreduce(out, in, n, MPI_INT, MPI_SUM, comm));
    case 4: DONE(MPI_Scan(out, in, n, MPI_INT, MPI_SUM, comm));
    case 5: DONE(MPI_Exscan(out, in, n, MPI_INT, MPI_SUM, comm));
    case 6: DONE(MPI_Reduce_scatter(out, in, counts, MPI_INT, MPI_SUM, comm));
    case 7: DONE(MPI_Reduce_scatter_block(out, in, n, MPI_INT, MPI_SUM, comm));
    case 8: DONE(MPI_Gather(out, n, MPI_INT, in, n, MPI_INT, root, comm));
    case 9: DONE(MPI_Gatherv(out, n, MPI_INT, in, counts, starts, MPI_INT, root, comm));
    case 10: DONE(MPI_Allgather(out, n, MPI_INT, in, n, MPI_INT, comm));
    case 11: DONE(MPI_Allgatherv(out, n, MPI_INT, in, counts, starts, MPI_INT, comm));
    case 12: DONE(MPI_Scatter(out, n, MPI_INT, in, n, MPI_INT, root, comm));
    case 13: DONE(MPI_Scatterv(out, counts, starts, MPI_INT, in, n, MPI_INT, root, comm));
    case 14: DONE(MPI_Alltoall(out, n, MPI_INT, in, n, MPI_INT, comm));
    case 15: DONE(MPI_Alltoallv(out, counts, starts, MPI_INT, in, counts, starts, MPI_INT, comm));
    default: DONE(MPI_Alltoallw(out, counts, bytes, types, in, counts, bytes, types, comm));
  }
  switch (which) {
    case 0: break;
    case 1: EXPECT(0, n, salt); break;
    case 2: if (rank == root) EXPECT(0, n, total); break;
    case 3: case 6: case 7: EXPECT(0, n, total); break;
    case 4: EXPECT(0, n, sum_of_ranks(rank + 1) + salt * (rank + 1)); break;
    case 5: if (rank > 0) EXPECT(0, n, sum_of_ranks(rank) + salt * rank); break;
    case 8: case 9: if (rank != root) break; /* fall through */
    case 10: case 11: case 14: case 15: case 16:
      for (int r = 0; r < size; r++) EXPECT(r * n, (r + 1) * n, r + salt);
      break;
    default: EXPECT(0, n, root + salt);
  }
  return MPI_SUCCESS;
}

int kernel_send(MPI_Fint handle, int to, int tag, int value) {
  return MPI_Send(&value, 1, MPI_INT, to, tag, MPI_Comm_f2c(handle));
}

int kernel_receive(MPI_Fint handle, int from, int tag, int *value) {
  MPI_Status status;
  int code = MPI_Recv(value, 1, MPI_INT, from, tag, MPI_Comm_f2c(handle), &status);
  return code != MPI_SUCCESS || status.MPI_SOURCE == from ? code : WRONG;
}

/* All blocking calls with messages, around a ring. */
int kernel_messages(MPI_Fint handle) {
  MPI_Comm comm = MPI_Comm_f2c(handle);
  static int large[2][300000];
  int rank, size, code, index, count, indices[2], in[2], out;
  MPI_Status status, statuses[2];
  MPI_Request requests[2];
  MPI_Message message;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &size);
  int next = (rank + 1) % size, previous = (rank + size - 1) % size;
#define TRY(call) if ((code = (call)) != MPI_SUCCESS) return code
#define REQUIRE(condition) if (!(condition)) return WRONG
  out = rank * 10;
  TRY(MPI_Sendrecv(&out, 1, MPI_INT, next, 1, in, 1, MPI_INT, previous, 1, comm, &status));
  REQUIRE(in[0] == previous * 10 && status.MPI_SOURCE == previous);
  large[0][299999] = rank;
  TRY(MPI_Sendrecv(large[0], 300000, MPI_INT, next, 2, large[1], 300000, MPI_INT, previous, 2, comm, MPI_STATUS_IGNORE));
  REQUIRE(large[1][299999] == previous);

  TRY(MPI_Irecv(in, 1, MPI_INT, previous, 3, comm, &requests[0]));
  TRY(MPI_Ssend(&out, 1, MPI_INT, next, 3, comm));
  TRY(MPI_Wait(&requests[0], &status));
  REQUIRE(in[0] == previous * 10 && status.MPI_TAG == 3 && requests[0] == MPI_REQUEST_NULL);

  for (int way = 0; way < 3; way++) {
    for (int i = 0; i < 2; i++) TRY(MPI_Irecv(&in[i], 1, MPI_INT, previous, 4 + i, comm, &requests[i]));
    for (int i = 0; i < 2; i++) {
      out = rank + i;
      TRY(MPI_Send(&out, 1, MPI_INT, next, 4 + i, comm));
    }
    if (way == 0) {
      TRY(MPI_Waitall(2, requests, statuses));
      REQUIRE(statuses[1].MPI_TAG == 5);
    } else if (way == 1) {
      for (int i = 0; i < 2; i++) {
        TRY(MPI_Waitany(2, requests, &index, &status));
        REQUIRE(status.MPI_TAG == 4 + index);
      }
      TRY(MPI_Waitany(2, requests, &index, &status));
      REQUIRE(index == MPI_UNDEFINED);
    } else {
      for (int found = 0; found < 2; found += count) TRY(MPI_Waitsome(2, requests, &count, indices, statuses));
      TRY(MPI_Waitsome(2, requests, &count, indices, statuses));
      REQUIRE(count == MPI_UNDEFINED);
    }
    REQUIRE(in[0] == previous && in[1] == previous + 1);
  }

  /* A rank alone must not wait for its own message to be received. */
  TRY(MPI_Isend(&out, 1, MPI_INT, next, 6, comm, &requests[0]));
  TRY(MPI_Probe(previous, 6, comm, &status));
  REQUIRE(status.MPI_SOURCE == previous);
  TRY(MPI_Mprobe(MPI_ANY_SOURCE, 6, comm, &message, &status));
  TRY(MPI_Mrecv(in, 1, MPI_INT, &message, MPI_STATUS_IGNORE));
  TRY(MPI_Wait(&requests[0], MPI_STATUS_IGNORE));
  REQUIRE(in[0] == previous + 1);
  return MPI_Recv(in, 1, MPI_INT, MPI_PROC_NULL, 0, comm, MPI_STATUS_IGNORE);
}

/* Waits for one number; what an interrupted call has posted, the next one waits for. */
int kernel_wait(MPI_Fint handle, int from, int tag, int *value) {
  static MPI_Request request;
  static int number, posted;
  if (!posted) {
    int code = MPI_Irecv(&number, 1, MPI_INT, from, tag, MPI_Comm_f2c(handle), &request);
    if (code != MPI_SUCCESS) return code;
    posted = 1;
  }
  int code = MPI_Wait(&request, MPI_STATUS_IGNORE);
  if (code == MPI_SUCCESS) posted = 0;
  *value = number;
  return code;
}

int kernel_split(MPI_Fint handle, int colour, int key, MPI_Fint *made) {
  MPI_Comm comm = MPI_COMM_NULL;
  int code = MPI_Comm_split(MPI_Comm_f2c(handle), colour, key, &comm);
  *made = MPI_Comm_c2f(comm);
  return code;
}

/* Makes a communicator in some other way. */
int kernel_make(MPI_Fint handle, int way, MPI_Fint *made) {
  MPI_Comm comm = MPI_Comm_f2c(handle), new_comm = MPI_COMM_NULL;
  MPI_Group group;
  int code, size, periods = 1;
  MPI_Comm_size(comm, &size);
  MPI_Comm_group(comm, &group);
  switch (way) {
    case 0: code = MPI_Comm_dup(comm, &new_comm); break;
    case 1: code = MPI_Comm_create(comm, group, &new_comm); break;
    case 2: code = MPI_Comm_create_group(comm, group, 3, &new_comm); break;
    case 3: code = MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &new_comm); break;
    default: code = MPI_Cart_create(comm, 1, &size, &periods, 0, &new_comm);
  }
  MPI_Group_free(&group);
  *made = MPI_Comm_c2f(new_comm);
  return code;
}

int kernel_free(MPI_Fint handle) {
  MPI_Comm comm = MPI_Comm_f2c(handle);
  return MPI_Comm_free(&comm);
}

MPI_Fint kernel_world(void) { return MPI_Comm_c2f(MPI_COMM_WORLD); }

/* What a code says, in at most MPI_MAX_ERROR_STRING bytes. */
int kernel_text(int code, char *text) {
  int length;
  return MPI_Error_string(code, text, &length);
}
