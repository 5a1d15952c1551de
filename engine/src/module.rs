//! Modules: compiled kernels that a person loads into a running engine, and calls by name.
//!
//! A module is a shared library that speaks the interface of the crate `commworld-module` (`module/`). It is loaded
//! from a private copy of its file, so that a file may be compiled anew while it is loaded, and never unloaded: threads
//! and handlers of it may live on. Loading a file of the same name replaces its functions. `call.rs` runs one function;
//! `crash.rs` says whose fault it was if that kills the process.

mod call;
mod crash;

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;

use commworld_module::abi;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use protocol::error::ename;

pub use call::{Argument, Output};
pub(crate) use crash::Crash;

use crate::runner::{CellContext, RunError};

/// The largest file of a module.
pub const MODULE_BYTES_MAX: u64 = 1 << 30;
/// The most functions of a module.
const FUNCTIONS_MAX: usize = 4096;
/// How often modules are loaded into an engine at most: what they leave behind is never freed.
const LOADS_MAX: usize = 1000;

thread_local! {
    static LOADS: Cell<usize> = const { Cell::new(0) };
}

/// Why a file is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// It cannot be read.
    #[error("cannot read {path}: {error}; paths are the engine's")]
    Read {
        /// The file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// It is too large.
    #[error("{name} is larger than {} MiB", MODULE_BYTES_MAX >> 20)]
    TooLarge {
        /// The file.
        name: String,
    },
    /// It cannot be copied to where it is loaded from.
    #[error("cannot copy {name} to {directory}: {error}; set TMPDIR to a directory that can be written to")]
    Copy {
        /// The file.
        name: String,
        /// Where to.
        directory: String,
        /// Why.
        error: io::Error,
    },
    /// The dynamic linker refuses it.
    #[error("cannot load {name}: {reason}")]
    Link {
        /// The file.
        name: String,
        /// The linker's words.
        reason: String,
    },
    /// It is a library, but not a module.
    #[error(
        "{name} is not a module: it does not define {symbol}; build it with commworld.h (COMMWORLD_MODULE), \
         commworld.f90 or the crate commworld-module"
    )]
    NotAModule {
        /// The file.
        name: String,
        /// What is missing.
        symbol: &'static str,
    },
    /// It was built for another engine.
    #[error(
        "{name} was built for version {found} of the module interface, and this engine has version {}; build it with \
         this engine's commworld.h",
        abi::VERSION
    )]
    Version {
        /// The file.
        name: String,
        /// The version that it says.
        found: u32,
    },
    /// It says that something is wrong, or defines what cannot be.
    #[error("{name}: {reason}")]
    Wrong {
        /// The file.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Too many were loaded.
    #[error("{LOADS_MAX} modules were loaded already; restart the engines to load more")]
    TooMany,
}

impl From<ModuleError> for RunError {
    fn from(error: ModuleError) -> RunError {
        let name = match &error {
            ModuleError::Read { error, .. } if error.kind() == io::ErrorKind::NotFound => "FileNotFoundError",
            ModuleError::Read { .. } | ModuleError::Copy { .. } => "OSError",
            _ => "ImportError",
        };
        RunError::new(name, error.to_string())
    }
}

/// A function of a module.
pub struct Function {
    name: String,
    /// How it is called: `psum(a)`.
    pub signature: String,
    /// What it does.
    pub help: String,
    module: Rc<str>,
    run: abi::Function,
    /// What a crash says.
    label: &'static CStr,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Function")
            .field("name", &self.name)
            .field("module", &self.module)
            .finish_non_exhaustive()
    }
}

impl Function {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that it came from, without folders.
    pub fn module(&self) -> &str {
        &self.module
    }

    /// Calls it. Arrays are handed over as they are.
    pub fn call(&self, context: &CellContext, arguments: &[Argument]) -> Result<Output, RunError> {
        call::run(self, context, arguments)
    }
}

/// Reads a module's file.
pub fn read(path: &Path) -> Result<Vec<u8>, ModuleError> {
    let failed = |error| ModuleError::Read { path: path.display().to_string(), error };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file")));
    }
    if metadata.len() > MODULE_BYTES_MAX {
        return Err(ModuleError::TooLarge { name: path.display().to_string() });
    }
    std::fs::read(path).map_err(failed)
}

/// The name by which a module is known: that of its file.
pub fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Loads a module from the bytes of its file.
pub fn open(name: &str, bytes: &[u8]) -> Result<Vec<Function>, ModuleError> {
    if LOADS.get() >= LOADS_MAX {
        return Err(ModuleError::TooMany);
    }
    if bytes.len() as u64 > MODULE_BYTES_MAX {
        return Err(ModuleError::TooLarge { name: name.to_owned() });
    }
    let library = link(name, bytes)?;
    LOADS.set(LOADS.get() + 1);
    // SAFETY: if the library has functions of these names, they are those of the interface.
    let (version, register) = unsafe {
        (
            library.get::<abi::AbiFunction>(abi::ABI_SYMBOL.as_bytes()),
            library.get::<abi::RegisterFunction>(abi::REGISTER_SYMBOL.as_bytes()),
        )
    };
    let missing = |symbol| ModuleError::NotAModule { name: name.to_owned(), symbol };
    let version = version.map_err(|_| missing(abi::ABI_SYMBOL))?;
    // SAFETY: it takes nothing and returns a number, in every version.
    let found = unsafe { version() };
    if found != abi::VERSION {
        return Err(ModuleError::Version { name: name.to_owned(), found });
    }
    let register = register.map_err(|_| missing(abi::REGISTER_SYMBOL))?;
    let mut definitions = Definitions { module: name.into(), functions: vec![], wrong: None };
    let registrar = abi::Registrar {
        version: abi::VERSION,
        define: Definitions::define,
        state: (&raw mut definitions).cast(),
    };
    // SAFETY: the module has this version of the interface; the registrar outlives the call.
    let code = unsafe { register(&raw const registrar) };
    let wrong = |reason| Err(ModuleError::Wrong { name: name.to_owned(), reason });
    if let Some(reason) = definitions.wrong {
        return wrong(reason);
    }
    if code != 0 {
        return wrong(format!("commworld_register returned {code}"));
    }
    if definitions.functions.is_empty() {
        return wrong("it defines no function".to_owned());
    }
    crash::watch();
    Ok(definitions.functions)
}

/// Maps the library into this process, for the rest of its life.
fn link(name: &str, bytes: &[u8]) -> Result<std::mem::ManuallyDrop<Library>, ModuleError> {
    let directory = std::env::temp_dir();
    let own = directory.join(format!("commworld-module-{}", transport::random::id()));
    let copy = own.join(name_of(Path::new(name)));
    let write = || {
        std::fs::DirBuilder::new().mode(0o700).create(&own)?;
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o700).open(&copy)?;
        file.write_all(bytes)
    };
    let written = write();
    let linked = written.map(|()| {
        // SAFETY: the user asks for the library's start-up code to run.
        unsafe { Library::open(Some(&copy), RTLD_NOW | RTLD_LOCAL) }
    });
    let _ = std::fs::remove_dir_all(&own); // What is mapped stays; a copy too many does no harm.
    let library = linked.map_err(|error| ModuleError::Copy {
        name: name.to_owned(),
        directory: directory.display().to_string(),
        error,
    })?;
    let library = library.map_err(|error| {
        let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        // The user knows the file by its own name.
        let reason = reason.replace(&copy.display().to_string(), name);
        let reason = reason.strip_prefix(&format!("{name}: ")).map_or(reason.clone(), str::to_owned);
        ModuleError::Link { name: name.to_owned(), reason }
    })?;
    Ok(std::mem::ManuallyDrop::new(library))
}

/// What a module has defined so far.
struct Definitions {
    module: Rc<str>,
    functions: Vec<Function>,
    wrong: Option<String>,
}

impl Definitions {
    unsafe extern "C" fn define(
        registrar: *const abi::Registrar,
        name: *const c_char,
        signature: *const c_char,
        help: *const c_char,
        run: abi::Function,
    ) -> i32 {
        // SAFETY: a module calls it with the registrar that it was given, whose state is ours.
        let definitions = unsafe { &mut *(*registrar).state.cast::<Definitions>() };
        // SAFETY: the interface demands texts that end, or none.
        let [name, signature, help] = [name, signature, help].map(|text| unsafe { text_of(text) });
        match definitions.add(&name, signature, help, run) {
            Ok(()) => 0,
            Err(reason) => {
                definitions.wrong.get_or_insert(reason);
                1
            }
        }
    }

    fn add(&mut self, name: &str, signature: String, help: String, run: abi::Function) -> Result<(), String> {
        if !crate::runner::native::is_callable_name(name) {
            return Err(format!("`{name}` is not a name that a cell could call"));
        }
        if self.functions.iter().any(|known| known.name == name) {
            return Err(format!("it defines `{name}` twice"));
        }
        if self.functions.len() >= FUNCTIONS_MAX {
            return Err(format!("it defines more than {FUNCTIONS_MAX} functions"));
        }
        let label =
            CString::new(format!("{name} of {}", self.module).replace('\0', "")).expect("no zero is left");
        self.functions.push(Function {
            name: name.to_owned(),
            signature: if signature.is_empty() { format!("{name}(…)") } else { signature },
            help,
            module: Rc::clone(&self.module),
            run,
            // A handler of signals reads it; modules are never unloaded either.
            label: Box::leak(label.into_boxed_c_str()),
        });
        Ok(())
    }
}

/// # Safety
/// The text ends with a zero, or is null.
unsafe fn text_of(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// What user code sees of a call that a module has ended with a number other than 0, and without a word.
fn wordless(function: &str, code: i32) -> RunError {
    RunError::new(ename::RUNTIME_ERROR, format!("{function} failed and returned {code}"))
}
