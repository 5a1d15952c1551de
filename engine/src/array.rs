//! The arrays of an engine's namespace: any rank, seven element types, shared until written to.

use bytes::Bytes;
use ndarray::{ArcArray, ArrayD, IxDyn};
use num_complex::Complex64;
use protocol::value::{ArrayValue, DType};

/// An n-dimensional array whose memory is shared between its copies until one of them is written to
/// (copy on write), and freed as soon as the last copy goes.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// 64-bit floats.
    F64(ArcArray<f64, IxDyn>),
    /// 32-bit floats.
    F32(ArcArray<f32, IxDyn>),
    /// 64-bit signed integers.
    I64(ArcArray<i64, IxDyn>),
    /// 32-bit signed integers.
    I32(ArcArray<i32, IxDyn>),
    /// Bytes.
    U8(ArcArray<u8, IxDyn>),
    /// Truth values.
    Bool(ArcArray<bool, IxDyn>),
    /// Complex numbers of two 64-bit floats.
    C64(ArcArray<Complex64, IxDyn>),
}

/// Runs the same expression on whichever element type an [`Array`] has.
///
/// `each_dtype!(array, a => a.len())`
#[macro_export]
macro_rules! each_dtype {
    ($array:expr, $a:ident => $body:expr) => {
        match $array {
            $crate::array::Array::F64($a) => $body,
            $crate::array::Array::F32($a) => $body,
            $crate::array::Array::I64($a) => $body,
            $crate::array::Array::I32($a) => $body,
            $crate::array::Array::U8($a) => $body,
            $crate::array::Array::Bool($a) => $body,
            $crate::array::Array::C64($a) => $body,
        }
    };
}

/// An element type that an [`Array`] can hold.
pub trait Element: Copy + Clone + PartialEq + Send + Sync + 'static {
    /// Its name on the wire.
    const DTYPE: DType;

    /// Wraps a typed array.
    fn wrap(array: ArcArray<Self, IxDyn>) -> Array;
}

macro_rules! element {
    ($($type:ty => $variant:ident),* $(,)?) => {$(
        impl Element for $type {
            const DTYPE: DType = DType::$variant;

            fn wrap(array: ArcArray<Self, IxDyn>) -> Array {
                Array::$variant(array)
            }
        }
    )*};
}
element!(f64 => F64, f32 => F32, i64 => I64, i32 => I32, u8 => U8, bool => Bool, Complex64 => C64);

impl Array {
    /// The element type.
    pub fn dtype(&self) -> DType {
        match self {
            Array::F64(_) => DType::F64,
            Array::F32(_) => DType::F32,
            Array::I64(_) => DType::I64,
            Array::I32(_) => DType::I32,
            Array::U8(_) => DType::U8,
            Array::Bool(_) => DType::Bool,
            Array::C64(_) => DType::C64,
        }
    }

    /// The extent of every axis; empty for a 0-dimensional array, which holds one element.
    pub fn shape(&self) -> &[usize] {
        each_dtype!(self, a => a.shape())
    }

    /// How many elements it has.
    pub fn len(&self) -> usize {
        each_dtype!(self, a => a.len())
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes its elements take.
    pub fn byte_len(&self) -> usize {
        self.len() * self.dtype().size()
    }

    /// A 0-dimensional array of one element.
    pub fn scalar<T: Element>(value: T) -> Array {
        T::wrap(ArrayD::from_elem(IxDyn(&[]), value).into_shared())
    }

    /// A 1-dimensional array.
    pub fn from_vec<T: Element>(values: Vec<T>) -> Array {
        T::wrap(ndarray::Array1::from_vec(values).into_dyn().into_shared())
    }

    /// The array as it travels: C order, the machine's (little-endian) byte order. The memory is shared with
    /// this array, not copied, when it is in C order already.
    pub fn to_wire(&self) -> ArrayValue {
        let shape = self.shape().iter().map(|&n| n as u64).collect();
        ArrayValue { dtype: self.dtype(), shape, data: each_dtype!(self, a => wire_bytes(a.clone())) }
    }

    /// The array that arrived. Copies the elements once (a received frame need not be aligned).
    pub fn from_wire(array: &ArrayValue) -> Array {
        let shape: Vec<usize> = array.shape.iter().map(|&n| n as usize).collect();
        match array.dtype {
            DType::F64 => Array::F64(typed(&shape, &array.data)),
            DType::F32 => Array::F32(typed(&shape, &array.data)),
            DType::I64 => Array::I64(typed(&shape, &array.data)),
            DType::I32 => Array::I32(typed(&shape, &array.data)),
            DType::U8 => Array::U8(typed(&shape, &array.data)),
            DType::C64 => Array::C64(typed(&shape, &array.data)),
            DType::Bool => {
                let truths = array.data.iter().map(|&byte| byte != 0).collect();
                Array::Bool(shaped(&shape, truths))
            }
        }
    }
}

/// Keeps an array alive for as long as its bytes are in use.
struct Shared<T>(ArcArray<T, IxDyn>);

impl<T: Element> AsRef<[u8]> for Shared<T> {
    fn as_ref(&self) -> &[u8] {
        let elements = self.0.as_slice().expect("made contiguous by wire_bytes");
        // SAFETY: `elements` is initialised memory of plain numbers without padding (see `Element`'s
        // implementations), so that each of its bytes may be read; the lifetime is that of `self`.
        unsafe { std::slice::from_raw_parts(elements.as_ptr().cast::<u8>(), std::mem::size_of_val(elements)) }
    }
}

fn wire_bytes<T: Element>(array: ArcArray<T, IxDyn>) -> Bytes {
    let contiguous = if array.is_standard_layout() {
        array
    } else {
        array.as_standard_layout().into_owned().into_shared()
    };
    Bytes::from_owner(Shared(contiguous))
}

/// Copies `data` into aligned memory. `ArrayValue` guarantees that its length fits its shape.
fn typed<T: Element + Default>(shape: &[usize], data: &[u8]) -> ArcArray<T, IxDyn> {
    let count = data.len() / std::mem::size_of::<T>();
    let mut elements: Vec<T> = Vec::with_capacity(count);
    // SAFETY: the memory reserved holds `count` elements; every bit pattern is a valid number (T is never bool
    // here); source and destination cannot overlap because the destination was allocated just now.
    unsafe {
        std::ptr::copy_nonoverlapping(
            data.as_ptr(),
            elements.as_mut_ptr().cast::<u8>(),
            count * std::mem::size_of::<T>(),
        );
        elements.set_len(count);
    }
    shaped(shape, elements)
}

fn shaped<T: Element>(shape: &[usize], elements: Vec<T>) -> ArcArray<T, IxDyn> {
    ArrayD::from_shape_vec(IxDyn(shape), elements)
        .expect("ArrayValue checks that length and shape agree")
        .into_shared()
}

impl From<&ArrayValue> for Array {
    fn from(array: &ArrayValue) -> Array {
        Array::from_wire(array)
    }
}
