//! Calls a function of the engines by name, and follows what they print.

use client::{OutputItem, Value};

fn main() -> anyhow::Result<()> {
    let client = mpi_examples::connect()?;

    // By name, with values: one result an engine, in the order of the targets.
    let greetings = client.all().apply("hello", &["world".into()], &[])?.get()?;
    let size = greetings.len();
    for (rank, greeting) in greetings.iter().enumerate() {
        assert_eq!(*greeting, Value::from(format!("hello world, this is rank {rank} of {size}")));
    }

    // In a cell, as at the prompt. Output comes while the cell runs, labelled with its engine.
    let result = client.all().execute_silently("hello(\"again\")")?;
    let mut lines = 0;
    for output in result.stream() {
        if let OutputItem::Stdout(text) = &output.item {
            print!("{text}");
            lines += text.lines().count();
        }
    }
    result.get()?;
    assert_eq!(lines, size, "every rank printed one line");

    // An error names the rank and what to do.
    let refused = client.direct(0).apply("hello", &[Value::Int(1)], &[])?.get();
    let error = refused.expect_err("hello takes a string").to_string();
    assert!(error.contains("takes one string"), "{error}");
    println!("{size} ranks said hello");
    Ok(())
}
