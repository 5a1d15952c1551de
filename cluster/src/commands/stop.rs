//! `cluster stop`: ends a cluster from any shell, from its cluster file alone.

use std::time::{Duration, Instant};

use clap::Args;
use nix::sys::signal::Signal;
use serde::Serialize;

use crate::cli::Place;
use crate::cluster_file::{self, ClusterFile, ProcessState};
use crate::failure::{Code, Failure};
use crate::hub::{ANSWER_TIMEOUT, HubLink};
use crate::launch;
use crate::output::{duration, print, print_json};
use crate::process::wait_until_gone;
use crate::profile::{Profile, all_cluster_files};
use crate::supervisor::OTHER_SUPERVISORS_GRACE;
use crate::teardown::{Outcome, Teardown, remove_connection_files};

/// A batch system takes its time to end a job, and a supervisor waits for that.
const JOB_SUPERVISORS_GRACE: Duration = Duration::from_secs(150);

/// A job ends by itself when its engines were told to.
const ORDERLY_JOB_END: Duration = Duration::from_secs(5);

/// End a cluster: engines, controller and the command that watches over them.
///
/// The engines are told first and get a moment to end; what remains gets SIGTERM, then SIGKILL. The command
/// returns when every process is gone and the cluster's files are removed. It works also when the command that
/// started the cluster was killed. A job of a batch system that does not end by itself is cancelled, and looked after
/// until it has ended; also from another login node.
#[derive(Args, Debug)]
pub struct Stop {
    /// Stop every cluster of every profile (or of the profile that is named).
    #[arg(long)]
    all: bool,
}

/// How it went for one cluster.
#[derive(Debug, Serialize)]
struct Stopped {
    cluster: String,
    was_running: bool,
    killed: Vec<i32>,
    seconds: f64,
}

impl Stop {
    /// Returns when all is gone.
    pub fn run(self, place: &Place, json: bool) -> Result<(), Failure> {
        let stopped = if self.all { stop_all(place)? } else { vec![stop(&place.profile()?)?] };
        if json {
            return print_json(&stopped);
        }
        if stopped.is_empty() {
            return print("no cluster is running");
        }
        stopped.iter().try_for_each(|stopped| print(&stopped.text()))
    }
}

impl Stopped {
    fn text(&self) -> String {
        let Stopped { cluster, was_running, killed, seconds } = self;
        if !was_running {
            return format!("cluster {cluster}: was not running any more, its files are removed");
        }
        let by_force = match killed.len() {
            0 => String::new(),
            count => format!(", {count} by force"),
        };
        format!("cluster {cluster}: stopped{by_force} ({})", duration(Duration::from_secs_f64(*seconds)))
    }
}

fn stop_all(place: &Place) -> Result<Vec<Stopped>, Failure> {
    let mut stopped = Vec::new();
    let mut first_failure = None;
    for path in all_cluster_files(&place.options())? {
        let Some(profile) = Profile::of_cluster_file(&path) else { continue };
        match stop(&profile) {
            Ok(one) => stopped.push(one),
            Err(failure) if failure.code == Code::NotFound => {} // It went by itself in the meantime.
            Err(failure) => first_failure = first_failure.or(Some(failure)),
        }
    }
    match first_failure {
        Some(failure) => Err(failure.because(format!("{} other clusters were stopped", stopped.len()))),
        None => Ok(stopped),
    }
}

fn stop(profile: &Profile) -> Result<Stopped, Failure> {
    let began = Instant::now();
    let file = ClusterFile::read_existing(profile)?;
    let was_running = file.is_live();
    let outcome = end_everything(profile, &file)?;
    Ok(Stopped {
        cluster: profile.label(),
        was_running,
        killed: outcome.killed.iter().map(|id| id.pid).collect(),
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// Ends what a cluster file names and removes the file.
pub fn end_everything(profile: &Profile, file: &ClusterFile) -> Result<Outcome, Failure> {
    if !file.is_of_this_host() {
        if file.jobs().next().is_some() {
            return end_from_afar(profile, file);
        }
        return Err(Failure::failed(format!("cluster {} runs on {}", profile.label(), file.cluster.host))
            .hint(format!(
                "log in there and type: {}; if that machine is gone: {}",
                profile.command("cluster", "stop"),
                profile.command("cluster", "clean --force")
            )));
    }
    // Who watches over the processes knows best how to end them.
    let supervisors = file.live_supervisors();
    for supervisor in &supervisors {
        supervisor.signal(Signal::SIGTERM).map_err(|error| {
            Failure::failed(format!("failed to signal process {}", supervisor.pid))
                .caused_by(error)
                .hint("the cluster belongs to another user")
        })?;
    }
    let has_jobs = file.jobs().next().is_some();
    let grace = if has_jobs { JOB_SUPERVISORS_GRACE } else { OTHER_SUPERVISORS_GRACE };
    let deaf = wait_until_gone(&supervisors, Instant::now() + grace, || false);
    for supervisor in deaf {
        let _ = supervisor.signal(Signal::SIGKILL); // Its children follow it, and are looked at next.
    }
    let outcome = if file.is_of_this_boot() { end_processes(profile, file)? } else { Outcome::default() };
    // Those that nobody watches over any more, also of before a reboot.
    for job in file.jobs() {
        job.end(Duration::ZERO, || false)?;
    }
    let _lock = cluster_file::Lock::take(profile)?;
    if let Some(controller) = file.controller.as_ref().and_then(|controller| controller.state.as_ref()) {
        remove_connection_files_of(profile, controller)?;
    }
    // A new cluster may have been started since: its file is not ours.
    let now = ClusterFile::read(&profile.cluster_file())?;
    if now.is_some_and(|now| now.cluster.started_at == file.cluster.started_at) {
        let path = profile.cluster_file();
        cluster_file::remove_if_there(&path).map_err(|error| {
            Failure::failed(format!("failed to remove {}", path.display())).caused_by(error)
        })?;
    }
    Ok(outcome)
}

/// The cluster was started on another machine: its jobs can be ended from here, and its controller over the network.
fn end_from_afar(profile: &Profile, file: &ClusterFile) -> Result<Outcome, Failure> {
    let told = HubLink::connect(&profile.client_file()).and_then(|mut hub| hub.shut_down(ANSWER_TIMEOUT));
    for job in file.jobs() {
        job.end(if told.is_ok() { ORDERLY_JOB_END } else { Duration::ZERO }, || false)?;
    }
    told.map_err(|failure| {
        failure
            .because(format!("its jobs have been ended; its controller ran on {}", file.cluster.host))
            .hint(format!(
                "log in there and type: {}; if that machine is gone: {}",
                profile.command("cluster", "stop"),
                profile.command("cluster", "clean --force")
            ))
    })?;
    let _lock = cluster_file::Lock::take(profile)?;
    for path in [profile.cluster_file(), profile.client_file(), profile.engine_file()] {
        cluster_file::remove_if_there(&path).map_err(|error| {
            Failure::failed(format!("failed to remove {}", path.display())).caused_by(error)
        })?;
    }
    Ok(Outcome::default())
}

fn end_processes(profile: &Profile, file: &ClusterFile) -> Result<Outcome, Failure> {
    let controller = file.controller.as_ref().and_then(|controller| controller.state.clone());
    let outcome = Teardown {
        engines: file.engine_processes().cloned().collect(),
        client_file: controller.is_some().then(|| profile.client_file()),
        controller,
    }
    .run(|| false);
    outcome.check()?;
    for set in file.engines.sets.values() {
        for process in set.engines.values() {
            launch::remove_leftovers(set.class, process.id.pid);
        }
    }
    Ok(outcome)
}

fn remove_connection_files_of(profile: &Profile, controller: &ProcessState) -> Result<(), Failure> {
    let successor = ClusterFile::read(&profile.cluster_file())?
        .and_then(|file| file.controller)
        .and_then(|controller| controller.state)
        .is_some_and(|state| state.id != controller.id);
    if successor { Ok(()) } else { remove_connection_files(profile, controller) }
}
