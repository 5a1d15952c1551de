//! Tasks for tests of stores: what happens to them, and what may be asked about them.

use bytes::Bytes;
use proptest::prelude::*;
use protocol::Date;
use protocol::frames::WireMessage;
use protocol::id::{EngineId, MsgId};
use protocol::message::Status;
use serde_json::{Map, Value as Json, json};

use super::{Change, Output, Purged, Question, Queue};
use crate::machine::{Address, Channel, Client};
use crate::tasks::TaskId;

/// A day in 2026, and that many seconds.
pub(crate) fn at(second: i64) -> Date {
    Date::from_micros((1_767_323_045 + second) * 1_000_000)
}

pub(crate) fn message(header: Json, metadata: Json, content: Json, buffers: Vec<Bytes>) -> WireMessage {
    let frame = |json: Json| Bytes::from(json.to_string());
    let empty = Bytes::from_static(b"{}");
    WireMessage {
        signature: Bytes::new(),
        header: frame(header),
        parent_header: empty,
        metadata: frame(metadata),
        content: frame(content),
        buffers,
    }
}

/// A request of the client `c`, made at that second.
pub(crate) fn request(msg_id: &str, second: i64, buffers: Vec<Bytes>) -> WireMessage {
    message(
        json!({
            "msg_id": msg_id, "msg_type": "apply_request", "username": "u", "session": "c",
            "date": at(second), "version": "5.4", "further": [1]
        }),
        json!({ "label": format!("label of {msg_id}"), "retries": 0 }),
        json!({ "code": msg_id }),
        buffers,
    )
}

/// What an engine replies a second later.
pub(crate) fn reply(engine: &str, second: i64, buffers: Vec<Bytes>) -> WireMessage {
    message(
        json!({
            "msg_id": format!("{engine}_{second}"), "msg_type": "apply_reply", "username": "u",
            "session": engine, "date": at(second + 1), "version": "5.4"
        }),
        json!({ "started": at(second), "engine": engine, "status": "ok" }),
        json!({ "status": "ok" }),
        buffers,
    )
}

pub(crate) fn client() -> Client {
    Client { channel: Channel::Task, address: Address::Connection(Bytes::from_static(b"client")) }
}

pub(crate) fn submitted(queue: Queue, engine: Option<&str>, msg_id: &str, request: WireMessage) -> Change {
    let engine = engine.map(Into::into);
    Change::Submitted { task: TaskId(1), msg_id: msg_id.into(), client: client(), queue, engine, request }
}

pub(crate) fn gathering(msg_id: &str, request: WireMessage) -> Change {
    Change::Gathering { broadcast: TaskId(1), msg_id: msg_id.into(), client: client(), request }
}

pub(crate) fn assigned(msg_id: &str, engine: &str) -> Change {
    Change::Assigned { task: TaskId(1), msg_id: msg_id.into(), engine: engine.into() }
}

pub(crate) fn replied(msg_id: &str, engine: &str, reply: WireMessage) -> Change {
    Change::Replied {
        task: TaskId(1),
        msg_id: msg_id.into(),
        engine: engine.into(),
        status: Status::Ok,
        reply,
    }
}

pub(crate) fn answered(msg_id: &str, engine: Option<&str>, content: Json) -> Change {
    Change::Answered {
        task: TaskId(1),
        msg_id: msg_id.into(),
        engine: engine.map(Into::into),
        msg_type: "apply_reply".to_owned(),
        metadata: json!({ "status": "error", "engine_info": {} }),
        content,
        buffers: vec![],
    }
}

pub(crate) fn output(msg_id: &str, output: Output) -> Change {
    Change::Output { msg_id: msg_id.into(), output }
}

pub(crate) fn results(msg_ids: &[&str]) -> Question {
    Question::Results { msg_ids: ids(msg_ids), pending: vec![], status_only: false }
}

pub(crate) fn query(query: Json, keys: Option<&[&str]>) -> Question {
    let Json::Object(query) = query else { panic!("a query is an object: {query}") };
    let keys = keys.map(|keys| keys.iter().map(|key| (*key).to_owned()).collect());
    Question::Query { query, keys }
}

pub(crate) fn purge(msg_ids: Purged, engines: &[&str]) -> Question {
    Question::Purge { msg_ids, engines: engines.iter().map(|engine| (*engine).into()).collect() }
}

pub(crate) fn requests(msg_ids: &[&str]) -> Question {
    Question::Requests { msg_ids: ids(msg_ids) }
}

pub(crate) fn ids(names: &[&str]) -> Vec<MsgId> {
    names.iter().map(|name| (*name).into()).collect()
}

/// What happens to a store.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Remember(Box<Change>),
    Ask(Question),
}

/// A few tasks, engines and dates, so that everything meets everything.
pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => change().prop_map(|change| Step::Remember(Box::new(change))),
        1 => question().prop_map(Step::Ask),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        (0..6_u8).prop_map(|number| format!("s_{number}")),
        (0..3_u8, engine()).prop_map(|(number, engine)| format!("s_{number}_{engine}"))
    ]
}

fn engine() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["e0".to_owned(), "e1".to_owned()])
}

fn buffers() -> impl Strategy<Value = Vec<Bytes>> {
    let length = prop_oneof![4 => 0_usize..50, 1 => Just(3_000), 1 => Just(9_000), 1 => Just(60_000)];
    prop::collection::vec((length, any::<u8>()), 0..3).prop_map(|lengths| {
        lengths.into_iter().map(|(length, byte)| Bytes::from(vec![byte; length])).collect()
    })
}

fn change() -> impl Strategy<Value = Change> {
    let queue = prop::sample::select(vec![Queue::Mux, Queue::Task, Queue::Broadcast]);
    let said = prop_oneof![
        "[a\nü]{0,5}".prop_map(Output::Stdout),
        "[a\nü]{0,5}".prop_map(Output::Stderr),
        "[ab]{0,5}".prop_map(Output::Input),
        "[ab]{0,5}"
            .prop_map(|text| Output::Result(json!({ "data": { "text/plain": text }, "metadata": {} }))),
        "[ab]{0,5}".prop_map(|text| Output::Error(json!({ "ename": text, "evalue": "", "traceback": [] }))),
    ];
    // A share's request has the broadcast's name; some have no date.
    let asked = (name(), 0_i64..5, buffers(), any::<bool>())
        .prop_map(|(msg_id, second, buffers, dated)| {
            let original: String = msg_id.split('_').take(2).collect::<Vec<_>>().join("_");
            let mut request = request(&original, second, buffers);
            if !dated {
                request.header = Bytes::from(json!({ "msg_id": original, "session": "d" }).to_string());
                request.metadata = Bytes::from_static(b"{}");
            }
            (msg_id, request)
        })
        .boxed();
    prop_oneof![
        4 => (queue, prop::option::of(engine()), asked.clone())
            .prop_map(|(queue, engine, (msg_id, request))| submitted(queue, engine.as_deref(), &msg_id, request)),
        1 => asked.prop_map(|(msg_id, request)| gathering(&msg_id, request)),
        2 => (name(), engine()).prop_map(|(msg_id, engine)| assigned(&msg_id, &engine)),
        4 => (name(), engine(), 0_i64..5, buffers()).prop_map(|(msg_id, engine, second, buffers)| {
            replied(&msg_id, &engine, reply(&engine, second, buffers))
        }),
        1 => (name(), prop::option::of(engine())).prop_map(|(msg_id, engine)| {
            answered(&msg_id, engine.as_deref(), json!({ "status": "error", "ename": "E" }))
        }),
        3 => (name(), said).prop_map(|(msg_id, said)| output(&msg_id, said)),
        1 => (name(), name()).prop_map(|(msg_id, anew)| Change::Resubmitted { msg_id: msg_id.into(), anew: anew.into() }),
        1 => Just(Change::Left { id: EngineId(0), engine: "e0".into() }),
    ]
}

fn names() -> impl Strategy<Value = Vec<MsgId>> {
    prop::collection::vec(name().prop_map(MsgId::from), 0..4)
}

fn question() -> impl Strategy<Value = Question> {
    let keys = prop::sample::subsequence(
        vec![
            "msg_id",
            "buffers",
            "result_buffers",
            "stdout",
            "completed",
            "header",
            "label",
            "queue",
            "result_content",
        ],
        0..4,
    );
    let purged = prop_oneof![Just(Purged::Finished), names().prop_map(Purged::These)];
    prop_oneof![
        2 => (names(), names(), any::<bool>())
            .prop_map(|(msg_ids, pending, status_only)| Question::Results { msg_ids, pending, status_only }),
        1 => Just(Question::History),
        4 => (some_query(), prop::option::of(keys)).prop_map(|(query, keys)| Question::Query {
            query,
            keys: keys.map(|keys| keys.into_iter().map(str::to_owned).collect()),
        }),
        1 => (purged, prop::collection::vec(engine(), 0..2)).prop_map(|(msg_ids, engines)| Question::Purge {
            msg_ids,
            engines: engines.into_iter().map(Into::into).collect(),
        }),
        1 => names().prop_map(|msg_ids| Question::Requests { msg_ids }),
    ]
}

/// What stores can find by an index, what they cannot, and what cannot be asked.
fn some_query() -> impl Strategy<Value = Map<String, Json>> {
    let date = || (0_i64..7).prop_map(|second| json!(at(second)));
    let date_test = || {
        let operator = prop::sample::select(vec!["$eq", "$ne", "$lt", "$lte", "$gt", "$gte"]);
        prop_oneof![
            Just(Json::Null),
            date(),
            (operator, date()).prop_map(|(operator, date)| json!({ operator: date })),
            prop::collection::vec(prop_oneof![date(), Just(Json::Null)], 0..3)
                .prop_map(|dates| json!({ "$in": dates })),
            (date(), date()).prop_map(|(one, two)| json!({ "$gte": one, "$lt": two })),
            any::<bool>().prop_map(|exists| json!({ "$exists": exists })),
            Just(json!({ "$gt": "soon" })),
        ]
    };
    let text_test = |text: BoxedStrategy<String>| {
        let operator = prop::sample::select(vec!["$eq", "$ne", "$lt", "$lte", "$gt", "$gte", "$glob"]);
        let list = prop::sample::select(vec!["$in", "$nin", "$all"]);
        let item = prop_oneof![text.clone().prop_map(Json::from), Just(Json::Null)];
        prop_oneof![
            Just(Json::Null),
            text.clone().prop_map(Json::from),
            (operator, text.clone()).prop_map(|(operator, text)| json!({ operator: text })),
            (list, prop::collection::vec(item, 0..4)).prop_map(|(operator, list)| json!({ operator: list })),
            text.prop_map(|text| json!({ "$glob": format!("*{}", &text[1..]) })),
            Just(json!({ "$exists": true })),
            Just(json!({ "$ne": null })),
            Just(json!({ "$mod": [2, 1] })),
        ]
    };
    let condition = prop_oneof![
        (prop::sample::select(vec!["submitted", "started", "completed", "received"]), date_test())
            .prop_map(|(field, test)| (field.to_owned(), test)),
        (prop::sample::select(vec!["msg_id", "resubmitted", "header.msg_id"]), text_test(name().boxed()))
            .prop_map(|(field, test)| (field.to_owned(), test)),
        (prop::sample::select(vec!["engine_uuid", "result_metadata.engine"]), text_test(engine().boxed()))
            .prop_map(|(field, test)| (field.to_owned(), test)),
        text_test(
            prop::sample::select(vec!["mux".to_owned(), "task".to_owned(), "broadcast".to_owned()]).boxed()
        )
        .prop_map(|test| ("queue".to_owned(), test)),
        text_test(prop::sample::select(vec!["c".to_owned(), "d".to_owned()]).boxed())
            .prop_map(|test| ("client_uuid".to_owned(), test)),
        text_test(name().prop_map(|name| format!("label of {name}")).boxed())
            .prop_map(|test| ("label".to_owned(), test)),
        text_test("[a\nü]{1,3}".prop_map(|text| format!("x{text}")).boxed())
            .prop_map(|test| ("stdout".to_owned(), test)),
        Just(("error".to_owned(), json!({ "$exists": true }))),
        Just(("buffers".to_owned(), json!({ "$exists": true }))),
        Just(("nonsense".to_owned(), Json::Null)),
    ];
    prop::collection::vec(condition, 0..3).prop_map(|conditions| conditions.into_iter().collect())
}
