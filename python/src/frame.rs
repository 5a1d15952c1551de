//! Memory on its way between Python and the engine.

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};

use engine_python_abi::Frame;
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// What is copied rather than lent: keeping it takes longer.
const COPIED_BYTES_MAX: usize = 4096;

/// A frame of the engine's, for as long as Python holds it. The glue makes views of its address.
#[pyclass(name = "Frame", frozen)]
pub(crate) struct LentFrame(Frame);

impl From<Frame> for LentFrame {
    fn from(frame: Frame) -> LentFrame {
        LentFrame(frame)
    }
}

#[pymethods]
impl LentFrame {
    fn __len__(&self) -> usize {
        self.0.as_ref().len()
    }

    /// Where it begins.
    #[getter]
    fn address(&self) -> usize {
        self.0.as_ref().as_ptr() as usize
    }

    /// A copy.
    fn copy<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = self.0.as_ref();
        if isize::try_from(bytes.len()).is_err() {
            return Err(PyMemoryError::new_err("the frame is too large"));
        }
        Ok(PyBytes::new(py, bytes))
    }
}

/// `Py_buffer`, which is in the stable ABI since Python 3.11 and has been the same before it.
#[repr(C)]
struct PyBuffer {
    buf: *mut c_void,
    obj: *mut pyo3::ffi::PyObject,
    len: isize,
    itemsize: isize,
    readonly: c_int,
    ndim: c_int,
    format: *mut std::ffi::c_char,
    shape: *mut isize,
    strides: *mut isize,
    suboffsets: *mut isize,
    internal: *mut c_void,
}

unsafe extern "C" {
    fn PyObject_GetBuffer(object: *mut pyo3::ffi::PyObject, view: *mut PyBuffer, flags: c_int) -> c_int;
    fn PyBuffer_Release(view: *mut PyBuffer);
}

/// `PyBUF_SIMPLE`: bytes one behind the other.
const SIMPLE: c_int = 0;

/// A Python object's memory that the engine reads.
struct Loan(Box<PyBuffer>);

// SAFETY: other threads only read the bytes and hand the loan back; the object is touched under the lock alone.
unsafe impl Send for Loan {}
// SAFETY: as above.
unsafe impl Sync for Loan {}

/// Loans that came back, often on a thread that must not wait for Python's lock. As many as buffers are on their
/// way, which limits of the engine bound.
static RETURNED: Mutex<Vec<Loan>> = Mutex::new(Vec::new());

/// What hands the loan back.
struct Borrower(Option<Loan>);

impl Drop for Borrower {
    fn drop(&mut self) {
        RETURNED.lock().unwrap_or_else(PoisonError::into_inner).extend(self.0.take());
    }
}

/// The memory of an object with the buffer protocol, without a copy if it is large. It stays exported, so that the
/// object cannot move it, until [`release_returned`] after the frame was dropped.
pub(crate) fn lend(object: &Bound<'_, PyAny>) -> PyResult<Frame> {
    let mut view = Box::new(MaybeUninit::<PyBuffer>::uninit());
    // SAFETY: the object is alive, the view has room, and the interpreter is held.
    if unsafe { PyObject_GetBuffer(object.as_ptr(), view.as_mut_ptr(), SIMPLE) } != 0 {
        return Err(PyErr::fetch(object.py()));
    }
    // SAFETY: filled in by the successful call.
    let mut view = unsafe { Box::from_raw(Box::into_raw(view).cast::<PyBuffer>()) };
    let (data, length) = (view.buf.cast::<u8>().cast_const(), view.len.unsigned_abs());
    if length <= COPIED_BYTES_MAX {
        let copy = if length == 0 {
            vec![]
        } else {
            // SAFETY: a simple buffer is that many bytes.
            unsafe { std::slice::from_raw_parts(data, length) }.to_vec()
        };
        // SAFETY: filled by PyObject_GetBuffer, released once, under the lock.
        unsafe { PyBuffer_Release(&mut *view) };
        return Ok(copy.into());
    }
    // SAFETY: the exporter keeps the memory in place until the view is released.
    Ok(unsafe { Frame::of_memory(data, length, Borrower(Some(Loan(view)))) })
}

/// Gives the memory that came back to its objects. The interpreter must be held.
pub(crate) fn release_returned() {
    let returned = std::mem::take(&mut *RETURNED.lock().unwrap_or_else(PoisonError::into_inner));
    for Loan(mut view) in returned {
        // SAFETY: filled by PyObject_GetBuffer and released here alone, under the lock.
        unsafe { PyBuffer_Release(&mut *view) };
    }
}
