//! Runs ipyparallel's own tests, as installed, against our controller, and compares with what the original passes.
//!
//! Engines and client are the originals. `tests/foreign/suite/sitecustomize.py` puts our controller in the place of
//! the other one; no file of the package or its tests is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::{cargo, step};

/// Left out, because this project does not set it up: a batch system, mpiexec with mpi4py, a MongoDB server.
const SELECTION: &str = "not slurm and not test_mpi and not mongodb";

/// What `cargo xtask ci` runs: dependencies, retries, timeouts, maps, executors, the death of an engine.
pub(crate) const QUICK: [&str; 4] =
    ["test_executor", "test_remotefunction", "test_dependency", "test_lbview"];

/// The same for our Python engines: also data and code that move, magics, output and Ctrl-C.
pub(crate) const QUICK_OF_OUR_ENGINES: [&str; 3] = ["test_view", "test_magics", "test_remotefunction"];

/// What is built: the plugin is a program's library, which no program depends on.
const PROGRAMS: [&str; 3] = ["controller", "engine", "engine-python"];

/// Seconds for one test. Most have limits of their own of 30 s, but those for Ctrl-C replace these by others.
const TEST_SECONDS: u32 = 120;

/// For one file of tests: the longest takes 90 s on two cores, and a file that hangs ends by the limit above.
const FILE_LIMIT: Duration = Duration::from_secs(900);

/// How much of a stock client's CPU time our controller may use for tasks that do nothing: twice what was measured.
const SHARE_AT_MOST: &str = "0.4";

/// Tests that pass with the original.
const REFERENCE: &str = "tests/foreign/suite/reference.txt";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Files of ipyparallel's tests, such as test_view; all of them if none is named.
    files: Vec<String>,
    /// Whose controller.
    #[arg(long, value_enum, default_value_t = Whose::Ours)]
    controller: Whose,
    /// Whose engines: ours are Python engines, in the interpreter that the tests run in.
    #[arg(long, value_enum, default_value_t = Whose::Theirs)]
    engines: Whose,
    /// pytest's expression for the tests to run.
    #[arg(short = 'k', long, value_name = "EXPRESSION", default_value = SELECTION)]
    select: String,
    /// With --controller theirs and no files: write down what passes, for later runs to be compared with.
    #[arg(long)]
    bless: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Whose {
    /// This project's.
    Ours,
    /// The original, for a score to compare with on the same machine.
    Theirs,
}

/// The programs that take the place of the original's; none: the original.
#[derive(Clone, Debug, Default)]
struct Ours {
    controller: Option<PathBuf>,
    engine: Option<PathBuf>,
}

impl Ours {
    fn of(folder: &Path, controller: Whose, engines: Whose) -> Ours {
        Ours {
            controller: (controller == Whose::Ours).then(|| folder.join("controller")),
            engine: (engines == Whose::Ours).then(|| folder.join("engine")),
        }
    }

    /// For the folder of results, and for people.
    fn name(&self) -> &'static str {
        match (&self.controller, &self.engine) {
            (Some(_), Some(_)) => "ours",
            (Some(_), None) => "our-controller",
            (None, Some(_)) => "our-engines",
            (None, None) => "theirs",
        }
    }
}

/// How to run one file of tests.
struct Suite {
    root: PathBuf,
    python: PathBuf,
    ours: Ours,
    /// ipyparallel's installed tests.
    tests: PathBuf,
    /// Where outcomes and logs go.
    results: PathBuf,
    /// In the environment of all that this run starts, and of nothing else.
    mark: String,
    select: String,
}

pub(crate) fn run(root: &Path, arguments: &Arguments) -> Result<()> {
    let whole = arguments.files.is_empty() && arguments.select == SELECTION;
    let theirs = arguments.controller == Whose::Theirs && arguments.engines == Whose::Theirs;
    ensure!(
        !arguments.bless || (whole && theirs),
        "--bless goes with --controller theirs, --engines theirs and all tests"
    );
    if !theirs {
        let mut build = cargo(root);
        build.args(["build", "--release"]);
        build.args(PROGRAMS.iter().flat_map(|package| ["--package", package]));
        step(root, "optimised programs", &mut build)?;
    }
    let folder = target(root).join("release");
    let ours = Ours::of(&folder, arguments.controller, arguments.engines);
    let suite = Suite::prepare(root, ours, &arguments.select)?;
    let outcomes = suite.run(&arguments.files)?;
    let reference = root.join(REFERENCE);
    if arguments.bless {
        return bless(&reference, &outcomes);
    }
    suite.judge(&outcomes, &read_reference(&reference)?)?;
    if arguments.files.is_empty() { suite.cost() } else { Ok(()) }
}

/// The quick files against the programs that were built for the other tests.
pub(crate) fn quick(root: &Path) -> Result<()> {
    let reference = read_reference(&root.join(REFERENCE))?;
    for (engines, files) in [(Whose::Theirs, &QUICK[..]), (Whose::Ours, &QUICK_OF_OUR_ENGINES[..])] {
        let ours = Ours::of(&target(root).join("debug"), Whose::Ours, engines);
        let suite = Suite::prepare(root, ours, SELECTION)?;
        let files: Vec<String> = files.iter().map(|&file| file.to_owned()).collect();
        let outcomes = suite.run(&files)?;
        suite.judge(&outcomes, &reference)?;
    }
    Ok(())
}

/// Where cargo puts what it builds.
fn target(root: &Path) -> PathBuf {
    root.join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// What became of a test, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    kind: String,
    reason: String,
}

/// By the test's name. A test that was collected and never ended is `missing`.
type Outcomes = BTreeMap<String, Outcome>;

impl Suite {
    fn prepare(root: &Path, ours: Ours, select: &str) -> Result<Suite> {
        let python = PathBuf::from(answer(&mut Command::new(root.join("scripts/foreign.sh")))?);
        let find = "import ipyparallel, os.path; print(os.path.dirname(ipyparallel.__file__))";
        // Not in the project's folder, where Python would look for modules first.
        let mut command = Command::new(&python);
        command.args(["-c", find]).current_dir(root.join("target"));
        let tests = Path::new(&answer(&mut command)?).join("tests");
        let results = target(root).join("foreign").join(ours.name());
        let _ = std::fs::remove_dir_all(&results);
        std::fs::create_dir_all(&results)
            .with_context(|| format!("failed to create {}", results.display()))?;
        for program in ours.controller.iter().chain(&ours.engine) {
            ensure!(program.is_file(), "{} was not built", program.display());
        }
        Ok(Suite {
            root: root.to_owned(),
            python,
            ours,
            tests,
            results,
            mark: format!("COMMWORLD_FOREIGN_RUN={}", std::process::id()),
            select: select.to_owned(),
        })
    }

    fn run(&self, files: &[String]) -> Result<Outcomes> {
        let mut names = Vec::new();
        for name in files {
            let name = format!("{}.py", name.trim_end_matches(".py"));
            ensure!(self.tests.join(&name).is_file(), "ipyparallel has no tests {name}");
            names.push(name);
        }
        if names.is_empty() {
            let entries = std::fs::read_dir(&self.tests).context("failed to list ipyparallel's tests")?;
            names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
            names.retain(|name| name.starts_with("test_") && name.ends_with(".py"));
            names.sort();
        }
        let mut outcomes = Outcomes::new();
        for name in names {
            let started = Instant::now();
            let of_file = self.run_file(&name)?;
            if !of_file.is_empty() {
                eprintln!(
                    "{name:<26} {} in {:.0} s",
                    totals(&of_file).trim_end_matches(", 0 failed"),
                    started.elapsed().as_secs_f64()
                );
            }
            outcomes.extend(of_file);
        }
        Ok(outcomes)
    }

    /// The original's Python as a user has it, but for whose controller is started.
    fn command(&self) -> Result<Command> {
        let home = self.results.join("home");
        std::fs::create_dir_all(&home).context("failed to create a home for the tests")?;
        let mut command = Command::new(&self.python);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("IPP_") {
                command.env_remove(variable);
            }
        }
        let (mark, value) = self.mark.split_once('=').expect("it was made with one");
        command
            .current_dir(&home)
            .env(mark, value)
            .env("PYTHONPATH", self.root.join("tests/foreign/suite"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env_remove("COMMWORLD_CONTROLLER")
            .env_remove("COMMWORLD_ENGINE")
            // Away from the profiles of whoever runs this.
            .env("HOME", &home)
            .env("IPYTHONDIR", home.join("ipython"))
            .env("JUPYTER_PLATFORM_DIRS", "1")
            .stdin(Stdio::null());
        if let Some(controller) = &self.ours.controller {
            command.env("COMMWORLD_CONTROLLER", controller);
        }
        if let Some(engine) = &self.ours.engine {
            command.env("COMMWORLD_ENGINE", engine);
        }
        Ok(command)
    }

    /// Prints what the controller costs beside a client that submits as fast as it can.
    fn cost(&self) -> Result<()> {
        let foreign = self.root.join("tests/foreign");
        let path = std::env::join_paths([foreign.join("programs"), foreign.join("suite")])
            .context("failed to name two folders")?;
        let mut command = self.command()?;
        command.arg(foreign.join("programs/cost.py"));
        command.env("PYTHONPATH", path).env("PROFILE_DIR", self.results.join("cost"));
        command.env("SECONDS_AT_MOST", "300");
        if self.ours.controller.is_some() {
            command.env("SHARE_AT_MOST", SHARE_AT_MOST);
        }
        println!("{}", answer(&mut command)?);
        end_marked(&self.mark)?;
        Ok(())
    }

    fn run_file(&self, name: &str) -> Result<Outcomes> {
        let stem = name.trim_end_matches(".py");
        let log = self.results.join(format!("{stem}.log"));
        let rows = self.results.join(format!("{stem}.tsv"));
        let output = File::create(&log).with_context(|| format!("failed to write {}", log.display()))?;
        let suite = self.root.join("tests/foreign/suite");

        let mut command = self.command()?;
        command
            .args(["-m", "pytest", "-p", "outcomes", "-k", &self.select])
            .arg("-c")
            .arg(suite.join("pytest.ini"))
            .arg("--rootdir")
            .arg(&self.tests)
            // A thread, because the tests use the alarm signal that the other method needs.
            .args([&format!("--timeout={TEST_SECONDS}"), "--timeout-method=thread"])
            .arg(self.tests.join(name))
            .env("COMMWORLD_OUTCOMES", &rows)
            .stdout(output.try_clone().context("failed to share a file")?)
            .stderr(output);
        let mut child = command.spawn().with_context(|| format!("failed to start {command:?}"))?;
        let deadline = Instant::now() + FILE_LIMIT;
        while child.try_wait().context("failed to wait for pytest")?.is_none() {
            if Instant::now() > deadline {
                eprintln!("{name}: killed after {} s", FILE_LIMIT.as_secs());
                let _ = child.kill();
                let _ = child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        for left in end_marked(&self.mark)? {
            eprintln!("{name}: left behind and killed: {left}");
        }
        let text = match std::fs::read_to_string(&rows) {
            Ok(text) => text,
            // A file none of whose tests were selected.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(error).with_context(|| format!("failed to read {}", rows.display()));
            }
        };
        Ok(parse(&text))
    }

    /// Prints the score and fails if a test of the reference did not pass.
    fn judge(&self, outcomes: &Outcomes, reference: &BTreeSet<String>) -> Result<()> {
        let lost: Vec<(&String, &Outcome)> = outcomes
            .iter()
            .filter(|(name, outcome)| reference.contains(*name) && !outcome.passed())
            .collect();
        println!("{}", report(outcomes));
        println!("logs: {}", self.results.display());
        let whose = self.ours.name();
        if whose == "theirs" {
            return Ok(());
        }
        let passing = outcomes.keys().filter(|name| reference.contains(*name)).count();
        ensure!(passing > 0, "none of these tests pass with the original, so nothing was compared");
        println!("{} of the {passing} that pass with the original pass with {whose}", passing - lost.len());
        if lost.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = lost.iter().map(|(name, _)| name.as_str()).collect();
        bail!("{} tests pass with the original and not with {whose}:\n  {}", lost.len(), names.join("\n  "))
    }
}

impl Outcome {
    fn passed(&self) -> bool {
        // An expected failure that does not fail was expected of the original only.
        matches!(self.kind.as_str(), "passed" | "xpassed")
    }
}

/// Reads what `outcomes.py` wrote.
fn parse(text: &str) -> Outcomes {
    let mut outcomes = Outcomes::new();
    for line in text.lines() {
        let mut fields = line.splitn(4, '\t');
        let (Some(kind), Some(_seconds), Some(name)) = (fields.next(), fields.next(), fields.next()) else {
            continue; // The last line of a run that was killed.
        };
        let outcome = match kind {
            "collected" => Outcome { kind: "missing".to_owned(), reason: "never ended".to_owned() },
            kind => Outcome { kind: kind.to_owned(), reason: fields.next().unwrap_or_default().to_owned() },
        };
        outcomes.insert(name.to_owned(), outcome);
    }
    outcomes
}

/// `450 passed, 26 skipped, 0 failed`.
fn totals(outcomes: &Outcomes) -> String {
    let count = |kind: &str| outcomes.values().filter(|outcome| outcome.kind == kind).count();
    let mut text = format!("{} passed", count("passed"));
    for kind in ["skipped", "xfailed", "xpassed", "missing"] {
        if count(kind) > 0 {
            let _ = write!(text, ", {} {kind}", count(kind));
        }
    }
    let _ = write!(text, ", {} failed", count("failed"));
    text
}

/// The totals, and every test that did not pass by name.
fn report(outcomes: &Outcomes) -> String {
    let mut text = String::new();
    for (name, Outcome { kind, reason }) in outcomes {
        if matches!(kind.as_str(), "failed" | "missing" | "xpassed") {
            let _ = writeln!(text, "{kind:<8} {name}  {reason}");
        }
    }
    let _ = write!(text, "{} tests selected: {}", outcomes.len(), totals(outcomes));
    text
}

fn read_reference(path: &Path) -> Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!(
            "failed to read {}; `cargo xtask foreign --controller theirs --bless` makes it",
            path.display()
        )
    })?;
    Ok(text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect())
}

fn bless(path: &Path, outcomes: &Outcomes) -> Result<()> {
    println!("{}", report(outcomes));
    let mut text = String::from(
        "# Tests of ipyparallel that pass with its own controller. Written by\n\
         # `cargo xtask foreign --controller theirs --bless`.\n",
    );
    for (name, _) in outcomes.iter().filter(|(_, outcome)| outcome.kind == "passed") {
        text.push_str(name);
        text.push('\n');
    }
    std::fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))
}

/// Ends what has this mark in its environment: engines and controllers of tests that ended in the middle. Those
/// that are about to end are given time. Returns the command lines of those that were not.
fn end_marked(mark: &str) -> Result<Vec<String>> {
    let patience = Instant::now() + Duration::from_secs(5);
    loop {
        let marked = marked(mark)?;
        if marked.is_empty() || Instant::now() > patience {
            for (pid, _) in &marked {
                // One that has ended meanwhile is no mistake.
                let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status();
            }
            return Ok(marked.into_iter().map(|(_, command)| command).collect());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Processes with this mark in their environment, and their command lines.
fn marked(mark: &str) -> Result<Vec<(u32, String)>> {
    let entries = std::fs::read_dir("/proc").context("failed to list processes")?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_marked = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    let command = |pid: u32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        (pid, String::from_utf8_lossy(&words).replace('\0', " ").trim_end().to_owned())
    };
    Ok(pids.filter(is_marked).map(command).collect())
}

/// The line that a program prints.
fn answer(command: &mut Command) -> Result<String> {
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("failed to start {command:?}"))?;
    ensure!(output.status.success(), "{command:?} failed ({})", output.status);
    let text = String::from_utf8(output.stdout).context("failed to read its answer")?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(kind: &str, reason: &str) -> Outcome {
        Outcome { kind: kind.to_owned(), reason: reason.to_owned() }
    }

    #[test]
    fn a_test_that_began_and_never_ended_is_missing() {
        let text = "collected\t0.00\tt.py::a\t\ncollected\t0.00\tt.py::b\t\nfailed\t1.25\tt.py::a\twhy\npas";
        let expected = Outcomes::from([
            ("t.py::a".to_owned(), outcome("failed", "why")),
            ("t.py::b".to_owned(), outcome("missing", "never ended")),
        ]);
        assert_eq!(parse(text), expected);
    }

    #[test]
    fn the_report_names_what_did_not_pass_and_counts_everything() {
        let outcomes = Outcomes::from([
            ("a".to_owned(), outcome("passed", "")),
            ("b".to_owned(), outcome("failed", "why")),
            ("c".to_owned(), outcome("skipped", "no docker")),
            ("d".to_owned(), outcome("xpassed", "")),
        ]);
        assert_eq!(
            report(&outcomes),
            "failed   b  why\nxpassed  d  \n4 tests selected: 1 passed, 1 skipped, 1 xpassed, 1 failed"
        );
    }
}
