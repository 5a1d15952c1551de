//! Load-balanced tasks: windows, retries, timeouts, targets, loss.

use super::*;

fn with_retries(retries: u32) -> TaskMetadata {
    TaskMetadata { retries, ..TaskMetadata::default() }
}

fn for_targets(engines: &[u32]) -> TaskMetadata {
    let targets = engines.iter().map(|number| uuid(*number).as_str().into()).collect();
    TaskMetadata { targets, ..TaskMetadata::default() }
}

fn with_timeout(seconds: f64, retries: u32) -> TaskMetadata {
    TaskMetadata { timeout: Some(seconds), retries, ..TaskMetadata::default() }
}

#[test]
fn tasks_go_to_the_least_loaded_engine_and_wait_when_all_windows_are_full() {
    let mut sim = Sim::with_engines(2);
    // The engine that came last is first, as in the original.
    assert_eq!(sim.on(plain_task("a")), [forwarded(Channel::Task, 1, 1, "a")]);
    assert_eq!(sim.on(plain_task("b")), [forwarded(Channel::Task, 0, 2, "b")]);
    assert_eq!(sim.on(plain_task("c")), []);
    assert_eq!(sim.on(finished(0, 2)), [relayed(Channel::Task, 0, 2), forwarded(Channel::Task, 0, 3, "c")]);
}

#[test]
fn a_window_of_zero_has_no_end() {
    let mut sim = Sim::with(Settings { window: Some(0), ..Settings::default() });
    sim.join(0);
    for task in 1..100 {
        assert_eq!(sim.on(plain_task("t")), [forwarded(Channel::Task, 0, task, "t")]);
    }
}

#[test]
fn an_engine_that_answers_quickly_is_given_more_until_it_is_slow() {
    let mut sim = Sim::new();
    sim.join(0);
    assert_eq!(sim.on(plain_task("a")), [forwarded(Channel::Task, 0, 1, "a")]);
    assert_eq!(sim.on(plain_task("b")), []);
    assert_eq!(sim.on(plain_task("c")), []);
    assert_eq!(
        sim.on(finished(0, 1)),
        [
            relayed(Channel::Task, 0, 1),
            forwarded(Channel::Task, 0, 2, "b"),
            forwarded(Channel::Task, 0, 3, "c")
        ]
    );
    sim.pass(Duration::from_secs(1));
    assert_eq!(sim.on(plain_task("d")), [], "two are there already");
    assert_eq!(sim.on(finished(0, 2)), [relayed(Channel::Task, 0, 2)], "after a slow one it holds one");
}

#[test]
fn tasks_wait_for_the_first_engine_and_run_in_order() {
    let mut sim = Sim::new();
    sim.on(plain_task("a"));
    sim.on(plain_task("b"));
    sim.on(registering("e0", None));
    sim.on(beat(0));
    let joined = sim.pass(Duration::from_millis(50));
    assert!(joined.contains(&forwarded(Channel::Task, 0, 1, "a")));
    assert!(sim.on(finished(0, 1)).contains(&forwarded(Channel::Task, 0, 2, "b")));
}

#[test]
fn a_failed_task_is_tried_elsewhere_as_often_as_it_may_be() {
    let mut sim = Sim::with_engines(3);
    sim.on(task("t", with_retries(1)));
    assert_eq!(sim.on(failed(2, 1)), [forwarded(Channel::Task, 1, 1, "t")]);
    assert_eq!(sim.on(failed(1, 1)), [relayed(Channel::Task, 1, 1)]);
}

#[test]
fn when_every_engine_has_failed_the_last_error_is_the_answer() {
    let mut sim = Sim::with_engines(2);
    sim.on(task("t", with_retries(5)));
    assert_eq!(sim.on(failed(1, 1)), [forwarded(Channel::Task, 0, 1, "t")]);
    assert_eq!(sim.on(failed(0, 1)), [relayed(Channel::Task, 0, 1)]);
    assert_eq!(sim.controller.unanswered(), 0);
}

#[test]
fn with_a_timeout_it_waits_for_other_engines_until_then() {
    let mut sim = Sim::with_engines(1);
    sim.on(task("t", with_timeout(1.0, 5)));
    assert_eq!(sim.on(failed(0, 1)), []);
    assert_eq!(error_names(&sim.pass(Duration::from_secs(1))), [pair("t", "TaskTimeout")]);
}

#[test]
fn a_running_task_never_times_out() {
    let mut sim = Sim::with_engines(1);
    sim.on(task("t", with_timeout(1.0, 0)));
    assert_eq!(errors(&sim.pass(Duration::from_secs(10))), []);
    assert_eq!(without_pings(sim.on(finished(0, 1))), [relayed(Channel::Task, 0, 1)]);
}

#[test]
fn absurd_timeouts_are_none() {
    let mut sim = Sim::new();
    for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
        assert_eq!(sim.on(task("t", with_timeout(seconds, 0))), []);
    }
    assert_eq!(errors(&sim.pass(Duration::from_secs(100))), []);
}

#[test]
fn an_engine_that_declines_costs_no_retry() {
    let mut sim = Sim::with_engines(2);
    sim.on(plain_task("t"));
    let declined = Outcome { status: Status::Error, dependencies_met: false };
    let effects = sim.on(replied(Channel::Task, 1, 1, Some(declined)));
    assert_eq!(effects, [forwarded(Channel::Task, 0, 1, "t")]);
    let ended = sim.on(replied(Channel::Task, 0, 1, Some(declined)));
    assert_eq!(error_names(&ended), [pair("t", "ImpossibleDependency")]);
}

#[test]
fn a_failure_is_told_rather_than_that_the_other_engines_decline() {
    let mut sim = Sim::with_engines(2);
    sim.on(task("t", with_retries(1)));
    assert_eq!(sim.on(failed(1, 1)), [forwarded(Channel::Task, 0, 1, "t")]);
    let declined = Outcome { status: Status::Error, dependencies_met: false };
    assert_eq!(sim.on(replied(Channel::Task, 0, 1, Some(declined))), [relayed(Channel::Task, 1, 1)]);
}

#[test]
fn an_aborted_task_is_not_tried_again() {
    let mut sim = Sim::with_engines(2);
    sim.on(task("t", with_retries(3)));
    let aborted = Outcome { status: Status::Aborted, dependencies_met: true };
    assert_eq!(sim.on(replied(Channel::Task, 1, 1, Some(aborted))), [relayed(Channel::Task, 1, 1)]);
}

#[test]
fn a_task_for_named_engines_waits_for_these_and_lets_others_pass() {
    let mut sim = Sim::with_engines(2);
    assert_eq!(sim.on(task("a", for_targets(&[0]))), [forwarded(Channel::Task, 0, 1, "a")]);
    assert_eq!(sim.on(task("b", for_targets(&[0]))), []);
    assert_eq!(sim.on(plain_task("c")), [forwarded(Channel::Task, 1, 3, "c")]);
    assert_eq!(sim.on(finished(1, 3)), [relayed(Channel::Task, 1, 3)]);
    assert_eq!(sim.on(finished(0, 1)), [relayed(Channel::Task, 0, 1), forwarded(Channel::Task, 0, 2, "b")]);
}

#[test]
fn a_task_for_unknown_engines_fails_at_once() {
    let mut sim = Sim::with_engines(1);
    assert_eq!(error_names(&sim.on(task("t", for_targets(&[7])))), [pair("t", "EngineError")]);
}

#[test]
fn a_waiting_task_whose_only_engine_is_lost_ends() {
    let mut sim = Sim::with_engines(2);
    sim.on(task("a", for_targets(&[0])));
    sim.on(task("b", for_targets(&[0])));
    let lost = sim.on(Event::Unregistering { engine: Some(EngineId(0)) });
    assert_eq!(error_names(&lost), [pair("a", "EngineError"), pair("b", "ImpossibleDependency")]);
}

#[test]
fn a_task_with_retries_survives_its_engine() {
    let mut sim = Sim::with_engines(2);
    sim.on(task("t", with_retries(1)));
    let lost = sim.on(Event::Unregistering { engine: Some(EngineId(1)) });
    assert_eq!(lost.last(), Some(&forwarded(Channel::Task, 0, 1, "t")));
    let lost = sim.on(Event::Unregistering { engine: Some(EngineId(0)) });
    assert_eq!(error_names(&lost), [pair("t", "EngineError")]);
}

#[test]
fn a_task_tried_again_keeps_its_place_in_the_queue() {
    let mut sim = Sim::with_engines(2);
    sim.on(task("a", with_retries(1)));
    sim.on(plain_task("b"));
    sim.on(plain_task("c"));
    let effects = sim.on(failed(1, 1));
    assert_eq!(effects, [forwarded(Channel::Task, 1, 3, "c")], "a may not run there again");
    assert!(sim.on(finished(0, 2)).contains(&forwarded(Channel::Task, 0, 1, "a")));
}

#[test]
fn every_scheme_uses_every_engine_and_ends_every_task() {
    for scheme in [Scheme::LeastLoad, Scheme::Lru, Scheme::PlainRandom, Scheme::TwoBin, Scheme::Weighted] {
        let mut sim = Sim::with(Settings { scheme, window: Some(8), seed: 42, ..Settings::default() });
        (0..3).for_each(|number| sim.join(number));
        let mut used = std::collections::BTreeSet::new();
        for number in 1..=24 {
            for effect in sim.on(plain_task("t")) {
                if let Effect::Forward { engine, task, .. } = effect {
                    used.insert(engine.to_string());
                    assert_eq!(task, TaskId(number));
                }
            }
        }
        assert_eq!(used.len(), 3, "{scheme:?}");
    }
}
