//! The job of a batch system that this engine is a part of, to say why the engine ends.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::extension::EngineJob;

/// When the job ends at the latest, in seconds since 1970: set by `cluster launch`.
const JOB_ENDS: &str = "COMMWORLD_JOB_ENDS";

/// A limit is kept to within this time: Slurm looks at its jobs every 30 seconds and may be late, PBS a few early.
const LIMIT_TOLERANCE: Duration = Duration::from_secs(5);

/// The job, as the hub is told of it.
pub(crate) fn description(variable: impl Fn(&str) -> Option<String>, now: SystemTime) -> Option<EngineJob> {
    let name = name(&variable)?;
    let left = ends(&variable).map(|ends| ends.duration_since(now).unwrap_or_default().as_secs());
    Some(EngineJob { name, seconds_left: left })
}

/// Why the process was sent SIGTERM, as far as its environment tells; finishes "the engine ends because …".
pub(crate) fn why_terminated(variable: impl Fn(&str) -> Option<String>, now: SystemTime) -> String {
    let Some(job) = name(&variable) else { return "it was told to by SIGTERM".to_owned() };
    match ends(&variable) {
        Some(ends) if now + LIMIT_TOLERANCE >= ends => format!("{job} reached its time limit"),
        Some(_) => format!("{job} was cancelled"),
        None => format!("{job} was cancelled or reached its time limit"),
    }
}

fn name(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let id = |name: &str| variable(name).filter(|id| !id.is_empty());
    let slurm = id("SLURM_JOB_ID").map(|id| format!("job {id} of Slurm"));
    slurm.or_else(|| id("PBS_JOBID").map(|id| format!("job {id} of PBS")))
}

fn ends(variable: impl Fn(&str) -> Option<String>) -> Option<SystemTime> {
    let since_1970 = Duration::from_secs(variable(JOB_ENDS)?.parse().ok()?);
    UNIX_EPOCH.checked_add(since_1970)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(variables: &[(&str, &str)], now: u64) -> String {
        let variable = |name: &str| {
            let found = variables.iter().find(|(found, _)| *found == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        why_terminated(variable, UNIX_EPOCH + Duration::from_secs(now))
    }

    #[test]
    fn a_cancelled_job_and_one_at_its_limit_are_told_apart() {
        let slurm = [("SLURM_JOB_ID", "8"), (JOB_ENDS, "1000")];
        assert_eq!(why(&slurm, 500), "job 8 of Slurm was cancelled");
        assert_eq!(why(&slurm, 998), "job 8 of Slurm reached its time limit");
        assert_eq!(why(&slurm[..1], 998), "job 8 of Slurm was cancelled or reached its time limit");
        assert_eq!(
            why(&[("PBS_JOBID", "7.a"), (JOB_ENDS, "1000")], 2000),
            "job 7.a of PBS reached its time limit"
        );
        assert_eq!(why(&[(JOB_ENDS, "nonsense")], 0), "it was told to by SIGTERM");
    }
}
