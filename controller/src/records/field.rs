//! The fields of a record, and what a value in one can be.

use std::cmp::Ordering;

use protocol::Date;
use serde_json::{Number, Value as Json};

/// The fields of a record, in the order of the original's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Field {
    MsgId,
    Header,
    Metadata,
    Content,
    Buffers,
    Submitted,
    ClientUuid,
    EngineUuid,
    Started,
    Completed,
    Resubmitted,
    Received,
    ResultHeader,
    ResultMetadata,
    ResultContent,
    ResultBuffers,
    Queue,
    ExecuteInput,
    ExecuteResult,
    Error,
    Stdout,
    Stderr,
    Label,
}

impl Field {
    pub(crate) const ALL: [Field; 23] = [
        Field::MsgId,
        Field::Header,
        Field::Metadata,
        Field::Content,
        Field::Buffers,
        Field::Submitted,
        Field::ClientUuid,
        Field::EngineUuid,
        Field::Started,
        Field::Completed,
        Field::Resubmitted,
        Field::Received,
        Field::ResultHeader,
        Field::ResultMetadata,
        Field::ResultContent,
        Field::ResultBuffers,
        Field::Queue,
        Field::ExecuteInput,
        Field::ExecuteResult,
        Field::Error,
        Field::Stdout,
        Field::Stderr,
        Field::Label,
    ];

    /// Its name in queries and answers.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Field::MsgId => "msg_id",
            Field::Header => "header",
            Field::Metadata => "metadata",
            Field::Content => "content",
            Field::Buffers => "buffers",
            Field::Submitted => "submitted",
            Field::ClientUuid => "client_uuid",
            Field::EngineUuid => "engine_uuid",
            Field::Started => "started",
            Field::Completed => "completed",
            Field::Resubmitted => "resubmitted",
            Field::Received => "received",
            Field::ResultHeader => "result_header",
            Field::ResultMetadata => "result_metadata",
            Field::ResultContent => "result_content",
            Field::ResultBuffers => "result_buffers",
            Field::Queue => "queue",
            Field::ExecuteInput => "execute_input",
            Field::ExecuteResult => "execute_result",
            Field::Error => "error",
            Field::Stdout => "stdout",
            Field::Stderr => "stderr",
            Field::Label => "label",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Field> {
        Field::ALL.into_iter().find(|field| field.name() == name)
    }

    pub(crate) fn is_date(self) -> bool {
        matches!(self, Field::Submitted | Field::Started | Field::Completed | Field::Received)
    }

    /// Whether it holds raw bytes, which travel beside the JSON and cannot be compared with it.
    pub(crate) fn is_buffers(self) -> bool {
        matches!(self, Field::Buffers | Field::ResultBuffers)
    }
}

/// What a field holds, and what it is compared with. Dates are instants, however they are written.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Date(Date),
    Json(Json),
}

impl Value {
    pub(crate) const NULL: Value = Value::Json(Json::Null);

    pub(crate) fn text(text: impl Into<String>) -> Value {
        Value::Json(Json::String(text.into()))
    }

    pub(crate) fn date(date: Option<Date>) -> Value {
        date.map_or(Value::NULL, Value::Date)
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Value::Json(Json::Null))
    }

    pub(crate) fn into_json(self) -> Json {
        match self {
            Value::Date(date) => Json::String(date.to_string()),
            Value::Json(json) => json,
        }
    }

    /// How two values of one kind are ordered; values of different kinds, null and objects are not.
    pub(crate) fn order(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::Date(one), Value::Date(two)) => Some(one.cmp(two)),
            (Value::Json(one), Value::Json(two)) => order(one, two),
            (Value::Date(_), Value::Json(_)) | (Value::Json(_), Value::Date(_)) => None,
        }
    }
}

fn order(one: &Json, two: &Json) -> Option<Ordering> {
    match (one, two) {
        (Json::Bool(one), Json::Bool(two)) => Some(one.cmp(two)),
        (Json::Number(one), Json::Number(two)) => Some(order_numbers(one, two)),
        (Json::String(one), Json::String(two)) => Some(one.cmp(two)),
        (Json::Array(one), Json::Array(two)) => {
            for (one, two) in one.iter().zip(two) {
                match order(one, two)? {
                    Ordering::Equal => {}
                    unequal => return Some(unequal),
                }
            }
            Some(one.len().cmp(&two.len()))
        }
        _ => None,
    }
}

/// Exactly, also between whole numbers and fractions.
fn order_numbers(one: &Number, two: &Number) -> Ordering {
    match (one.as_i128(), two.as_i128()) {
        (Some(one), Some(two)) => one.cmp(&two),
        (Some(one), None) => order_mixed(one, float(two)),
        (None, Some(two)) => order_mixed(two, float(one)).reverse(),
        (None, None) => float(one).partial_cmp(&float(two)).unwrap_or(Ordering::Equal),
    }
}

/// Numbers of JSON are finite.
fn float(number: &Number) -> f64 {
    number.as_f64().unwrap_or(0.0)
}

fn order_mixed(whole: i128, other: f64) -> Ordering {
    // Casts of floats saturate, and whole numbers of JSON have 64 bits: beyond them the floor decides.
    whole.cmp(&(other.floor() as i128)).then(if other.fract() == 0.0 {
        Ordering::Equal
    } else {
        Ordering::Less
    })
}

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Value) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Any order that agrees with equality, so that long lists can be searched: kinds first, then [`Value::order`]
/// where there is one. `1` equals `1.0`; `true` does not.
impl Ord for Value {
    fn cmp(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Date(one), Value::Date(two)) => one.cmp(two),
            (Value::Json(one), Value::Json(two)) => order_any(one, two),
            (Value::Date(_), Value::Json(_)) => Ordering::Less,
            (Value::Json(_), Value::Date(_)) => Ordering::Greater,
        }
    }
}

fn order_any(one: &Json, two: &Json) -> Ordering {
    match (one, two) {
        (Json::Array(one), Json::Array(two)) => one
            .iter()
            .zip(two)
            .map(|(one, two)| order_any(one, two))
            .find(|order| order.is_ne())
            .unwrap_or(one.len().cmp(&two.len())),
        (Json::Object(one), Json::Object(two)) => one
            .iter()
            .zip(two)
            .map(|((name, one), (other, two))| name.cmp(other).then_with(|| order_any(one, two)))
            .find(|order| order.is_ne())
            .unwrap_or(one.len().cmp(&two.len())),
        _ => rank(one).cmp(&rank(two)).then_with(|| order(one, two).unwrap_or(Ordering::Equal)),
    }
}

fn rank(json: &Json) -> u8 {
    match json {
        Json::Null => 0,
        Json::Bool(_) => 1,
        Json::Number(_) => 2,
        Json::String(_) => 3,
        Json::Array(_) => 4,
        Json::Object(_) => 5,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_field_is_found_by_its_name() {
        for field in Field::ALL {
            assert_eq!(Field::named(field.name()), Some(field));
        }
        assert_eq!(Field::named("engine"), None);
    }

    #[test]
    fn numbers_are_equal_and_ordered_by_what_they_are_not_how_they_are_written() {
        let order = |one: Json, two: Json| Value::Json(one).order(&Value::Json(two));
        assert_eq!(order(json!(1), json!(1.0)), Some(Ordering::Equal));
        assert_eq!(order(json!(2), json!(1.5)), Some(Ordering::Greater));
        assert_eq!(order(json!(-2), json!(-1.5)), Some(Ordering::Less));
        assert_eq!(order(json!(-1), json!(-1.5)), Some(Ordering::Greater));
        assert_eq!(
            order(json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992.0)),
            Some(Ordering::Greater)
        );
        assert_eq!(order(json!(u64::MAX), json!(1e300)), Some(Ordering::Less));
        assert_eq!(order(json!(i64::MIN), json!(-1e300)), Some(Ordering::Greater));
        assert_eq!(order(json!(1e300), json!(u64::MAX)), Some(Ordering::Greater));
        assert_eq!(order(json!(1), json!(true)), None);
        assert_eq!(order(json!([1, "b"]), json!([1, "a", 0])), Some(Ordering::Greater));
        assert_eq!(order(json!([1]), json!([1, 0])), Some(Ordering::Less));
        assert_eq!(order(json!(null), json!(null)), None);
    }

    fn anything() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            (-3_i64..3).prop_map(Json::from),
            (-6_i64..6).prop_map(|half| Json::from(half as f64 / 2.0)),
            "[ab]{0,2}".prop_map(Json::from),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Json::from),
                prop::collection::btree_map("[ab]", inner, 0..3)
                    .prop_map(|map| Json::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_order_of_all_values_is_one(values in prop::collection::vec(anything(), 3)) {
            let [one, two, three] = [0, 1, 2].map(|index| Value::Json(values[index].clone()));
            prop_assert_eq!(one.cmp(&two), two.cmp(&one).reverse());
            if one <= two && two <= three {
                prop_assert!(one <= three);
            }
            if let Some(order) = one.order(&two) {
                prop_assert_eq!(order, one.cmp(&two));
            }
        }
    }
}
