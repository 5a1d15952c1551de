//! What C code writes to the process' standard output and error: it becomes output of the running task.
//!
//! The two descriptors are the ends of pipes, which a thread reads while code runs. Before a task is answered the
//! main thread reads what is left itself, so that no output comes after the answer. What the engine logs goes where
//! it went before.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use nix::poll::{PollFd, PollFlags, PollTimeout};

use crate::interrupt::Interrupt;
use crate::output::Iopub;
use crate::runner::Stream;

/// How much is read at once.
const CHUNK_BYTES: usize = 65_536;

/// The capture of this process' output, for the rest of its life.
#[derive(Debug)]
pub(super) struct Capture {
    pipes: Arc<Pipes>,
}

struct Pipes {
    /// In the order in which they are read.
    pipes: [Mutex<Pipe>; 2],
    /// For waiting, without the lock.
    ends: [OwnedFd; 2],
    iopub: Arc<Iopub>,
    interrupt: Interrupt,
}

impl std::fmt::Debug for Pipes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pipes")
    }
}

struct Pipe {
    end: File,
    stream: Stream,
    text: Decoder,
}

impl Capture {
    /// Replaces the descriptors. The engine's log must not go to them any more.
    pub(super) fn begin(iopub: Arc<Iopub>, interrupt: Interrupt) -> io::Result<Capture> {
        let (out, err) = (pipe()?, pipe()?);
        let ends = [out.0.try_clone()?, err.0.try_clone()?];
        let pipes = Arc::new(Pipes {
            pipes: [
                Mutex::new(Pipe { end: out.0.into(), stream: Stream::Stdout, text: Decoder::default() }),
                Mutex::new(Pipe { end: err.0.into(), stream: Stream::Stderr, text: Decoder::default() }),
            ],
            ends,
            iopub,
            interrupt,
        });
        let reader = Arc::clone(&pipes);
        std::thread::Builder::new().name("output".to_owned()).spawn(move || {
            // SIGINT is for the main thread.
            let _ = nix::sys::signal::SigSet::all().thread_block();
            reader.read_on();
        })?;
        // Only now, that somebody reads.
        nix::unistd::dup2_stdout(&out.1)?;
        nix::unistd::dup2_stderr(&err.1)?;
        Ok(Capture { pipes })
    }

    /// Passes on all that was written, also what C's own buffers hold.
    pub(super) fn drain(&self) {
        // SAFETY: null means all streams of the C library.
        unsafe { libc::fflush(std::ptr::null_mut()) };
        self.pipes.drain();
    }
}

/// A pipe whose reading end never blocks. Neither end is inherited by programs; the copies at 1 and 2 are.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(&read, nix::fcntl::FcntlArg::F_SETFL(flags))?;
    Ok((read, write))
}

impl Pipes {
    fn read_on(&self) {
        loop {
            let mut ends = self.ends.each_ref().map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN));
            match nix::poll::poll(&mut ends, PollTimeout::NONE) {
                Ok(_) => self.drain(),
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => {
                    tracing::error!(%error, "output of C code is not read any more");
                    return;
                }
            }
        }
    }

    fn drain(&self) {
        for pipe in &self.pipes {
            // The lock is held while text is passed on, so that two readers do not change its order.
            let mut pipe = pipe.lock().unwrap_or_else(PoisonError::into_inner);
            let mut bytes = [0; CHUNK_BYTES];
            while let Ok(count @ 1..) = pipe.end.read(&mut bytes) {
                let text = pipe.text.decode(&bytes[..count]);
                self.iopub.print(pipe.stream, &text, &self.interrupt);
            }
        }
    }
}

/// Makes text of bytes that may be cut in the middle of a character.
#[derive(Debug, Default)]
struct Decoder {
    /// At most three bytes: the beginning of a character.
    begun: Vec<u8>,
}

impl Decoder {
    fn decode(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.begun);
        all.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&all) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => {
                // What is malformed in the middle says nothing about the end.
                let tail = all.len().saturating_sub(3);
                (tail..all.len()).find(|&at| is_begun(&all[at..])).unwrap_or(all.len())
            }
        };
        self.begun = all.split_off(whole);
        String::from_utf8_lossy(&all).into_owned()
    }
}

/// Whether this is the beginning of one character and not all of it.
fn is_begun(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
}

/// Where the engine's log goes, whatever becomes of standard error.
pub(crate) fn stderr_for_the_log() -> io::Result<File> {
    let copy = io::stderr().as_fd().try_clone_to_owned()?;
    debug_assert!(copy.as_raw_fd() > 2, "a copy has a number of its own");
    Ok(copy.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_that_is_cut_in_two_is_put_together() {
        let text = "aä€😀z\n";
        for cut in 0..=text.len() {
            let mut decoder = Decoder::default();
            let (first, second) = text.as_bytes().split_at(cut);
            let both = format!("{}{}", decoder.decode(first), decoder.decode(second));
            assert_eq!(both, text, "cut at {cut}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_and_what_follows_is_not_lost() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(b"\xff\xfea\xe2"), "\u{fffd}\u{fffd}a");
        assert_eq!(decoder.decode(b"\x82\xacb"), "€b");
        assert_eq!(decoder.decode(b"\xe2"), "");
        assert_eq!(decoder.decode(b"x"), "\u{fffd}x");
    }
}
