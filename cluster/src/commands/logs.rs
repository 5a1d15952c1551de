//! `cluster logs`: what the controller and the engines wrote.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::Place;
use crate::cluster_file::ClusterFile;
use crate::failure::{Code, Failure};
use crate::log_file::{printable, tail};
use crate::output::print;
use crate::profile::{Profile, entries};

/// How often a followed log is looked at: a file on a network file system tells nobody that it grew.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(100);

/// So much of a log that grows is read at once.
const CHUNK_BYTES: u64 = 256 * 1024;

/// Show what the controller and the engines wrote.
///
/// Logs are kept while a cluster runs and after a failure; `cluster start --keep-logs` keeps them always. They are
/// in the profile's directory `log`.
#[derive(Args, Debug)]
pub struct Logs {
    /// Whose logs.
    #[arg(value_name = "WHOSE", default_value = "all")]
    whose: Whose,

    /// Go on showing what is written, until the cluster ends or Ctrl-C.
    #[arg(short, long)]
    follow: bool,

    /// So many lines of each log.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    lines: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Whose {
    /// The controller's and the engines'.
    All,
    /// The controller's.
    Controller,
    /// The engines'.
    Engines,
}

impl Logs {
    /// Prints, and follows if asked to.
    pub fn run(self, place: &Place) -> Result<(), Failure> {
        let profile = place.profile()?;
        let logs = self.logs(&profile)?;
        if logs.is_empty() {
            return Err(Failure::new(Code::NotFound, format!("cluster {} has no such log", profile.label()))
                .hint(format!("logs are in {}", profile.log_dir().display())));
        }
        let mut read_so_far = BTreeMap::new();
        for (name, path) in &logs {
            let length = path.metadata().map_or(0, |metadata| metadata.len());
            let text = tail(path).map_err(|error| {
                Failure::failed(format!("failed to read {}", path.display())).caused_by(error)
            })?;
            let lines: Vec<&str> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(self.lines)..] {
                show(name, line, logs.len())?;
            }
            read_so_far.insert(path.clone(), length);
        }
        if self.follow { follow(&profile, &logs, read_so_far) } else { Ok(()) }
    }

    /// The logs of a running cluster from its file; of one that ended, what lies in the directory.
    fn logs(&self, profile: &Profile) -> Result<Vec<(String, PathBuf)>, Failure> {
        let file = ClusterFile::read(&profile.cluster_file())?;
        let mut paths: Vec<PathBuf> = match &file {
            // What runs in a job writes where only the job knows.
            Some(file) if file.jobs().next().is_some() => {
                entries(&profile.log_dir(), |name| name.ends_with(".log"))?
            }
            Some(file) => file.processes().map(|process| process.output_file.clone()).collect(),
            None => entries(&profile.log_dir(), |name| name.ends_with(".log"))?,
        };
        paths.retain(|path| path.exists());
        paths.sort();
        let named = paths.into_iter().filter_map(|path| {
            let name = path.file_stem()?.to_str()?.to_owned();
            let wanted = match self.whose {
                Whose::All => ["controller", "engine", "job"].iter().any(|whose| name.starts_with(whose)),
                Whose::Controller => name.starts_with("controller"),
                Whose::Engines => name.starts_with("engine"),
            };
            wanted.then_some((name, path))
        });
        Ok(named.collect())
    }
}

fn follow(
    profile: &Profile,
    logs: &[(String, PathBuf)],
    mut read_so_far: BTreeMap<PathBuf, u64>,
) -> Result<(), Failure> {
    let mut unfinished: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    loop {
        // Looked at before reading, so that what is written last is shown.
        let live = ClusterFile::read(&profile.cluster_file())?.is_some_and(|file| file.is_live());
        for (name, path) in logs {
            let from = read_so_far.entry(path.clone()).or_default();
            let pending = unfinished.entry(path.clone()).or_default();
            while let Some(chunk) = read_from(path, *from) {
                *from += chunk.len() as u64;
                pending.extend(chunk);
                while let Some(end) = pending.iter().position(|&byte| byte == b'\n') {
                    let line: Vec<u8> = pending.drain(..=end).collect();
                    show(name, String::from_utf8_lossy(&line).trim_end_matches('\n'), logs.len())?;
                }
            }
        }
        if !live {
            return Ok(());
        }
        std::thread::sleep(FOLLOW_INTERVAL);
    }
}

/// What was written after `from`, if anything was. A log that is gone has ended.
fn read_from(path: &Path, from: u64) -> Option<Vec<u8>> {
    let mut file = File::open(path).ok()?;
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut chunk = Vec::new();
    file.take(CHUNK_BYTES).read_to_end(&mut chunk).ok()?;
    (!chunk.is_empty()).then_some(chunk)
}

fn show(name: &str, line: &str, logs: usize) -> Result<(), Failure> {
    let line = printable(line);
    print(&if logs > 1 { format!("{name} | {line}") } else { line })
}
