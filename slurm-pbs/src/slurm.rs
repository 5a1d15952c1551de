//! Slurm: `sbatch`, `scontrol show job`, `scancel`, as seen with 22.05.

use crate::batch::{Answer, Argv, BatchError, JobEnd, JobId, JobStatus};
use crate::exit::Exit;

/// What Slurm says of a job that it has forgotten, or never knew.
const UNKNOWN_JOB: &str = "Invalid job id specified";

pub(crate) fn submit(more: &[String], script: &str) -> Argv {
    let mut argv = vec!["sbatch".to_owned(), "--parsable".to_owned()];
    argv.extend(more.iter().cloned());
    argv.push(script.to_owned());
    argv
}

/// `5` or, in a federation, `5;cluster`.
pub(crate) fn id_of(line: &str) -> &str {
    line.split_once(';').map_or(line, |(id, _cluster)| id)
}

pub(crate) fn status(id: &JobId) -> Argv {
    ["scontrol", "show", "job", "-o", &id.to_string()].map(str::to_owned).into()
}

pub(crate) fn cancel(id: &JobId) -> Argv {
    ["scancel", &id.to_string()].map(str::to_owned).into()
}

pub(crate) fn read_status(answer: &Answer) -> Result<JobStatus, BatchError> {
    if !answer.exit.is_success() {
        if answer.stderr.contains(UNKNOWN_JOB) {
            return Ok(JobStatus::Ended { end: JobEnd::Forgotten });
        }
        return Err(BatchError::Refused(answer.complaint()));
    }
    let unreadable = || BatchError::Unreadable(answer.stdout.chars().take(300).collect());
    let line = answer.stdout.lines().find(|line| line.contains("JobState=")).ok_or_else(unreadable)?;
    let field = |name: &str| {
        let found = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_default()
    };
    Ok(match field("JobState") {
        "" => return Err(unreadable()),
        "PENDING" | "REQUEUED" | "REQUEUE_HOLD" | "SPECIAL_EXIT" => {
            JobStatus::Queued { reason: field("Reason").replace("None", "") }
        }
        "CONFIGURING" => JobStatus::Queued { reason: "its nodes are being made ready".to_owned() },
        "SUSPENDED" | "STOPPED" => JobStatus::Queued { reason: "suspended".to_owned() },
        "RUNNING" => JobStatus::Running {
            nodes: field("NodeList").to_owned(),
            seconds_left: seconds(field("TimeLimit"))
                .map(|limit| limit.saturating_sub(seconds(field("RunTime")).unwrap_or(0))),
        },
        "COMPLETING" | "SIGNALING" | "STAGE_OUT" => JobStatus::Ending,
        "CANCELLED" => JobStatus::Ended { end: JobEnd::Cancelled },
        "TIMEOUT" => JobStatus::Ended { end: JobEnd::TimeLimit },
        "NODE_FAIL" | "BOOT_FAIL" => JobStatus::Ended { end: JobEnd::NodeFailed },
        "OUT_OF_MEMORY" => JobStatus::Ended { end: JobEnd::OutOfMemory },
        "COMPLETED" | "FAILED" => JobStatus::Ended { end: JobEnd::failed(exit(field("ExitCode"))) },
        word => JobStatus::Ended { end: JobEnd::Other { word: word.to_ascii_lowercase() } },
    })
}

/// `7:0` is exit code 7, `0:9` is signal 9.
fn exit(text: &str) -> Exit {
    let (code, signal) = text.split_once(':').unwrap_or((text, "0"));
    match (code.parse(), signal.parse()) {
        (_, Ok(signal)) if signal != 0 => Exit::Signal(signal),
        (Ok(code), _) => Exit::from_shell_code(code),
        _ => Exit::Code(1),
    }
}

/// `[days-]hours:minutes:seconds`; none for `UNLIMITED` and the like.
fn seconds(text: &str) -> Option<u64> {
    let (days, clock) = text.split_once('-').unwrap_or(("0", text));
    let parts: Vec<u64> = clock.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [hours, minutes, seconds] = parts[..] else { return None };
    let days: u64 = days.parse().ok()?;
    days.checked_mul(24)?
        .checked_add(hours)?
        .checked_mul(3600)?
        .checked_add(minutes.checked_mul(60)?)?
        .checked_add(seconds)
}

pub(crate) fn hint(complaint: &str) -> &'static str {
    if complaint.contains("partition") {
        "give another --queue; those that there are: sinfo"
    } else if complaint.contains("ccount") {
        "give --account; yours are: sacctmgr show associations user=$USER format=account,partition"
    } else if complaint.contains("time") {
        "give another --walltime (minutes, or hours:minutes:seconds); limits: sinfo -o '%P %l'"
    } else if complaint.contains("unrecognized option") || complaint.contains("invalid option") {
        "what follows -- goes to sbatch as it is; see: sbatch --help"
    } else if complaint.contains("configuration is not available")
        || complaint.contains("can not be satisfied")
    {
        "ask for less, or for another --queue; what there is: sinfo -o '%P %D %c %m'"
    } else if complaint.contains("Unable to contact") || complaint.contains("configuration source") {
        "Slurm cannot be reached from this machine; try on a login node: sinfo"
    } else {
        "see what would be handed in with --dry-run"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PENDING: &str = include_str!("../tests/golden/slurm-scontrol-pending.txt");
    const RUNNING: &str = include_str!("../tests/golden/slurm-scontrol-running.txt");
    const FAILED: &str = include_str!("../tests/golden/slurm-scontrol-failed.txt");
    const CANCELLED: &str = include_str!("../tests/golden/slurm-scontrol-cancelled.txt");
    const TIMEOUT: &str = include_str!("../tests/golden/slurm-scontrol-timeout.txt");

    fn answered(stdout: &str) -> Result<JobStatus, BatchError> {
        read_status(&Answer { exit: Exit::Code(0), stdout: stdout.into(), stderr: String::new() })
    }

    fn complained(stderr: &str) -> Result<JobStatus, BatchError> {
        read_status(&Answer { exit: Exit::Code(1), stdout: String::new(), stderr: stderr.into() })
    }

    #[test]
    fn every_state_that_was_seen_is_read() {
        assert_eq!(answered(PENDING), Ok(JobStatus::Queued { reason: "Resources".into() }));
        assert_eq!(
            answered(RUNNING),
            Ok(JobStatus::Running { nodes: "n[1-2]".into(), seconds_left: Some(3597) })
        );
        let exited = JobEnd::Failed { code: Some(7), signal: None };
        assert_eq!(answered(FAILED), Ok(JobStatus::Ended { end: exited }));
        assert_eq!(answered(CANCELLED), Ok(JobStatus::Ended { end: JobEnd::Cancelled }));
        assert_eq!(answered(TIMEOUT), Ok(JobStatus::Ended { end: JobEnd::TimeLimit }));
    }

    #[test]
    fn a_job_that_is_forgotten_has_ended_and_a_silent_slurm_says_nothing_about_it() {
        let forgotten = complained("slurm_load_jobs error: Invalid job id specified\n");
        assert_eq!(forgotten, Ok(JobStatus::Ended { end: JobEnd::Forgotten }));
        let said = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)";
        assert_eq!(complained(said), Err(BatchError::Refused(said.into())));
        assert!(matches!(answered("garbage"), Err(BatchError::Unreadable(_))));
    }

    #[test]
    fn limits_are_read_as_slurm_writes_them() {
        for (text, expected) in [
            ("01:00:00", Some(3600)),
            ("2-00:00:10", Some(172_810)),
            ("UNLIMITED", None),
            ("", None),
            ("1:2", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
        assert_eq!(seconds("99999999999999999999-00:00:00"), None);
        assert_eq!(seconds("9999999999999999-00:00:00"), None);
    }

    #[test]
    fn a_code_above_128_in_a_script_is_a_signal_of_its_program() {
        assert_eq!(exit("137:0"), Exit::Signal(9));
        assert_eq!(exit("0:15"), Exit::Signal(15));
        assert_eq!(exit("3:0"), Exit::Code(3));
        assert_eq!(exit("?"), Exit::Code(1));
    }

    #[test]
    fn the_users_own_arguments_come_before_the_script() {
        let more = ["--qos=high".to_owned()];
        assert_eq!(submit(&more, "/a/b.sh"), ["sbatch", "--parsable", "--qos=high", "/a/b.sh"]);
        assert_eq!(id_of("5;cluster"), "5");
    }
}
