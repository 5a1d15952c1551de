//! What is to be started: a program with its arguments on so many ranks, and, for a batch system, for how long
//! and where.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::batch::System;
use crate::pbs;
use crate::template::Blank;
use crate::walltime::Walltime;

/// More ranks than the largest machines of today run in one job: beyond it, a count is a typing error.
pub const RANK_COUNT_MAX: u32 = 1 << 24;

/// How many processes to start, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Ranks(u32);

/// A number of ranks that no job can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found} is not a number of engines; give a whole number from 1 to {RANK_COUNT_MAX}")]
pub struct BadRanks {
    found: String,
}

impl Ranks {
    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Ranks {
    type Error = BadRanks;

    fn try_from(count: u32) -> Result<Ranks, BadRanks> {
        match count {
            1..=RANK_COUNT_MAX => Ok(Ranks(count)),
            _ => Err(BadRanks { found: count.to_string() }),
        }
    }
}

impl From<Ranks> for u32 {
    fn from(ranks: Ranks) -> u32 {
        ranks.0
    }
}

impl FromStr for Ranks {
    type Err = BadRanks;

    fn from_str(text: &str) -> Result<Ranks, BadRanks> {
        match text.trim().parse::<u32>() {
            Ok(count) => Ranks::try_from(count),
            Err(_) => Err(BadRanks { found: format!("{text:?}") }),
        }
    }
}

impl fmt::Display for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One MPI world to start: the same whether `mpiexec` is called here or inside a batch job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// How many ranks.
    pub ranks: Ranks,
    /// The program each rank runs, best as an absolute path: remote daemons have another working directory.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables every rank must see, also on other hosts. Command lines are public: never put a secret here.
    pub environment: BTreeMap<String, String>,
}

impl LaunchSpec {
    /// `program arguments…` on `ranks` ranks.
    pub fn new(ranks: Ranks, program: impl Into<String>, arguments: Vec<String>) -> LaunchSpec {
        LaunchSpec { ranks, program: program.into(), arguments, environment: BTreeMap::new() }
    }
}

/// A world of engines as a batch system is asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// The name it has in `squeue` or `qstat`.
    pub name: String,
    /// How many ranks.
    pub ranks: Ranks,
    /// Over how many nodes; as the system likes when not given.
    pub nodes: Option<Ranks>,
    /// How long it may run; the system's default when not given.
    pub walltime: Option<Walltime>,
    /// Slurm's partition, PBS's queue.
    pub queue: Option<String>,
    /// Who pays.
    pub account: Option<String>,
    /// Where the system puts standard output and error of the job.
    pub output: String,
    /// Where they can be read while it runs, if the system keeps them till the end.
    pub log: String,
    /// What it runs, as a line of a shell script.
    pub command: String,
}

/// `qstat` of PBS Pro and Torque's `qsub -N` take no more.
const JOB_NAME_CHARS_MAX: usize = 15;

impl JobSpec {
    /// A name that every system takes: a letter first, then letters, digits, `-` and `_`, fifteen at most.
    pub fn name_from(text: &str) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' };
        let name: String = text.chars().map(plain).take(JOB_NAME_CHARS_MAX).collect();
        if name.starts_with(|c: char| c.is_ascii_alphabetic()) { name } else { "engines".to_owned() }
    }

    /// What a template's blanks are filled with.
    pub(crate) fn blanks(&self, system: System) -> Vec<Blank> {
        let blank = |name, value: Option<String>, option| Blank { name, value, option };
        let walltime = |limit: Walltime| if system.is_slurm() { limit.to_slurm() } else { limit.to_pbs() };
        let resources = (!system.is_slurm()).then(|| pbs::resources(system, self));
        vec![
            blank("name", Some(self.name.clone()), None),
            blank("ranks", Some(self.ranks.to_string()), None),
            // To PBS, nodes are a part of the resources.
            blank("nodes", self.nodes.map(|nodes| nodes.to_string()), system.is_slurm().then_some("--nodes")),
            blank("resources", resources, None),
            blank("walltime", self.walltime.map(walltime), Some("--walltime")),
            blank("queue", self.queue.clone(), Some("--queue")),
            blank("account", self.account.clone(), Some("--account")),
            blank("output", Some(self.output.clone()), None),
            blank("log", Some(self.log.clone()), None),
            blank("command", Some(self.command.clone()), None),
        ]
    }

    /// A job for tests: one rank, nothing else asked for.
    #[cfg(test)]
    pub(crate) fn example() -> JobSpec {
        JobSpec {
            name: "engines".to_owned(),
            ranks: Ranks(4),
            nodes: None,
            walltime: None,
            queue: None,
            account: None,
            output: "/p/log/engines-0.out".to_owned(),
            log: "/p/log/engines-0.log".to_owned(),
            command: "/bin/cluster launch -n 4".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_count_is_at_least_one_and_not_absurd() {
        assert_eq!("4".parse::<Ranks>().map(Ranks::get), Ok(4));
        for text in ["0", "-1", "", "4x", "16777217", "99999999999999999999"] {
            assert!(text.parse::<Ranks>().is_err(), "{text:?} was accepted");
        }
        assert_eq!(
            "none".parse::<Ranks>().unwrap_err().to_string(),
            "\"none\" is not a number of engines; give a whole number from 1 to 16777216"
        );
    }

    fn spec() -> JobSpec {
        JobSpec {
            nodes: Some(Ranks(2)),
            walltime: Some(Walltime::from_seconds(3600).unwrap()),
            queue: Some("debug".to_owned()),
            ..JobSpec::example()
        }
    }

    #[test]
    fn our_templates_say_what_was_asked_for_and_nothing_else() {
        let golden = |name: &str| match name {
            "slurm" => include_str!("../tests/golden/slurm-job.sh"),
            "pbs" => include_str!("../tests/golden/openpbs-job.sh"),
            _ => include_str!("../tests/golden/torque-job.sh"),
        };
        assert_eq!(System::Slurm.script(&spec(), None).unwrap(), golden("slurm"));
        assert_eq!(System::OpenPbs.script(&spec(), None).unwrap(), golden("pbs"));
        assert_eq!(System::Torque.script(&spec(), None).unwrap(), golden("torque"));
        let bare = System::Slurm.script(&JobSpec::example(), None).unwrap();
        for option in ["--nodes", "--time", "--partition", "--account"] {
            assert!(!bare.contains(option), "{bare}");
        }
    }

    #[test]
    fn a_job_has_a_name_that_every_system_takes() {
        assert_eq!(JobSpec::name_from("lab 7/x"), "lab_7_x");
        assert_eq!(JobSpec::name_from("a-very-long-profile-name"), "a-very-long-pro");
        assert_eq!(JobSpec::name_from("7"), "engines");
        assert_eq!(JobSpec::name_from(""), "engines");
    }
}
