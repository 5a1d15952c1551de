//! What a module and an engine agree on, in C's types: the same as `include/commworld.h`, which says more.
//!
//! A module is a shared library with two functions: [`ABI_SYMBOL`] says which version of this file it was built with,
//! and [`REGISTER_SYMBOL`] names its functions. Anything added here is added at the end of a structure, and raises
//! [`VERSION`] only if an older module or engine could not live with it.

use std::ffi::{c_char, c_void};

/// The version of this interface.
pub const VERSION: u32 = 1;

/// `uint32_t commworld_abi(void)`: the version that the module was built with.
pub const ABI_SYMBOL: &str = "commworld_abi";
/// `int32_t commworld_register(const commworld_registrar *)`: names the module's functions; 0 is success.
pub const REGISTER_SYMBOL: &str = "commworld_register";

/// The type of [`ABI_SYMBOL`].
pub type AbiFunction = unsafe extern "C" fn() -> u32;
/// The type of [`REGISTER_SYMBOL`].
pub type RegisterFunction = unsafe extern "C" fn(*const Registrar) -> i32;
/// A function of a module; 0 is success, anything else is an error, which [`Engine::fail`] describes.
pub type Function = unsafe extern "C" fn(*const Call) -> i32;

/// What kind of value a [`Value`] is.
pub mod kind {
    /// No value.
    pub const NONE: i32 = 0;
    /// A truth value, in `integer`.
    pub const BOOL: i32 = 1;
    /// A whole number, in `integer`.
    pub const INT: i32 = 2;
    /// A number, in `real`.
    pub const FLOAT: i32 = 3;
    /// A complex number, in `real` and `imaginary`.
    pub const COMPLEX: i32 = 4;
    /// UTF-8 of `length` bytes at `data`, not terminated.
    pub const TEXT: i32 = 5;
    /// `length` elements of type `dtype` at `data`.
    pub const ARRAY: i32 = 6;
}

/// Element types; 0 stands for any.
pub mod dtype {
    /// Any type will do.
    pub const ANY: i32 = 0;
    /// `double`
    pub const F64: i32 = 1;
    /// `float`
    pub const F32: i32 = 2;
    /// `int64_t`
    pub const I64: i32 = 3;
    /// `int32_t`
    pub const I32: i32 = 4;
    /// `uint8_t`
    pub const U8: i32 = 5;
    /// One byte, 0 or 1.
    pub const BOOL: i32 = 6;
    /// Two `double`.
    pub const C64: i32 = 7;
}

/// How the elements of an array lie in memory.
pub mod layout {
    /// As they are: `strides` says how.
    pub const ANY: i32 = 0;
    /// In C order without gaps; a view that is not so is copied.
    pub const C: i32 = 1;
}

/// An argument, or a result.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Value {
    /// See [`kind`].
    pub kind: i32,
    /// See [`dtype`]; for arrays.
    pub dtype: i32,
    /// Truth values and whole numbers.
    pub integer: i64,
    /// Numbers.
    pub real: f64,
    /// The imaginary part of complex numbers.
    pub imaginary: f64,
    /// The first byte of a text, the first element of an array. Not to be written to: others may share it.
    pub data: *const c_void,
    /// Bytes of a text, elements of an array.
    pub length: u64,
    /// How many axes an array has.
    pub axes: u32,
    /// 1 if an array is in C order without gaps.
    pub contiguous: u32,
    /// Elements along each axis.
    pub shape: *const i64,
    /// Bytes from one element to the next along each axis; may be negative.
    pub strides: *const i64,
}

impl Value {
    /// No value.
    pub const NONE: Value = Value {
        kind: kind::NONE,
        dtype: dtype::ANY,
        integer: 0,
        real: 0.0,
        imaginary: 0.0,
        data: std::ptr::null(),
        length: 0,
        axes: 0,
        contiguous: 0,
        shape: std::ptr::null(),
        strides: std::ptr::null(),
    };
}

/// One call of a function. It, its arguments and what is read of them live until the function returns, and belong to
/// the thread that was called.
#[repr(C)]
#[derive(Debug)]
pub struct Call {
    /// The engine's [`VERSION`].
    pub version: u32,
    /// How many arguments there are.
    pub count: u32,
    /// This process' number in the world.
    pub rank: i32,
    /// How many ranks the world has.
    pub size: i32,
    /// 1 if MPI runs; then `communicator` can be used.
    pub has_mpi: i32,
    /// The world, as Fortran's handle (MPI 3.1, section 17.2.4).
    pub communicator: i32,
    /// `count` arguments.
    pub arguments: *const Value,
    /// What the engine does for a function.
    pub engine: *const Engine,
    /// The engine's own.
    pub state: *mut c_void,
}

/// What the engine does for a function while it runs. Those that return a number return 0 for success; else the error
/// is set already, and the function should return a number other than 0 itself.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Engine {
    /// Sends text to the client; stream 1 is standard output, 2 standard error.
    pub print: unsafe extern "C" fn(*const Call, i32, *const c_char, u64),
    /// 1 if the user wants the call to end.
    pub interrupted: unsafe extern "C" fn(*const Call) -> i32,
    /// Says why the call failed: the name of the error (Python's, where it has one), and what is wrong.
    pub fail: unsafe extern "C" fn(*const Call, *const c_char, u64, *const c_char, u64),
    /// An argument, from 0, that must be an array of this type, this many axes (-1: any) and this layout.
    pub array: unsafe extern "C" fn(*const Call, u32, i32, i32, i32, *mut Value) -> i32,
    /// An argument that must be a whole number.
    pub integer: unsafe extern "C" fn(*const Call, u32, *mut i64) -> i32,
    /// An argument that must be a number.
    pub real: unsafe extern "C" fn(*const Call, u32, *mut f64) -> i32,
    /// An argument that must be a text: its first byte and length.
    pub text: unsafe extern "C" fn(*const Call, u32, *mut *const c_char, *mut u64) -> i32,
    /// Adds a result that is not an array. A function with several results gives a list.
    pub give: unsafe extern "C" fn(*const Call, *const Value) -> i32,
    /// Adds a result that is an array of that type, axes and shape, and returns its elements, in C order and all 0, to
    /// be written until the function returns; null if there is no memory.
    pub give_array: unsafe extern "C" fn(*const Call, i32, u32, *const i64) -> *mut c_void,
}

/// Takes the functions of a module.
#[repr(C)]
#[derive(Debug)]
pub struct Registrar {
    /// The engine's [`VERSION`].
    pub version: u32,
    /// Adds a function: its name, how it is called (`psum(a)`), and what it does. The texts are copied.
    pub define:
        unsafe extern "C" fn(*const Registrar, *const c_char, *const c_char, *const c_char, Function) -> i32,
    /// The engine's own.
    pub state: *mut c_void,
}
