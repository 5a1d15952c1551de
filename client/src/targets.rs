//! Which engines: `all`, `2`, `0,2`, `0..3`, `-1`, and what they mean when these engines are here.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use protocol::id::EngineId;

use crate::engines::{Engine, EngineTable};
use crate::error::ClientError;

/// A set of engines, written down before it is known who is here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Targets {
    /// Everybody who is here when something is sent.
    #[default]
    All,
    /// These, in this order.
    Some(Vec<Selection>),
}

/// A part of [`Targets`]. Negative numbers count from the end, as in Python.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// One engine.
    One(i64),
    /// Those from the first to before the second, as far as they are here: `0..3` is 0, 1 and 2.
    Range(i64, Option<i64>),
}

/// Why a text is no [`Targets`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "understand the targets {text:?}: write all, a list like 0,2, or a range like 0..3 (which is 0, 1, 2)"
)]
pub struct TargetsError {
    text: String,
}

impl FromStr for Targets {
    type Err = TargetsError;

    fn from_str(text: &str) -> Result<Targets, TargetsError> {
        let trimmed = text.trim();
        let unbracketed =
            trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(trimmed);
        if unbracketed.eq_ignore_ascii_case("all") {
            return Ok(Targets::All);
        }
        let selections: Option<Vec<Selection>> = unbracketed.split(',').map(selection).collect();
        selections.map(Targets::Some).ok_or_else(|| TargetsError { text: text.to_owned() })
    }
}

fn selection(text: &str) -> Option<Selection> {
    let text = text.trim();
    let Some((from, to)) = text.split_once("..").or_else(|| text.split_once(':')) else {
        return text.parse().ok().map(Selection::One);
    };
    let from = if from.trim().is_empty() { 0 } else { from.trim().parse().ok()? };
    let to = match to.trim() {
        "" => None,
        inclusive if inclusive.starts_with('=') => {
            Some(inclusive[1..].trim().parse::<i64>().ok()?.checked_add(1)?)
        }
        to => Some(to.parse().ok()?),
    };
    Some(Selection::Range(from, to))
}

impl Targets {
    /// The engines meant, each once, in the order written.
    pub fn resolve(&self, engines: &EngineTable) -> Result<Vec<Arc<Engine>>, ClientError> {
        let ids = engines.ids();
        let chosen = match self {
            Targets::All => ids.clone(),
            Targets::Some(selections) => {
                let mut chosen = Vec::new();
                for selection in selections {
                    let found = selection.resolve(&ids);
                    if found.is_empty() {
                        return Err(ClientError::NoSuchEngine {
                            what: format!("engine {selection}"),
                            present: present(&ids),
                        });
                    }
                    chosen.extend(found);
                }
                let mut seen = std::collections::BTreeSet::new();
                chosen.retain(|id| seen.insert(*id));
                chosen
            }
        };
        if chosen.is_empty() {
            return Err(ClientError::NoSuchEngine { what: "an engine".to_owned(), present: present(&ids) });
        }
        Ok(chosen.into_iter().filter_map(|id| engines.by_id(id).cloned()).collect())
    }
}

impl Selection {
    fn resolve(self, ids: &[EngineId]) -> Vec<EngineId> {
        // Negative numbers count back from the number after the highest id.
        let end = ids.last().map_or(0, |last| i64::from(last.0) + 1);
        let absolute = |number: i64| if number < 0 { number.saturating_add(end) } else { number };
        match self {
            Selection::One(number) => {
                let wanted = absolute(number);
                ids.iter().copied().filter(|id| i64::from(id.0) == wanted).collect()
            }
            Selection::Range(from, to) => {
                let (from, to) = (absolute(from), to.map_or(end, absolute));
                ids.iter().copied().filter(|id| (from..to).contains(&i64::from(id.0))).collect()
            }
        }
    }
}

fn present(ids: &[EngineId]) -> String {
    if ids.is_empty() { "not there yet (none has joined)".to_owned() } else { compact(ids) }
}

/// `[0-3]`, `[0, 2]`, `[5]`: ids as people read them.
pub fn compact(ids: &[EngineId]) -> String {
    let numbers: Vec<u32> = ids.iter().map(|id| id.0).collect();
    format!("[{}]", ranges(&numbers))
}

/// `0-3, 5`: runs of three and more shortened.
pub fn ranges(numbers: &[u32]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut rest = numbers;
    while let [first, ..] = rest {
        let run =
            (0..).zip(rest).take_while(|(step, number)| first.checked_add(*step) == Some(**number)).count();
        if run >= 3 {
            parts.push(format!("{first}-{}", rest[run - 1]));
            rest = &rest[run..];
        } else {
            parts.push(first.to_string());
            rest = &rest[1..];
        }
    }
    parts.join(", ")
}

impl From<Vec<EngineId>> for Targets {
    fn from(ids: Vec<EngineId>) -> Targets {
        Targets::Some(ids.into_iter().map(|id| Selection::One(i64::from(id.0))).collect())
    }
}

impl From<EngineId> for Targets {
    fn from(id: EngineId) -> Targets {
        Targets::from(vec![id])
    }
}

impl From<u32> for Targets {
    fn from(id: u32) -> Targets {
        Targets::Some(vec![Selection::One(i64::from(id))])
    }
}

impl From<&[u32]> for Targets {
    fn from(ids: &[u32]) -> Targets {
        Targets::Some(ids.iter().map(|&id| Selection::One(i64::from(id))).collect())
    }
}

impl<const N: usize> From<[u32; N]> for Targets {
    fn from(ids: [u32; N]) -> Targets {
        Targets::from(ids.as_slice())
    }
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selection::One(number) => number.fmt(f),
            Selection::Range(from, Some(to)) => write!(f, "{from}..{to}"),
            Selection::Range(from, None) => write!(f, "{from}.."),
        }
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Targets::All => f.write_str("all"),
            Targets::Some(selections) => {
                let parts: Vec<String> = selections.iter().map(Selection::to_string).collect();
                f.write_str(&parts.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str, here: &[u32]) -> Result<Vec<u32>, String> {
        let mut table = EngineTable::default();
        for &id in here {
            let uuid = format!("u{id}").into();
            table.insert(Arc::new(Engine { id: EngineId(id), uuid, description: None }));
        }
        let targets: Targets = text.parse().map_err(|error: TargetsError| error.to_string())?;
        let engines = targets.resolve(&table).map_err(|error| error.to_string())?;
        Ok(engines.iter().map(|engine| engine.id.0).collect())
    }

    #[test]
    fn targets_are_lists_ranges_and_all() {
        let here = [0, 1, 2, 3];
        assert_eq!(ids("all", &here), Ok(vec![0, 1, 2, 3]));
        assert_eq!(ids("2", &here), Ok(vec![2]));
        assert_eq!(ids("0,2", &here), Ok(vec![0, 2]));
        assert_eq!(ids(" [3, 1] ", &here), Ok(vec![3, 1]));
        assert_eq!(ids("0..3", &here), Ok(vec![0, 1, 2]));
        assert_eq!(ids("0..=3", &here), Ok(vec![0, 1, 2, 3]));
        assert_eq!(ids("1:", &here), Ok(vec![1, 2, 3]));
        assert_eq!(ids("-1", &here), Ok(vec![3]));
        assert_eq!(ids("0,0..2", &here), Ok(vec![0, 1]));
    }

    #[test]
    fn a_range_takes_who_is_here_and_a_single_engine_must_be() {
        assert_eq!(ids("0..9", &[0, 5]), Ok(vec![0, 5]));
        assert!(ids("4", &[0, 5]).unwrap_err().contains("find engine 4: the engines are [0, 5]"));
        assert!(ids("all", &[]).unwrap_err().contains("none has joined"));
    }

    #[test]
    fn nonsense_is_refused_with_the_ways_to_write_it() {
        for text in ["", "x", "1,,2", "1..x", "0.5", "99999999999999999999", "0..=9223372036854775807"] {
            assert!(ids(text, &[0]).is_err(), "{text:?}");
        }
    }

    #[test]
    fn runs_of_ids_are_shortened() {
        assert_eq!(ranges(&[0, 1, 2, 3]), "0-3");
        assert_eq!(ranges(&[0, 1, 3]), "0, 1, 3");
        assert_eq!(ranges(&[u32::MAX]), "4294967295");
        assert_eq!(ranges(&[3, 1]), "3, 1");
    }
}
