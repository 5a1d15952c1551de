//! Tasks that wait for other tasks, or run where those ran.

use protocol::message::execute::Dependency;

use super::*;

fn on_success(names: &[&str]) -> Dependency {
    Dependency { dependencies: ids(names), ..Dependency::default() }
}

fn after(names: &[&str]) -> TaskMetadata {
    TaskMetadata { after: on_success(names), ..TaskMetadata::default() }
}

fn follow(names: &[&str]) -> TaskMetadata {
    TaskMetadata { follow: on_success(names), ..TaskMetadata::default() }
}

#[test]
fn a_task_runs_after_those_that_it_names() {
    let mut sim = Sim::with_engines(2);
    sim.on(plain_task("a"));
    assert_eq!(sim.on(task("b", after(&["a"]))), []);
    let effects = sim.on(finished(1, 1));
    assert_eq!(effects[0], relayed(Channel::Task, 1, 1));
    assert!(matches!(effects[1], Effect::Forward { task: TaskId(2), .. }));
}

#[test]
fn a_task_after_one_that_has_ended_runs_at_once() {
    let mut sim = Sim::with_engines(1);
    sim.on(plain_task("a"));
    sim.on(finished(0, 1));
    assert_eq!(sim.on(task("b", after(&["a"]))), [forwarded(Channel::Task, 0, 2, "b")]);
}

#[test]
fn a_task_after_one_that_failed_can_never_run() {
    let mut sim = Sim::with_engines(1);
    sim.on(plain_task("a"));
    sim.on(task("b", after(&["a"])));
    sim.on(task("c", after(&["b"])));
    let effects = sim.on(failed(0, 1));
    let impossible = |id: &str| pair(id, "ImpossibleDependency");
    assert_eq!(error_names(&effects), [impossible("b"), impossible("c")]);
    assert_eq!(error_names(&sim.on(task("d", after(&["a"])))), [impossible("d")]);
}

#[test]
fn a_task_after_one_that_nobody_knows_is_invalid() {
    let mut sim = Sim::with_engines(1);
    assert_eq!(error_names(&sim.on(task("a", after(&["x"])))), [pair("a", "InvalidDependency")]);
    assert_eq!(error_names(&sim.on(task("b", after(&["b"])))), [pair("b", "InvalidDependency")]);
}

#[test]
fn a_task_follows_others_to_their_engine_and_waits_for_it() {
    let mut sim = Sim::with_engines(2);
    sim.on(plain_task("a"));
    sim.on(finished(1, 1));
    assert_eq!(sim.on(task("b", follow(&["a"]))), [forwarded(Channel::Task, 1, 2, "b")]);
    assert_eq!(sim.on(task("c", follow(&["a"]))), [], "the other engine has room and is not asked");
    let effects = sim.on(finished(1, 2));
    assert_eq!(effects, [relayed(Channel::Task, 1, 2), forwarded(Channel::Task, 1, 3, "c")]);
}

#[test]
fn tasks_that_ran_on_two_engines_cannot_both_be_followed() {
    let mut sim = Sim::with_engines(2);
    sim.on(plain_task("a"));
    sim.on(plain_task("b"));
    sim.on(task("c", follow(&["a", "b"])));
    sim.on(finished(1, 1));
    assert_eq!(error_names(&sim.on(finished(0, 2))), [pair("c", "ImpossibleDependency")]);
}

#[test]
fn a_follower_whose_engine_is_lost_ends() {
    let mut sim = Sim::with_engines(2);
    sim.on(plain_task("a"));
    sim.on(finished(1, 1));
    sim.on(plain_task("x"));
    sim.on(plain_task("y"));
    sim.on(task("b", follow(&["a"])));
    let lost = sim.on(Event::Unregistering { engine: Some(EngineId(1)) });
    assert!(error_names(&lost).contains(&pair("b", "ImpossibleDependency")), "{lost:?}");
}

#[test]
fn a_task_that_waits_for_others_times_out_too() {
    let mut sim = Sim::with_engines(1);
    sim.on(plain_task("a"));
    sim.on(task("b", TaskMetadata { timeout: Some(0.5), ..after(&["a"]) }));
    assert_eq!(error_names(&sim.pass(Duration::from_secs(1))), [pair("b", "TaskTimeout")]);
    assert_eq!(without_pings(sim.on(finished(0, 1))), [relayed(Channel::Task, 0, 1)]);
}
