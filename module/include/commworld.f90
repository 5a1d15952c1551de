!> Compiled kernels for the engines of Commworld, in Fortran. commworld.h says what the parts are for.
!>
!> Compile it together with a module's own file, whose functions are `bind(C)`, take `type(c_ptr), value :: call` and
!> return 0 or, if they failed, another number:
!>
!>     mpif90 -shared -fPIC -o libpsum.so commworld.f90 psum.f90
!>
!> The module names its functions in
!>
!>     integer(c_int32_t) function commworld_register(registrar) bind(C)
!>
!> by `commworld_define`. Arrays have C order: the first axis of the prompt is the last of Fortran.
module commworld
  use, intrinsic :: iso_c_binding
  implicit none
  private

  public :: commworld_define, commworld_rank, commworld_size, commworld_communicator, commworld_interrupted
  public :: commworld_array, commworld_real, commworld_integer
  public :: commworld_give_real, commworld_give_integer, commworld_give_array
  public :: commworld_print, commworld_fail

  integer(c_int32_t), parameter :: version = 1
  integer(c_int32_t), parameter :: kind_int = 2, kind_float = 3
  integer(c_int32_t), parameter :: f64 = 1, i64 = 3, c_order = 1

  type, bind(C) :: value_t
    integer(c_int32_t) :: kind = 0
    integer(c_int32_t) :: dtype = 0
    integer(c_int64_t) :: integer = 0
    real(c_double) :: real = 0
    real(c_double) :: imaginary = 0
    type(c_ptr) :: data = c_null_ptr
    integer(c_int64_t) :: length = 0
    integer(c_int32_t) :: axes = 0
    integer(c_int32_t) :: contiguous = 0
    type(c_ptr) :: shape = c_null_ptr
    type(c_ptr) :: strides = c_null_ptr
  end type

  type, bind(C) :: call_t
    integer(c_int32_t) :: version
    integer(c_int32_t) :: count
    integer(c_int32_t) :: rank
    integer(c_int32_t) :: size
    integer(c_int32_t) :: has_mpi
    integer(c_int32_t) :: communicator
    type(c_ptr) :: arguments
    type(c_ptr) :: engine
    type(c_ptr) :: state
  end type

  type, bind(C) :: engine_t
    type(c_funptr) :: print
    type(c_funptr) :: interrupted
    type(c_funptr) :: fail
    type(c_funptr) :: array
    type(c_funptr) :: integer
    type(c_funptr) :: real
    type(c_funptr) :: text
    type(c_funptr) :: give
    type(c_funptr) :: give_array
  end type

  type, bind(C) :: registrar_t
    integer(c_int32_t) :: version
    type(c_funptr) :: define
    type(c_ptr) :: state
  end type

  abstract interface
    integer(c_int32_t) function define_t(registrar, name, signature, help, function) bind(C)
      import
      type(c_ptr), value :: registrar
      character(kind=c_char), intent(in) :: name(*), signature(*), help(*)
      type(c_funptr), value :: function
    end function
    subroutine print_t(call, stream, text, length) bind(C)
      import
      type(c_ptr), value :: call
      integer(c_int32_t), value :: stream
      character(kind=c_char), intent(in) :: text(*)
      integer(c_int64_t), value :: length
    end subroutine
    integer(c_int32_t) function interrupted_t(call) bind(C)
      import
      type(c_ptr), value :: call
    end function
    subroutine fail_t(call, name, name_length, text, length) bind(C)
      import
      type(c_ptr), value :: call
      character(kind=c_char), intent(in) :: name(*), text(*)
      integer(c_int64_t), value :: name_length, length
    end subroutine
    integer(c_int32_t) function array_t(call, at, dtype, axes, layout, found) bind(C)
      import
      type(c_ptr), value :: call
      integer(c_int32_t), value :: at, dtype, axes, layout
      type(value_t), intent(out) :: found
    end function
    integer(c_int32_t) function integer_t(call, at, found) bind(C)
      import
      type(c_ptr), value :: call
      integer(c_int32_t), value :: at
      integer(c_int64_t), intent(out) :: found
    end function
    integer(c_int32_t) function real_t(call, at, found) bind(C)
      import
      type(c_ptr), value :: call
      integer(c_int32_t), value :: at
      real(c_double), intent(out) :: found
    end function
    integer(c_int32_t) function give_t(call, result) bind(C)
      import
      type(c_ptr), value :: call
      type(value_t), intent(in) :: result
    end function
    !> A function of a module.
    integer(c_int32_t) function commworld_function(call) bind(C)
      import
      type(c_ptr), value :: call
    end function
    type(c_ptr) function give_array_t(call, dtype, axes, shape) bind(C)
      import
      type(c_ptr), value :: call
      integer(c_int32_t), value :: dtype, axes
      integer(c_int64_t), intent(in) :: shape(*)
    end function
  end interface

  !> An array as argument `at`, from 0: `a` points to its elements. 0, or another number: the error is said already.
  interface commworld_array
    module procedure array_f64, array_f64_2, array_i64
  end interface

  !> A new array as a result: `a`, of the shape given, is all 0 and is to be written until the function returns.
  interface commworld_give_array
    module procedure give_array_f64, give_array_f64_2
  end interface

contains

  !> The version that this module is built with.
  integer(c_int32_t) function commworld_abi() bind(C)
    commworld_abi = version
  end function

  !> Names a function: how it is called at the prompt, and what it does.
  integer(c_int32_t) function commworld_define(registrar, name, signature, help, function) result(code)
    type(c_ptr), intent(in) :: registrar
    character(len=*), intent(in) :: name, signature, help
    procedure(commworld_function) :: function
    type(registrar_t), pointer :: known
    procedure(define_t), pointer :: define
    call c_f_pointer(registrar, known)
    call c_f_procpointer(known%define, define)
    code = define(registrar, name // c_null_char, signature // c_null_char, help // c_null_char, c_funloc(function))
  end function

  function call_of(call) result(known)
    type(c_ptr), intent(in) :: call
    type(call_t), pointer :: known
    call c_f_pointer(call, known)
  end function

  function engine_of(call) result(engine)
    type(c_ptr), intent(in) :: call
    type(engine_t), pointer :: engine
    type(call_t), pointer :: known
    known => call_of(call)
    call c_f_pointer(known%engine, engine)
  end function

  !> This process' number in the world, from 0.
  integer function commworld_rank(call) result(rank)
    type(c_ptr), intent(in) :: call
    type(call_t), pointer :: known
    known => call_of(call)
    rank = known%rank
  end function

  !> How many ranks the world has.
  integer function commworld_size(call) result(size)
    type(c_ptr), intent(in) :: call
    type(call_t), pointer :: known
    known => call_of(call)
    size = known%size
  end function

  !> The world, for MPI's routines. Only engines with MPI have one; others give -1, and say so as the call's error.
  integer function commworld_communicator(call) result(communicator)
    type(c_ptr), intent(in) :: call
    type(call_t), pointer :: known
    integer(c_int32_t) :: code
    known => call_of(call)
    communicator = known%communicator
    if (known%has_mpi == 0) then
      communicator = -1
      code = commworld_fail(call, "RuntimeError", "this engine has no MPI; start it with --mpi")
    end if
  end function

  !> Whether the user wants the call to end.
  logical function commworld_interrupted(call) result(is_interrupted)
    type(c_ptr), intent(in) :: call
    type(engine_t), pointer :: engine
    procedure(interrupted_t), pointer :: interrupted
    engine => engine_of(call)
    call c_f_procpointer(engine%interrupted, interrupted)
    is_interrupted = interrupted(call) /= 0
  end function

  integer(c_int32_t) function find_array(call, at, dtype, axes, found) result(code)
    type(c_ptr), intent(in) :: call
    integer, intent(in) :: at, dtype, axes
    type(value_t), intent(out) :: found
    type(engine_t), pointer :: engine
    procedure(array_t), pointer :: array
    engine => engine_of(call)
    call c_f_procpointer(engine%array, array)
    code = array(call, int(at, c_int32_t), int(dtype, c_int32_t), int(axes, c_int32_t), c_order, found)
  end function

  integer(c_int32_t) function array_f64(call, at, a) result(code)
    type(c_ptr), intent(in) :: call
    integer, intent(in) :: at
    real(c_double), pointer, intent(out) :: a(:)
    type(value_t) :: found
    nullify(a)
    code = find_array(call, at, f64, 1, found)
    if (code == 0) call c_f_pointer(found%data, a, [found%length])
  end function

  !> `a(:, i)` is what the prompt calls `a[i - 1]`.
  integer(c_int32_t) function array_f64_2(call, at, a) result(code)
    type(c_ptr), intent(in) :: call
    integer, intent(in) :: at
    real(c_double), pointer, intent(out) :: a(:, :)
    type(value_t) :: found
    integer(c_int64_t), pointer :: shape(:)
    nullify(a)
    code = find_array(call, at, f64, 2, found)
    if (code /= 0) return
    call c_f_pointer(found%shape, shape, [2])
    call c_f_pointer(found%data, a, [shape(2), shape(1)])
  end function

  integer(c_int32_t) function array_i64(call, at, a) result(code)
    type(c_ptr), intent(in) :: call
    integer, intent(in) :: at
    integer(c_int64_t), pointer, intent(out) :: a(:)
    type(value_t) :: found
    nullify(a)
    code = find_array(call, at, i64, 1, found)
    if (code == 0) call c_f_pointer(found%data, a, [found%length])
  end function

  !> A number as argument `at`.
  integer(c_int32_t) function commworld_real(call, at, number) result(code)
    type(c_ptr), intent(in) :: call
    integer, intent(in) :: at
    real(c_double), intent(out) :: number
    type(engine_t), pointer :: engine
    procedure(real_t), pointer :: real
    engine => engine_of(call)
    call c_f_procpointer(engine%real, real)
    code = real(call, int(at, c_int32_t), number)
  end function

  !> A whole number as argument `at`.
  integer(c_int32_t) function commworld_integer(call, at, number) result(code)
    type(c_ptr), intent(in) :: call
    integer, intent(in) :: at
    integer(c_int64_t), intent(out) :: number
    type(engine_t), pointer :: engine
    procedure(integer_t), pointer :: whole
    engine => engine_of(call)
    call c_f_procpointer(engine%integer, whole)
    code = whole(call, int(at, c_int32_t), number)
  end function

  integer(c_int32_t) function give(call, result) result(code)
    type(c_ptr), intent(in) :: call
    type(value_t), intent(in) :: result
    type(engine_t), pointer :: engine
    procedure(give_t), pointer :: add
    engine => engine_of(call)
    call c_f_procpointer(engine%give, add)
    code = add(call, result)
  end function

  !> A number as a result.
  integer(c_int32_t) function commworld_give_real(call, number) result(code)
    type(c_ptr), intent(in) :: call
    real(c_double), intent(in) :: number
    code = give(call, value_t(kind=kind_float, real=number))
  end function

  !> A whole number as a result.
  integer(c_int32_t) function commworld_give_integer(call, number) result(code)
    type(c_ptr), intent(in) :: call
    integer(c_int64_t), intent(in) :: number
    code = give(call, value_t(kind=kind_int, integer=number))
  end function

  function new_array(call, shape) result(data)
    type(c_ptr), intent(in) :: call
    integer(c_int64_t), intent(in) :: shape(:)
    type(c_ptr) :: data
    type(engine_t), pointer :: engine
    procedure(give_array_t), pointer :: make
    engine => engine_of(call)
    call c_f_procpointer(engine%give_array, make)
    data = make(call, f64, size(shape, kind=c_int32_t), shape)
  end function

  integer(c_int32_t) function give_array_f64(call, extent, a) result(code)
    type(c_ptr), intent(in) :: call
    integer(c_int64_t), intent(in) :: extent
    real(c_double), pointer, intent(out) :: a(:)
    type(c_ptr) :: data
    data = new_array(call, [extent])
    nullify(a)
    code = 1
    if (.not. c_associated(data)) return
    call c_f_pointer(data, a, [extent])
    code = 0
  end function

  !> `a(columns, rows)` is what the prompt calls an array of shape [rows, columns].
  integer(c_int32_t) function give_array_f64_2(call, columns, rows, a) result(code)
    type(c_ptr), intent(in) :: call
    integer(c_int64_t), intent(in) :: columns, rows
    real(c_double), pointer, intent(out) :: a(:, :)
    type(c_ptr) :: data
    data = new_array(call, [rows, columns])
    nullify(a)
    code = 1
    if (.not. c_associated(data)) return
    call c_f_pointer(data, a, [columns, rows])
    code = 0
  end function

  !> Sends a line to the client.
  subroutine commworld_print(call, text)
    type(c_ptr), intent(in) :: call
    character(len=*), intent(in) :: text
    type(engine_t), pointer :: engine
    procedure(print_t), pointer :: print
    engine => engine_of(call)
    call c_f_procpointer(engine%print, print)
    call print(call, 1_c_int32_t, text // c_new_line, len(text, kind=c_int64_t) + 1)
  end subroutine

  !> Says why the call failed, and gives 1. The name is that of an error of Python's: ValueError, RuntimeError, …
  integer(c_int32_t) function commworld_fail(call, name, text) result(code)
    type(c_ptr), intent(in) :: call
    character(len=*), intent(in) :: name, text
    type(engine_t), pointer :: engine
    procedure(fail_t), pointer :: fail
    engine => engine_of(call)
    call c_f_procpointer(engine%fail, fail)
    call fail(call, name, len(name, kind=c_int64_t), text, len(text, kind=c_int64_t))
    code = 1
  end function

end module
