//! The dialects of `mpiexec`. Open MPI and MPICH take different flags for the same wish, tag output
//! differently, and tell differently that a rank died.
//!
//! A program linked with one and started by the other runs as so many worlds of one rank and reports success,
//! so the dialect is never guessed from the name `mpiexec`: ask `mpiexec --version` and read the answer here.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::job::LaunchSpec;

mod complaint;
#[cfg(test)]
mod tests;

pub use complaint::Complaint;

/// The family of an MPI, which decides how its launcher is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavor {
    /// Open MPI (`orterun` before version 5, `prterun` since).
    OpenMpi,
    /// MPICH and its relatives that start ranks with Hydra: Intel MPI, MVAPICH.
    Mpich,
}

impl Flavor {
    /// The MPI to which a shared library belongs, by its name in an executable (`libmpi.so.40`).
    ///
    /// `libmpi.so.12` is the name of the common ABI of MPICH, Intel MPI and MVAPICH; Open MPI never used 12.
    pub fn from_library_name(name: &str) -> Option<Flavor> {
        if let Some(version) = name.strip_prefix("libmpi.so.") {
            let major = version.split('.').next()?;
            return match major {
                "12" => Some(Flavor::Mpich),
                "0" | "1" | "20" | "40" | "80" => Some(Flavor::OpenMpi),
                _ => None,
            };
        }
        name.starts_with("libmpich.so").then_some(Flavor::Mpich)
    }

    /// Names under which its launcher is installed, the usual one first. Debian keeps both families side by
    /// side under the longer names; `mpiexec` is then whichever was chosen as the alternative.
    pub fn launcher_names(self) -> &'static [&'static str] {
        match self {
            Flavor::OpenMpi => &["mpiexec", "mpiexec.openmpi", "mpirun.openmpi", "orterun", "prterun"],
            Flavor::Mpich => &["mpiexec", "mpiexec.mpich", "mpiexec.hydra"],
        }
    }

    /// The Debian package that brings the launcher, for hints.
    pub fn debian_package(self) -> &'static str {
        match self {
            Flavor::OpenMpi => "openmpi-bin",
            Flavor::Mpich => "mpich",
        }
    }
}

impl fmt::Display for Flavor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flavor::OpenMpi => "Open MPI",
            Flavor::Mpich => "MPICH",
        })
    }
}

/// A launcher as its `--version` describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mpiexec {
    /// Its family.
    pub flavor: Flavor,
    /// Its version as it prints it, e.g. `4.1.4`.
    pub version: String,
}

/// The answer to `--version` names neither family.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{first_line:?} is neither Open MPI nor MPICH; name one of these with --mpiexec")]
pub struct UnknownMpiexec {
    first_line: String,
}

impl Mpiexec {
    /// Recognises the launcher by what `mpiexec --version` printed.
    pub fn from_version_text(text: &str) -> Result<Mpiexec, UnknownMpiexec> {
        let first_line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        let found = |flavor, version: Option<&str>| {
            Ok(Mpiexec { flavor, version: version.unwrap_or("unknown").trim_end_matches(',').to_owned() })
        };
        let last_word = first_line.split_whitespace().next_back();
        if ["(OpenRTE)", "(Open MPI)", "(PRRTE)"].iter().any(|name| first_line.contains(name))
            || first_line.starts_with("prterun")
        {
            return found(Flavor::OpenMpi, last_word);
        }
        if first_line.starts_with("HYDRA build details") {
            let version = text.lines().find_map(|line| line.trim().strip_prefix("Version:"));
            return found(Flavor::Mpich, version.map(str::trim));
        }
        if first_line.starts_with("Intel(R) MPI Library") {
            let mut words = first_line.split_whitespace().skip_while(|word| *word != "Version");
            return found(Flavor::Mpich, words.nth(1));
        }
        Err(UnknownMpiexec { first_line: first_line.chars().take(100).collect() })
    }

    /// The arguments after `mpiexec` that start `spec` on this machine, oversubscribed if need be.
    ///
    /// Every line of a rank's output gets its rank in front: see [`split_rank_tag`].
    pub fn arguments(&self, spec: &LaunchSpec, as_root: bool) -> Vec<String> {
        let mut line = Line(vec!["-n".into(), spec.ranks.to_string()]);
        match self.flavor {
            Flavor::OpenMpi => self.add_open_mpi_flags(&mut line, as_root),
            Flavor::Mpich => line.push(&["-prepend-rank"]),
        }
        for (name, value) in &spec.environment {
            match self.flavor {
                Flavor::OpenMpi => line.push(&["-x", &format!("{name}={value}")]),
                Flavor::Mpich => line.push(&["-genv", name, value]),
            }
        }
        line.push(&[&spec.program]);
        line.0.extend(spec.arguments.iter().cloned());
        line.0
    }

    /// What `OMPI_MCA_btl` must be for ranks of one machine to open no port; other families have no such variable.
    pub fn shared_memory_transport(&self) -> Option<&'static str> {
        let major = self
            .version
            .trim_start_matches('v')
            .split('.')
            .next()
            .and_then(|major| major.parse::<u32>().ok());
        match (self.flavor, major) {
            // Whatever else is left in (`^tcp`) finds other ways to TCP.
            (Flavor::OpenMpi, Some(5..)) => Some("self,sm"),
            (Flavor::OpenMpi, Some(3 | 4)) => Some("self,vader"),
            _ => None,
        }
    }

    /// Names the hosts, one line for each rank, where the launcher was not built to ask the batch system for them.
    pub fn node_file_arguments(&self, file: &str) -> [String; 2] {
        let flag = match self.flavor {
            Flavor::OpenMpi => "--hostfile",
            Flavor::Mpich => "-f",
        };
        [flag.to_owned(), file.to_owned()]
    }

    fn add_open_mpi_flags(&self, line: &mut Line, as_root: bool) {
        if as_root {
            line.push(&["--allow-run-as-root"]); // It refuses root otherwise, and containers are root.
        }
        // Four engines on two cores are usual here; without this, "not enough slots".
        line.push(&["--map-by", ":OVERSUBSCRIBE"]);
        // For one or two ranks the default pins each to one core, and with it both threads of an engine.
        line.push(&["--bind-to", "none"]);
        match self.major() {
            Some(major) if major >= 5 => line.push(&["--output", "TAG"]),
            _ => line.push(&["--tag-output"]),
        }
    }

    /// What an exit code of the launcher says about the ranks, when it says anything at all.
    pub fn explain_exit(&self, exit: Exit) -> String {
        let Exit::Code(code) = exit else { return format!("mpiexec {exit}") };
        match (self.flavor, code) {
            (_, 0) => "all ranks ended".to_owned(),
            (Flavor::OpenMpi, 110) => "mpiexec ended the ranks at its time limit".to_owned(),
            (Flavor::OpenMpi, 205) => "mpiexec lost its daemon on another host".to_owned(),
            (Flavor::OpenMpi, _) => match Exit::from_shell_code(code) {
                Exit::Signal(signal) => format!("a rank {}", Exit::Signal(signal)),
                Exit::Code(_) => format!("mpiexec exited with code {code}"),
            },
            // Hydra gives a rank's signal and a rank's code as the same bare number.
            (Flavor::Mpich, 1..=15) => {
                format!(
                    "a rank exited with code {code}, or {}",
                    Exit::Signal(code).to_string().replacen("exited ", "", 1)
                )
            }
            (Flavor::Mpich, _) => format!("mpiexec exited with code {code}"),
        }
    }

    fn major(&self) -> Option<u32> {
        self.version.split('.').next()?.parse().ok()
    }
}

impl fmt::Display for Mpiexec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.flavor, self.version)
    }
}

/// Takes the rank off a line of output that [`Mpiexec::arguments`] made the launcher tag.
///
/// Open MPI tags each piece that it reads, so a program that writes a line in pieces gets tags inside it too:
/// these go as well.
pub fn split_rank_tag(flavor: Flavor, line: &str) -> (Option<u32>, Cow<'_, str>) {
    let found = match flavor {
        Flavor::OpenMpi => open_mpi_tag(line),
        Flavor::Mpich => mpich_tag(line),
    };
    match found {
        Some((rank, tag, text)) if flavor == Flavor::OpenMpi && text.contains(tag) => {
            (Some(rank), Cow::Owned(text.replace(tag, "")))
        }
        Some((rank, _, text)) => (Some(rank), Cow::Borrowed(text)),
        None => (None, Cow::Borrowed(line)),
    }
}

/// Rank, tag and text of `[1,0]<stdout>:text`, since version 5 `[prterun-host-123@1,0]<stdout>: text`.
fn open_mpi_tag(line: &str) -> Option<(u32, &str, &str)> {
    let (bracket, rest) = line.strip_prefix('[')?.split_once(']')?;
    let rank = bracket.rsplit_once(',')?.1.parse().ok()?;
    let mut text = rest.strip_prefix("<stdout>:").or_else(|| rest.strip_prefix("<stderr>:"))?;
    if bracket.contains('@') {
        text = text.strip_prefix(' ').unwrap_or(text);
    }
    Some((rank, &line[..line.len() - text.len()], text))
}

/// Rank, tag and text of `[0] text`.
fn mpich_tag(line: &str) -> Option<(u32, &str, &str)> {
    let (rank, rest) = line.strip_prefix('[')?.split_once(']')?;
    let rank = rank.parse().ok()?;
    let text = if rest.is_empty() { rest } else { rest.strip_prefix(' ')? };
    Some((rank, &line[..line.len() - text.len()], text))
}

struct Line(Vec<String>);

impl Line {
    fn push(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(|word| (*word).to_owned()));
    }
}
