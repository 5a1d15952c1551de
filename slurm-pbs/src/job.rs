//! What is to be started: a program with its arguments on so many ranks, and, for a batch system, for how long
//! and where.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

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

/// A launch as a batch system is asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// The name it has in `squeue` or `qstat`.
    pub name: String,
    /// What it runs.
    pub launch: LaunchSpec,
    /// How long it may run; the system's default when not given.
    pub walltime: Option<Walltime>,
    /// Slurm's partition, PBS's queue.
    pub queue: Option<String>,
    /// Who pays.
    pub account: Option<String>,
    /// Where standard output and error of the job go.
    pub output: String,
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
}
