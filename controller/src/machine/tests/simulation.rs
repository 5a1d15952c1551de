//! Whole clusters in a virtual world: clients, engines, networks and controllers that fail, drawn from a seed.
//!
//! A plan is drawn before anything runs; its delays and what engines do come from streams of their own, so that leaving
//! out a step changes little else. In about a third of the seeds the controller is killed as well, what is under way is
//! cut on every connection, and another one goes on from its journal, which passes through its form in bytes. The
//! `reference` keeps its own books from events and effects and compares them after every event, until the first
//! restart; the `ledger` counts the answers to every request throughout. A failure prints its seed, how to repeat it,
//! and the story of a shortened plan.

mod clients;
mod engines;
mod generator;
mod ledger;
mod network;
mod plan;
mod reference;
mod restart;
mod sabotage;
mod story;
mod world;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};

use plan::{Action, Plan, Step};
use sabotage::{Sabotage, Saboteur};
use world::World;

/// What came of one run.
struct Outcome {
    failure: Option<String>,
    tally: BTreeMap<&'static str, u64>,
    story: Vec<String>,
}

/// Runs a seed, or those of its steps that are given.
fn run(seed: u64, steps: Option<Vec<Step>>, sabotage: Option<Sabotage>, is_told: bool) -> Outcome {
    let mut plan = Plan::new(seed);
    if let Some(steps) = steps {
        plan.steps = steps;
    }
    let mut world = World::new(plan, sabotage.map(Saboteur::new), is_told);
    let failure = caught(|| world.run());
    Outcome {
        failure,
        tally: std::mem::take(&mut world.tally),
        story: world.story.take().unwrap_or_default(),
    }
}

thread_local! {
    static IS_CATCHING: Cell<bool> = const { Cell::new(false) };
    static CAUGHT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// The words of a panic, which are not printed: there may be hundreds while a failure is shortened.
fn caught(work: impl FnOnce()) -> Option<String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if IS_CATCHING.get() {
                CAUGHT.set(panic.to_string());
            } else {
                before(panic);
            }
        }));
    });
    IS_CATCHING.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    IS_CATCHING.set(false);
    outcome.is_err().then(|| CAUGHT.take())
}

/// Where in the source a panic came from: its first line.
fn place_of(failure: &str) -> Option<&str> {
    failure.lines().next()
}

/// Leaves out steps, then tasks of steps that submit several, for as long as the run fails at the same place.
fn shorten(seed: u64, failure: &str, sabotage: Option<Sabotage>) -> Vec<Step> {
    let fails = |steps: &[Step]| {
        let other = run(seed, Some(steps.to_vec()), sabotage, false).failure;
        other.is_some_and(|other| place_of(&other) == place_of(failure))
    };
    let mut steps = Plan::new(seed).steps;
    let mut chunk = steps.len();
    while chunk > 1 {
        chunk = chunk.div_ceil(2);
        let mut start = 0;
        while start < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(start..steps.len().min(start + chunk));
            if fails(&fewer) {
                steps = fewer;
            } else {
                start += chunk;
            }
        }
    }
    for place in 0..steps.len() {
        loop {
            let mut smaller = steps.clone();
            let Action::Tasks { count, .. } = &mut smaller[place].action else { break };
            *count /= 2;
            if *count == 0 || !fails(&smaller) {
                break;
            }
            steps = smaller;
        }
    }
    steps
}

/// The lines of a story that are worth reading after a failure.
const LINES_MAX: usize = 120;

fn report(seed: u64, failure: &str, sabotage: Option<Sabotage>) -> String {
    let steps = shorten(seed, failure, sabotage);
    let count = steps.len();
    let short = run(seed, Some(steps), sabotage, true);
    let skipped = short.story.len().saturating_sub(LINES_MAX);
    format!(
        "seed {seed} fails: {failure}\n\
         to repeat it: cargo xtask sim --seed {seed} --trace\n\
         {count} of its steps suffice ({}); the last lines of their story:\n{}",
        short.failure.unwrap_or_default(),
        short.story[skipped..].join("\n")
    )
}

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

#[test]
fn every_request_of_every_seed_is_answered_once() {
    let first = number_from("COMMWORLD_SIM_FIRST").unwrap_or(1);
    let count = number_from("COMMWORLD_SIM_SEEDS").unwrap_or(10_000);
    if std::env::var_os("COMMWORLD_SIM_TRACE").is_some() {
        let outcome = run(first, None, None, true);
        eprintln!("{}", outcome.story.join("\n"));
        assert_eq!(outcome.failure, None, "seed {first}");
        return;
    }
    let next = AtomicU64::new(first);
    let failures = Mutex::new(BTreeMap::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failures.lock().expect("nobody panics with it").is_empty() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    if let Some(failure) = run(seed, None, None, false).failure {
                        failures.lock().expect("nobody panics with it").insert(seed, failure);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("nobody panicked with it");
    if let Some((seed, failure)) = failures.first_key_value() {
        panic!("{}", report(*seed, failure, None));
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 1..=20 {
        let [first, second] = [(); 2].map(|()| run(seed, None, None, true));
        assert_eq!(first.story, second.story, "seed {seed}");
    }
}

#[test]
fn no_sabotage_goes_unnoticed() {
    for sabotage in Sabotage::ALL {
        // Most find it at once; few answers are under way when a controller is killed.
        let found = (1..=1_000).any(|seed| run(seed, None, Some(sabotage), false).failure.is_some());
        assert!(found, "{sabotage:?} was not noticed");
    }
}

/// What a few hundred seeds must come by, or the simulation has lost a part of its world.
const WORTH_TESTING: [&str; 27] = [
    "aborts that overtook their request",
    "crashes of busy engines",
    "deaths that nobody saw",
    "deaths told by a supervisor",
    "departures",
    "disconnects",
    "echoes that prove nothing",
    "engines that returned",
    "errors made by the controller",
    "impossible dependencies",
    "invalid dependencies",
    "journals written anew",
    "late replies",
    "losses by disconnect",
    "losses by silence",
    "messages lost on their way in",
    "messages lost on their way out",
    "registrations anew",
    "registrations refused",
    "replies said again",
    "replies that came twice",
    "requests aborted by engines",
    "requests told lost",
    "restarts",
    "shutdowns",
    "tasks aborted while they waited",
    "timeouts",
];

#[test]
fn a_few_hundred_seeds_come_by_everything_that_is_worth_testing() {
    let mut tally: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 1..=600 {
        for (what, count) in run(seed, None, None, false).tally {
            *tally.entry(what).or_default() += count;
        }
    }
    let missing: Vec<&&str> = WORTH_TESTING.iter().filter(|what| !tally.contains_key(**what)).collect();
    assert!(missing.is_empty(), "never happened: {missing:?}; what did: {tally:#?}");
}
