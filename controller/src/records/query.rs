//! The query language of `db_request`: conditions on fields, all of which must hold.
//!
//! `{"label": "a"}` asks for equality; `{"submitted": {"$gte": "2026-01-02T03:04:05Z", "$lt": …}}` names operators.
//! Dates are instants. A name may lead into an object: `{"metadata.targets": []}`, `{"result_content.status": "ok"}`.
//!
//! | operator | holds if the field |
//! |---|---|
//! | `$eq`, `$ne` | equals the operand, or does not; nothing but null equals null |
//! | `$lt` `$lte` `$gt` `$gte` | has a value of the operand's kind, and it is less, … |
//! | `$in`, `$nin` | equals one of the listed, or none |
//! | `$all` | is a list with all that is listed in it, or equals the only thing listed |
//! | `$mod` | is a number that leaves `[divisor, remainder]`, with the divisor's sign |
//! | `$exists` | is not null, or is |
//! | `$glob` | is a text (or date) that a shell pattern matches |
//!
//! A query is read into [`Query`] once. What it asks is then always possible: a field that has a value of another
//! kind does not match.

mod glob;

use std::cmp::Ordering;
use std::collections::BTreeSet;

use protocol::Date;
use protocol::error::{ErrorContent, ename, python_repr};
use protocol::limits::JSON_DEPTH_MAX;
use serde_json::{Map, Value as Json};

use super::field::{Field, Value};
use glob::Glob;

/// Conditions of one query. Two for each field and then some.
const CONDITIONS_MAX: usize = 1_000;

/// Values in a query, those in lists counted: it may name every record that a file keeps by default.
const VALUES_MAX: usize = 1_000_000;

/// Conditions that a record meets or does not.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    conditions: Vec<Condition>,
}

/// One test of one field.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    field: Field,
    /// Names that lead into the field's object.
    path: Vec<String>,
    test: Test,
}

/// What is asked of a value.
#[derive(Clone, Debug)]
pub(crate) enum Test {
    /// `$eq`
    Equals(Value),
    /// `$ne`
    Differs(Value),
    /// `$lt`, `$lte`, `$gt`, `$gte`
    Ordered(Comparison, Value),
    /// `$in`
    In(BTreeSet<Value>),
    /// `$nin`
    NotIn(BTreeSet<Value>),
    /// `$all`
    All(BTreeSet<Value>),
    /// `$mod`
    Mod(Modulo),
    /// `$exists`
    Exists(bool),
    /// `$glob`
    Matches(Glob),
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Divisor and remainder; the divisor is not zero.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Modulo {
    Whole(i128, i128),
    Float(f64, f64),
}

type Refusal = Box<ErrorContent>;

impl Query {
    /// Reads a query, or says what is wrong with it, under the name that Python would give the error.
    pub(crate) fn parse(query: &Map<String, Json>) -> Result<Query, Refusal> {
        let mut conditions = vec![];
        let mut values = 0;
        for (name, wanted) in query {
            let (field, path) = place(name)?;
            let mut add = |test: Test| {
                conditions.push(Condition { field, path: path.clone(), test });
                if conditions.len() > CONDITIONS_MAX {
                    return Err(value_error(format!("more than {CONDITIONS_MAX} conditions in a query")));
                }
                Ok(())
            };
            check_size(wanted, 0, &mut values)?;
            let operand = Operand { name, is_date: field.is_date() && path.is_empty() };
            match wanted {
                Json::Object(operators) => {
                    for (operator, value) in operators {
                        add(checked(field, operator, operand.test(operator, value)?)?)?;
                    }
                }
                value => add(checked(field, "=", Test::Equals(operand.value(value)))?)?,
            }
        }
        Ok(Query { conditions })
    }

    /// Whether a record is wanted. `value_of` is asked for no field that is not in the query.
    pub(crate) fn matches(&self, mut value_of: impl FnMut(Field) -> Value) -> bool {
        self.conditions.iter().all(|condition| {
            let value = value_of(condition.field);
            match condition.path.as_slice() {
                [] => condition.test.accepts(&value),
                path => condition.test.accepts(&inner(value, path)),
            }
        })
    }

    /// The conditions on whole fields, for stores that can find records by some of them.
    pub(crate) fn conditions(&self) -> impl Iterator<Item = (Field, &Test)> {
        self.conditions
            .iter()
            .filter(|condition| condition.path.is_empty())
            .map(|condition| (condition.field, &condition.test))
    }

    /// The only names that records can have, if the query says so.
    pub(crate) fn msg_ids(&self) -> Option<Vec<&str>> {
        self.conditions().find_map(|(field, test)| match (field, test) {
            (Field::MsgId, Test::Equals(value)) => Some(as_text(value).into_iter().collect()),
            (Field::MsgId, Test::In(values)) => Some(values.iter().filter_map(as_text).collect()),
            _ => None,
        })
    }
}

fn as_text(value: &Value) -> Option<&str> {
    match value {
        Value::Json(json) => json.as_str(),
        Value::Date(_) => None,
    }
}

/// A field, and where in it.
fn place(name: &str) -> Result<(Field, Vec<String>), Refusal> {
    let (first, path) = match name.split_once('.') {
        Some((first, path)) => (first, path.split('.').map(str::to_owned).collect()),
        None => (name, vec![]),
    };
    let field =
        Field::named(first).ok_or_else(|| key_error(format!("No such field: {}", python_repr(name))))?;
    if path.len() > JSON_DEPTH_MAX {
        return Err(value_error(format!("more than {JSON_DEPTH_MAX} names in a path")));
    }
    Ok((field, path))
}

/// What a path leads to; null if it leads nowhere.
fn inner(value: Value, path: &[String]) -> Value {
    let Value::Json(mut json) = value else { return Value::NULL };
    for name in path {
        json = match json {
            Json::Object(mut object) => object.remove(name).unwrap_or(Json::Null),
            _ => Json::Null,
        };
    }
    Value::Json(json)
}

/// Raw bytes can be there or not; there is nothing in JSON to compare them with.
fn checked(field: Field, operator: &str, test: Test) -> Result<Test, Refusal> {
    let is_possible = match &test {
        Test::Exists(_) => true,
        Test::Equals(value) | Test::Differs(value) => value.is_null(),
        Test::Ordered(..) | Test::In(_) | Test::NotIn(_) | Test::All(_) | Test::Mod(_) | Test::Matches(_) => {
            false
        }
    };
    if field.is_buffers() && !is_possible {
        return Err(type_error(format!(
            "{operator} of {}: buffers can only be tested with $exists, or for null",
            python_repr(field.name())
        )));
    }
    Ok(test)
}

fn check_size(value: &Json, depth: usize, values: &mut usize) -> Result<(), Refusal> {
    *values += 1;
    if *values > VALUES_MAX {
        return Err(value_error(format!("more than {VALUES_MAX} values in a query")));
    }
    if depth > JSON_DEPTH_MAX {
        return Err(value_error(format!("a query nests deeper than {JSON_DEPTH_MAX}")));
    }
    match value {
        Json::Array(items) => items.iter().try_for_each(|item| check_size(item, depth + 1, values)),
        Json::Object(items) => items.values().try_for_each(|item| check_size(item, depth + 1, values)),
        _ => Ok(()),
    }
}

/// Reads what stands behind an operator.
struct Operand<'a> {
    /// The field, as the query names it.
    name: &'a str,
    is_date: bool,
}

impl Operand<'_> {
    fn test(&self, operator: &str, operand: &Json) -> Result<Test, Refusal> {
        Ok(match operator {
            "$eq" => Test::Equals(self.value(operand)),
            "$ne" => Test::Differs(self.value(operand)),
            "$lt" => Test::Ordered(Comparison::Less, self.comparable(operator, operand)?),
            "$lte" => Test::Ordered(Comparison::LessOrEqual, self.comparable(operator, operand)?),
            "$gt" => Test::Ordered(Comparison::Greater, self.comparable(operator, operand)?),
            "$gte" => Test::Ordered(Comparison::GreaterOrEqual, self.comparable(operator, operand)?),
            "$in" => Test::In(self.list(operator, operand)?),
            "$nin" => Test::NotIn(self.list(operator, operand)?),
            "$all" => Test::All(self.list(operator, operand)?),
            "$mod" => Test::Mod(self.modulo(operand)?),
            "$exists" => match operand {
                Json::Bool(exists) => Test::Exists(*exists),
                // Python takes any number for a truth.
                Json::Number(number) => Test::Exists(number.as_f64() != Some(0.0)),
                _ => return Err(self.refuse(operator, "true or false", operand)),
            },
            "$glob" => {
                let pattern = operand.as_str().ok_or_else(|| self.refuse(operator, "a pattern", operand))?;
                let glob = Glob::parse(pattern);
                Test::Matches(glob.ok_or_else(|| value_error("the pattern of $glob is too long"))?)
            }
            unknown => return Err(key_error(format!("Unsupported operator: {}", python_repr(unknown)))),
        })
    }

    fn value(&self, operand: &Json) -> Value {
        match operand.as_str().filter(|_| self.is_date).and_then(Date::parse) {
            Some(date) => Value::Date(date),
            None => Value::Json(operand.clone()),
        }
    }

    fn comparable(&self, operator: &str, operand: &Json) -> Result<Value, Refusal> {
        match self.value(operand) {
            value @ Value::Date(_) => Ok(value),
            Value::Json(_) if self.is_date => Err(self.refuse(operator, "an ISO date", operand)),
            Value::Json(Json::Null | Json::Object(_)) => {
                Err(self.refuse(operator, "a text, a number, a truth or a list", operand))
            }
            value @ Value::Json(_) => Ok(value),
        }
    }

    fn list(&self, operator: &str, operand: &Json) -> Result<BTreeSet<Value>, Refusal> {
        let items = operand.as_array().ok_or_else(|| self.refuse(operator, "a list", operand))?;
        Ok(items.iter().map(|item| self.value(item)).collect())
    }

    fn modulo(&self, operand: &Json) -> Result<Modulo, Refusal> {
        let wrong = || self.refuse("$mod", "a list of two numbers", operand);
        let [Json::Number(divisor), Json::Number(remainder)] =
            operand.as_array().ok_or_else(wrong)?.as_slice()
        else {
            return Err(wrong());
        };
        let modulo = match (divisor.as_i128(), remainder.as_i128()) {
            (Some(divisor), Some(remainder)) => Modulo::Whole(divisor, remainder),
            _ => Modulo::Float(divisor.as_f64().ok_or_else(wrong)?, remainder.as_f64().ok_or_else(wrong)?),
        };
        match modulo {
            Modulo::Whole(0, _) | Modulo::Float(0.0, _) => {
                Err(value_error(format!("$mod of {}: the divisor is zero", python_repr(self.name))))
            }
            modulo => Ok(modulo),
        }
    }

    fn refuse(&self, operator: &str, wanted: &str, found: &Json) -> Refusal {
        let found = match found {
            Json::Null => "null",
            Json::Bool(_) => "a truth",
            Json::Number(_) => "a number",
            Json::String(_) => "a text",
            Json::Array(_) => "a list",
            Json::Object(_) => "an object",
        };
        type_error(format!("{operator} of {} needs {wanted}, not this: {found}", python_repr(self.name)))
    }
}

impl Test {
    fn accepts(&self, value: &Value) -> bool {
        match self {
            Test::Equals(wanted) => value == wanted,
            Test::Differs(other) => value != other,
            Test::Ordered(comparison, other) => {
                value.order(other).is_some_and(|order| comparison.accepts(order))
            }
            Test::In(wanted) => wanted.contains(value),
            Test::NotIn(others) => !others.contains(value),
            Test::All(wanted) => has_all(value, wanted),
            Test::Mod(modulo) => modulo.accepts(value),
            Test::Exists(wanted) => value.is_null() != *wanted,
            Test::Matches(glob) => match value {
                Value::Date(date) => glob.matches(&date.to_string()),
                Value::Json(json) => json.as_str().is_some_and(|text| glob.matches(text)),
            },
        }
    }
}

/// Nothing has all of nothing.
fn has_all(value: &Value, wanted: &BTreeSet<Value>) -> bool {
    if wanted.is_empty() {
        return false;
    }
    if wanted.iter().all(|wanted| value == wanted) {
        return true;
    }
    let Value::Json(Json::Array(items)) = value else { return false };
    let items: BTreeSet<Value> = items.iter().map(|item| Value::Json(item.clone())).collect();
    wanted.is_subset(&items)
}

impl Comparison {
    fn accepts(self, order: Ordering) -> bool {
        match self {
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
        }
    }
}

impl Modulo {
    fn accepts(self, value: &Value) -> bool {
        let Value::Json(Json::Number(number)) = value else { return false };
        match (self, number.as_i128()) {
            (Modulo::Whole(divisor, remainder), Some(number)) => {
                let rest = number % divisor;
                let rest = if rest != 0 && (rest < 0) != (divisor < 0) { rest + divisor } else { rest };
                rest == remainder
            }
            (Modulo::Whole(divisor, remainder), None) => {
                Modulo::Float(divisor as f64, remainder as f64).accepts(value)
            }
            (Modulo::Float(divisor, remainder), _) => {
                let rest = number.as_f64().map(|number| number % divisor);
                let signed = |rest: f64| {
                    if rest != 0.0 && (rest < 0.0) != (divisor < 0.0) { rest + divisor } else { rest }
                };
                rest.map(signed) == Some(remainder)
            }
        }
    }
}

/// Python shows the argument of a `KeyError` in quotes.
fn key_error(text: impl AsRef<str>) -> Refusal {
    ErrorContent::new(ename::KEY_ERROR, python_repr(text.as_ref())).into()
}

fn type_error(text: impl Into<String>) -> Refusal {
    ErrorContent::new(ename::TYPE_ERROR, text).into()
}

fn value_error(text: impl Into<String>) -> Refusal {
    ErrorContent::new(ename::VALUE_ERROR, text).into()
}

#[cfg(test)]
mod tests;
