//! Engines as jobs: a real Slurm, PBS over it, and a double of OpenPBS.

mod apart;
mod doctor;
mod hosts;
mod pbs;
mod slurm;
mod tunnels;

use std::path::Path;
use std::process::Command;

use tests::{Finished, program, run};

/// A profile in a temporary directory, and our programs run for it by `command`.
struct Place<'a> {
    profile: tempfile::TempDir,
    command: Box<dyn Fn(&Path) -> Command + 'a>,
}

impl<'a> Place<'a> {
    fn new(command: impl Fn(&Path) -> Command + 'a) -> Place<'a> {
        let profile = tempfile::Builder::new().prefix("commworld").tempdir().expect("a temporary directory");
        Place { profile, command: Box::new(command) }
    }

    fn profile(&self) -> &Path {
        self.profile.path()
    }

    /// `cluster` or `client` for this profile, not yet started.
    fn prepare(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = (self.command)(&program(name));
        command.args(arguments);
        let place = format!("--profile-dir={}", self.profile().display());
        // What follows `--` is not ours.
        match arguments.iter().position(|argument| *argument == "--") {
            None => command.arg(place),
            Some(own_end) => {
                command = (self.command)(&program(name));
                command.args(&arguments[..own_end]).arg(place).args(&arguments[own_end..])
            }
        };
        // PBS puts the output of a job where it was submitted.
        command.current_dir(self.profile());
        command
    }

    #[track_caller]
    fn cluster(&self, arguments: &[&str]) -> Finished {
        run(&mut self.prepare("cluster", arguments))
    }

    #[track_caller]
    fn client(&self, arguments: &[&str]) -> Finished {
        run(&mut self.prepare("client", arguments))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let stopped = run(&mut self.prepare("cluster", &["stop"]));
        if std::thread::panicking() {
            eprintln!("cluster stop: {}{}", stopped.stdout, stopped.stderr);
            for entry in std::fs::read_dir(self.profile().join("log")).into_iter().flatten().flatten() {
                let log = std::fs::read_to_string(entry.path()).unwrap_or_default();
                eprintln!("── {} ──\n{log}", entry.path().display());
            }
        }
    }
}
