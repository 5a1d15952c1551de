//! Which Python: the one of the active environment, or the one that the user named; and where its library is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

/// The oldest Python that the plugin can be loaded into.
const OLDEST: (u32, u32) = (3, 10);

/// Asks an interpreter where its library may be. `sys.executable` is the interpreter behind a shim.
const QUESTION: &str = r#"
import json, os, sys, sysconfig
get = sysconfig.get_config_var
folders = [get("LIBDIR"), get("LIBPL"), os.path.join(sys.base_prefix, "lib")]
if get("MULTIARCH"):
    folders.insert(1, os.path.join(sys.base_prefix, "lib", get("MULTIARCH")))
version = "%d.%d" % sys.version_info[:2]
names = [get("INSTSONAME"), get("LDLIBRARY"), "libpython%s.so.1.0" % version, "libpython%s.so" % version]
paths = [os.path.join(folder, name) for folder in folders if folder for name in names if name and ".so" in name]
print(json.dumps({
    "implementation": sys.implementation.name,
    "version": list(sys.version_info[:3]),
    "executable": sys.executable,
    "libraries": [path for path in dict.fromkeys(paths) if os.path.isfile(path)],
}))
"#;

/// A Python, as far as it is needed to load it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// Its program; in a virtual environment, that of the environment.
    pub executable: PathBuf,
    /// 3.11.7, say.
    pub version: (u32, u32, u32),
    /// Its libpython.
    pub library: PathBuf,
}

/// Why a Python cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum InterpreterError {
    #[error("{} cannot be run: {cause}; name an interpreter: --python=/path/to/python", .path.display())]
    NotRun { path: PathBuf, cause: String },
    #[error("{} is no Python that can be asked: {answer}", .path.display())]
    NoAnswer { path: PathBuf, answer: String },
    #[error("{} is {implementation}; an engine can only be CPython", .path.display())]
    NotCPython { path: PathBuf, implementation: String },
    #[error("{} is Python {version}; an engine needs {}.{} or newer", .path.display(), OLDEST.0, OLDEST.1)]
    TooOld { path: PathBuf, version: String },
    #[error(
        "{} has no shared library, which an engine needs to be Python: install it (Debian and Ubuntu: apt-get install \
         libpython{version}; pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install …; conda and most modules of \
         clusters have it), or name another interpreter: --python=/path/to/python",
        .path.display()
    )]
    NoLibrary { path: PathBuf, version: String },
}

/// An interpreter's answer.
#[derive(Debug, Deserialize)]
struct Told {
    implementation: String,
    version: [u32; 3],
    executable: PathBuf,
    libraries: Vec<PathBuf>,
}

impl Interpreter {
    /// The interpreter named, else that of the active environment, else `python3`. Runs it once.
    pub fn find(named: Option<&Path>) -> Result<Interpreter, InterpreterError> {
        let path = choose(named, |name| std::env::var_os(name));
        let output = Command::new(&path)
            .args(["-c", QUESTION])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| InterpreterError::NotRun { path: path.clone(), cause: error.to_string() })?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let answer = said.lines().last().unwrap_or("it failed without a word").to_owned();
            return Err(InterpreterError::NoAnswer { path, answer });
        }
        Interpreter::told(path, &output.stdout)
    }

    fn told(path: PathBuf, answer: &[u8]) -> Result<Interpreter, InterpreterError> {
        // A site's own start-up code may print before the answer.
        let last = answer.trim_ascii_end().rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
        let told: Told = serde_json::from_slice(last).map_err(|error| InterpreterError::NoAnswer {
            path: path.clone(),
            answer: format!("its answer is malformed: {error}"),
        })?;
        let [major, minor, patch] = told.version;
        if told.implementation != "cpython" {
            return Err(InterpreterError::NotCPython { path, implementation: told.implementation });
        }
        if (major, minor) < OLDEST {
            return Err(InterpreterError::TooOld { path, version: format!("{major}.{minor}.{patch}") });
        }
        let Some(library) = told.libraries.into_iter().next() else {
            return Err(InterpreterError::NoLibrary { path, version: format!("{major}.{minor}") });
        };
        Ok(Interpreter { executable: told.executable, version: (major, minor, patch), library })
    }
}

fn choose(named: Option<&Path>, variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    if let Some(path) = named {
        return path.to_owned();
    }
    let environment = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().find_map(variable);
    environment.map_or_else(|| "python3".into(), |folder| Path::new(&folder).join("bin/python"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(answer: &str) -> Result<Interpreter, InterpreterError> {
        Interpreter::told("python".into(), answer.as_bytes())
    }

    fn answer(implementation: &str, version: &str, libraries: &str) -> String {
        format!(
            r#"{{"implementation": "{implementation}", "version": {version}, "executable": "/venv/bin/python",
                "libraries": {libraries}}}"#
        )
        .replace('\n', " ")
    }

    #[test]
    fn the_interpreter_named_comes_before_the_active_environment_and_that_before_python3() {
        let active = |name: &str| (name == "VIRTUAL_ENV").then(|| "/venv".into());
        assert_eq!(choose(Some(Path::new("mine")), active), Path::new("mine"));
        assert_eq!(choose(None, active), Path::new("/venv/bin/python"));
        assert_eq!(choose(None, |_| None), Path::new("python3"));
    }

    #[test]
    fn the_first_library_that_exists_is_loaded_whatever_was_printed_before() {
        let text = format!("welcome\n{}\n", answer("cpython", "[3, 11, 7]", r#"["/a.so", "/b.so"]"#));
        let interpreter = told(&text).expect("a Python with a library");
        assert_eq!(interpreter.library, Path::new("/a.so"));
        assert_eq!(interpreter.executable, Path::new("/venv/bin/python"));
        assert_eq!(interpreter.version, (3, 11, 7));
    }

    #[test]
    fn pythons_that_cannot_be_engines_are_refused_with_what_to_do() {
        let said = |text: String| told(&text).expect_err("refused").to_string();
        assert!(said(answer("pypy", "[3, 11, 7]", "[]")).contains("only be CPython"));
        assert!(said(answer("cpython", "[3, 9, 1]", "[]")).contains("needs 3.10 or newer"));
        let text = said(answer("cpython", "[3, 12, 1]", "[]"));
        assert!(text.contains("apt-get install libpython3.12"), "{text}");
        assert!(said("hello".to_owned()).contains("malformed"));
    }
}
