//! A double of OpenPBS for tests on machines that have none: `qsub`, `qstat`, `qdel` and `qsig`, by the name it is
//! called by, with the words and exit codes of version 23.06. One "server" is a directory, named by
//! `OPENPBS_DOUBLE`; it has one node of eight processors and the queue `workq`.
//!
//! As in the original, a job's script is copied, runs in `$HOME` with an environment of its own, writes its output to a
//! spool that is copied when it has ended, and is told its hosts by `PBS_NODEFILE`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

const SERVER: &str = "pbs1";
const PROCESSORS: u32 = 8;
const KILL_DELAY: Duration = Duration::from_secs(2);

/// A refusal: what is printed, after the name of the command, and the exit code.
struct Refusal(String, u8);

type Attributes = BTreeMap<String, String>;

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let name = arguments.next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let arguments: Vec<String> = arguments.collect();
    let Some(state) = std::env::var_os("OPENPBS_DOUBLE").map(PathBuf::from) else {
        eprintln!("{name}: cannot connect to server {SERVER} (errno=15010)");
        return ExitCode::from(if name == "qstat" { 255 } else { 162 });
    };
    let done = match name.as_str() {
        "qsub" => qsub(&state, &arguments),
        "qstat" => qstat(&state, &arguments),
        "qdel" => qdel(&state, &arguments),
        "qsig" => qsig(&state, &arguments),
        _ => watch(&state, &arguments[0]),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Refusal(text, code)) => {
            eprintln!("{name}: {text}");
            ExitCode::from(code)
        }
    }
}

#[expect(clippy::zombie_processes, reason = "the watcher outlives us, and the system reaps it")]
fn qsub(state: &Path, arguments: &[String]) -> Result<(), Refusal> {
    let mut arguments = arguments.iter();
    let mut given: Vec<(char, String)> = Vec::new();
    let mut script = None;
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix('-') {
            Some(option) => given.push(option_of(option, &mut arguments)?),
            None => script = Some(PathBuf::from(argument)),
        }
    }
    let script = script.ok_or_else(|| Refusal("a script from standard input is not doubled".into(), 1))?;
    let text = fs::read_to_string(&script)
        .map_err(|_| Refusal("script file:: No such file or directory".into(), 1))?;
    let mut options = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("#PBS -")) {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let mut words = words.iter();
        let first = words.next().cloned().unwrap_or_default();
        let directive = option_of(&first, &mut words);
        options.push(directive.map_err(|Refusal(text, _)| Refusal(text, 1))?);
    }
    options.extend(given); // The command line comes after what the script says, and wins.
    let mut job = job_of(&script, &options)?;
    let number = next_number(state);
    let id = format!("{number}.{SERVER}");
    let folder = state.join(number.to_string());
    fs::create_dir(&folder).expect("a new number");
    fs::copy(&script, folder.join("script")).expect("it was read just now");
    job.insert("server".into(), SERVER.into());
    let passed: Vec<String> = options
        .iter()
        .filter(|(option, _)| *option == 'v')
        .flat_map(|(_, names)| names.split(','))
        .filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?)))
        .collect();
    fs::write(folder.join("variables"), passed.join("\0")).expect("the directory is ours");
    write(&folder, &job);
    if job["job_state"] == "R" {
        // It outlives this command, as the server's own processes do.
        let watcher = Command::new("/proc/self/exe")
            .arg(number.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        watcher.expect("this program can be run");
    }
    println!("{id}");
    Ok(())
}

fn option_of(option: &str, rest: &mut std::slice::Iter<'_, String>) -> Result<(char, String), Refusal> {
    let mut chars = option.chars();
    let letter = chars.next().unwrap_or('-');
    let value = match chars.as_str() {
        _ if !"lNqAjorvVWP".contains(letter) => {
            return Err(Refusal(format!("invalid option -- '{letter}'"), 2));
        }
        "" if letter == 'V' => String::new(),
        "" => rest.next().cloned().unwrap_or_default(),
        value => value.to_owned(),
    };
    Ok((letter, value))
}

fn job_of(script: &Path, options: &[(char, String)]) -> Result<Attributes, Refusal> {
    let name = script.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let cwd = std::env::current_dir().unwrap_or_default();
    let mut job = Attributes::from([
        ("Job_Name".to_owned(), name),
        ("queue".to_owned(), "workq".to_owned()),
        ("Resource_List.ncpus".to_owned(), "1".to_owned()),
        ("mpiprocs".to_owned(), "1".to_owned()),
        ("PBS_O_WORKDIR".to_owned(), cwd.display().to_string()),
    ]);
    for (option, value) in options {
        match option {
            'N' => drop(job.insert("Job_Name".to_owned(), value.clone())),
            'q' if value != "workq" => return Err(Refusal("Unknown queue".into(), 170)),
            'o' => drop(job.insert("Output_Path".to_owned(), format!("{SERVER}:{value}"))),
            'l' => resources(value, &mut job)?,
            _ => {}
        }
    }
    let wanted: u32 = job["Resource_List.ncpus"].parse().unwrap_or(1);
    let (job_state, comment) = if wanted > PROCESSORS {
        let why =
            format!("Insufficient amount of resource: ncpus (R: {wanted} A: {PROCESSORS} T: {PROCESSORS})");
        ("Q", format!("Can Never Run: {why}"))
    } else {
        ("R", format!("Job run on ({SERVER}:ncpus={wanted})"))
    };
    job.insert("job_state".to_owned(), job_state.to_owned());
    job.insert("comment".to_owned(), comment);
    Ok(job)
}

fn resources(text: &str, job: &mut Attributes) -> Result<(), Refusal> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    match name {
        "walltime" => {
            let parts: Option<Vec<u64>> = value.split(':').map(|part| part.parse().ok()).collect();
            let parts = parts.ok_or_else(|| {
                Refusal("Illegal attribute or resource value Resource_List.walltime".into(), 166)
            })?;
            let seconds = parts.iter().fold(0, |sum, part| sum * 60 + part);
            job.insert("Resource_List.walltime".to_owned(), clock(seconds));
        }
        "select" => {
            let (mut processors, mut ranks) = (0, 0);
            for chunk in value.split('+') {
                let mut parts = chunk.split(':');
                let count: u32 = parts.next().and_then(|count| count.parse().ok()).unwrap_or(1);
                for part in parts {
                    let number = |text: &str| {
                        text.parse::<u32>().map_err(|_| {
                            Refusal("Illegal attribute or resource value select.ncpus".into(), 166)
                        })
                    };
                    match part.split_once('=') {
                        Some(("ncpus", value)) => processors += count * number(value)?,
                        Some(("mpiprocs", value)) => ranks += count * number(value)?,
                        _ => {
                            let name = part.split('=').next().unwrap_or(part);
                            return Err(Refusal(format!("Unknown resource: {name}"), 187));
                        }
                    }
                }
            }
            job.insert("Resource_List.select".to_owned(), value.to_owned());
            job.insert("Resource_List.ncpus".to_owned(), processors.to_string());
            job.insert("mpiprocs".to_owned(), ranks.to_string());
        }
        "place" => {}
        _ => return Err(Refusal(format!("Unknown resource Resource_List.{name}"), 187)),
    }
    Ok(())
}

/// Runs a job to its end, its limit, or its cancelling.
fn watch(state: &Path, number: &str) -> Result<(), Refusal> {
    let folder = state.join(number);
    let mut job = read(&folder).expect("it was written just now");
    let host = nix::unistd::gethostname().expect("this machine has a name").to_string_lossy().into_owned();
    let ranks: usize = job["mpiprocs"].parse().unwrap_or(1);
    fs::write(folder.join("nodes"), format!("{host}\n").repeat(ranks)).expect("the directory is ours");
    let home = std::env::var("HOME").unwrap_or_else(|_| "/".to_owned());
    let spool = File::create(folder.join("spool")).expect("the directory is ours");
    let mut command = Command::new(folder.join("script"));
    command.env_clear().current_dir(&home).stdin(Stdio::null());
    command.stdout(spool.try_clone().expect("a file can be shared")).stderr(spool);
    command.env("HOME", &home).env("PATH", "/usr/bin:/bin");
    command.env("PBS_JOBID", format!("{number}.{SERVER}")).env("PBS_ENVIRONMENT", "PBS_BATCH");
    command.env("PBS_NODEFILE", folder.join("nodes")).env("PBS_O_WORKDIR", &job["PBS_O_WORKDIR"]);
    let variables = fs::read_to_string(folder.join("variables")).unwrap_or_default();
    command.envs(variables.split('\0').filter_map(|variable| variable.split_once('=')));
    fs::set_permissions(folder.join("script"), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .expect("the file is ours");
    let mut child = command.process_group(0).spawn().expect("scripts have an interpreter");
    let group = Pid::from_raw(child.id() as i32);
    job.insert("exec_host".to_owned(), format!("{SERVER}/0*{ranks}"));
    job.insert("session_id".to_owned(), child.id().to_string());
    write(&folder, &job);

    let started = Instant::now();
    let limit = job
        .get("Resource_List.walltime")
        .and_then(|text| text.split(':').try_fold(0, |sum, part| Some(sum * 60 + part.parse::<u64>().ok()?)));
    let mut asked: Option<(Instant, i32)> = None;
    let status = loop {
        if let Ok(Some(status)) = child.try_wait() {
            break status;
        }
        let over = limit.is_some_and(|limit| started.elapsed() >= Duration::from_secs(limit));
        if asked.is_none() && (over || folder.join("deleted").exists()) {
            asked = Some((Instant::now(), if over { -29 } else { 271 }));
            let _ = killpg(group, Signal::SIGTERM); // It may have ended since.
        }
        if asked.is_some_and(|(at, _)| at.elapsed() >= KILL_DELAY) {
            let _ = killpg(group, Signal::SIGKILL);
        }
        job.insert("resources_used.walltime".to_owned(), clock(started.elapsed().as_secs()));
        write(&folder, &job);
        std::thread::sleep(Duration::from_millis(50));
    };
    let _ = killpg(group, Signal::SIGKILL); // What the script left behind.
    let code = match asked {
        Some((_, code)) => code,
        None => status.code().unwrap_or_else(|| 256 + status.signal().unwrap_or(0)),
    };
    if let Some(path) = job.get("Output_Path").and_then(|path| path.split_once(':')) {
        if code == -29
            && let Ok(mut spool) = File::options().append(true).open(folder.join("spool"))
        {
            let used = started.elapsed().as_secs();
            let _ =
                writeln!(spool, "=>> PBS: job killed: walltime {used} exceeded limit {}", limit.unwrap_or(0));
        }
        let _ = fs::copy(folder.join("spool"), path.1); // PBS mails its user if it cannot.
    }
    job.insert("job_state".to_owned(), "F".to_owned());
    job.insert("Exit_status".to_owned(), code.to_string());
    let substate = match (folder.join("deleted").exists(), code) {
        (true, _) => "91",
        (false, 0) => "92",
        (false, _) => "93",
    };
    job.insert("substate".to_owned(), substate.to_owned());
    write(&folder, &job);
    Ok(())
}

fn qstat(state: &Path, arguments: &[String]) -> Result<(), Refusal> {
    if arguments.iter().any(|argument| argument == "--version") {
        println!("pbs_version = 23.06.06");
        return Ok(());
    }
    let history = arguments.iter().any(|argument| argument == "-x");
    let ids: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let ids = match ids.as_slice() {
        [] => numbers(state).iter().map(ToString::to_string).collect(),
        ids => ids.iter().map(ToString::to_string).collect::<Vec<String>>(),
    };
    for id in ids {
        let (folder, number) = find(state, &id)?;
        let job = read(&folder).expect("it is there");
        if job["job_state"] == "F" && !history {
            let text = "Job has finished, use -x or -H to obtain historical job information";
            return Err(Refusal(format!("{number}.{SERVER} {text}"), 35));
        }
        println!("Job Id: {number}.{SERVER}");
        for (name, value) in job.iter().filter(|(name, _)| !name.starts_with("PBS_") && *name != "mpiprocs") {
            let line = format!("    {name} = {value}");
            // Long values go on after a tab.
            let (first, rest) = line.split_at_checked(79).unwrap_or((&line, ""));
            println!("{first}");
            if !rest.is_empty() {
                println!("\t{rest}");
            }
        }
        println!();
    }
    Ok(())
}

fn qdel(state: &Path, arguments: &[String]) -> Result<(), Refusal> {
    for id in arguments.iter().filter(|argument| !argument.starts_with('-')) {
        let (folder, number) = find(state, id)?;
        let mut job = read(&folder).expect("it is there");
        match job["job_state"].as_str() {
            "F" => return Err(Refusal(format!("Job has finished {number}.{SERVER}"), 35)),
            "Q" => {
                job.insert("job_state".to_owned(), "F".to_owned());
                job.insert("substate".to_owned(), "91".to_owned());
                write(&folder, &job);
            }
            _ => fs::write(folder.join("deleted"), "").expect("the directory is ours"),
        }
    }
    Ok(())
}

fn qsig(state: &Path, arguments: &[String]) -> Result<(), Refusal> {
    let [flag, signal, id] = arguments else { return Err(Refusal("usage: qsig -s signal job".into(), 2)) };
    assert_eq!(flag, "-s");
    let signal: Signal = format!("SIG{}", signal.trim_start_matches("SIG"))
        .parse()
        .map_err(|_| Refusal(format!("Unknown signal {signal}"), 1))?;
    let (folder, number) = find(state, id)?;
    let job = read(&folder).expect("it is there");
    if job["job_state"] == "F" {
        return Err(Refusal(format!("Job has finished {number}.{SERVER}"), 35));
    }
    if let Some(session) = job.get("session_id").and_then(|pid| pid.parse::<i32>().ok()) {
        let _ = kill(Pid::from_raw(-session), signal); // It may have ended since.
    }
    Ok(())
}

fn find(state: &Path, id: &str) -> Result<(PathBuf, u32), Refusal> {
    let number: u32 = id
        .split('.')
        .next()
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| Refusal(format!("illegally formed job identifier: {id}"), 1))?;
    let folder = state.join(number.to_string());
    if folder.is_dir() {
        Ok((folder, number))
    } else {
        Err(Refusal(format!("Unknown Job Id {number}.{SERVER}"), 153))
    }
}

fn numbers(state: &Path) -> Vec<u32> {
    let entries = fs::read_dir(state).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn next_number(state: &Path) -> u32 {
    numbers(state).iter().max().map_or(1, |last| last + 1)
}

fn read(folder: &Path) -> Option<Attributes> {
    let text = fs::read_to_string(folder.join("job")).ok()?;
    Some(text.lines().filter_map(|line| line.split_once(" = ")).map(|(a, b)| (a.into(), b.into())).collect())
}

/// In one step: others read it all the time.
fn write(folder: &Path, job: &Attributes) {
    let text: String = job.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
    fs::write(folder.join("job.new"), text).expect("the directory is ours");
    fs::rename(folder.join("job.new"), folder.join("job")).expect("the directory is ours");
}

fn clock(seconds: u64) -> String {
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds % 3600 / 60, seconds % 60)
}
