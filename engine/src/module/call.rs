//! One call of a module's function: its arguments in C's types, its results, its error.

use std::cell::RefCell;
use std::ffi::{c_char, c_void};
use std::ptr;

use commworld_module::abi;
use num_complex::Complex64;
use protocol::error::ename;
use protocol::limits::ARRAY_RANK_MAX;
use protocol::value::{ArrayValue, DType, Value};

use super::{Function, crash, wordless};
use crate::array::{Array, Element};
use crate::each_dtype;
use crate::runner::{CellContext, RunError, Stream};
use ndarray::{ArrayD, IxDyn};

/// The most results of one call.
const RESULTS_MAX: usize = 256;

/// An argument.
#[derive(Clone, Debug)]
pub enum Argument {
    /// No value.
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A complex number.
    Complex(Complex64),
    /// A text.
    Text(String),
    /// An array of the namespace.
    Array(Array),
    /// An array that came from elsewhere, aligned.
    Elements(ArrayValue),
}

impl Argument {
    /// A value that came from a client or from Python. Arrays that are not aligned are copied.
    pub fn of(value: Value) -> Result<Argument, RunError> {
        Ok(match value {
            Value::None => Argument::None,
            Value::Bool(truth) => Argument::Bool(truth),
            Value::Int(number) => Argument::Int(number),
            Value::Float(number) => Argument::Float(number),
            Value::Complex(number) => Argument::Complex(number),
            Value::Str(text) => Argument::Text(text),
            Value::Array(array) if is_aligned(&array) => Argument::Elements(array),
            Value::Array(array) => Argument::Array(Array::from_wire(&array)),
            Value::Bytes(bytes) => {
                let shape = vec![bytes.len() as u64];
                let array = ArrayValue::new(DType::U8, shape, bytes);
                Argument::Elements(array.map_err(|error| RunError::new("ValueError", error.to_string()))?)
            }
            Value::List(_) | Value::Map(_) => {
                return Err(RunError::new(
                    "TypeError",
                    "lists and maps cannot be passed to a module; make an array of it: `array(x)`",
                ));
            }
        })
    }

    /// What it is, in words.
    fn describe(&self) -> String {
        match self {
            Argument::None => "()".to_owned(),
            Argument::Bool(_) => "a bool".to_owned(),
            Argument::Int(_) => "an int".to_owned(),
            Argument::Float(_) => "a float".to_owned(),
            Argument::Complex(_) => "a complex number".to_owned(),
            Argument::Text(_) => "a string".to_owned(),
            Argument::Array(array) => format!("an array of {} and shape {:?}", array.dtype(), array.shape()),
            Argument::Elements(array) => format!("an array of {} and shape {:?}", array.dtype, array.shape),
        }
    }
}

/// Bools are read as bytes: they must be 0 or 1 to be Rust's.
fn is_aligned(array: &ArrayValue) -> bool {
    let alignment = if array.dtype == DType::C64 { 8 } else { array.dtype.size() };
    array.data.as_ptr().addr().is_multiple_of(alignment)
        && (array.dtype != DType::Bool || array.data.iter().all(|&byte| byte <= 1))
}

/// What a call gave: nothing, one result, or a list of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// No value.
    None,
    /// A value that is not an array.
    Value(Value),
    /// An array, made by the module.
    Array(Array),
    /// Several results.
    List(Vec<Output>),
}

impl From<Output> for Value {
    /// The memory of arrays is shared, not copied.
    fn from(output: Output) -> Value {
        match output {
            Output::None => Value::None,
            Output::Value(value) => value,
            Output::Array(array) => Value::Array(array.to_wire()),
            Output::List(items) => Value::List(items.into_iter().map(Value::from).collect()),
        }
    }
}

/// What belongs to one call while it runs.
struct State<'a> {
    function: &'a Function,
    context: &'a CellContext,
    arguments: &'a [Argument],
    /// The arguments in C's types. Their extents are in `extents`.
    values: Vec<abi::Value>,
    /// Arrays that were copied into C order, with their extents.
    copies: RefCell<Vec<(Array, Extents)>>,
    results: RefCell<Vec<Made>>,
    error: RefCell<Option<RunError>>,
}

/// A result while the function may still write to it.
enum Made {
    /// Numbers, or no array.
    Output(Output),
    /// The bytes of truth values: a module may write any.
    Truths(Array),
}

impl Made {
    fn finish(self) -> Output {
        match self {
            Made::Output(output) => output,
            Made::Truths(Array::U8(bytes)) => {
                Output::Array(Array::Bool(bytes.mapv(|byte| byte != 0).into_shared()))
            }
            Made::Truths(other) => Output::Array(other),
        }
    }
}

/// Shape and strides of an array, at a place that stays.
struct Extents {
    shape: Box<[i64]>,
    strides: Box<[i64]>,
}

impl Extents {
    fn of(array: &Array) -> Extents {
        let size = array.dtype().size() as i64;
        let strides: Box<[i64]> =
            each_dtype!(array, a => a.strides().iter().map(|&stride| stride as i64 * size).collect());
        Extents { shape: array.shape().iter().map(|&extent| extent as i64).collect(), strides }
    }

    /// Of elements in C order.
    fn in_c_order(shape: &[u64], size: usize) -> Extents {
        let shape: Box<[i64]> = shape.iter().map(|&extent| extent as i64).collect();
        let mut strides = vec![size as i64; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis].max(1);
        }
        Extents { shape, strides: strides.into() }
    }

    fn put_into(&self, value: &mut abi::Value) {
        value.axes = self.shape.len() as u32;
        value.shape = self.shape.as_ptr();
        value.strides = self.strides.as_ptr();
    }
}

/// Calls a function.
pub(super) fn run(
    function: &Function,
    context: &CellContext,
    arguments: &[Argument],
) -> Result<Output, RunError> {
    let mut extents = Vec::with_capacity(arguments.len());
    let values = arguments.iter().map(|argument| value_of(argument, &mut extents)).collect();
    let state = State {
        function,
        context,
        arguments,
        values,
        copies: RefCell::default(),
        results: RefCell::default(),
        error: RefCell::default(),
    };
    let communicator = context.communicator.fortran_handle();
    let call = abi::Call {
        version: abi::VERSION,
        count: arguments.len() as u32,
        rank: context.communicator.rank() as i32,
        size: context.communicator.size() as i32,
        has_mpi: i32::from(communicator.is_some()),
        communicator: communicator.unwrap_or(-1),
        arguments: state.values.as_ptr(),
        engine: &raw const ENGINE,
        state: (&raw const state).cast_mut().cast(),
    };
    let code = {
        let _current = crash::Current::enter(function.label);
        // SAFETY: the module has this version of the interface, and everything of the call outlives it.
        unsafe { (function.run)(&raw const call) }
    };
    let State { results, error, .. } = state;
    if context.interrupt.is_raised() {
        // Whatever it returned: what MPI gave it is not what it asked for.
        return Err(RunError::new(ename::KEYBOARD_INTERRUPT, format!("interrupted in {}", function.name)));
    }
    if code != 0 {
        return Err(error.into_inner().unwrap_or_else(|| wordless(&function.name, code)));
    }
    let mut results: Vec<Output> = results.into_inner().into_iter().map(Made::finish).collect();
    Ok(match results.len() {
        0 => Output::None,
        1 => results.remove(0),
        _ => Output::List(results),
    })
}

fn value_of(argument: &Argument, extents: &mut Vec<Extents>) -> abi::Value {
    use abi::kind;
    let value = abi::Value::NONE;
    match argument {
        Argument::None => value,
        Argument::Bool(truth) => abi::Value { kind: kind::BOOL, integer: i64::from(*truth), ..value },
        Argument::Int(number) => abi::Value { kind: kind::INT, integer: *number, ..value },
        Argument::Float(number) => abi::Value { kind: kind::FLOAT, real: *number, ..value },
        Argument::Complex(number) => {
            abi::Value { kind: kind::COMPLEX, real: number.re, imaginary: number.im, ..value }
        }
        Argument::Text(text) => {
            abi::Value { kind: kind::TEXT, data: text.as_ptr().cast(), length: text.len() as u64, ..value }
        }
        Argument::Array(array) => {
            extents.push(Extents::of(array));
            array_value(array, extents.last().expect("just pushed"))
        }
        Argument::Elements(array) => {
            let own = Extents::in_c_order(&array.shape, array.dtype.size());
            let mut value = abi::Value {
                kind: kind::ARRAY,
                dtype: dtype_number(array.dtype),
                data: array.data.as_ptr().cast(),
                length: array.shape.iter().product(),
                contiguous: 1,
                ..value
            };
            own.put_into(&mut value);
            extents.push(own);
            value
        }
    }
}

fn array_value(array: &Array, extents: &Extents) -> abi::Value {
    let mut value = abi::Value {
        kind: abi::kind::ARRAY,
        dtype: dtype_number(array.dtype()),
        data: each_dtype!(array, a => a.as_ptr().cast()),
        length: array.len() as u64,
        contiguous: u32::from(each_dtype!(array, a => a.is_standard_layout())),
        ..abi::Value::NONE
    };
    extents.put_into(&mut value);
    value
}

/// The numbers of element types: `abi::dtype`.
const DTYPES: [(i32, DType); 7] = [
    (abi::dtype::F64, DType::F64),
    (abi::dtype::F32, DType::F32),
    (abi::dtype::I64, DType::I64),
    (abi::dtype::I32, DType::I32),
    (abi::dtype::U8, DType::U8),
    (abi::dtype::BOOL, DType::Bool),
    (abi::dtype::C64, DType::C64),
];

fn dtype_number(dtype: DType) -> i32 {
    DTYPES.iter().find(|(_, known)| *known == dtype).map_or(abi::dtype::ANY, |(number, _)| *number)
}

fn dtype_of(number: i32) -> Option<DType> {
    DTYPES.iter().find(|(known, _)| *known == number).map(|(_, dtype)| *dtype)
}

/// What modules call.
static ENGINE: abi::Engine =
    abi::Engine { print, interrupted, fail, array, integer, real, text, give, give_array };

/// # Safety
/// The call is one of ours, and runs.
unsafe fn state<'a>(call: *const abi::Call) -> &'a State<'a> {
    // SAFETY: as the caller promises; the state of our calls is a `State`.
    unsafe { &*(*call).state.cast_const().cast::<State<'a>>() }
}

/// # Safety
/// There are that many bytes.
unsafe fn text_of(text: *const c_char, length: u64) -> String {
    if text.is_null() || length == 0 {
        return String::new();
    }
    // SAFETY: as the caller promises.
    String::from_utf8_lossy(unsafe { std::slice::from_raw_parts(text.cast::<u8>(), length as usize) })
        .into_owned()
}

impl State<'_> {
    /// Remembers why the call fails; the first reason stays.
    fn fails(&self, name: &str, text: impl Into<String>) -> i32 {
        self.error.borrow_mut().get_or_insert_with(|| RunError::new(name, text));
        1
    }

    fn argument(&self, at: u32) -> Result<(&Argument, &abi::Value), i32> {
        let at = at as usize;
        match (self.arguments.get(at), self.values.get(at)) {
            (Some(argument), Some(value)) => Ok((argument, value)),
            _ => Err(self.fails(
                "TypeError",
                format!(
                    "{} needs argument {}; call it as {}",
                    self.function.name,
                    at + 1,
                    self.function.signature
                ),
            )),
        }
    }

    fn wrong(&self, at: u32, wanted: &str) -> i32 {
        let found = self.arguments.get(at as usize).map_or_else(String::new, Argument::describe);
        self.fails(
            "TypeError",
            format!(
                "argument {} of {} is {found}, but must be {wanted}; call it as {}",
                at + 1,
                self.function.name,
                self.function.signature
            ),
        )
    }

    fn array(&self, at: u32, dtype: i32, axes: i32, layout: i32) -> Result<abi::Value, i32> {
        let (argument, value) = self.argument(at)?;
        let fits = value.kind == abi::kind::ARRAY
            && (dtype == abi::dtype::ANY || dtype == value.dtype)
            && (axes < 0 || axes as u32 == value.axes);
        if !fits {
            let of = dtype_of(dtype).map_or_else(String::new, |dtype| format!(" of {dtype}"));
            let with = match axes {
                0.. => format!(" with {axes} {}", if axes == 1 { "axis" } else { "axes" }),
                _ => String::new(),
            };
            return Err(self.wrong(at, &format!("an array{of}{with}")));
        }
        match argument {
            Argument::Array(array) if layout == abi::layout::C && value.contiguous == 0 => {
                let copy = in_c_order(array);
                let extents = Extents::of(&copy);
                let value = array_value(&copy, &extents);
                self.copies.borrow_mut().push((copy, extents));
                Ok(value)
            }
            _ => Ok(*value),
        }
    }

    fn add(&self, result: Made) -> i32 {
        let mut results = self.results.borrow_mut();
        if results.len() >= RESULTS_MAX {
            return self.fails(
                ename::RUNTIME_ERROR,
                format!("{} gives more than {RESULTS_MAX} results", self.function.name),
            );
        }
        results.push(result);
        0
    }
}

fn in_c_order(array: &Array) -> Array {
    fn copied<T: Element>(array: &ndarray::ArcArray<T, IxDyn>) -> Array {
        T::wrap(array.as_standard_layout().into_owned().into_shared())
    }
    each_dtype!(array, a => copied(a))
}

/// An array of zeros, and its memory. None: there is not enough.
fn new_array(dtype: DType, shape: &[usize]) -> Option<(Array, *mut c_void)> {
    fn zeros<T: Element>(shape: &[usize]) -> Option<(Array, *mut c_void)> {
        let count = shape.iter().try_fold(1usize, |count, &extent| count.checked_mul(extent))?;
        let mut elements: Vec<T> = zeroed(count)?;
        let memory = elements.as_mut_ptr().cast();
        // The memory of a vector stays where it is when an array, and then a shared one, takes it over.
        let array = ArrayD::from_shape_vec(IxDyn(shape), elements).ok()?;
        Some((T::wrap(array.into_shared()), memory))
    }
    match dtype {
        DType::F64 => zeros::<f64>(shape),
        DType::F32 => zeros::<f32>(shape),
        DType::I64 => zeros::<i64>(shape),
        DType::I32 => zeros::<i32>(shape),
        // Not of bools: a byte that is neither 0 nor 1 must never be one.
        DType::U8 | DType::Bool => zeros::<u8>(shape),
        DType::C64 => zeros::<Complex64>(shape),
    }
}

/// Memory that the system gives as zeros, or none; an engine must not end because a kernel asks for too much.
fn zeroed<T: Element>(count: usize) -> Option<Vec<T>> {
    let layout = std::alloc::Layout::array::<T>(count).ok()?;
    if layout.size() == 0 {
        return Some(Vec::new());
    }
    // SAFETY: the layout has a size; zeros are a value of each element type.
    unsafe {
        let memory = std::alloc::alloc_zeroed(layout).cast::<T>();
        (!memory.is_null()).then(|| Vec::from_raw_parts(memory, count, count))
    }
}

unsafe extern "C" fn print(call: *const abi::Call, stream: i32, text: *const c_char, length: u64) {
    // SAFETY: modules call it with their call, and a text of that length.
    let (state, text) = unsafe { (state(call), text_of(text, length)) };
    let stream = if stream == 2 { Stream::Stderr } else { Stream::Stdout };
    state.context.output.borrow_mut().write(stream, &text);
}

unsafe extern "C" fn interrupted(call: *const abi::Call) -> i32 {
    // SAFETY: modules call it with their call.
    i32::from(unsafe { state(call) }.context.interrupt.is_raised())
}

unsafe extern "C" fn fail(
    call: *const abi::Call,
    name: *const c_char,
    name_length: u64,
    text: *const c_char,
    length: u64,
) {
    // SAFETY: modules call it with their call, and texts of these lengths.
    let (state, name, text) = unsafe { (state(call), text_of(name, name_length), text_of(text, length)) };
    let name = if name.is_empty() { ename::RUNTIME_ERROR } else { name.as_str() };
    state.fails(name, text);
}

unsafe extern "C" fn array(
    call: *const abi::Call,
    at: u32,
    dtype: i32,
    axes: i32,
    layout: i32,
    found: *mut abi::Value,
) -> i32 {
    // SAFETY: modules call it with their call.
    match unsafe { state(call) }.array(at, dtype, axes, layout) {
        Ok(value) => {
            // SAFETY: and with a place for the value.
            unsafe { found.write(value) };
            0
        }
        Err(code) => code,
    }
}

unsafe extern "C" fn integer(call: *const abi::Call, at: u32, found: *mut i64) -> i32 {
    // SAFETY: modules call it with their call.
    let state = unsafe { state(call) };
    match state.argument(at) {
        Ok((Argument::Int(_) | Argument::Bool(_), value)) => {
            // SAFETY: and with a place for the number.
            unsafe { found.write(value.integer) };
            0
        }
        Ok(_) => state.wrong(at, "an integer"),
        Err(code) => code,
    }
}

unsafe extern "C" fn real(call: *const abi::Call, at: u32, found: *mut f64) -> i32 {
    // SAFETY: modules call it with their call.
    let state = unsafe { state(call) };
    let number = match state.argument(at) {
        Ok((Argument::Float(number), _)) => *number,
        Ok((Argument::Int(number), _)) => *number as f64,
        Ok(_) => return state.wrong(at, "a number"),
        Err(code) => return code,
    };
    // SAFETY: and with a place for the number.
    unsafe { found.write(number) };
    0
}

unsafe extern "C" fn text(
    call: *const abi::Call,
    at: u32,
    found: *mut *const c_char,
    length: *mut u64,
) -> i32 {
    // SAFETY: modules call it with their call.
    let state = unsafe { state(call) };
    match state.argument(at) {
        Ok((Argument::Text(text), _)) => {
            // SAFETY: and with places for both.
            unsafe {
                found.write(text.as_ptr().cast());
                length.write(text.len() as u64);
            }
            0
        }
        Ok(_) => state.wrong(at, "a string"),
        Err(code) => code,
    }
}

unsafe extern "C" fn give(call: *const abi::Call, result: *const abi::Value) -> i32 {
    use abi::kind;
    // SAFETY: modules call it with their call, and a value.
    let (state, result) = unsafe { (state(call), &*result) };
    let value = match result.kind {
        kind::NONE => Value::None,
        kind::BOOL => Value::Bool(result.integer != 0),
        kind::INT => Value::Int(result.integer),
        kind::FLOAT => Value::Float(result.real),
        kind::COMPLEX => Value::Complex(Complex64::new(result.real, result.imaginary)),
        // SAFETY: a text has that many bytes.
        kind::TEXT => Value::Str(unsafe { text_of(result.data.cast(), result.length) }),
        other => {
            let text = format!("{} gives a value of kind {other}, which is none", state.function.name);
            return state.fails(ename::RUNTIME_ERROR, text);
        }
    };
    state.add(Made::Output(Output::Value(value)))
}

unsafe extern "C" fn give_array(
    call: *const abi::Call,
    dtype: i32,
    axes: u32,
    shape: *const i64,
) -> *mut c_void {
    // SAFETY: modules call it with their call.
    let state = unsafe { state(call) };
    let name = &state.function.name;
    let wrong = |text: String| {
        state.fails("ValueError", text);
        ptr::null_mut()
    };
    let Some(dtype) = dtype_of(dtype) else {
        return wrong(format!("{name} gives an array of the unknown element type {dtype}"));
    };
    if axes as usize > ARRAY_RANK_MAX {
        return wrong(format!("{name} gives an array of {axes} axes; {ARRAY_RANK_MAX} are possible"));
    }
    let extents = match axes {
        0 => &[],
        // SAFETY: there are as many extents as axes.
        _ => unsafe { std::slice::from_raw_parts(shape, axes as usize) },
    };
    let shape = extents.iter().map(|&extent| usize::try_from(extent)).collect::<Result<Vec<usize>, _>>();
    let Ok(shape) = shape else {
        return wrong(format!("{name} gives an array of the shape {extents:?}"));
    };
    match new_array(dtype, &shape) {
        Some((array, memory)) => {
            let made =
                if dtype == DType::Bool { Made::Truths(array) } else { Made::Output(Output::Array(array)) };
            if state.add(made) == 0 { memory } else { ptr::null_mut() }
        }
        None => {
            state.fails(
                "MemoryError",
                format!("{name}: no memory for an array of {dtype} and shape {shape:?}"),
            );
            ptr::null_mut()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use bytes::Bytes;

    use super::*;
    use crate::interrupt::Interrupt;
    use crate::solo::Solo;

    struct Nowhere;

    impl crate::runner::Output for Nowhere {
        fn write(&mut self, _: Stream, _: &str) {}
    }

    fn call(run: abi::Function, arguments: &[Argument]) -> Result<Output, RunError> {
        let function = Function {
            name: "f".to_owned(),
            signature: "f(a)".to_owned(),
            help: String::new(),
            module: "libf.so".into(),
            run,
            label: c"f of libf.so",
        };
        let output = Rc::new(RefCell::new(Nowhere));
        let context = CellContext::new("cell", output, Rc::new(Solo::new()), Interrupt::new());
        function.call(&context, arguments)
    }

    fn matrix() -> Array {
        let elements = ndarray::arr2(&[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).into_dyn();
        f64::wrap(elements.into_shared())
    }

    fn transposed() -> Array {
        each_dtype!(&matrix(), a => Element::wrap(a.t().to_shared()))
    }

    /// Gives the address of the elements, as it is told to ask for them, and whether they are in C order.
    unsafe extern "C" fn address_in_c_order(call: *const abi::Call) -> i32 {
        // SAFETY: the tests call it as engines do.
        unsafe { address(call, abi::layout::C) }
    }

    unsafe extern "C" fn address_as_it_is(call: *const abi::Call) -> i32 {
        // SAFETY: the tests call it as engines do.
        unsafe { address(call, abi::layout::ANY) }
    }

    unsafe fn address(call: *const abi::Call, layout: i32) -> i32 {
        let mut found = abi::Value::NONE;
        // SAFETY: the tests call it as engines do.
        unsafe {
            if array(call, 0, abi::dtype::F64, -1, layout, &raw mut found) != 0 {
                return 1;
            }
            let strides = std::slice::from_raw_parts(found.strides, found.axes as usize);
            for number in [found.data.addr() as i64, i64::from(found.contiguous), strides[0]] {
                let value = abi::Value { kind: abi::kind::INT, integer: number, ..abi::Value::NONE };
                give(call, &raw const value);
            }
        }
        0
    }

    #[track_caller]
    fn numbers(output: &Output) -> Vec<i64> {
        let Output::List(items) = output else { panic!("{output:?} is no list") };
        let number = |item: &Output| match item {
            Output::Value(Value::Int(number)) => *number,
            other => panic!("{other:?} is no number"),
        };
        items.iter().map(number).collect()
    }

    #[test]
    fn an_array_in_c_order_is_handed_over_as_it_is() {
        let array = matrix();
        let own = each_dtype!(&array, a => a.as_ptr().addr()) as i64;
        let found = call(address_in_c_order, &[Argument::Array(array)]).expect("it succeeds");
        assert_eq!(numbers(&found), [own, 1, 24]);
    }

    #[test]
    fn a_view_of_another_order_is_copied_only_if_the_kernel_wants_c_order() {
        let array = transposed();
        let own = each_dtype!(&array, a => a.as_ptr().addr()) as i64;
        let as_it_is = call(address_as_it_is, &[Argument::Array(array.clone())]).expect("it succeeds");
        assert_eq!(numbers(&as_it_is), [own, 0, 8]);
        let copied = numbers(&call(address_in_c_order, &[Argument::Array(array)]).expect("it succeeds"));
        assert_ne!(copied[0], own);
        assert_eq!(copied[1..], [1, 16]);
    }

    #[test]
    fn elements_that_are_not_aligned_are_copied_and_others_are_not() {
        let bytes = Bytes::from(vec![0; 33]);
        let aligned = usize::from(!bytes.as_ptr().addr().is_multiple_of(8));
        for (from, is_copied) in [(aligned * 8, false), (1, true)] {
            let data = bytes.slice(from..from + 16);
            let own = data.as_ptr().addr();
            let is_aligned = own.is_multiple_of(8);
            let value = Value::Array(ArrayValue::new(DType::F64, vec![2], data).expect("two elements"));
            let found =
                call(address_in_c_order, &[Argument::of(value).expect("it fits")]).expect("it succeeds");
            assert_eq!(is_aligned, !is_copied);
            assert_eq!(numbers(&found)[0] != own as i64, is_copied);
        }
    }

    #[test]
    fn bytes_that_are_no_truth_values_never_become_some() {
        let value =
            Value::Array(ArrayValue::new(DType::Bool, vec![2], vec![0, 7].into()).expect("two elements"));
        let Argument::Array(Array::Bool(truths)) = Argument::of(value).expect("it fits") else {
            panic!("it was taken as it came")
        };
        assert_eq!(truths.as_slice(), Some(&[false, true][..]));

        unsafe extern "C" fn sevens(call: *const abi::Call) -> i32 {
            // SAFETY: the tests call it as engines do; there is room for two bytes.
            unsafe {
                give_array(call, abi::dtype::BOOL, 1, [2_i64].as_ptr()).cast::<[u8; 2]>().write([7, 0])
            };
            0
        }
        let Ok(Output::Array(Array::Bool(truths))) = call(sevens, &[]) else { panic!("it gives an array") };
        assert_eq!(truths.as_slice(), Some(&[true, false][..]));
    }

    #[test]
    fn an_array_that_was_written_to_is_the_result_itself() {
        unsafe extern "C" fn counting(call: *const abi::Call) -> i32 {
            // SAFETY: the tests call it as engines do; there is room for four numbers.
            unsafe {
                give_array(call, abi::dtype::I32, 2, [2_i64, 2].as_ptr())
                    .cast::<[i32; 4]>()
                    .write([1, 2, 3, 4])
            };
            0
        }
        let expected = i32::wrap(ndarray::arr2(&[[1, 2], [3, 4]]).into_dyn().into_shared());
        assert_eq!(call(counting, &[]), Ok(Output::Array(expected)));
    }

    #[test]
    fn more_results_than_a_call_may_give_are_an_error() {
        unsafe extern "C" fn endless(call: *const abi::Call) -> i32 {
            // SAFETY: the tests call it as engines do.
            while unsafe { give(call, &abi::Value::NONE) } == 0 {}
            1
        }
        let error = call(endless, &[]).expect_err("it never stops giving");
        assert_eq!(error.evalue, "f gives more than 256 results");
    }

    #[test]
    fn shapes_and_kinds_that_cannot_be_are_an_error() {
        unsafe extern "C" fn negative(call: *const abi::Call) -> i32 {
            // SAFETY: the tests call it as engines do.
            i32::from(unsafe { give_array(call, abi::dtype::F64, 1, [-1_i64].as_ptr()) }.is_null())
        }
        assert_eq!(call(negative, &[]).expect_err("no array is so short").ename, "ValueError");
        unsafe extern "C" fn unknown(call: *const abi::Call) -> i32 {
            let value = abi::Value { kind: 99, ..abi::Value::NONE };
            // SAFETY: the tests call it as engines do.
            unsafe { give(call, &raw const value) }
        }
        let error = call(unknown, &[]).expect_err("there is no such kind");
        assert_eq!(error.evalue, "f gives a value of kind 99, which is none");
    }

    #[test]
    fn lists_are_refused_with_what_to_do() {
        let error = Argument::of(Value::List(vec![])).expect_err("a list is no array");
        assert!(error.evalue.contains("array(x)"), "{error:?}");
    }
}
