//! Who a process is: its pid together with when it started, because the kernel gives pids out again.
//!
//! Everything is read from `/proc`, so it works for processes that are not our children, which is what
//! `cluster stop` in another shell needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// How often a process that is not our child is looked at while we wait for its end: the kernel tells only
/// parents.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// A process that was, or is, alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/<pid>/stat`).
    pub start_time: u64,
}

/// What we need of `/proc/<pid>/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    parent: i32,
    start_time: u64,
}

impl ProcessId {
    /// The process that has this pid now, running or not yet reaped.
    pub fn of(pid: i32) -> io::Result<ProcessId> {
        Ok(ProcessId { pid, start_time: read_stat(pid)?.start_time })
    }

    /// This very process.
    pub fn own() -> ProcessId {
        let pid = i32::try_from(std::process::id()).expect("the kernel's pids fit in i32");
        ProcessId::of(pid).unwrap_or(ProcessId { pid, start_time: 0 })
    }

    /// Whether it still runs. A zombie is gone: it only waits for its parent to look.
    pub fn is_alive(self) -> bool {
        self.stat().is_some_and(|stat| !matches!(stat.state, 'Z' | 'X' | 'x'))
    }

    /// Its stat, unless the pid belongs to another process by now.
    fn stat(self) -> Option<Stat> {
        read_stat(self.pid).ok().filter(|stat| stat.start_time == self.start_time)
    }

    /// Sends a signal to this process alone; to nobody if it is gone.
    pub fn signal(self, signal: Signal) -> io::Result<()> {
        if self.stat().is_none() {
            return Ok(());
        }
        ignore_gone(kill(Pid::from_raw(self.pid), signal))
    }

    /// Sends a signal to the process group that this process leads. While its leader exists, even as a zombie,
    /// the number of a group is not given out again.
    pub fn signal_group(self, signal: Signal) -> io::Result<()> {
        if self.stat().is_none() {
            return Ok(());
        }
        ignore_gone(killpg(Pid::from_raw(self.pid), signal))
    }

    /// All processes that descend from it now.
    pub fn descendants(self) -> Vec<ProcessId> {
        if self.stat().is_none() {
            return Vec::new();
        }
        let table = process_table();
        let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for (&pid, stat) in &table {
            children.entry(stat.parent).or_default().push(pid);
        }
        let mut found = BTreeSet::new();
        let mut unseen = vec![self.pid];
        while let Some(pid) = unseen.pop() {
            for &child in children.get(&pid).into_iter().flatten() {
                if found.insert(child) {
                    unseen.push(child);
                }
            }
        }
        found.into_iter().map(|pid| ProcessId { pid, start_time: table[&pid].start_time }).collect()
    }
}

/// Waits until none of `processes` is alive, or `deadline` has passed, or `hurry` says to stop waiting; tells
/// who is left.
pub fn wait_until_gone(
    processes: &[ProcessId],
    deadline: Instant,
    hurry: impl Fn() -> bool,
) -> Vec<ProcessId> {
    loop {
        let left: Vec<ProcessId> = processes.iter().copied().filter(|process| process.is_alive()).collect();
        if left.is_empty() || Instant::now() >= deadline || hurry() {
            return left;
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// Names the running kernel: a pid and start time from before a reboot mean nothing. Empty where the kernel
/// does not tell.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// This machine's name.
pub fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "localhost".to_owned())
}

fn process_table() -> BTreeMap<i32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, read_stat(pid).ok()?))).collect()
}

fn read_stat(pid: i32) -> io::Result<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat"))?;
    parse_stat(&text)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("unreadable /proc/{pid}/stat")))
}

/// The program's name, field 2, may hold spaces and parentheses: only what follows the last `)` is regular.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let end_of_name = text.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(text.get(end_of_name + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        start_time: fields.get(19)?.parse().ok()?,
    })
}

fn ignore_gone(result: nix::Result<()>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_parentheses_does_not_shift_the_fields() {
        let stat = b"77 (a ) S 9 b) Z 5 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 424242 1000 10 0";
        assert_eq!(parse_stat(stat), Some(Stat { state: 'Z', parent: 5, start_time: 424_242 }));
        for short in [&b""[..], b"77 (x", b"77 (x)", b"77 (x) S", b"77 (x) S 1 2 3"] {
            assert_eq!(parse_stat(short), None);
        }
    }

    #[test]
    fn this_process_is_alive_and_one_with_another_start_time_is_not() {
        let own = ProcessId::own();
        assert!(own.is_alive());
        let other = ProcessId { start_time: own.start_time + 1, ..own };
        assert!(!other.is_alive());
        assert!(other.signal(Signal::SIGKILL).is_ok(), "a stranger with our pid must not be signalled");
    }

    #[test]
    fn a_zombie_is_gone_and_a_child_is_a_descendant() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let id = ProcessId::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(id.is_alive());
        assert!(ProcessId::own().descendants().contains(&id));

        id.signal(Signal::SIGKILL).unwrap();
        let left = wait_until_gone(&[id], Instant::now() + Duration::from_secs(10), || false);

        assert_eq!(left, [], "not reaped yet, but gone");
        child.wait().unwrap();
        assert!(!id.is_alive());
    }
}
