//! `cluster clean`: removes what killed clusters left behind.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::stop::end_everything;
use crate::cli::Place;
use crate::cluster_file::{ClusterFile, Lock, remove_if_there};
use crate::failure::Failure;
use crate::hub::answers;
use crate::output::{print, print_json};
use crate::profile::{Profile, all_cluster_files, entries};

/// Remove what clusters left behind that were killed: stale files and old logs.
///
/// Looks at every profile (or the one that is named). Refuses to touch a cluster that runs.
#[derive(Args, Debug)]
pub struct Clean {
    /// Stop clusters that run first, and remove files even if they were written by another program or name
    /// another machine.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Serialize)]
struct Cleaned {
    removed: Vec<String>,
    running: Vec<String>,
}

impl Clean {
    /// Cleans each profile.
    pub fn run(self, place: &Place, json: bool) -> Result<(), Failure> {
        let mut profiles: Vec<Profile> = all_cluster_files(&place.options())?
            .iter()
            .filter_map(|path| Profile::of_cluster_file(path))
            .collect();
        let named = place.profile()?;
        if !profiles.iter().any(|profile| profile.cluster_file() == named.cluster_file()) {
            profiles.push(named);
        }
        let mut cleaned = Cleaned { removed: Vec::new(), running: Vec::new() };
        for profile in profiles.iter().filter(|profile| profile.security_dir().is_dir()) {
            self.clean(profile, &mut cleaned)?;
        }
        if json {
            print_json(&cleaned)?;
        } else {
            for path in &cleaned.removed {
                print(&format!("removed {path}"))?;
            }
            if cleaned.removed.is_empty() && cleaned.running.is_empty() {
                print("nothing to clean")?;
            }
        }
        if cleaned.running.is_empty() {
            return Ok(());
        }
        Err(Failure::failed(format!(
            "these clusters are running and were left alone: {}",
            cleaned.running.join("; ")
        ))
        .hint("stop them with: cluster stop, or stop and clean with: cluster clean --force"))
    }

    fn clean(&self, profile: &Profile, cleaned: &mut Cleaned) -> Result<(), Failure> {
        match ClusterFile::read(&profile.cluster_file()) {
            Ok(Some(file)) if file.is_live() && !self.force => {
                cleaned.running.push(profile.label());
                return Ok(());
            }
            Ok(Some(file)) if file.is_of_this_host() => {
                let existed = present(profile);
                end_everything(profile, &file)?;
                cleaned.removed.extend(
                    existed.iter().filter(|path| !path.exists()).map(|path| path.display().to_string()),
                );
            }
            Ok(Some(_)) | Ok(None) => {}
            Err(failure) if !self.force => return Err(failure),
            Err(_) => {}
        }
        if !self.force && answers(&profile.client_file()) {
            // A controller that was started by hand.
            cleaned.running.push(profile.label());
            return Ok(());
        }
        let _lock = Lock::take(profile)?;
        for path in present(profile) {
            remove_if_there(&path).map_err(|error| {
                Failure::failed(format!("failed to remove {}", path.display())).caused_by(error)
            })?;
            cleaned.removed.push(path.display().to_string());
        }
        Ok(())
    }
}

/// What a cluster may have left: its files, and its logs.
fn present(profile: &Profile) -> Vec<PathBuf> {
    let files =
        [profile.cluster_file(), profile.client_file(), profile.engine_file(), profile.engine_state_file()];
    let logs = entries(&profile.log_dir(), |name| is_log_of(name, profile.cluster_id())).unwrap_or_default();
    files.into_iter().filter(|path| path.exists()).chain(logs).collect()
}

/// Whether a file in the log directory was written for this cluster: `controller-ID.log`, `engines-0-ID.log`.
fn is_log_of(name: &str, cluster_id: &str) -> bool {
    let Some(stem) = name.strip_suffix(".log") else { return false };
    let stem = match cluster_id {
        "" => Some(stem),
        id => stem.strip_suffix(id).and_then(|stem| stem.strip_suffix('-')),
    };
    let Some(stem) = stem else { return false };
    let numbered = |prefix: &str| {
        stem.strip_prefix(prefix).is_some_and(|rest| {
            !rest.is_empty()
                && rest
                    .split('-')
                    .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
        })
    };
    stem == "controller" || numbered("engine-") || numbered("engines-") || numbered("cluster-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_logs_of_this_cluster_are_removed() {
        for name in ["controller.log", "engines-0.log", "engine-0-12.log", "cluster-4711.log"] {
            assert!(is_log_of(name, ""), "{name}");
        }
        for name in ["controller-x.log", "engines-0-x.log", "engine-0-12-x.log", "cluster-4711-x.log"] {
            assert!(is_log_of(name, "x"), "{name}");
            assert!(!is_log_of(name, ""), "{name}");
        }
        for name in ["my.log", "engines.json", "engine-.log", "results-0.log", "controller.log.gz"] {
            assert!(!is_log_of(name, ""), "{name}");
        }
    }
}
