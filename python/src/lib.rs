//! The Python of an engine: CPython in the engine's process, behind the messages of `engine-python-abi`.
//!
//! This part knows nothing of what the messages say. It starts the interpreter, makes the modules of `glue/`
//! importable, and carries frames between the engine and the glue's `requests.handle`, in both directions without a
//! copy of what is large. What an engine does with Python is written in Python, in `glue/`.
//!
//! The global interpreter lock is taken for the time of one call, and given back while a call of the glue waits in
//! the engine.

mod frame;

use std::ffi::{CString, c_char};
use std::sync::OnceLock;

use engine_python_abi::{Frame, Port, Service, VERSION};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use frame::{LentFrame, lend, release_returned};

/// The glue, by the module that each file becomes.
const GLUE: [(&str, &str); 6] = [
    ("commworld", include_str!("glue/commworld.py")),
    ("commworld._engine", include_str!("glue/_engine.py")),
    ("commworld._values", include_str!("glue/_values.py")),
    ("commworld._streams", include_str!("glue/_streams.py")),
    ("commworld._shell", include_str!("glue/_shell.py")),
    ("commworld._requests", include_str!("glue/_requests.py")),
];

/// Makes modules of texts importable, with their lines in tracebacks.
const LOADER: &str = include_str!("glue/_loader.py");

/// How the engine is called.
static ENGINE: OnceLock<Port> = OnceLock::new();

/// What the engine calls.
static INTERPRETER: OnceLock<Interpreter> = OnceLock::new();

struct Interpreter {
    handle: Py<PyAny>,
}

impl Service for Interpreter {
    fn serve(&self, frames: Vec<Frame>) -> Vec<Frame> {
        Python::attach(|py| {
            release_returned();
            let answer = to_python(py, frames)
                .and_then(|(head, parts)| from_python(&self.handle.bind(py).call1((head, parts))?));
            answer.unwrap_or_else(|error| {
                // The glue answers errors of user code itself; this is one of its own.
                let error = error.to_string();
                error_answer(py, &error)
            })
        })
    }
}

/// The answer that tells of an error in the glue.
fn error_answer(py: Python<'_>, error: &str) -> Vec<Frame> {
    let json = || -> PyResult<String> {
        let details = PyDict::new(py);
        details.set_item("ename", "RuntimeError")?;
        details.set_item("evalue", format!("in the engine's Python: {error}"))?;
        let head = PyDict::new(py);
        head.set_item("error", details)?;
        py.import("json")?.call_method1("dumps", (head,))?.extract()
    };
    json().map_or_else(|_| vec![], |text| vec![text.into_bytes().into()])
}

/// Starts the interpreter. See [`engine_python_abi::Open`].
///
/// # Safety
/// `plugin` can be written to; libpython is loaded, and this is the process' main thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn commworld_python_open(version: u32, host: Port, plugin: *mut Port) -> *const c_char {
    match open(version, host) {
        Ok(port) => {
            // SAFETY: promised by the caller.
            unsafe { plugin.write(port) };
            std::ptr::null()
        }
        // Never freed: the process ends because of it.
        Err(text) => CString::new(text.replace('\0', "?")).unwrap_or_default().into_raw(),
    }
}

fn open(version: u32, host: Port) -> Result<Port, String> {
    if version != VERSION {
        return Err(format!(
            "the engine speaks version {version} to its Python plugin, which speaks {VERSION}; build and install both \
             from one checkout"
        ));
    }
    if ENGINE.set(host).is_err() {
        return Err("the plugin was opened before".to_owned());
    }
    // SAFETY: libpython is there, and nobody else starts an interpreter. 0: signals are the engine's.
    unsafe { pyo3::ffi::Py_InitializeEx(0) };
    let handle = Python::attach(|py| load_glue(py).map(Bound::unbind).map_err(|error| describe(py, &error)));
    // SAFETY: this thread holds the lock since `Py_InitializeEx`; from now on it is taken where it is needed.
    unsafe { pyo3::ffi::PyEval_SaveThread() };
    Ok(Port::of(INTERPRETER.get_or_init({
        let handle = handle?;
        || Interpreter { handle }
    })))
}

fn load_glue(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let builtin = PyModule::new(py, "_commworld")?;
    builtin.add_function(wrap_pyfunction!(call, &builtin)?)?;
    builtin.add_class::<LentFrame>()?;
    py.import("sys")?.getattr("modules")?.set_item("_commworld", &builtin)?;
    let sources = PyDict::new(py);
    for (name, source) in GLUE {
        sources.set_item(name, source)?;
    }
    let loader = PyModule::from_code(py, &text(LOADER), c"<commworld._loader>", c"commworld_loader")?;
    loader.call_method1("install", (sources,))?;
    py.import("commworld._requests")?.getattr("handle")
}

fn text(source: &str) -> CString {
    CString::new(source).expect("the glue has no zero bytes")
}

fn describe(py: Python<'_>, error: &PyErr) -> String {
    let trace = error.traceback(py).and_then(|trace| trace.format().ok()).unwrap_or_default();
    format!("Python cannot start: {trace}{error}")
}

/// Calls the engine: `head` is JSON text, `buffers` hold memory; gives the same of the answer.
#[pyfunction]
fn call<'py>(
    py: Python<'py>,
    head: &Bound<'py, PyBytes>,
    buffers: &Bound<'py, PyList>,
) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyList>)> {
    let mut frames = vec![Frame::from(head.as_bytes().to_vec())];
    for buffer in buffers {
        frames.push(lend(&buffer)?);
    }
    let engine = ENGINE.get().ok_or_else(|| PyRuntimeError::new_err("there is no engine"))?;
    let answer = py.detach(|| engine.call(frames));
    release_returned();
    if answer.is_empty() {
        return Err(PyRuntimeError::new_err("the engine failed at this call; its log says why"));
    }
    to_python(py, answer)
}

/// The head as bytes, the buffers as they came.
fn to_python(py: Python<'_>, frames: Vec<Frame>) -> PyResult<(Bound<'_, PyBytes>, Bound<'_, PyList>)> {
    let mut frames = frames.into_iter();
    let head = frames.next();
    let head = PyBytes::new(py, head.as_ref().map_or(b"{}", |head| head.as_ref()));
    let parts = PyList::empty(py);
    for frame in frames {
        parts.append(Py::new(py, LentFrame::from(frame))?)?;
    }
    Ok((head, parts))
}

fn from_python(answer: &Bound<'_, PyAny>) -> PyResult<Vec<Frame>> {
    let (head, buffers): (Bound<'_, PyBytes>, Bound<'_, PyList>) = answer.extract()?;
    let mut frames = vec![Frame::from(head.as_bytes().to_vec())];
    for buffer in buffers {
        frames.push(lend(&buffer)?);
    }
    Ok(frames)
}
