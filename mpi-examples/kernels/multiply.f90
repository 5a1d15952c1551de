! The product of two matrices whose rows are divided over the ranks: each rank in turn gives its rows of b to all.
! mpif90 -O2 -shared -fPIC -o libmultiply.so ../../module/include/commworld.f90 multiply.f90
module multiply_kernel
  use, intrinsic :: iso_c_binding
  use mpi
  use commworld
  implicit none

contains

  !> Arrays have their axes the other way round here: a(k, i), b(j, k), c(j, i).
  integer(c_int32_t) function multiply(call) bind(C) result(code)
    type(c_ptr), value :: call
    real(c_double), pointer :: a(:, :), b(:, :), c(:, :)
    real(c_double), allocatable :: block(:, :)
    integer, allocatable :: rows(:)
    integer :: world, ranks, owner, first, failed
    integer :: own(2), narrowest(2)

    code = commworld_array(call, 0, a)
    if (code == 0) code = commworld_array(call, 1, b)
    if (code /= 0) return
    world = commworld_communicator(call)
    if (world == -1) then
      code = 1
      return
    end if
    ranks = commworld_size(call)
    allocate(rows(ranks))
    call MPI_Allgather(size(b, 2), 1, MPI_INTEGER, rows, 1, MPI_INTEGER, world, failed)
    ! All ranks decide together, so that none waits for one that has given up.
    own = [merge(1, 0, size(a, 1) == sum(rows)), size(b, 1)]
    if (failed == MPI_SUCCESS) call MPI_Allreduce(own, narrowest, 2, MPI_INTEGER, MPI_MIN, world, failed)
    if (failed == MPI_SUCCESS) then
      if (narrowest(1) == 0) then
        code = commworld_fail(call, "ValueError", "multiply: a must have as many columns as b has rows on all ranks")
        return
      end if
      code = commworld_give_array(call, int(size(b, 1), c_int64_t), int(size(a, 2), c_int64_t), c)
      if (code /= 0) return
    end if

    first = 1
    do owner = 0, ranks - 1
      if (failed /= MPI_SUCCESS) exit
      allocate(block(narrowest(2), rows(owner + 1)))
      if (owner == commworld_rank(call)) block = b(:narrowest(2), :)
      call MPI_Bcast(block, size(block), MPI_DOUBLE_PRECISION, owner, world, failed)
      c(:narrowest(2), :) = c(:narrowest(2), :) + matmul(block, a(first:first + rows(owner + 1) - 1, :))
      first = first + rows(owner + 1)
      deallocate(block)
    end do
    if (failed /= MPI_SUCCESS) code = commworld_fail(call, "MPIError", "multiply: a rank did not get its rows")
  end function

  integer(c_int32_t) function commworld_register(registrar) bind(C) result(code)
    type(c_ptr), value :: registrar

    code = commworld_define(registrar, "multiply", "multiply(a, b)", &
      "this rank's rows of the product of two matrices, of which each rank has some rows; collective", multiply)
  end function
end module
