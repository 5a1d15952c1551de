//! Counting words: many small tasks whose answers are merged by whoever asked.

use std::collections::BTreeMap;

use engine::{RunError, TaskContext, Value};

/// How often each word is in the text, in small letters. Not collective: for load-balanced views.
pub fn count_words(_task: TaskContext<'_>, arguments: Vec<Value>) -> Result<Value, RunError> {
    let [Value::Str(text)] = arguments.as_slice() else {
        return Err(RunError::new("TypeError", "count_words(text) takes one string"));
    };
    Ok(Value::Map(counted(text).into_iter().map(|(word, count)| (word, Value::Int(count))).collect()))
}

/// Words are runs of letters.
pub fn counted(text: &str) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for word in text.split(|letter: char| !letter.is_alphabetic()).filter(|word| !word.is_empty()) {
        *counts.entry(word.to_lowercase()).or_insert(0) += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_whatever_the_size_of_their_letters() {
        let counts = counted("The rank, the ROOT; the end.");
        assert_eq!(counts.get("the"), Some(&3));
        assert_eq!(counts.len(), 4);
    }
}
