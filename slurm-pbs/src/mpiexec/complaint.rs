//! Reads what a launcher wrote when something went wrong: which rank, and why.

use std::borrow::Cow;
use std::fmt;

use super::{Flavor, split_rank_tag};
use crate::exit::Exit;

/// A complaint and its details are never further apart than this.
const FOLLOWING_LINES: usize = 8;

/// What the launcher said went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// A rank ended when it should not have.
    RankEnded {
        /// Which one; MPICH does not say.
        rank: Option<u32>,
        /// Where it ran.
        host: Option<String>,
        /// How it ended, when the launcher tells.
        exit: Option<Exit>,
    },
    /// A rank called `MPI_Abort` (MPI 4.1, section 9.7), which ends the world.
    Aborted {
        /// Which one.
        rank: u32,
        /// The code it gave.
        code: i32,
    },
    /// The program is not there or not executable on some host.
    CannotExecute {
        /// As it was given to the launcher.
        program: String,
    },
    /// Open MPI counts cores and found too few.
    NotEnoughSlots,
    /// Open MPI does not run for root unless told to.
    RefusesRoot,
    /// A host could not be reached, or its daemon went away.
    LostHost,
}

impl Complaint {
    /// The first complaint in the launcher's output that names a cause. `None`: it said nothing we know, which
    /// MPICH does for most deaths.
    pub fn find(flavor: Flavor, output: &str) -> Option<Complaint> {
        // A rank's own words never count as the launcher's, whatever they say.
        let lines: Vec<(Option<u32>, Cow<'_, str>)> =
            output.lines().map(|line| split_rank_tag(flavor, line)).collect();
        let mut vague = None;
        for (index, (rank, line)) in lines.iter().enumerate() {
            let following = || lines[index + 1..].iter().take(FOLLOWING_LINES).map(|(_, line)| line.as_ref());
            let found = match (flavor, rank) {
                (Flavor::OpenMpi, None) => open_mpi(line, following()),
                (Flavor::Mpich, _) => mpich(line, following()),
                (Flavor::OpenMpi, Some(_)) => None,
            };
            match found {
                Some(Complaint::RankEnded { rank: None, .. }) => vague = vague.or(found),
                Some(_) => return found,
                None => {}
            }
        }
        vague
    }

    /// What the user can do about it, when there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Complaint::RankEnded { .. } | Complaint::Aborted { .. } => None,
            Complaint::CannotExecute { .. } => {
                Some("give --engine-cmd a path that exists on every host and is executable")
            }
            Complaint::NotEnoughSlots => {
                Some("pass --mpiexec 'mpiexec --oversubscribe', or start fewer engines")
            }
            Complaint::RefusesRoot => {
                Some("pass --mpiexec 'mpiexec --allow-run-as-root', or run as a plain user")
            }
            Complaint::LostHost => Some("check that each host answers ssh without a password"),
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Complaint::RankEnded { rank, host, exit } => {
                match rank {
                    Some(rank) => write!(f, "rank {rank}")?,
                    None => write!(f, "a rank")?,
                }
                if let Some(host) = host {
                    write!(f, " on {host}")?;
                }
                match exit {
                    Some(exit) => write!(f, " {exit}"),
                    None => write!(f, " ended too early"),
                }
            }
            Complaint::Aborted { rank, code } => write!(f, "rank {rank} called MPI_Abort with code {code}"),
            Complaint::CannotExecute { program } => write!(f, "mpiexec could not execute {program}"),
            Complaint::NotEnoughSlots => write!(f, "mpiexec found fewer slots than engines"),
            Complaint::RefusesRoot => write!(f, "mpiexec refuses to run as root"),
            Complaint::LostHost => write!(f, "mpiexec could not reach a host, or lost it"),
        }
    }
}

fn open_mpi<'a>(line: &str, mut following: impl Iterator<Item = &'a str>) -> Option<Complaint> {
    if let Some((_, rest)) = line.split_once("noticed that process rank ") {
        // `1 with PID 0 on node vm exited on signal 9 (Killed).`
        return Some(Complaint::RankEnded {
            rank: Some(leading_number(rest)?),
            host: after(rest, " on node ").map(first_word),
            exit: after(rest, " exited on signal ").and_then(leading_number).map(Exit::Signal),
        });
    }
    if let Some(rest) = after(line, "MPI_ABORT was invoked on rank ") {
        let code = following.find_map(|line| after(line, "with errorcode ").and_then(signed_number));
        return Some(Complaint::Aborted { rank: leading_number(rest)?, code: code.unwrap_or(1) });
    }
    if let Some(rest) = after(line, "Process name: [[") {
        // `18693,1],1]`, then `Exit code:    7`
        let (_, rank) = rest.rsplit_once(',')?;
        let code =
            following.find_map(|line| after(line, "Exit code:").and_then(|code| signed_number(code.trim())));
        return Some(Complaint::RankEnded {
            rank: Some(leading_number(rank)?),
            host: None,
            exit: code.map(Exit::from_shell_code),
        });
    }
    if let Some(rest) = after(line, "Executable: ") {
        return Some(Complaint::CannotExecute { program: rest.trim().to_owned() });
    }
    if line.contains("There are not enough slots available") {
        return Some(Complaint::NotEnoughSlots);
    }
    if line.contains("has detected an attempt to run as root") {
        return Some(Complaint::RefusesRoot);
    }
    let lost = line.contains("unable to reliably start one or more daemons")
        || line.contains("has lost communication with a remote daemon");
    lost.then_some(Complaint::LostHost)
}

fn mpich<'a>(line: &str, mut following: impl Iterator<Item = &'a str>) -> Option<Complaint> {
    if let Some(rest) = after(line, "execvp error on file ") {
        let program = rest.rsplit_once(" (").map_or(rest, |(program, _)| program);
        return Some(Complaint::CannotExecute { program: program.trim().to_owned() });
    }
    if let Some(rest) = after(line, "Abort(").filter(|_| line.contains("application called MPI_Abort")) {
        return Some(Complaint::Aborted {
            rank: after(line, "(rank ").and_then(leading_number)?,
            code: signed_number(rest)?,
        });
    }
    if line.contains("BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES") {
        let (mut host, mut code, mut signal) = (None, None, None);
        for line in following.by_ref() {
            host = host.or_else(|| after(line, " RUNNING AT ").map(first_word));
            code = code.or_else(|| after(line, "EXIT CODE: ").and_then(signed_number));
            signal = signal.or_else(|| after(line, "EXIT STRING: ").and_then(exit_string));
        }
        // For a signal, "EXIT CODE" is its bare number: only the string below it tells the two apart.
        let exit = signal.map(Exit::Signal).or(code.map(Exit::Code));
        return Some(Complaint::RankEnded { rank: None, host, exit });
    }
    None
}

/// `Segmentation fault (signal 11)`
fn exit_string(text: &str) -> Option<i32> {
    after(text, "(signal ").and_then(leading_number)
}

fn after<'a>(line: &'a str, prefix: &str) -> Option<&'a str> {
    line.split_once(prefix).map(|(_, rest)| rest)
}

fn first_word(text: &str) -> String {
    text.split_whitespace().next().unwrap_or_default().trim_end_matches('.').to_owned()
}

fn leading_number<T: std::str::FromStr>(text: &str) -> Option<T> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

fn signed_number(text: &str) -> Option<i32> {
    match text.strip_prefix('-') {
        Some(digits) => leading_number::<i32>(digits).map(|number| -number),
        None => leading_number(text),
    }
}
