//! The controller alone against another one that speaks the same wire: `--against "python -m ipyparallel.controller"`.
//!
//! Engines and clients are stubs, the same for both, and the two controllers take turns within each round.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::connection_file::{ClientFile, EngineFile};
use protocol::id::{EngineId, EngineUuid};
use tests::stub::{StubClient, StubEngines, wait_for_engines};
use transport::Context;

use crate::figures::{Samples, median};

/// How long a controller may take to write its connection files.
const START_TIME: Duration = Duration::from_secs(30);

/// Engines of tasks and direct requests.
const ENGINES: usize = 4;

/// Engines of broadcasts.
const MANY_ENGINES: usize = 32;

/// How requests are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Balanced,
    Direct,
    Broadcast,
}

struct Phase {
    name: &'static str,
    kind: Kind,
    window: usize,
    count: usize,
    payload: usize,
}

const PHASES: [Phase; 6] = [
    Phase { name: "balanced, 1 in flight", kind: Kind::Balanced, window: 1, count: 2_000, payload: 0 },
    Phase { name: "balanced, 64 in flight", kind: Kind::Balanced, window: 64, count: 5_000, payload: 0 },
    Phase { name: "direct, 1 in flight", kind: Kind::Direct, window: 1, count: 2_000, payload: 0 },
    Phase { name: "direct, 64 in flight", kind: Kind::Direct, window: 64, count: 10_000, payload: 0 },
    Phase {
        name: "direct, 1 MiB each way, 100 times",
        kind: Kind::Direct,
        window: 1,
        count: 100,
        payload: 1 << 20,
    },
    Phase { name: "broadcast to 32, 1 in flight", kind: Kind::Broadcast, window: 1, count: 100, payload: 0 },
];

/// A controller of either kind.
struct Rival {
    process: Child,
    profile: tempfile::TempDir,
    files: (ClientFile, EngineFile),
    engines: Vec<StubEngines>,
    memory: Vec<(&'static str, f64)>,
}

/// What one phase of one controller took.
#[derive(Default)]
struct Measured {
    samples: Samples,
    rates: Vec<f64>,
    cpu_ms_per_1000: Vec<f64>,
}

pub(crate) fn run(rounds: usize, against: &str) -> Result<()> {
    let context = Context::new(1)?;
    let ours = tests::program("controller").display().to_string();
    let mut rivals = vec![Rival::start(&context, &ours)?, Rival::start(&context, against)?];
    for rival in &mut rivals {
        rival.add_engines(&context, ENGINES)?;
        rival.note_memory("at rest")?;
    }
    println!("controllers alone, stub engines and clients (rival: {against})");
    println!("{:<36} {:>42} {:>42} {:>7}", "", "Commworld: /s, p50, p99, CPU ms/1000", "rival", "rate x");
    for phase in &PHASES {
        if phase.kind == Kind::Broadcast {
            for rival in &mut rivals {
                rival.add_engines(&context, MANY_ENGINES - ENGINES)?;
            }
        }
        let mut measured = [Measured::default(), Measured::default()];
        for _ in 0..rounds {
            for (rival, measured) in rivals.iter().zip(&mut measured) {
                rival.measure(&context, phase, measured)?;
            }
        }
        let shown = |measured: &Measured| {
            format!(
                "{:>8.0} {:>8.0} µs {:>8.0} µs {:>8.1}",
                median(&measured.rates),
                measured.samples.median(),
                measured.samples.quantile(0.99),
                median(&measured.cpu_ms_per_1000)
            )
        };
        let ratio = median(&measured[0].rates) / median(&measured[1].rates);
        println!("{:<36} {:>42} {:>42} {ratio:>7.1}", phase.name, shown(&measured[0]), shown(&measured[1]));
        if phase.kind != Kind::Broadcast {
            for rival in &mut rivals {
                rival.note_memory(phase.name)?;
            }
        }
    }
    for (ours, theirs) in rivals[0].memory.iter().zip(&rivals[1].memory) {
        println!("memory (PSS of the process tree) {:<36} {:>8.1} MiB {:>8.1} MiB", ours.0, ours.1, theirs.1);
    }
    Ok(())
}

impl Rival {
    fn start(context: &Context, command: &str) -> Result<Rival> {
        let profile = tempfile::Builder::new().prefix("commworld-bench").tempdir()?;
        for folder in ["security", "log", "pid"] {
            std::fs::create_dir(profile.path().join(folder))?;
        }
        let mut words = command.split_whitespace();
        let program = words.next().context("--against names no program")?;
        let mut process = Command::new(program)
            .args(words)
            .arg(format!("--profile-dir={}", profile.path().display()))
            .args(["--ping=250", "--log-level=40"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("failed to start {command}"))?;
        let security = profile.path().join("security");
        let end = Instant::now() + START_TIME;
        let files = loop {
            if let Ok(files) = read_files(&security) {
                break files;
            }
            if let Some(status) = process.try_wait()? {
                bail!("{command} ended with {status}");
            }
            if Instant::now() > end {
                let _ = process.kill();
                bail!("{command} wrote no connection files within {START_TIME:?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        wait_for_engines(context, &files.0, 0)?;
        Ok(Rival { process, profile, files, engines: vec![], memory: vec![] })
    }

    fn add_engines(&mut self, context: &Context, count: usize) -> Result<()> {
        self.engines.push(StubEngines::register(context, &self.files.1, count)?);
        wait_for_engines(context, &self.files.0, self.known_engines().len())
    }

    fn known_engines(&self) -> Vec<(EngineUuid, EngineId)> {
        let known = |engines: &StubEngines| engines.uuids.clone().into_iter().zip(engines.ids.clone());
        self.engines.iter().flat_map(known).collect()
    }

    fn note_memory(&mut self, when: &'static str) -> Result<()> {
        let bytes: u64 = tree(self.process.id()).iter().map(|pid| pss_kib(*pid)).sum();
        self.memory.push((when, bytes as f64 / 1024.0));
        Ok(())
    }

    fn measure(&self, context: &Context, phase: &Phase, measured: &mut Measured) -> Result<()> {
        let (client, _) = &self.files;
        let port = match phase.kind {
            Kind::Balanced => client.common.task,
            Kind::Direct => client.common.mux,
            Kind::Broadcast => client.broadcast,
        };
        let mut stub = StubClient::connect(context, &client.common.url(port), &client.common.key())?;
        let (engines, payload) = (self.known_engines(), Bytes::from(vec![0_u8; phase.payload]));
        let replies = if phase.kind == Kind::Broadcast { engines.len() } else { 1 };
        let submit = |stub: &mut StubClient, index: usize| match phase.kind {
            Kind::Balanced => stub.submit(None, &payload),
            Kind::Direct => stub.submit(Some(&engines[index % ENGINES].0), &payload),
            Kind::Broadcast => stub.submit_to_all(&engines),
        };
        // The first goes over connections that have just been made.
        submit(&mut stub, 0)?;
        (0..replies).try_for_each(|_| stub.reply())?;
        let cpu = cpu_time(self.process.id());
        let started = Instant::now();
        let mut sent_at = std::collections::VecDeque::with_capacity(phase.window);
        for index in 0..phase.count + phase.window {
            if index >= phase.window {
                (0..replies).try_for_each(|_| stub.reply())?;
                let sent: Instant = sent_at.pop_front().context("a reply without a request")?;
                measured.samples.push(sent.elapsed());
            }
            if index < phase.count {
                sent_at.push_back(Instant::now());
                submit(&mut stub, index)?;
            }
        }
        measured.rates.push(phase.count as f64 / started.elapsed().as_secs_f64());
        // A hub that gets copies of all messages is still busy with them.
        let mut used = cpu_time(self.process.id());
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let now = cpu_time(self.process.id());
            if now.saturating_sub(used) < Duration::from_millis(20) {
                break;
            }
            used = now;
        }
        let used = used.saturating_sub(cpu);
        measured.cpu_ms_per_1000.push(used.as_secs_f64() * 1e6 / phase.count as f64);
        Ok(())
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        self.engines.clear();
        // The number is still its: it has not been waited for.
        let _ = kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM);
        let end = Instant::now() + Duration::from_secs(5);
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = self.profile.path();
    }
}

fn read_files(security: &Path) -> Result<(ClientFile, EngineFile)> {
    let read = |name: &str| std::fs::read_to_string(security.join(name));
    Ok((
        ClientFile::parse(&read("ipcontroller-client.json")?)?,
        EngineFile::parse(&read("ipcontroller-engine.json")?)?,
    ))
}

/// A process and all that descend from it.
fn tree(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, stat.rsplit(") ").next()?.split_whitespace().nth(1)?.parse().ok()?))
        })
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

fn cpu_time(root: u32) -> Duration {
    tree(root).into_iter().map(tests::cpu_time).sum()
}

fn pss_kib(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find(|line| line.starts_with("Pss:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}
