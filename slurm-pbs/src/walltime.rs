//! Time limits as Slurm and PBS write them. The two read the same text differently (`30` is 30 minutes to
//! Slurm and 30 seconds to PBS), so there is no reader that guesses.

use std::fmt;

use serde::{Deserialize, Serialize};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Longer limits are typing errors: a century, in seconds.
pub const WALLTIME_SECONDS_MAX: u64 = 100 * 366 * DAY;

/// How long a job may run, in whole seconds, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Walltime {
    seconds: u64,
}

/// A text that is no time limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalltimeError {
    /// Not one of Slurm's forms.
    #[error("{0:?} is not a time limit of Slurm; write minutes, [days-]hours:minutes:seconds or days-hours")]
    NotSlurm(String),
    /// Not one of the forms of PBS.
    #[error("{0:?} is not a walltime of PBS; write seconds or hours:minutes:seconds")]
    NotPbs(String),
    /// Nothing, or more than a century.
    #[error("a time limit of {0} seconds is out of range; give at least 1 second and less than a century")]
    OutOfRange(u64),
}

impl Walltime {
    /// So many seconds.
    pub fn from_seconds(seconds: u64) -> Result<Walltime, WalltimeError> {
        match seconds {
            1..=WALLTIME_SECONDS_MAX => Ok(Walltime { seconds }),
            _ => Err(WalltimeError::OutOfRange(seconds)),
        }
    }

    /// The whole limit in seconds.
    pub fn seconds(self) -> u64 {
        self.seconds
    }

    /// Reads `minutes`, `minutes:seconds`, `hours:minutes:seconds`, `days-hours`, `days-hours:minutes` or
    /// `days-hours:minutes:seconds`. As in Slurm, a part may be larger than its unit (`90:00`).
    pub fn parse_slurm(text: &str) -> Result<Walltime, WalltimeError> {
        let bad = || WalltimeError::NotSlurm(text.to_owned());
        let seconds = match text.split_once('-') {
            Some((days, rest)) => match *numbers(rest).ok_or_else(bad)?.as_slice() {
                [h] => total(&[(number(days).ok_or_else(bad)?, DAY), (h, HOUR)]),
                [h, m] => total(&[(number(days).ok_or_else(bad)?, DAY), (h, HOUR), (m, MINUTE)]),
                [h, m, s] => total(&[(number(days).ok_or_else(bad)?, DAY), (h, HOUR), (m, MINUTE), (s, 1)]),
                _ => return Err(bad()),
            },
            None => match *numbers(text).ok_or_else(bad)?.as_slice() {
                [m] => total(&[(m, MINUTE)]),
                [m, s] => total(&[(m, MINUTE), (s, 1)]),
                [h, m, s] => total(&[(h, HOUR), (m, MINUTE), (s, 1)]),
                _ => return Err(bad()),
            },
        };
        Walltime::from_seconds(seconds)
    }

    /// Reads `seconds`, `minutes:seconds` or `hours:minutes:seconds`. Fractions of a second, which PBS allows,
    /// are rounded up: a limit must not be shorter than asked.
    pub fn parse_pbs(text: &str) -> Result<Walltime, WalltimeError> {
        let bad = || WalltimeError::NotPbs(text.to_owned());
        let (whole, fraction) = match text.split_once('.') {
            Some((whole, fraction)) => (whole, Some(number(fraction).ok_or_else(bad)?)),
            None => (text, None),
        };
        let seconds = match *numbers(whole).ok_or_else(bad)?.as_slice() {
            [s] => s,
            [m, s] => total(&[(m, MINUTE), (s, 1)]),
            [h, m, s] => total(&[(h, HOUR), (m, MINUTE), (s, 1)]),
            _ => return Err(bad()),
        };
        let round_up = u64::from(fraction.is_some_and(|digits| digits > 0));
        Walltime::from_seconds(seconds.saturating_add(round_up))
    }

    /// As `sbatch --time` takes it: `hours:minutes:seconds`, with days in front from one day on.
    ///
    /// Slurm counts whole minutes and rounds up by itself.
    pub fn to_slurm(self) -> String {
        let (days, rest) = (self.seconds / DAY, self.seconds % DAY);
        let clock = clock(rest);
        if days == 0 { clock } else { format!("{days}-{clock}") }
    }

    /// As `qsub -l walltime=` takes it: `hours:minutes:seconds`, where hours may be any number.
    pub fn to_pbs(self) -> String {
        clock(self.seconds)
    }
}

impl fmt::Display for Walltime {
    /// For people: `1 day 2 h 30 min`, leaving out what is zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.seconds;
        let mut separator = "";
        for (size, unit) in [(DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (1, "s")] {
            let count = rest / size;
            rest %= size;
            if count > 0 {
                write!(f, "{separator}{count} {unit}")?;
                separator = " ";
            }
        }
        Ok(())
    }
}

impl TryFrom<u64> for Walltime {
    type Error = WalltimeError;

    fn try_from(seconds: u64) -> Result<Walltime, WalltimeError> {
        Walltime::from_seconds(seconds)
    }
}

impl From<Walltime> for u64 {
    fn from(walltime: Walltime) -> u64 {
        walltime.seconds
    }
}

fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / HOUR, seconds % HOUR / MINUTE, seconds % MINUTE)
}

/// `1:2:3` as numbers; none if any part is not made of digits alone.
fn numbers(text: &str) -> Option<Vec<u64>> {
    text.split(':').map(number).collect()
}

/// Digits alone: `parse` would also take `+5`.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// A sum that stops at the largest number, which is then out of range.
fn total(parts: &[(u64, u64)]) -> u64 {
    parts.iter().fold(0, |sum: u64, &(count, size)| sum.saturating_add(count.saturating_mul(size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Walltime {
        Walltime::from_seconds(seconds).unwrap()
    }

    #[test]
    fn the_same_number_is_minutes_to_slurm_and_seconds_to_pbs() {
        assert_eq!(Walltime::parse_slurm("30"), Ok(seconds(1800)));
        assert_eq!(Walltime::parse_pbs("30"), Ok(seconds(30)));
    }

    #[test]
    fn slurm_forms_are_read() {
        for (text, expected) in [
            ("90", 5400),
            ("90:30", 5430),
            ("1:30:05", 5405),
            ("2-3", 2 * DAY + 3 * HOUR),
            ("2-3:4", 2 * DAY + 3 * HOUR + 4 * MINUTE),
            ("2-03:04:05", 2 * DAY + 3 * HOUR + 4 * MINUTE + 5),
            ("0-0:0:1", 1),
        ] {
            assert_eq!(Walltime::parse_slurm(text), Ok(seconds(expected)), "{text}");
        }
    }

    #[test]
    fn pbs_forms_are_read_and_fractions_rounded_up() {
        for (text, expected) in [("45", 45), ("2:00", 120), ("100:00:01", 360_001), ("1.5", 2), ("1.0", 1)] {
            assert_eq!(Walltime::parse_pbs(text), Ok(seconds(expected)), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back_by_both() {
        for value in [1, 59, 60, 3599, 3600, DAY - 1, DAY, 40 * DAY + 3723, WALLTIME_SECONDS_MAX] {
            let walltime = seconds(value);
            assert_eq!(Walltime::parse_slurm(&walltime.to_slurm()), Ok(walltime));
            assert_eq!(Walltime::parse_pbs(&walltime.to_pbs()), Ok(walltime));
        }
        assert_eq!(seconds(DAY + 61).to_slurm(), "1-00:01:01");
        assert_eq!(seconds(DAY + 61).to_pbs(), "24:01:01");
        assert_eq!(seconds(DAY + 61).to_string(), "1 d 1 min 1 s");
    }

    #[test]
    fn nonsense_is_refused_by_both() {
        for text in ["", "abc", "-", "1-", "-1", "+5", "1:2:3:4", "1:", ":", "1-2-3", "１", "1 0", "1.x", "."]
        {
            assert!(Walltime::parse_slurm(text).is_err(), "Slurm's reader took {text:?}");
            assert!(Walltime::parse_pbs(text).is_err(), "the reader of PBS took {text:?}");
        }
        assert_eq!(Walltime::parse_slurm("0"), Err(WalltimeError::OutOfRange(0)));
        assert_eq!(Walltime::parse_slurm("99999999999999999-0"), Err(WalltimeError::OutOfRange(u64::MAX)));
    }
}
