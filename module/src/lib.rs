//! Compiled kernels for the engines of Commworld, in Rust.
//!
//! A module is a shared library (`crate-type = ["cdylib"]`) whose functions people call at the prompt, from a client
//! or from Python, on arrays that live in the engines. [`module!`] makes functions of typed Rust functions:
//!
//! ```
//! use commworld_module::{Array1, ArrayView1, Call, Error, module};
//!
//! fn scaled(_call: &Call<'_>, a: ArrayView1<'_, f64>, by: f64) -> Result<Array1<f64>, Error> {
//!     if by == 0.0 {
//!         return Err(Error::value("by is 0"));
//!     }
//!     Ok(a.mapv(|x| x * by))
//! }
//!
//! module! {
//!     /// the array, each element times `by`
//!     fn scaled(a: ArrayView1<f64>, by: f64);
//! }
//! ```
//!
//! Arguments are read without a copy, if they are in memory as the type says ([`Argument`]); results are [`Output`]s.
//! An error or a panic is the error of that call, and the engine goes on.
//!
//! C and C++ use `include/commworld.h`, Fortran `include/commworld.f90`.

pub mod abi;

use std::any::Any;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use ndarray;
use ndarray::Dimension;
pub use ndarray::{Array, Array1, Array2, ArrayD, ArrayView, ArrayView1, ArrayView2, ArrayViewD};
pub use num_complex::Complex64;

/// One call of a function.
#[derive(Debug)]
pub struct Call<'a> {
    raw: &'a abi::Call,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Empty: the engine has been told already.
    name: String,
    text: String,
}

impl Error {
    /// An error of that name: Python's, where it has one.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Error {
        Error { name: name.into(), text: text.into() }
    }

    /// The right type, but a value that makes no sense.
    pub fn value(text: impl Into<String>) -> Error {
        Error::new("ValueError", text)
    }

    /// The user's interrupt, for [`Call::check_interrupt`].
    fn interrupted() -> Error {
        Error::new("KeyboardInterrupt", "interrupted")
    }

    fn told() -> Error {
        Error::new("", "")
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.text)
    }
}

impl std::error::Error for Error {}

impl<'a> Call<'a> {
    /// This process' number in the world, from 0.
    pub fn rank(&self) -> usize {
        self.raw.rank as usize
    }

    /// How many ranks the world has.
    pub fn size(&self) -> usize {
        self.raw.size as usize
    }

    /// The world. Its blocking calls end at an interrupt, and the call then ends with it whatever it returns.
    ///
    /// # Errors
    /// The engine runs without MPI.
    #[cfg(feature = "mpi")]
    pub fn world(&self) -> Result<mpi::topology::SimpleCommunicator, Error> {
        if self.raw.has_mpi == 0 {
            return Err(Error::new("RuntimeError", "this engine has no MPI; start it with --mpi"));
        }
        Ok(mpi::topology::SimpleCommunicator::world())
    }

    /// Sends text to the client.
    pub fn print(&self, text: &str) {
        // SAFETY: the call is valid, and the text outlives this.
        unsafe { (self.engine().print)(self.raw, 1, text.as_ptr().cast(), text.len() as u64) }
    }

    /// Says whether the user wants the call to end: for loops that take long.
    pub fn is_interrupted(&self) -> bool {
        // SAFETY: the call is valid.
        unsafe { (self.engine().interrupted)(self.raw) != 0 }
    }

    /// As an error, to write `?` behind.
    pub fn check_interrupt(&self) -> Result<(), Error> {
        if self.is_interrupted() { Err(Error::interrupted()) } else { Ok(()) }
    }

    /// What [`module!`] checks: that a function of that many parameters got no further argument.
    #[doc(hidden)]
    pub fn no_more_than(&self, name: &str, parameters: u32) -> Result<(), Error> {
        if self.raw.count > parameters {
            let arguments = if parameters == 1 { "argument" } else { "arguments" };
            let text = format!("{name} takes {parameters} {arguments}, not {}", self.raw.count);
            return Err(Error::new("TypeError", text));
        }
        Ok(())
    }

    fn engine(&self) -> &abi::Engine {
        // SAFETY: an engine's call has an engine, which lives as long as the call.
        unsafe { &*self.raw.engine }
    }

    fn fail(&self, error: &Error) {
        if error.name.is_empty() {
            return;
        }
        let (name, text) = (&error.name, &error.text);
        // SAFETY: the call is valid, and the texts outlive this.
        unsafe {
            (self.engine().fail)(
                self.raw,
                name.as_ptr().cast(),
                name.len() as u64,
                text.as_ptr().cast(),
                text.len() as u64,
            );
        }
    }

    fn array(&self, at: u32, dtype: i32, axes: i32) -> Result<abi::Value, Error> {
        let mut found = abi::Value::NONE;
        // SAFETY: the call is valid, and `found` can be written to.
        let code =
            unsafe { (self.engine().array)(self.raw, at, dtype, axes, abi::layout::C, &raw mut found) };
        if code == 0 { Ok(found) } else { Err(Error::told()) }
    }

    fn give(&self, value: &abi::Value) -> Result<(), Error> {
        // SAFETY: call and value are valid.
        if unsafe { (self.engine().give)(self.raw, value) } == 0 { Ok(()) } else { Err(Error::told()) }
    }
}

/// Element types of arrays.
pub trait Element: Copy + 'static {
    /// Its number: see [`abi::dtype`].
    const DTYPE: i32;
}

macro_rules! element {
    ($($type:ty => $dtype:ident),* $(,)?) => {$(
        impl Element for $type {
            const DTYPE: i32 = abi::dtype::$dtype;
        }
    )*};
}
element!(f64 => F64, f32 => F32, i64 => I64, i32 => I32, u8 => U8, bool => BOOL, Complex64 => C64);

/// What a parameter of a function can be.
pub trait Argument<'a>: Sized {
    /// Reads argument `at`, from 0; the engine says what is wrong with it.
    fn read(call: &Call<'a>, at: u32) -> Result<Self, Error>;
}

impl<'a> Argument<'a> for i64 {
    fn read(call: &Call<'a>, at: u32) -> Result<i64, Error> {
        let mut found = 0;
        // SAFETY: the call is valid, and `found` can be written to.
        let code = unsafe { (call.engine().integer)(call.raw, at, &raw mut found) };
        if code == 0 { Ok(found) } else { Err(Error::told()) }
    }
}

impl<'a> Argument<'a> for usize {
    fn read(call: &Call<'a>, at: u32) -> Result<usize, Error> {
        let number = i64::read(call, at)?;
        usize::try_from(number)
            .map_err(|_| Error::value(format!("argument {} is negative: {number}", at + 1)))
    }
}

impl<'a> Argument<'a> for f64 {
    fn read(call: &Call<'a>, at: u32) -> Result<f64, Error> {
        let mut found = 0.0;
        // SAFETY: the call is valid, and `found` can be written to.
        let code = unsafe { (call.engine().real)(call.raw, at, &raw mut found) };
        if code == 0 { Ok(found) } else { Err(Error::told()) }
    }
}

impl<'a> Argument<'a> for &'a str {
    fn read(call: &Call<'a>, at: u32) -> Result<&'a str, Error> {
        let (mut text, mut length) = (std::ptr::null::<c_char>(), 0);
        // SAFETY: the call is valid, and both can be written to.
        let code = unsafe { (call.engine().text)(call.raw, at, &raw mut text, &raw mut length) };
        if code != 0 {
            return Err(Error::told());
        }
        // SAFETY: the engine's texts are UTF-8 of that length, and live as long as the call.
        Ok(unsafe { std::str::from_utf8_unchecked(std::slice::from_raw_parts(text.cast(), length as usize)) })
    }
}

/// In C order; a view of another order is copied by the engine.
impl<'a, T: Element, D: Dimension> Argument<'a> for ArrayView<'a, T, D> {
    fn read(call: &Call<'a>, at: u32) -> Result<Self, Error> {
        let axes = D::NDIM.map_or(-1, |axes| axes as i32);
        let found = call.array(at, T::DTYPE, axes)?;
        let mut shape = D::zeros(found.axes as usize);
        for (extent, &found) in shape.slice_mut().iter_mut().zip(extents(&found)) {
            *extent = found as usize;
        }
        // SAFETY: the engine has checked element type and number of axes; the elements are `length` in C order, are
        // aligned, and live unchanged as long as the call.
        Ok(unsafe { ArrayView::from_shape_ptr(shape, found.data.cast::<T>()) })
    }
}

fn extents(value: &abi::Value) -> &[i64] {
    if value.axes == 0 {
        return &[];
    }
    // SAFETY: the engine gives as many extents as there are axes, for as long as the call lives.
    unsafe { std::slice::from_raw_parts(value.shape, value.axes as usize) }
}

/// What a function can return.
pub trait Output {
    /// Hands it to the engine.
    fn give(self, call: &Call<'_>) -> Result<(), Error>;
}

impl Output for () {
    fn give(self, _call: &Call<'_>) -> Result<(), Error> {
        Ok(())
    }
}

impl Output for bool {
    fn give(self, call: &Call<'_>) -> Result<(), Error> {
        call.give(&abi::Value { kind: abi::kind::BOOL, integer: i64::from(self), ..abi::Value::NONE })
    }
}

impl Output for i64 {
    fn give(self, call: &Call<'_>) -> Result<(), Error> {
        call.give(&abi::Value { kind: abi::kind::INT, integer: self, ..abi::Value::NONE })
    }
}

impl Output for f64 {
    fn give(self, call: &Call<'_>) -> Result<(), Error> {
        call.give(&abi::Value { kind: abi::kind::FLOAT, real: self, ..abi::Value::NONE })
    }
}

impl Output for Complex64 {
    fn give(self, call: &Call<'_>) -> Result<(), Error> {
        let (real, imaginary) = (self.re, self.im);
        call.give(&abi::Value { kind: abi::kind::COMPLEX, real, imaginary, ..abi::Value::NONE })
    }
}

impl Output for String {
    fn give(self, call: &Call<'_>) -> Result<(), Error> {
        call.give(&abi::Value {
            kind: abi::kind::TEXT,
            data: self.as_ptr().cast(),
            length: self.len() as u64,
            ..abi::Value::NONE
        })
    }
}

/// Its elements are copied into the engine's memory.
impl<T: Element, D: Dimension> Output for Array<T, D> {
    fn give(self, call: &Call<'_>) -> Result<(), Error> {
        let shape: Vec<i64> = self.shape().iter().map(|&extent| extent as i64).collect();
        // SAFETY: the call is valid, and there are as many extents as axes.
        let data =
            unsafe { (call.engine().give_array)(call.raw, T::DTYPE, shape.len() as u32, shape.as_ptr()) };
        if data.is_null() {
            return Err(Error::told());
        }
        let elements = self.as_standard_layout();
        let elements = elements.as_slice().expect("in standard layout");
        // SAFETY: the engine has made room for as many elements of this type.
        unsafe { std::ptr::copy_nonoverlapping(elements.as_ptr(), data.cast::<T>(), elements.len()) };
        Ok(())
    }
}

impl<T: Output, U: Output> Output for (T, U) {
    fn give(self, call: &Call<'_>) -> Result<(), Error> {
        self.0.give(call)?;
        self.1.give(call)
    }
}

impl<T: Output, U: Output, V: Output> Output for (T, U, V) {
    fn give(self, call: &Call<'_>) -> Result<(), Error> {
        self.0.give(call)?;
        self.1.give(call)?;
        self.2.give(call)
    }
}

impl<T: Output> Output for Result<T, Error> {
    fn give(self, call: &Call<'_>) -> Result<(), Error> {
        self?.give(call)
    }
}

/// What [`module!`] makes of a function: reads, runs, answers; neither an error nor a panic gets further.
///
/// # Safety
/// The call must be an engine's, and run.
#[doc(hidden)]
pub unsafe fn run(
    raw: *const abi::Call,
    function: impl for<'a> FnOnce(&Call<'a>) -> Result<(), Error>,
) -> i32 {
    // SAFETY: as the caller promises.
    let call = Call { raw: unsafe { &*raw } };
    match catch_unwind(AssertUnwindSafe(|| function(&call))) {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => {
            call.fail(&error);
            1
        }
        Err(panic) => {
            call.fail(&Error::new("PanicError", panic_text(&*panic)));
            1
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "it panicked without a word".to_owned())
}

/// What [`module!`] makes of all functions.
///
/// # Safety
/// The registrar must be an engine's.
#[doc(hidden)]
pub unsafe fn define(
    registrar: *const abi::Registrar,
    name: &str,
    signature: &str,
    help: &str,
    function: abi::Function,
) -> i32 {
    let text = |text: &str| CString::new(text.replace('\0', "")).expect("no zero is left");
    let (name, signature, help) = (text(name), text(signature), text(help));
    // SAFETY: as the caller promises; the engine copies the texts.
    unsafe { ((*registrar).define)(registrar, name.as_ptr(), signature.as_ptr(), help.as_ptr(), function) }
}

/// Makes a module of functions: of each its name, its parameters, and what it does, as a doc comment. The function
/// itself is an ordinary one of that name in scope, which takes a [`Call`] before the parameters and returns an
/// [`Output`].
#[macro_export]
macro_rules! module {
    ($($(#[doc = $help:expr])* fn $name:ident($($parameter:ident: $type:ty),* $(,)?);)+) => {
        /// The interface that this module was built with.
        #[unsafe(no_mangle)]
        pub extern "C" fn commworld_abi() -> u32 {
            $crate::abi::VERSION
        }

        /// Names this module's functions.
        ///
        /// # Safety
        /// The registrar must be an engine's.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn commworld_register(registrar: *const $crate::abi::Registrar) -> i32 {
            $({
                unsafe extern "C" fn shim(call: *const $crate::abi::Call) -> i32 {
                    let function = |call: &$crate::Call<'_>| {
                        #[allow(unused_mut, reason = "there may be no parameter")]
                        let mut at = 0u32;
                        $(
                            let $parameter = <$type as $crate::Argument>::read(call, at)?;
                            at += 1;
                        )*
                        call.no_more_than(stringify!($name), at)?;
                        $crate::Output::give($name(call $(, $parameter)*), call)
                    };
                    // SAFETY: engines pass their call.
                    unsafe { $crate::run(call, function) }
                }
                let parameters: &[&str] = &[$(stringify!($parameter)),*];
                let signature = format!("{}({})", stringify!($name), parameters.join(", "));
                let help: &[&str] = &[$($help),*];
                let help: Vec<&str> = help.iter().map(|line| line.trim()).collect();
                // SAFETY: as this function's caller promises.
                let code =
                    unsafe { $crate::define(registrar, stringify!($name), &signature, &help.join("\n"), shim) };
                if code != 0 {
                    return code;
                }
            })+
            0
        }
    };
}
