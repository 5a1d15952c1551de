//! The worked examples of `mpi-examples` run as their README says, and find their own assertions true.

use std::process::Command;

use tests::{Engines, TestCluster, program, run};

const EXAMPLES: [&str; 7] = ["hello", "psum", "pi", "ring", "heat", "collatz", "rescue"];

#[track_caller]
fn all_examples_succeed(engines: Engines, n: usize) {
    let cluster = TestCluster::start_program("example-engine", engines, n);
    for example in EXAMPLES {
        let mut command = Command::new(program(&format!("examples/{example}")));
        let told = run(command.arg("--profile-dir").arg(cluster.profile())).ok();
        assert!(!told.is_empty(), "{example} says what it found");
    }
}

#[test]
fn all_examples_succeed_on_2_ranks() {
    all_examples_succeed(Engines::Mpi, 2);
}

#[test]
fn all_examples_succeed_on_4_ranks() {
    all_examples_succeed(Engines::Mpi, 4);
}

#[test]
fn all_examples_succeed_on_one_engine_without_mpi() {
    all_examples_succeed(Engines::Local, 1);
}

#[test]
fn no_example_is_forgotten() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../mpi-examples/examples");
    let files = std::fs::read_dir(folder).expect("it is beside this package").flatten();
    let mut found: Vec<String> =
        files.filter_map(|file| Some(file.path().file_stem()?.to_str()?.to_owned())).collect();
    let mut listed = EXAMPLES.map(str::to_owned);
    found.sort();
    listed.sort();
    assert_eq!(found, listed);
}
