//! `cluster list`: all clusters and whether they run.

use clap::Args;
use serde::Serialize;

use crate::cli::Place;
use crate::cluster_file::ClusterFile;
use crate::failure::Failure;
use crate::output::{print, print_json};
use crate::profile::{Profile, all_cluster_files};

/// Show all clusters and whether they run.
///
/// Looks at the cluster files of every profile (or of the profile that is named) and at the processes they name;
/// it asks no controller.
#[derive(Args, Debug)]
pub struct List {}

/// One line.
#[derive(Debug, Serialize)]
struct Entry {
    cluster: String,
    cluster_id: String,
    profile_dir: String,
    /// `running`, `degraded`, `stale`, `elsewhere` or `unreadable`.
    state: &'static str,
    engines: u32,
    launcher: String,
    host: String,
    started_at: String,
    controller: Option<i32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    jobs: Vec<String>,
}

impl List {
    /// Prints the table.
    pub fn run(self, place: &Place, json: bool) -> Result<(), Failure> {
        let mut entries = Vec::new();
        for path in all_cluster_files(&place.options())? {
            let Some(profile) = Profile::of_cluster_file(&path) else { continue };
            match ClusterFile::read(&path) {
                Ok(Some(file)) => entries.push(entry(&profile, &file)),
                Ok(None) => {} // It ended since the directory was read.
                Err(_) => entries.push(unreadable(&profile)),
            }
        }
        if json {
            return print_json(&entries);
        }
        if entries.is_empty() {
            return print("no cluster; start one with: cluster start -n 4");
        }
        let mut rows = vec![
            ["CLUSTER", "STATE", "ENGINES", "LAUNCHER", "CONTROLLER", "HOST", "STARTED", "JOBS"]
                .map(str::to_owned),
        ];
        rows.extend(entries.iter().map(Entry::row));
        print(&table(&rows))
    }
}

impl Entry {
    fn row(&self) -> [String; 8] {
        let controller = self.controller.map_or_else(|| "-".to_owned(), |pid| format!("pid {pid}"));
        let started = self.started_at.get(..16).unwrap_or_default().replace('T', " ");
        [
            self.cluster.clone(),
            self.state.to_owned(),
            self.engines.to_string(),
            self.launcher.clone(),
            controller,
            self.host.clone(),
            started,
            if self.jobs.is_empty() { "-".to_owned() } else { self.jobs.join(", ") },
        ]
    }
}

fn entry(profile: &Profile, file: &ClusterFile) -> Entry {
    let controller = file.controller.as_ref().and_then(|controller| controller.state.as_ref());
    let mut launchers: Vec<String> = file.engines.sets.values().map(|set| set.class.to_string()).collect();
    launchers.dedup();
    Entry {
        cluster: profile.label(),
        cluster_id: file.cluster.cluster_id.clone(),
        profile_dir: file.cluster.profile_dir.display().to_string(),
        state: state(file),
        engines: file.engines.sets.values().map(|set| set.n).sum(),
        launcher: launchers.join(", "),
        host: file.cluster.host.clone(),
        started_at: file.cluster.started_at.to_string(),
        controller: controller.map(|state| state.id.pid),
        jobs: file.jobs().map(|job| job.id.to_string()).collect(),
    }
}

fn unreadable(profile: &Profile) -> Entry {
    Entry {
        cluster: profile.label(),
        cluster_id: profile.cluster_id().to_owned(),
        profile_dir: profile.dir().display().to_string(),
        state: "unreadable",
        engines: 0,
        launcher: String::new(),
        host: String::new(),
        started_at: String::new(),
        controller: None,
        jobs: Vec::new(),
    }
}

fn state(file: &ClusterFile) -> &'static str {
    if !file.is_of_this_host() {
        return "elsewhere";
    }
    let complete = (file.controller.is_none() || file.controller_is_live())
        && file.engines.sets.values().all(|set| file.live_count(set) == set.engines.len());
    match (file.is_live(), complete) {
        (false, _) => "stale",
        (true, true) => "running",
        (true, false) => "degraded",
    }
}

/// Columns as wide as their widest cell.
pub fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
