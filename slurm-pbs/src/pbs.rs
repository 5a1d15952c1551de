//! PBS: `qsub`, `qstat -f`, `qdel`, as PBS Pro (OpenPBS) and Torque speak them.

use crate::batch::{Answer, Argv, BatchError, JobEnd, JobId, JobStatus, System};
use crate::exit::Exit;
use crate::job::{JobSpec, Ranks};
use crate::walltime::Walltime;

/// Exit codes of `qstat` and `qdel` for a job that is not there any more.
const EXIT_UNKNOWN_JOB: i32 = 153;
const EXIT_HAS_FINISHED: i32 = 35;

/// `Exit_status` of a job that was killed at its walltime.
const STATUS_WALLTIME: i32 = -29;

/// Added by PBS to the signal that killed a job.
const STATUS_SIGNAL: i32 = 256;

/// Substate of a job that `qdel` ended.
const SUBSTATE_DELETED: &str = "91";

pub(crate) fn submit(more: &[String], variables: &[&str], script: &str) -> Argv {
    let mut argv = vec!["qsub".to_owned()];
    if !variables.is_empty() {
        argv.extend(["-v".to_owned(), variables.join(",")]); // Names alone: qsub reads the values from us.
    }
    argv.extend(more.iter().cloned());
    argv.push(script.to_owned());
    argv
}

pub(crate) fn status(system: System, id: &JobId) -> Argv {
    let mut argv = vec!["qstat".to_owned()];
    if system == System::OpenPbs {
        argv.push("-x".to_owned()); // Finished jobs too. To Torque it means XML, and it shows them anyway.
    }
    argv.extend(["-f".to_owned(), id.to_string()]);
    argv
}

pub(crate) fn cancel(id: &JobId) -> Argv {
    ["qdel", &id.to_string()].map(str::to_owned).into()
}

/// Whether the answer says that the job is not there any more.
pub(crate) fn is_gone(answer: &Answer) -> bool {
    match answer.exit {
        Exit::Code(EXIT_UNKNOWN_JOB | EXIT_HAS_FINISHED) => true,
        // What imitates Torque over Slurm says nothing at all.
        Exit::Code(1) => answer.stderr.is_empty() && answer.stdout.is_empty(),
        _ => answer.stderr.contains("Unknown Job Id") || answer.stderr.contains("Job has finished"),
    }
}

pub(crate) fn read_status(answer: &Answer) -> Result<JobStatus, BatchError> {
    if !answer.exit.is_success() {
        let gone = is_gone(answer);
        let forgotten = JobStatus::Ended { end: JobEnd::Forgotten };
        return if gone { Ok(forgotten) } else { Err(BatchError::Refused(answer.complaint())) };
    }
    let job = Attributes::read(&answer.stdout);
    let comment = job.get("comment");
    Ok(match job.get("job_state") {
        "" => return Err(BatchError::Unreadable(answer.stdout.chars().take(300).collect())),
        "Q" | "T" | "W" | "M" => JobStatus::Queued { reason: comment.to_owned() },
        "H" => JobStatus::Queued { reason: or(comment, "held") },
        "S" | "U" => JobStatus::Queued { reason: or(comment, "suspended") },
        "R" | "B" => JobStatus::Running {
            nodes: job.get("exec_host").to_owned(),
            seconds_left: limit(job.get("Resource_List.walltime"))
                .map(|limit| limit.saturating_sub(limit_or_zero(job.get("resources_used.walltime")))),
        },
        "E" => JobStatus::Ending,
        "F" | "C" | "X" => JobStatus::Ended { end: job.end() },
        word => JobStatus::Ended { end: JobEnd::Other { word: format!("state {word}") } },
    })
}

fn or(text: &str, default: &str) -> String {
    if text.is_empty() { default.to_owned() } else { text.to_owned() }
}

fn limit(text: &str) -> Option<u64> {
    Walltime::parse_pbs(text).ok().map(Walltime::seconds)
}

fn limit_or_zero(text: &str) -> u64 {
    limit(text).unwrap_or(0)
}

/// One job as `qstat -f` prints it: `name = value` lines, where a line that begins with a tab goes on with the
/// value before. What imitates Torque over Slurm indents by a tab: there, a line with ` = ` begins a new one.
struct Attributes(Vec<(String, String)>);

impl Attributes {
    fn read(text: &str) -> Attributes {
        let mut attributes: Vec<(String, String)> = Vec::new();
        for line in text.lines() {
            match (line.trim_start().split_once(" = "), attributes.last_mut()) {
                (Some((name, value)), _) if !name.contains(' ') => {
                    attributes.push((name.to_owned(), value.to_owned()));
                }
                (_, Some((_, value))) if line.starts_with('\t') => {
                    value.push_str(line.trim_start_matches('\t'))
                }
                _ => {} // "Job Id: …"
            }
        }
        Attributes(attributes)
    }

    fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(found, _)| found == name);
        found.map_or("", |(_, value)| value.trim())
    }

    fn end(&self) -> JobEnd {
        let status = [self.get("Exit_status"), self.get("exit_status")];
        let status: Option<i32> = status.iter().find_map(|text| text.parse().ok());
        let comment = self.get("comment");
        match status {
            Some(STATUS_WALLTIME) => JobEnd::TimeLimit,
            _ if comment.contains("exceeded limit") || comment.contains("exceeded resource walltime") => {
                JobEnd::TimeLimit
            }
            _ if self.get("substate") == SUBSTATE_DELETED => JobEnd::Cancelled,
            Some(status) if status > STATUS_SIGNAL => JobEnd::failed(Exit::Signal(status - STATUS_SIGNAL)),
            Some(status) => JobEnd::failed(Exit::from_shell_code(status)),
            None if comment.is_empty() => JobEnd::Other { word: "qstat does not say how".to_owned() },
            None => JobEnd::Other { word: comment.to_owned() },
        }
    }
}

/// What goes after `-l` for so many ranks.
pub(crate) fn resources(system: System, spec: &JobSpec) -> String {
    let (ranks, nodes) = (spec.ranks.get(), spec.nodes.map(Ranks::get));
    let Some(nodes) = nodes else {
        return match system {
            System::Torque => format!("nodes=1:ppn={ranks}"),
            // One chunk per rank: PBS puts them where there is room.
            _ => format!("select={ranks}:ncpus=1:mpiprocs=1"),
        };
    };
    // What does not divide goes to the first nodes, one more each.
    let (each, more) = (ranks / nodes, ranks % nodes);
    let chunks = [(more, each + 1), (nodes - more, each)].into_iter().filter(|&(nodes, _)| nodes > 0);
    match system {
        System::Torque => {
            let chunks = chunks.map(|(nodes, ranks)| format!("{nodes}:ppn={ranks}"));
            format!("nodes={}", chunks.collect::<Vec<_>>().join("+"))
        }
        _ => {
            let chunks = chunks.map(|(nodes, ranks)| format!("{nodes}:ncpus={ranks}:mpiprocs={ranks}"));
            format!("select={}", chunks.collect::<Vec<_>>().join("+"))
        }
    }
}

pub(crate) fn hint(complaint: &str) -> &'static str {
    if complaint.contains("Unknown queue") || complaint.contains("Queue is not enabled") {
        "give another --queue; those that there are: qstat -Q"
    } else if complaint.contains("walltime") {
        "give another --walltime (seconds, or hours:minutes:seconds)"
    } else if complaint.contains("resource") || complaint.contains("Resource") {
        "the resources were refused; see them with --dry-run, and give your own by a --template"
    } else if complaint.contains("Bad UID") {
        "PBS takes no jobs from root; log in as a user"
    } else if complaint.contains("cannot connect") || complaint.contains("onnection refused") {
        "the server of PBS cannot be reached from this machine; try on a login node: qstat -B"
    } else if complaint.contains("invalid option") || complaint.contains("usage") {
        "what follows -- goes to qsub as it is; see: man qsub"
    } else {
        "see what would be handed in with --dry-run"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: &str = include_str!("../tests/golden/openpbs-qstat-running.txt");
    const FINISHED: &str = include_str!("../tests/golden/openpbs-qstat-finished.txt");
    const TORQUE: &str = include_str!("../tests/golden/torque-over-slurm-qstat-running.txt");

    fn answered(text: &str) -> Result<JobStatus, BatchError> {
        read_status(&Answer { exit: Exit::Code(0), stdout: text.into(), stderr: String::new() })
    }

    fn complained(code: i32, stderr: &str) -> Answer {
        Answer { exit: Exit::Code(code), stdout: String::new(), stderr: stderr.into() }
    }

    fn finished_with(lines: &str) -> JobStatus {
        answered(&format!("Job Id: 1.pbs1\n    job_state = F\n{lines}")).unwrap()
    }

    #[test]
    fn a_running_job_tells_its_hosts_and_its_time() {
        assert_eq!(
            answered(RUNNING),
            Ok(JobStatus::Running { nodes: "pbs1/0*2+pbs2/0*2".into(), seconds_left: Some(90) })
        );
        assert_eq!(
            answered(TORQUE),
            Ok(JobStatus::Running { nodes: "n1/3+n2/1".into(), seconds_left: Some(3600) })
        );
    }

    #[test]
    fn a_job_that_waits_tells_why_in_the_words_of_pbs_over_several_lines() {
        let text = "Job Id: 7.pbs1\n    job_state = Q\n    comment = Can Never Run: Insufficient amount of resour\n\tce: ncpus (R: 400 A: 8 T: 8)\n    queue = workq\n";
        let reason = "Can Never Run: Insufficient amount of resource: ncpus (R: 400 A: 8 T: 8)".to_owned();
        assert_eq!(answered(text), Ok(JobStatus::Queued { reason }));
    }

    #[test]
    fn ends_are_told_apart() {
        let ended = |end| JobStatus::Ended { end };
        assert_eq!(answered(FINISHED), Ok(ended(JobEnd::Failed { code: Some(3), signal: None })));
        assert_eq!(finished_with("    Exit_status = 0\n    substate = 92\n"), ended(JobEnd::Completed));
        assert_eq!(finished_with("    Exit_status = -29\n"), ended(JobEnd::TimeLimit));
        assert_eq!(finished_with("    Exit_status = 271\n    substate = 91\n"), ended(JobEnd::Cancelled));
        let killed = JobEnd::Failed { code: None, signal: Some(9) };
        assert_eq!(finished_with("    Exit_status = 265\n    substate = 93\n"), ended(killed));
    }

    #[test]
    fn a_job_that_is_not_there_any_more_has_ended_and_a_silent_server_says_nothing_about_it() {
        let unknown = complained(153, "qstat: Unknown Job Id 99999.pbs1\n");
        assert_eq!(read_status(&unknown), Ok(JobStatus::Ended { end: JobEnd::Forgotten }));
        let silent = complained(255, "qstat: cannot connect to server pbs1 (errno=15010)\n");
        assert!(matches!(read_status(&silent), Err(BatchError::Refused(_))));
        assert!(matches!(answered("nonsense"), Err(BatchError::Unreadable(_))));
    }

    #[test]
    fn ranks_are_asked_for_in_the_words_of_each_family() {
        let spec = |ranks: u32, nodes: Option<u32>| JobSpec {
            ranks: Ranks::try_from(ranks).unwrap(),
            nodes: nodes.map(|nodes| Ranks::try_from(nodes).unwrap()),
            ..JobSpec::example()
        };
        assert_eq!(resources(System::OpenPbs, &spec(4, None)), "select=4:ncpus=1:mpiprocs=1");
        assert_eq!(resources(System::OpenPbs, &spec(4, Some(2))), "select=2:ncpus=2:mpiprocs=2");
        assert_eq!(
            resources(System::OpenPbs, &spec(5, Some(3))),
            "select=2:ncpus=2:mpiprocs=2+1:ncpus=1:mpiprocs=1"
        );
        assert_eq!(resources(System::Torque, &spec(4, None)), "nodes=1:ppn=4");
        assert_eq!(resources(System::Torque, &spec(5, Some(2))), "nodes=1:ppn=3+1:ppn=2");
    }

    #[test]
    fn finished_jobs_are_asked_for_where_that_is_an_option() {
        let id: JobId = "12.pbs1".parse().unwrap();
        assert_eq!(status(System::OpenPbs, &id), ["qstat", "-x", "-f", "12.pbs1"]);
        assert_eq!(status(System::Torque, &id), ["qstat", "-f", "12.pbs1"]);
        assert_eq!(submit(&[], &["PATH", "LANG"], "a.sh"), ["qsub", "-v", "PATH,LANG", "a.sh"]);
    }
}
