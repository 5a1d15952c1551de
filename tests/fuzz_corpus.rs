//! Replays the corpus of every fuzz target: inputs that once mattered, and seeds for new searches.

#[path = "fuzz/bodies.rs"]
mod bodies;

use std::path::Path;

fn replay(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut count = 0;
    for entry in entries {
        let path = entry.expect("the folder can be listed").path();
        let data = std::fs::read(&path).expect("the corpus can be read");
        eprintln!("{}", path.display());
        body(&data);
        count += 1;
    }
    assert!(count > 0, "{} is empty", folder.display());
}

#[test]
fn frames_of_the_corpus_are_harmless() {
    replay("frames", bodies::frames);
}

#[test]
fn headers_of_the_corpus_are_harmless() {
    replay("header", bodies::header);
}

#[test]
fn connection_files_of_the_corpus_are_harmless() {
    replay("connection_file", bodies::connection_file);
}

#[test]
fn values_of_the_corpus_are_harmless() {
    replay("value", bodies::value);
}
