//! Loads libpython and the plugin into this process.

use std::ffi::{CStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use engine_python_abi::{ENTRY, Open, Port, VERSION};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LOCAL, RTLD_NOW};

use super::interpreter::Interpreter;

/// Names the plugin's file, if it is not beside the program.
const PLUGIN_VARIABLE: &str = "COMMWORLD_PYTHON_PLUGIN";

/// The plugin's file.
const PLUGIN: &str = "libcommworld_python.so";

/// Why Python cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum LoadError {
    #[error("{} cannot be loaded: {cause}", .path.display())]
    Library { path: PathBuf, cause: String },
    #[error(
        "{PLUGIN} is not at {}; build it (cargo build --release -p engine-python) and put it beside the program, or \
         say where it is: {PLUGIN_VARIABLE}=/path/to/{PLUGIN}",
        .0.display()
    )]
    NoPlugin(PathBuf),
    #[error(
        "the program's own place is unknown: {0}; say where the plugin is: {PLUGIN_VARIABLE}=/path/to/{PLUGIN}"
    )]
    NoPlace(String),
    #[error("{0}")]
    Start(String),
}

/// Loads everything and starts Python. The libraries stay for the rest of the process: Python cannot be unloaded.
pub(super) fn open(interpreter: &Interpreter, host: Port) -> Result<Port, LoadError> {
    let plugin = plugin()?;
    // Python's extension modules and the plugin look for its functions among all names.
    let libpython = load(&interpreter.library, RTLD_NOW | RTLD_GLOBAL)?;
    set_program_name(&libpython, interpreter)?;
    let plugin = load(&plugin, RTLD_NOW | RTLD_LOCAL)?;
    let mut port = Port::closed();
    // SAFETY: the entry of the plugin has this type in every version, which it is told.
    let refusal = unsafe {
        let open = plugin.get::<Open>(ENTRY.as_bytes());
        let open = open.map_err(|error| LoadError::Start(format!("the plugin is damaged: {error}")))?;
        open(VERSION, host, &mut port)
    };
    std::mem::forget((libpython, plugin));
    if refusal.is_null() {
        return Ok(port);
    }
    // SAFETY: a text that is never freed.
    let text = unsafe { CStr::from_ptr(refusal.cast::<c_char>()) };
    Err(LoadError::Start(text.to_string_lossy().into_owned()))
}

fn plugin() -> Result<PathBuf, LoadError> {
    if let Some(path) = std::env::var_os(PLUGIN_VARIABLE) {
        let path = PathBuf::from(path);
        return if path.is_file() { Ok(path) } else { Err(LoadError::NoPlugin(path)) };
    }
    let program = std::env::current_exe().map_err(|error| LoadError::NoPlace(error.to_string()))?;
    let folder = program.parent().unwrap_or(Path::new("."));
    // Installed programs have their libraries next door; examples of a build are one folder further down.
    let places = [folder.join(PLUGIN), folder.join("../lib").join(PLUGIN), folder.join("..").join(PLUGIN)];
    places.iter().find(|path| path.is_file()).cloned().ok_or_else(|| LoadError::NoPlugin(places[0].clone()))
}

fn load(path: &Path, flags: i32) -> Result<Library, LoadError> {
    // SAFETY: the libraries are the user's choice; what they do when they are loaded is theirs.
    unsafe { Library::open(Some(path), flags) }
        .map_err(|error| LoadError::Library { path: path.to_owned(), cause: error.to_string() })
}

/// Tells Python which program it is, which is how it finds its environment.
fn set_program_name(libpython: &Library, interpreter: &Interpreter) -> Result<(), LoadError> {
    type Decode = unsafe extern "C" fn(*const c_char, *mut usize) -> *mut libc::wchar_t;
    type SetProgramName = unsafe extern "C" fn(*const libc::wchar_t);
    let mut name = interpreter.executable.as_os_str().as_bytes().to_vec();
    name.push(0);
    let missing = |error: libloading::Error| LoadError::Library {
        path: interpreter.library.clone(),
        cause: format!("it is a Python that this engine does not know how to start: {error}"),
    };
    // SAFETY: the types are those of Python's documentation. The text ends in zero. Python keeps the pointer that
    // it is given, so the decoded text is never freed.
    unsafe {
        let decode = libpython.get::<Decode>(b"Py_DecodeLocale").map_err(missing)?;
        let set = libpython.get::<SetProgramName>(b"Py_SetProgramName").map_err(missing)?;
        let decoded = decode(name.as_ptr().cast(), std::ptr::null_mut());
        if decoded.is_null() {
            return Err(LoadError::Start(format!(
                "the path {} cannot be read in this locale",
                interpreter.executable.display()
            )));
        }
        set(decoded);
    }
    Ok(())
}
