//! The main job: arrays live on the engines, one line at a prompt reduces them over all ranks.

use tests::{Engines, TestCluster, mpiexec, program, run};

/// `[1.5, 2.0]` as numbers.
#[track_caller]
fn numbers(json: &str) -> Vec<f64> {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
}

#[track_caller]
fn psum_is_the_sum_of_what_the_ranks_hold(n: usize) {
    let cluster = TestCluster::start(Engines::Mpi, n);
    cluster.client(&["px", "a = rand(100)"]).ok();
    cluster.client(&["px", "s = psum(a)"]).ok();

    let sums = numbers(&cluster.client(&["pull", "s", "--json"]).ok());
    assert_eq!(sums.len(), n);
    assert!(sums.iter().all(|sum| *sum == sums[0]), "all ranks have the same sum: {sums:?}");

    let pulled = cluster.client(&["pull", "a", "--json"]).ok();
    let arrays: Vec<Vec<f64>> = serde_json::from_str(&pulled).expect("a list a rank");
    assert_eq!(arrays.len(), n);
    let expected: f64 = arrays.iter().flatten().sum();
    assert!((sums[0] - expected).abs() < 1e-9, "{} is not {expected}", sums[0]);
    assert!(n == 1 || arrays[0] != arrays[1], "each rank draws its own numbers");
}

#[test]
fn psum_agrees_on_1_rank() {
    psum_is_the_sum_of_what_the_ranks_hold(1);
}

#[test]
fn psum_agrees_on_2_ranks() {
    psum_is_the_sum_of_what_the_ranks_hold(2);
}

#[test]
fn psum_agrees_on_3_ranks() {
    psum_is_the_sum_of_what_the_ranks_hold(3);
}

#[test]
fn psum_agrees_on_4_ranks() {
    psum_is_the_sum_of_what_the_ranks_hold(4);
}

#[test]
fn psum_agrees_on_7_ranks() {
    psum_is_the_sum_of_what_the_ranks_hold(7);
}

#[test]
fn the_id_of_an_mpi_engine_is_its_rank() {
    let cluster = TestCluster::start(Engines::Mpi, 4);
    cluster.client(&["px", "r = rank()"]).ok();
    assert_eq!(numbers(&cluster.client(&["pull", "r", "--json"]).ok()), [0.0, 1.0, 2.0, 3.0]);
    let status: serde_json::Value =
        serde_json::from_str(&cluster.client(&["status", "--json"]).ok()).expect("--json prints JSON");
    for rank in 0..4 {
        assert_eq!(status["cluster"]["engines"][rank.to_string()]["rank"], rank, "{status}");
        assert_eq!(status["cluster"]["engines"][rank.to_string()]["world_size"], 4, "{status}");
    }
}

#[test]
fn engines_that_came_up_as_singletons_refuse_and_say_why() {
    let profile = tempfile::tempdir().expect("a temporary directory");
    let mut command = mpiexec(1);
    command.arg(program("engine")).args(["--mpi", "--expect-size", "4", "--profile-dir"]).arg(profile.path());
    let finished = run(&mut command);
    assert!(!finished.status.success());
    for word in ["4", "mpiexec"] {
        assert!(finished.stderr.contains(word), "{word:?} is missing in: {}", finished.stderr);
    }
}
