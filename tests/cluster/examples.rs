//! The worked examples of `mpi-examples` run as their README says, and find their own assertions true.

use std::process::Command;

use tests::{Engines, TestCluster, processes_with, program, run, wait_until};

/// They need nothing but engines.
const ON_ANY_ENGINE: [&str; 9] =
    ["hello", "psum", "pi", "ring", "heat", "collatz", "rescue", "words", "sweep"];
/// Their kernels call MPI.
const WITH_MPI: [&str; 6] = ["kernels", "wave", "multiply", "sort", "kmeans", "poisson"];
/// Not clients of a cluster that runs.
const OTHERS: [&str; 2] = ["library", "pi_engine"];

#[track_caller]
fn all_succeed(examples: &[&str], engines: Engines, n: usize) {
    let cluster = TestCluster::start_program("example-engine", engines, n);
    let folder = tempfile::tempdir().expect("a temporary directory");
    for example in examples {
        let mut command = Command::new(program(&format!("examples/{example}")));
        let picture = folder.path().join(format!("{example}.png"));
        command.arg("--profile-dir").arg(cluster.profile()).arg("--picture").arg(&picture);
        let told = run(&mut command).ok();
        assert!(!told.is_empty(), "{example} says what it found");
        let draws = ["wave", "kmeans", "poisson", "sweep"].contains(example);
        assert_eq!(picture.is_file(), draws, "{example}");
    }
}

#[test]
fn all_examples_succeed_on_2_ranks() {
    all_succeed(&ON_ANY_ENGINE, Engines::Mpi, 2);
}

#[test]
fn all_examples_succeed_on_4_ranks() {
    all_succeed(&ON_ANY_ENGINE, Engines::Mpi, 4);
}

#[test]
fn all_examples_of_kernels_succeed_on_2_ranks() {
    all_succeed(&WITH_MPI, Engines::Mpi, 2);
}

#[test]
fn all_examples_of_kernels_succeed_on_4_ranks() {
    all_succeed(&WITH_MPI, Engines::Mpi, 4);
}

#[test]
fn examples_without_kernels_succeed_on_one_engine_without_mpi() {
    all_succeed(&ON_ANY_ENGINE, Engines::Local, 1);
}

#[track_caller]
fn a_program_starts_a_cluster_uses_and_ends_it(n: usize) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let picture = folder.path().join("library.png");
    let mut command = Command::new(program("examples/library"));
    command.env("COMMWORLD_CLUSTER", program("cluster")).env("TMPDIR", folder.path());
    let told = run(command.args(["-n", &n.to_string(), "--picture"]).arg(&picture)).ok();
    assert!(told.contains(&format!("a wave on {n} ranks")), "{told}");
    assert!(picture.is_file());
    wait_until("nothing of it runs", || processes_with(folder.path()).is_empty());
}

#[test]
fn a_program_starts_a_cluster_of_2_ranks_uses_and_ends_it() {
    a_program_starts_a_cluster_uses_and_ends_it(2);
}

#[test]
fn a_program_starts_a_cluster_of_4_ranks_uses_and_ends_it() {
    a_program_starts_a_cluster_uses_and_ends_it(4);
}

#[test]
fn an_engine_of_ten_lines_offers_its_function() {
    let cluster = TestCluster::start_program("examples/pi_engine", Engines::Mpi, 2);
    let told = cluster.client(&["px", "estimate_pi(100000, 1)"]).ok();
    assert!(told.contains("3.1"), "{told}");
    let help = cluster.client(&["px", "help(estimate_pi)"]).ok();
    assert!(help.contains("estimate_pi(n, seed): π by the Monte-Carlo method"), "{help}");
}

#[test]
fn no_example_is_forgotten() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../mpi-examples/examples");
    let files = std::fs::read_dir(folder).expect("it is beside this package").flatten();
    let mut found: Vec<String> =
        files.filter_map(|file| Some(file.path().file_stem()?.to_str()?.to_owned())).collect();
    let mut listed: Vec<&str> = [&ON_ANY_ENGINE[..], &WITH_MPI, &OTHERS].concat();
    found.sort();
    listed.sort_unstable();
    assert_eq!(found, listed);
}
