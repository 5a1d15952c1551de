//! Counts the words of a text in pieces: whichever engine has room takes the next one, and the answers are merged here.

use std::collections::BTreeMap;

use anyhow::bail;
use client::Value;
use mpi_examples::words::counted;

const TEXT: &str = include_str!("../../docs/PROTOCOL.md");
const LINES_A_PIECE: usize = 10;

fn main() -> anyhow::Result<()> {
    let client = mpi_examples::connect()?;
    let lines: Vec<&str> = TEXT.lines().collect();
    let pieces: Vec<Value> = lines.chunks(LINES_A_PIECE).map(|piece| Value::Str(piece.join("\n"))).collect();

    let mut counts = BTreeMap::new();
    for piece in client.balanced().retries(1).map("count_words", &pieces)?.get()? {
        let Value::Map(words) = piece else { bail!("count_words gave no map") };
        for (word, count) in words {
            let Value::Int(count) = count else { bail!("count_words counted {count:?}") };
            *counts.entry(word).or_insert(0) += count;
        }
    }
    assert_eq!(counts, counted(TEXT));

    let commonest = counts.iter().max_by_key(|(_, count)| **count);
    let Some((word, count)) = commonest else { bail!("there is no word") };
    println!("{} words in {} pieces; the commonest is “{word}”, {count} times", counts.len(), pieces.len());
    Ok(())
}
