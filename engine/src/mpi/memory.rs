//! The memory that MPI reads from and writes to: owned by the engine, and unmoved while a request uses it.

use std::collections::TryReserveError;

use ndarray::{ArcArray, ArrayD, IxDyn};
use num_complex::Complex64;
use protocol::value::DType;

use crate::array::{Array, Element};
use crate::each_dtype;

/// An array that MPI reads. Holding it keeps its memory alive and, as arrays are copied on write, unchanged.
#[derive(Clone, Debug)]
pub(super) struct Source(Array);

impl Source {
    /// Shares the array's memory if it is in C order, else copies it.
    pub(super) fn of(array: &Array) -> Source {
        fn contiguous<T: Element>(array: &ArcArray<T, IxDyn>) -> Array {
            if array.is_standard_layout() {
                return T::wrap(array.clone());
            }
            T::wrap(array.as_standard_layout().into_owned().into_shared())
        }
        Source(each_dtype!(array, a => contiguous(a)))
    }

    pub(super) fn array(&self) -> &Array {
        &self.0
    }

    /// Its elements, one behind the other.
    pub(super) fn as_ptr(&self) -> *const u8 {
        if self.0.is_empty() { no_memory() } else { each_dtype!(&self.0, a => a.as_ptr().cast::<u8>()) }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the elements lie one behind the other (made so by `of`), have no padding and no invalid
        // bytes, and live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.0.byte_len()) }
    }
}

/// Memory that MPI fills with elements. Truth values arrive as bytes.
#[derive(Debug)]
pub(super) enum Sink {
    F64(Vec<f64>),
    F32(Vec<f32>),
    I64(Vec<i64>),
    I32(Vec<i32>),
    U8(Vec<u8>),
    Bool(Vec<u8>),
    C64(Vec<Complex64>),
}

impl Sink {
    /// Room for so many elements, not yet written to.
    pub(super) fn reserve(dtype: DType, elements: usize) -> Result<Sink, TryReserveError> {
        fn room<T>(elements: usize) -> Result<Vec<T>, TryReserveError> {
            let mut vec = Vec::new();
            vec.try_reserve_exact(elements)?;
            Ok(vec)
        }
        Ok(match dtype {
            DType::F64 => Sink::F64(room(elements)?),
            DType::F32 => Sink::F32(room(elements)?),
            DType::I64 => Sink::I64(room(elements)?),
            DType::I32 => Sink::I32(room(elements)?),
            DType::U8 => Sink::U8(room(elements)?),
            DType::Bool => Sink::Bool(room(elements)?),
            DType::C64 => Sink::C64(room(elements)?),
        })
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut u8 {
        match self {
            Sink::F64(vec) => start_of(vec),
            Sink::F32(vec) => start_of(vec),
            Sink::I64(vec) => start_of(vec),
            Sink::I32(vec) => start_of(vec),
            Sink::U8(vec) | Sink::Bool(vec) => start_of(vec),
            Sink::C64(vec) => start_of(vec),
        }
    }

    /// The array, once it is filled.
    ///
    /// # Safety
    /// As many elements as `shape` says were reserved, and all of them have been written.
    pub(super) unsafe fn into_array(self, shape: &[usize]) -> Array {
        fn filled<T>(mut vec: Vec<T>, elements: usize) -> Vec<T> {
            assert!(vec.capacity() >= elements, "{elements} elements were reserved");
            // SAFETY: our caller promises that they have been written; room for them was checked just now.
            unsafe { vec.set_len(elements) };
            vec
        }
        fn shaped<T: Element>(vec: Vec<T>, shape: &[usize]) -> Array {
            let array = ArrayD::from_shape_vec(IxDyn(shape), vec).expect("as many as the shape says");
            T::wrap(array.into_shared())
        }
        let n = shape.iter().product();
        match self {
            Sink::F64(vec) => shaped(filled(vec, n), shape),
            Sink::F32(vec) => shaped(filled(vec, n), shape),
            Sink::I64(vec) => shaped(filled(vec, n), shape),
            Sink::I32(vec) => shaped(filled(vec, n), shape),
            Sink::U8(vec) => shaped(filled(vec, n), shape),
            Sink::Bool(vec) => {
                let truths: Vec<bool> = filled(vec, n).into_iter().map(|byte| byte != 0).collect();
                shaped(truths, shape)
            }
            Sink::C64(vec) => shaped(filled(vec, n), shape),
        }
    }
}

/// Where a vector's room starts.
pub(super) fn start_of<T>(vec: &mut Vec<T>) -> *mut u8 {
    if vec.capacity() == 0 { no_memory() } else { vec.as_mut_ptr().cast() }
}

/// An address for no bytes. That of an empty `Vec<u8>` is 1, which is `MPI_IN_PLACE` in Open MPI.
fn no_memory() -> *mut u8 {
    std::ptr::dangling_mut::<u64>().cast()
}

/// Memory for a result, or why it cannot be had.
pub(super) fn reserve(dtype: DType, shape: &[usize]) -> Result<Sink, String> {
    let elements = shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent));
    elements
        .filter(|elements| {
            elements.checked_mul(dtype.size()).is_some_and(|bytes| bytes <= isize::MAX as usize)
        })
        .and_then(|elements| Sink::reserve(dtype, elements).ok())
        .ok_or_else(|| format!("there is no memory for the result, {dtype}{shape:?}; use smaller arrays"))
}

/// The array of a few bytes that travelled inside of another message.
pub(super) fn small_array(dtype: DType, shape: &[usize], bytes: &[u8]) -> Option<Array> {
    let mut sink = reserve(dtype, shape).ok()?;
    let expected = shape.iter().product::<usize>() * dtype.size();
    if bytes.len() != expected {
        return None;
    }
    // SAFETY: `sink` has room for `expected` bytes; all are written before it becomes an array.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), sink.as_mut_ptr(), expected);
        Some(sink.into_array(shape))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_byte_by_byte_is_read_as_an_array() {
        let array = Array::from_vec(vec![1.5f64, -2.0, 0.25]);
        let source = Source::of(&array);
        assert_eq!(small_array(DType::F64, &[3], source.bytes()), Some(array));
        assert_eq!(small_array(DType::F64, &[2], source.bytes()), None);
        let truths = Array::from_vec(vec![true, false]);
        assert_eq!(small_array(DType::Bool, &[2], Source::of(&truths).bytes()), Some(truths));
        let empty = small_array(DType::C64, &[0, 4], &[]).expect("an empty array");
        assert_eq!(empty.shape(), [0, 4]);
    }

    #[test]
    fn a_transposed_array_is_read_in_c_order() {
        let matrix = ndarray::arr2(&[[1i32, 2], [3, 4]]).reversed_axes().into_dyn().into_shared();
        let source = Source::of(&Array::I32(matrix));
        let expected: Vec<u8> = [1i32, 3, 2, 4].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(source.bytes(), expected);
    }

    #[test]
    fn a_result_that_cannot_exist_is_refused() {
        assert!(reserve(DType::F64, &[usize::MAX, 2]).is_err());
        assert!(reserve(DType::F64, &[usize::MAX / 4]).is_err());
    }
}
