//! MPI error codes for what MPI has none for: what user code's own call returns when it was interrupted.

use std::ffi::{CString, c_char, c_int};

use mpi::ffi;

use super::calls::{Result, check};
use crate::communicator::CommError;

/// Why a call of user code failed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Failure {
    /// The user interrupted it; in these words.
    Interrupted(String),
    /// A collective failed.
    Comm(CommError),
}

impl From<CommError> for Failure {
    fn from(error: CommError) -> Failure {
        Failure::Comm(error)
    }
}

impl Failure {
    fn text(&self) -> String {
        match self {
            Failure::Interrupted(text) => text.clone(),
            Failure::Comm(error) => error.to_string(),
        }
    }
}

/// One code for each kind of failure, each of a class of its own (MPI 3.1, section 8.5). Made once; the words of a code
/// are those of its last failure.
#[derive(Clone, Copy, Debug)]
pub(super) struct ErrorCodes {
    interrupted: c_int,
    disagreed: c_int,
    broken: c_int,
}

impl ErrorCodes {
    pub(super) fn new() -> Result<ErrorCodes> {
        Ok(ErrorCodes {
            interrupted: add("the call was interrupted")?,
            disagreed: add("the ranks called different things")?,
            broken: add("the MPI world is broken")?,
        })
    }

    /// The code that user code gets; its text is what happened.
    pub(super) fn code(self, failure: &Failure) -> c_int {
        let code = match failure {
            Failure::Interrupted(_) | Failure::Comm(CommError::Interrupted { .. }) => self.interrupted,
            Failure::Comm(CommError::Mpi { code, .. }) => return *code,
            Failure::Comm(CommError::Broken { .. }) => self.broken,
            Failure::Comm(
                CommError::Mismatch { .. } | CommError::LeftBehind { .. } | CommError::Invalid { .. },
            ) => self.disagreed,
        };
        // Without its text the code says what kind of failure it was.
        let _ = describe(code, &failure.text());
        code
    }
}

fn add(text: &str) -> Result<c_int> {
    let (mut class, mut code) = (0, 0);
    // SAFETY: MPI is initialised, and sets both numbers.
    unsafe {
        check(ffi::PMPI_Add_error_class(&mut class))?;
        check(ffi::PMPI_Add_error_code(class, &mut code))?;
    }
    describe(class, text)?;
    describe(code, text)?;
    Ok(code)
}

fn describe(code: c_int, text: &str) -> Result<()> {
    let text = shortened(text, ffi::MPI_MAX_ERROR_STRING as usize);
    // SAFETY: the text ends with a zero and is no longer than MPI allows. MPI reads it; the cast is for bindings in
    // which it is not said to be const.
    check(unsafe { ffi::PMPI_Add_error_string(code, text.as_ptr().cast_mut().cast::<c_char>()) })
}

/// As much of a text as a buffer of `room` bytes holds with its end mark.
fn shortened(text: &str, room: usize) -> CString {
    let mut text = text.replace('\0', " ");
    if text.len() >= room {
        let mut end = room.saturating_sub("…".len() + 1);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    CString::new(text).expect("zeros were replaced")
}

#[cfg(test)]
mod tests {
    use super::shortened;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(shortened("short", 16).to_str(), Ok("short"));
        let long = shortened("ääääääääääää", 16);
        assert_eq!(long.to_str(), Ok("ääääää…"));
        assert!(long.as_bytes_with_nul().len() <= 16);
    }
}
