//! The controller alone, against a relay of bare libzmq that swaps two frames and does nothing else.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use protocol::Key;
use protocol::connection_file::{ClientFile, EngineFile};
use protocol::id::EngineUuid;
use tests::TestCluster;
use transport::Context;

use crate::figures::{Samples, heading, median, row};
use crate::rival::BareRelay;
use tests::stub::{StubClient, StubEngines, wait_for_engines};

const ENGINES: usize = 4;

/// One place where requests can be sent: through our controller, or through the bare relay.
struct Route {
    client: StubClient,
    target: EngineUuid,
    _engines: StubEngines,
}

impl Route {
    /// Sends `count` requests with at most `window` of them unanswered; returns the time of each round trip.
    fn run(&mut self, count: usize, window: usize, payload: &Bytes) -> Result<(Samples, Duration)> {
        let mut sent_at = std::collections::VecDeque::with_capacity(window);
        let mut samples = Samples::default();
        let started = Instant::now();
        for index in 0..count + window {
            if index >= window {
                self.client.reply()?;
                let sent: Instant = sent_at.pop_front().context("a reply without a request")?;
                samples.push(sent.elapsed());
            }
            if index < count {
                sent_at.push_back(Instant::now());
                self.client.submit(Some(&self.target), payload)?;
            }
        }
        Ok((samples, started.elapsed()))
    }
}

pub(crate) fn run(rounds: usize) -> Result<()> {
    let context = Context::new(1)?;
    let cluster = TestCluster::controller(&["--log-level", "40"]);
    let (client_file, engine_file) = files(&cluster)?;
    let engines = StubEngines::register(&context, &engine_file, 1)?;
    wait_for_engines(&context, &client_file, 1)?;
    let endpoint = client_file.common.url(client_file.common.mux);
    let mut ours = Route {
        client: StubClient::connect(&context, &endpoint, &client_file.common.key())?,
        target: engines.uuids[0].clone(),
        _engines: engines,
    };
    let rival = BareRelay::start()?;
    let key = Key::new(client_file.common.key.as_str());
    let engines = StubEngines::at_relay(&context, &rival.engine_endpoint, &key)?;
    let mut bare = Route {
        client: StubClient::connect(&context, &rival.client_endpoint, &key)?,
        target: engines.uuids[0].clone(),
        _engines: engines,
    };
    ours.client.wait_for_route(&ours.target)?;
    bare.client.wait_for_route(&bare.target)?;

    println!("relay, one engine, client to engine and back (rival: bare libzmq ROUTER-ROUTER relay)");
    heading();
    for (name, window, count, bytes) in [
        ("1 in flight", 1, 3_000, 0),
        ("64 in flight", 64, 20_000, 0),
        ("1 in flight, 1 MiB each way", 1, 200, 1 << 20),
    ] {
        let payload = Bytes::from(vec![0_u8; bytes]);
        let (mut our_samples, mut bare_samples) = (Samples::default(), Samples::default());
        let (mut ratios, mut our_rates, mut bare_rates) = (vec![], vec![], vec![]);
        ours.run(count / 10, window, &payload)?;
        bare.run(count / 10, window, &payload)?;
        for _ in 0..rounds {
            let (our_round, our_time) = ours.run(count, window, &payload)?;
            let (bare_round, bare_time) = bare.run(count, window, &payload)?;
            ratios.push(if window == 1 {
                our_round.median() / bare_round.median()
            } else {
                our_time.as_secs_f64() / bare_time.as_secs_f64()
            });
            our_rates.push(count as f64 / our_time.as_secs_f64());
            bare_rates.push(count as f64 / bare_time.as_secs_f64());
            our_samples.extend(&our_round);
            bare_samples.extend(&bare_round);
        }
        let shown = |samples: &Samples, rates: &[f64]| {
            if window == 1 {
                format!("p50 {:.0} µs, p99 {:.0}", samples.median(), samples.quantile(0.99))
            } else {
                format!("{:.0}/s", median(rates))
            }
        };
        row(name, shown(&our_samples, &our_rates), shown(&bare_samples, &bare_rates), median(&ratios));
    }
    drop(ours);
    balanced(&context, rounds)
}

/// Balanced tasks per second through the scheduler, and what they cost the controller.
fn balanced(context: &Context, rounds: usize) -> Result<()> {
    let cluster = TestCluster::controller(&["--log-level", "40"]);
    let (client_file, engine_file) = files(&cluster)?;
    let engines = StubEngines::register(context, &engine_file, ENGINES)?;
    wait_for_engines(context, &client_file, ENGINES)?;
    let endpoint = client_file.common.url(client_file.common.task);
    let mut client = StubClient::connect(context, &endpoint, &client_file.common.key())?;
    let none = Bytes::new();
    let (count, window) = (50_000, 64);
    let (mut rates, mut costs) = (vec![], vec![]);
    for _ in 0..rounds {
        let cpu = tests::cpu_time(cluster.controller_pid());
        let started = Instant::now();
        for index in 0..count + window {
            if index >= window {
                client.reply()?;
            }
            if index < count {
                client.submit(None, &none)?;
            }
        }
        rates.push(count as f64 / started.elapsed().as_secs_f64());
        let used = tests::cpu_time(cluster.controller_pid()).saturating_sub(cpu);
        costs.push(used.as_secs_f64() * 1e6 / count as f64);
    }
    println!(
        "balanced, {ENGINES} engines, {window} in flight: {:.0} tasks/s, {:.1} µs of controller CPU a task, {:.1} MiB resident",
        median(&rates),
        median(&costs),
        tests::resident_mib(cluster.controller_pid()),
    );
    drop(engines);
    Ok(())
}

fn files(cluster: &TestCluster) -> Result<(ClientFile, EngineFile)> {
    let security = cluster.profile().join("security");
    let read = |name: &str| {
        std::fs::read_to_string(security.join(name)).with_context(|| format!("failed to read {name}"))
    };
    Ok((
        ClientFile::parse(&read("ipcontroller-client.json")?)?,
        EngineFile::parse(&read("ipcontroller-engine.json")?)?,
    ))
}
