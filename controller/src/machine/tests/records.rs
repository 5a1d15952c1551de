//! What the store of records is told, and what it is asked.

use protocol::message::hub::{PurgeRequest, PurgedTasks, ResultRequest};

use super::queries::asked;
use super::*;
use crate::records::{Purged, Question};

fn question(effects: &[Effect]) -> &Question {
    match effects {
        [Effect::Consult { question, .. }] => question,
        other => panic!("{other:?}"),
    }
}

/// What happened to each task, in short.
fn story(changes: &[Change]) -> Vec<String> {
    let tell = |change: &Change| match change {
        Change::Submitted { msg_id, queue, .. } => format!("{msg_id} submitted by {}", queue.name()),
        Change::Gathering { msg_id, .. } => format!("{msg_id} gathers"),
        Change::Assigned { msg_id, engine, .. } => format!("{msg_id} at {engine}"),
        Change::Replied { msg_id, engine, .. } => format!("{msg_id} replied by {engine}"),
        Change::Answered { msg_id, content, .. } => format!("{msg_id} answered {}", content["status"]),
        Change::Resubmitted { msg_id, anew } => format!("{msg_id} is {anew} now"),
        other => format!("{other:?}").split([' ', '{']).next().unwrap_or_default().to_owned(),
    };
    changes.iter().map(tell).collect()
}

#[test]
fn every_task_is_told_from_its_submission_to_its_end() {
    let mut sim = Sim::with_engines(1);
    sim.changes.clear();
    sim.on(plain_task("t"));
    sim.on(finished(0, 1));
    sim.on(direct("d", 0));
    sim.on(direct("nobody", 9));
    sim.on(Event::Unregistering { engine: Some(EngineId(0)) });
    assert_eq!(
        story(&sim.changes),
        [
            "t submitted by task",
            "t at e0",
            "t replied by e0",
            "d submitted by mux",
            "nobody submitted by mux",
            "nobody answered \"error\"",
            "Left",
            "d answered \"error\"",
        ]
    );
}

#[test]
fn a_broadcast_has_a_record_for_each_share_or_one_if_its_replies_become_one() {
    let mut sim = Sim::with_engines(2);
    sim.changes.clear();
    for (name, is_coalescing) in [("each", false), ("one", true)] {
        let targets = [0, 1].map(|number| (uuid(number).as_str().into(), EngineId(number))).to_vec();
        let metadata =
            BroadcastMetadata { targets, is_broadcast: true, is_coalescing, ..BroadcastMetadata::default() };
        sim.on(submitted(Channel::Broadcast, name, "apply_request", Target::Broadcast(Box::new(metadata))));
    }
    let told: Vec<String> = story(&sim.changes);
    assert_eq!(
        told,
        [
            "each_e0 submitted by broadcast",
            "each_e1 submitted by broadcast",
            "one gathers",
            "Shared",
            "Shared"
        ]
    );
    let pending = ResultRequest { msg_ids: ids(&["each_e0", "one", "other"]), status_only: true };
    assert_eq!(
        *question(&sim.on(asked(Query::Results(pending)))),
        Question::Results { msg_ids: ids(&["other"]), pending: ids(&["each_e0", "one"]), status_only: true }
    );
}

#[test]
fn control_requests_have_no_record() {
    let mut sim = Sim::with_engines(1);
    sim.changes.clear();
    let target = Target::Control { engine: identity(0), aborted: vec![] };
    sim.on(submitted(Channel::Control, "c", "clear_request", target));
    sim.on(replied(Channel::Control, 0, 1, None));
    assert_eq!(story(&sim.changes), ["Asked", "Told"], "which stores do not keep");
}

#[test]
fn what_has_not_ended_cannot_be_purged() {
    let mut sim = Sim::with_engines(1);
    sim.on(plain_task("t"));
    let purge = |msg_ids, engine_ids: &[i64]| {
        asked(Query::Purge(PurgeRequest { msg_ids, engine_ids: engine_ids.to_vec() }))
    };
    let (msg_type, content) = answer(&sim.on(purge(PurgedTasks::Many(ids(&["u", "t"])), &[])));
    assert_eq!((msg_type, &content["evalue"]), ("purge_reply", &json!("msg pending: 't'")));
    let (_, content) = answer(&sim.on(purge(PurgedTasks::Many(vec![]), &[99])));
    assert_eq!((&content["ename"], &content["evalue"]), (&json!("IndexError"), &json!("No such engine: 99")));
    assert_eq!(
        *question(&sim.on(purge(PurgedTasks::One("all".into()), &[0]))),
        Question::Purge { msg_ids: Purged::Finished, engines: vec!["e0".into()] }
    );
}

#[test]
fn a_task_that_runs_again_has_a_new_name_and_answers_nobody() {
    let mut sim = Sim::with_engines(1);
    let request = Request {
        client: Client { channel: Channel::Task, address: Address::Nobody },
        header: header("new", "apply_request"),
        target: Target::Balanced(Box::default()),
        message: message("new"),
    };
    sim.changes.clear();
    let effects = sim.on(Event::Resubmitted {
        to: Bytes::from_static(b"c"),
        parent: Bytes::from_static(b"{}"),
        requests: vec![("old".into(), request)],
    });
    assert_eq!(
        answer(&effects),
        ("resubmit_reply", json!({ "status": "ok", "resubmitted": { "old": "new" } }))
    );
    assert_eq!(story(&sim.changes), ["new submitted by task", "new at e0", "old is new now"]);
    let effects = sim.on(finished(0, 1));
    assert!(matches!(&effects[..], [Effect::Relay { client, .. }] if client.address == Address::Nobody));
}
