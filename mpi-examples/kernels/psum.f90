! The parallel sum as a module in Fortran:
! mpif90 -shared -fPIC -o libpsum_f.so ../../module/include/commworld.f90 psum.f90
module psum_kernel
  use, intrinsic :: iso_c_binding
  use mpi
  use commworld
  implicit none

contains

  integer(c_int32_t) function psum_f(call) bind(C) result(code)
    type(c_ptr), value :: call
    real(c_double), pointer :: a(:)
    real(c_double) :: own, total
    integer :: world, failed

    code = commworld_array(call, 0, a)
    if (code /= 0) return
    world = commworld_communicator(call)
    if (world == -1) then
      code = 1
      return
    end if
    own = sum(a)
    call MPI_Allreduce(own, total, 1, MPI_DOUBLE_PRECISION, MPI_SUM, world, failed)
    if (failed /= MPI_SUCCESS) then
      code = commworld_fail(call, "MPIError", "MPI_Allreduce failed")
      return
    end if
    code = commworld_give_real(call, total)
  end function

  !> The transpose of a matrix: what has rows at the prompt has columns here.
  integer(c_int32_t) function transposed_f(call) bind(C) result(code)
    type(c_ptr), value :: call
    real(c_double), pointer :: a(:, :), b(:, :)

    code = commworld_array(call, 0, a)
    if (code /= 0) return
    code = commworld_give_array(call, size(a, 2, kind=c_int64_t), size(a, 1, kind=c_int64_t), b)
    if (code /= 0) return
    b = transpose(a)
  end function

  integer(c_int32_t) function commworld_register(registrar) bind(C) result(code)
    type(c_ptr), value :: registrar

    code = commworld_define(registrar, "psum_f", "psum_f(a)", &
      "the sum of all elements of all ranks' arrays, in Fortran", psum_f)
    if (code /= 0) return
    code = commworld_define(registrar, "transposed_f", "transposed_f(a)", "the transpose of a matrix", &
      transposed_f)
  end function
end module
