//! `cluster status`: what the hub knows.

use std::time::Duration;

use clap::Args;
use protocol::extension::ClusterStatus;
use serde::Serialize;
use serde_json::json;
use slurm_pbs::JobStatus;

use super::list::table;
use crate::cli::Place;
use crate::cluster_file::{ClusterFile, not_found};
use crate::failure::{Code, Failure};
use crate::hub::{ANSWER_TIMEOUT, HubLink};
use crate::output::{duration, print, print_json};
use crate::profile::Profile;

/// Show the engines of a cluster, where they run, and what is queued.
///
/// Asks the controller; the cluster may have been started by other means than `cluster start`.
#[derive(Args, Debug)]
pub struct Status {}

/// What our own cluster file adds.
#[derive(Debug, Serialize)]
struct Files {
    cluster: String,
    profile_dir: String,
    engine_sets: Vec<Set>,
}

#[derive(Debug, Serialize)]
struct Set {
    set: u32,
    launcher: String,
    engines: u32,
    processes_alive: usize,
    processes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<Job>,
}

/// What the batch system says of a job.
#[derive(Debug, Serialize)]
struct Job {
    id: String,
    system: String,
    /// None if it does not answer.
    status: Option<JobStatus>,
}

impl Status {
    /// Asks and prints.
    pub fn run(self, place: &Place, json: bool) -> Result<(), Failure> {
        let profile = place.profile()?;
        let file = ClusterFile::read(&profile.cluster_file())?;
        if !profile.client_file().exists() {
            return Err(match &file {
                None => not_found(&profile),
                Some(file) if file.is_live() => {
                    Failure::new(Code::LostContact, "the controller is not up yet, or gone")
                        .hint(format!("see: {}", profile.command("cluster", "logs controller")))
                }
                Some(_) => {
                    Failure::new(Code::NotFound, format!("cluster {} does not run any more", profile.label()))
                        .hint(format!("remove what it left: {}", profile.command("cluster", "clean")))
                }
            });
        }
        let files = files(&profile, file.as_ref());
        let mut hub = HubLink::connect(&profile.client_file())?;
        match hub.status() {
            Ok(status) if json => print_json(&json!({ "files": files, "hub": status })),
            Ok(status) => print(&text(&files, &status)),
            Err(failure) if failure.code == Code::LostContact => Err(failure),
            Err(_) => {
                // A stock controller: it can still tell who is there.
                let ids: Vec<u32> = hub.engines(ANSWER_TIMEOUT)?.iter().map(|engine| engine.id.0).collect();
                if json {
                    return print_json(&json!({ "files": files, "hub": { "engines": ids } }));
                }
                print(&format!("cluster {}: {} engines: {ids:?}", files.cluster, ids.len()))
            }
        }
    }
}

fn files(profile: &Profile, file: Option<&ClusterFile>) -> Files {
    let sets = file.into_iter().flat_map(|file| {
        file.engines.sets.iter().map(move |(&set, found)| Set {
            set,
            launcher: found.class.to_string(),
            engines: found.n,
            processes_alive: file.live_count(found),
            processes: found.engines.len(),
            job: found.job.as_ref().map(|job| Job {
                id: job.id.to_string(),
                system: job.system.to_string(),
                status: job.status().ok(),
            }),
        })
    });
    Files {
        cluster: profile.label(),
        profile_dir: profile.dir().display().to_string(),
        engine_sets: sets.collect(),
    }
}

impl Job {
    /// `job 12 of Slurm runs on n[1-2], 58 min left`
    fn text(&self) -> String {
        let what = match &self.status {
            None => "cannot be asked after: the batch system does not answer".to_owned(),
            Some(JobStatus::Queued { reason }) if reason.is_empty() => "waits in the queue".to_owned(),
            Some(JobStatus::Queued { reason }) => format!("waits in the queue: {reason}"),
            Some(JobStatus::Running { nodes, seconds_left: Some(left) }) => {
                format!("runs on {nodes}, {} left", duration(Duration::from_secs(*left)))
            }
            Some(JobStatus::Running { nodes, seconds_left: None }) => {
                format!("runs on {nodes}, without a time limit")
            }
            Some(JobStatus::Ending) => "is being ended".to_owned(),
            Some(JobStatus::Ended { end }) => end.to_string(),
        };
        format!("job {} of {} {what}", self.id, self.system)
    }
}

fn text(files: &Files, status: &ClusterStatus) -> String {
    let seconds = |seconds: f64| duration(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    let mut text = format!(
        "cluster {}: {} engines, {} joining, {} clients, {} tasks waiting\n\
         controller: pid {} on {}, up {}, {:.1} MB, version {}",
        files.cluster,
        status.engines.len(),
        status.joining,
        status.clients,
        status.waiting_tasks,
        status.pid,
        status.host,
        seconds(status.uptime_seconds),
        status.memory_bytes as f64 / 1e6,
        status.version,
    );
    for set in files.engine_sets.iter().filter(|set| set.processes_alive < set.processes) {
        text.push_str(&format!(
            "\nset {}: {} of {} {} processes are gone",
            set.set,
            set.processes - set.processes_alive,
            set.processes,
            set.launcher
        ));
    }
    for (set, job) in files.engine_sets.iter().filter_map(|set| Some((set.set, set.job.as_ref()?))) {
        text.push_str(&format!("\nset {set}: {}", job.text()));
    }
    if status.engines.is_empty() {
        return text;
    }
    let mut rows =
        vec![["ENGINE", "HOST", "PID", "WORLD", "QUEUED", "TASKS", "DONE", "HEARD OF"].map(str::to_owned)];
    rows.extend(status.engines.iter().map(|(id, state)| {
        let world = match &state.engine.world {
            Some(_) => format!("rank {} of {}", state.engine.rank, state.engine.world_size),
            None => "-".to_owned(),
        };
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let pid = if state.engine.pid == 0 { "-".to_owned() } else { state.engine.pid.to_string() };
        [
            id.to_string(),
            or_dash(&state.engine.host),
            pid,
            world,
            state.queue.to_string(),
            state.tasks.to_string(),
            state.completed.to_string(),
            format!("{} ago", seconds(state.silent_seconds)),
        ]
    }));
    text.push('\n');
    text.push_str(&table(&rows));
    text
}
