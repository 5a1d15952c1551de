//! What an exit status or a signal means, in words.

use std::fmt;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// It called `exit` with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Exit {
    /// Whether the process ended as it should.
    pub fn is_success(self) -> bool {
        self == Exit::Code(0)
    }

    /// Reads a status that passed through a shell or Open MPI's `mpiexec`, where 128 + n stands for signal n.
    pub fn from_shell_code(code: i32) -> Exit {
        match code.checked_sub(128) {
            Some(signal) if signal_name(signal).is_some() => Exit::Signal(signal),
            _ => Exit::Code(code),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Exit::Code(127) => write!(f, "exited with code 127 (a program or library was not found)"),
            Exit::Code(126) => write!(f, "exited with code 126 (a program could not be executed)"),
            Exit::Code(code) => write!(f, "exited with code {code}"),
            Exit::Signal(number) => match signal_name(number) {
                Some((name, words)) => write!(f, "exited on signal {number} ({name}: {words})"),
                None => write!(f, "exited on signal {number}"),
            },
        }
    }
}

/// Name and meaning of a signal that ends processes, as numbered by Linux on x86-64 and aarch64.
pub fn signal_name(number: i32) -> Option<(&'static str, &'static str)> {
    Some(match number {
        1 => ("SIGHUP", "its terminal or session ended"),
        2 => ("SIGINT", "interrupted"),
        3 => ("SIGQUIT", "quit"),
        4 => ("SIGILL", "illegal instruction, often a binary built for another processor"),
        5 => ("SIGTRAP", "trap"),
        6 => ("SIGABRT", "aborted itself"),
        7 => ("SIGBUS", "bus error, often a full /dev/shm or a truncated mapped file"),
        8 => ("SIGFPE", "arithmetic error"),
        9 => ("SIGKILL", "killed, by somebody or for lack of memory"),
        10 => ("SIGUSR1", "user signal"),
        11 => ("SIGSEGV", "segmentation fault"),
        12 => ("SIGUSR2", "user signal"),
        13 => ("SIGPIPE", "wrote to a pipe that nobody reads"),
        14 => ("SIGALRM", "alarm"),
        15 => ("SIGTERM", "asked to end"),
        24 => ("SIGXCPU", "used up its processor time"),
        25 => ("SIGXFSZ", "file larger than allowed"),
        31 => ("SIGSYS", "system call not allowed"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_signals_are_put_in_words() {
        assert_eq!(Exit::Code(7).to_string(), "exited with code 7");
        assert_eq!(
            Exit::Signal(9).to_string(),
            "exited on signal 9 (SIGKILL: killed, by somebody or for lack of memory)"
        );
        assert_eq!(Exit::Signal(64).to_string(), "exited on signal 64");
    }

    #[test]
    fn a_shell_code_over_128_is_a_signal_only_if_there_is_such_a_signal() {
        assert_eq!(Exit::from_shell_code(137), Exit::Signal(9));
        assert_eq!(Exit::from_shell_code(7), Exit::Code(7));
        assert_eq!(Exit::from_shell_code(205), Exit::Code(205));
        assert_eq!(Exit::from_shell_code(i32::MIN), Exit::Code(i32::MIN));
    }
}
