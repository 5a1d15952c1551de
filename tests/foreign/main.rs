//! ipyparallel as its users have it, against our controller: unmodified clients, and engines of its own.
//!
//! Each test starts a cluster and runs one program of `programs/`, which checks its own results and exits as a
//! failure with a message if one is wrong. `scripts/foreign.sh` installs what they need.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tests::{Engines, TestCluster, processes_with, program, run, wait_until};

#[test]
fn direct_views_run_code_and_functions_and_move_arrays() {
    cluster_with(2).run("views.py");
}

#[test]
fn direct_views_work_over_encrypted_connections() {
    let mut cluster = TestCluster::controller(&["--ping", "500", "--enable-curve"]);
    add_engines(&mut cluster, 2);
    cluster.run("views.py");
}

#[test]
fn stock_clients_and_engines_work_over_files_instead_of_ports() {
    let mut cluster = TestCluster::controller(&["--ping", "500", "--transport=ipc"]);
    add_engines(&mut cluster, 2);
    cluster.run("views.py");
}

#[test]
fn balanced_views_map_retry_give_up_and_abort() {
    cluster_with(2).run("balanced.py");
}

#[test]
fn tasks_run_when_and_where_their_dependencies_say() {
    cluster_with(2).run("dependencies.py");
}

#[test]
fn broadcast_views_answer_in_order_whether_or_not_they_coalesce() {
    cluster_with(3).run("broadcast.py");
}

#[test]
fn joblib_and_executors_use_the_engines() {
    cluster_with(2).run("pools.py");
}

#[test]
fn two_clients_at_once_do_everything_in_one_notebook() {
    cluster_with(2).run("two_clients.ipy");
}

#[test]
fn a_person_at_the_prompt_of_ipython_uses_the_magics_and_interrupts() {
    cluster_with(2).run("terminal.py");
}

#[test]
fn tasks_are_interrupted_and_aborted() {
    cluster_with(2).run("interrupts.py");
}

#[test]
fn clients_are_told_of_engines_that_die_and_tasks_are_tried_again() {
    cluster_with(3).run("losses.py");
}

#[test]
fn records_of_tasks_are_found_by_other_clients_purged_and_run_again() {
    cluster_with(2).run("records.py");
}

#[test]
fn a_client_shuts_down_one_engine_and_then_everything() {
    let cluster = cluster_with(3);
    cluster.run("stop.py");
    let profile = cluster.profile();
    wait_until("no process is left", || processes_with(profile.as_os_str()).is_empty());
    let left: Vec<_> = std::fs::read_dir(profile.join("security")).expect("it was made").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn ipclusters_and_cluster_objects_start_our_controller_if_the_profile_says_so() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let profile = folder.path().join("profile");
    run(python(&profile, "cluster_api.py").env("CONTROLLER", program("controller"))).ok();
    // They are told the profile by a variable, not by an argument.
    wait_until("no process is left", || !is_in_an_environment(&profile));
}

#[test]
fn errors_of_a_killed_engine_come_at_once() {
    cluster_with(3).run("kill_engines.py");
}

/// Seconds of kills, 18 if the environment does not say.
const KILL_SECONDS: &str = "COMMWORLD_KILL_SECONDS";

#[test]
fn every_future_ends_while_the_controller_is_killed_and_restarted() {
    let seconds: u64 =
        std::env::var(KILL_SECONDS).map_or(18, |text| text.parse().expect("a number of seconds"));
    let mut cluster = TestCluster::controller(&["--restore", "--ping", "500"]);
    add_engines(&mut cluster, 3);
    let mut command = python(cluster.profile(), "restart.py");
    command.env("SECONDS_AT_MOST", (seconds + 55).to_string());
    let mut load = command.spawn().expect("Python was found");
    let file = |name: &str| cluster.profile().join(name);
    let (loaded, calm) = (file("load"), file("calm"));
    wait_until("the load has begun", || loaded.is_file());
    // Not a wait for an event: this is how long each controller lives. What was said last is said again after 5 s.
    let (mut lives, began) = ([2, 7, 1].into_iter().cycle(), Instant::now());
    while began.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_secs(lives.next().expect("without an end")));
        cluster.kill_and_restart_controller();
    }
    std::fs::write(calm, "").expect("the profile is ours");
    let mut status = None;
    wait_until("the load has ended", || {
        status = load.try_wait().expect("it is our child");
        status.is_some()
    });
    assert!(status.is_some_and(|status| status.success()), "restart.py: {status:?}");
}

#[test]
fn clusters_of_the_original_start_our_controller_if_the_environment_says_so() {
    // What it costs is said by cargo xtask foreign, with an optimised build.
    let folder = tempfile::tempdir().expect("a temporary directory");
    let profile = folder.path().join("profile");
    let mut command = python(&profile, "cost.py");
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign");
    let path = std::env::join_paths([programs.join("programs"), programs.join("suite")]);
    command
        .env("PYTHONPATH", path.expect("a checkout without colons in its path"))
        .env("COMMWORLD_CONTROLLER", program("controller"))
        .env("TASKS", "300");
    let told = run(&mut command).ok();
    // One process: it is ours, for the original has nine.
    assert!(told.contains(" in 1 processes"), "{told}");
    wait_until("no process is left", || processes_with(folder.path().as_os_str()).is_empty());
}

#[test]
fn a_stock_client_drives_our_engines() {
    TestCluster::start(Engines::Mpi, 2).run("our_engines.py");
}

#[test]
fn a_stock_client_drives_our_python_engines() {
    let mut cluster = TestCluster::controller(&["--ping", "500"]);
    add_python_engines(&mut cluster, 2);
    cluster.run("python_engines.py");
}

/// A module, compiled as docs/KERNELS.md says.
#[track_caller]
fn compiled_module(folder: &Path) -> PathBuf {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let library = folder.join("libpsum_c.so");
    let mut command = Command::new(std::env::var_os("MPICC").unwrap_or_else(|| "mpicc".into()));
    command.args(["-shared", "-fPIC", "-I"]).arg(project.join("module/include")).arg("-o").arg(&library);
    run(command.arg(project.join("mpi-examples/kernels/psum.c"))).ok();
    library
}

#[test]
fn a_stock_client_calls_compiled_kernels_in_our_engines() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let module = compiled_module(folder.path());
    let cluster = TestCluster::start(Engines::Mpi, 2);
    run(python(cluster.profile(), "modules.py").env("PSUM", &module).env("ENGINES", "native")).ok();
}

#[test]
fn a_stock_client_calls_compiled_kernels_in_our_python_engines() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let module = compiled_module(folder.path());
    let mut cluster = TestCluster::controller(&["--ping", "500"]);
    add_python_engines(&mut cluster, 2);
    run(python(cluster.profile(), "modules.py").env("PSUM", &module).env("ENGINES", "python")).ok();
}

#[track_caller]
fn the_python_example_sums(n: usize) {
    let mut cluster = TestCluster::controller(&["--ping", "500"]);
    add_python_engines(&mut cluster, n);
    cluster.client(&["wait", "-n", &n.to_string()]).ok();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mpi-examples/python/psum.py");
    let mut command = python_without_arguments(cluster.profile());
    let told = run(command.arg(example)).ok();
    assert!(told.contains(&format!("499500.0 in Python and in C on {n} ranks")), "{told}");
}

#[test]
fn the_python_example_sums_over_2_ranks() {
    the_python_example_sums(2);
}

#[test]
fn the_python_example_sums_over_4_ranks() {
    the_python_example_sums(4);
}

#[test]
fn an_interrupt_frees_ranks_from_any_call_of_mpi4py_and_the_world_stays_whole() {
    let mut cluster = TestCluster::controller(&["--ping", "500"]);
    add_python_engines(&mut cluster, 4);
    cluster.run("mpi4py_interrupts.py");
}

#[test]
fn the_session_of_the_documentation_of_mpi_works_word_for_word() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let profile = folder.path().join("profile");
    let python_engines = format!("--python={}", interpreter().display());
    let place = ["--profile-dir", profile.to_str().expect("a path in UTF-8")];
    let cluster = |arguments: &[&str]| run(Command::new(program("cluster")).args(place).args(arguments)).ok();
    cluster(&["start", "-n", "4", "--engines", "mpi", &python_engines, "--daemonize"]);
    let psum = Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign/programs/psum.py");
    let session = run(python(&profile, "psum_session.ipy").env("PSUM", &psum));
    // The same by our own client.
    let client = |arguments: &[&str]| {
        let mut command = Command::new(program("client"));
        run(command.arg("--profile-dir").arg(&profile).args(arguments)).ok()
    };
    client(&["run", psum.to_str().expect("a path in UTF-8")]);
    client(&["px", "a = np.random.rand(100)"]);
    client(&["px", "s = psum(a)"]);
    let sums: Vec<f64> =
        serde_json::from_str(&client(&["pull", "float(s)", "--json"])).expect("a list of numbers");
    cluster(&["stop"]);
    session.ok();
    assert_eq!(sums.len(), 4);
    assert!(sums.iter().all(|sum| *sum == sums[0] && *sum > 100.0), "{sums:?}");
}

#[test]
fn our_client_and_python_engines_share_names_arrays_and_tracebacks() {
    let mut cluster = TestCluster::controller(&["--ping", "500"]);
    add_python_engines(&mut cluster, 2);
    cluster.client(&["wait", "-n", "2"]).ok();
    cluster.client(&["push", "a=[1.5, 2.5]"]).ok();
    let shown = cluster.client(&["px", "a.dtype.name, (a * 2).tolist(), psum(a)"]).ok();
    assert!(shown.contains("float64") && shown.contains("[3.0, 5.0], 8.0"), "{shown}");
    let pulled = cluster.client(&["pull", "a", "--json"]).ok();
    assert_eq!(pulled.split_whitespace().collect::<String>(), "[[1.5,2.5],[1.5,2.5]]");
    let failed = cluster.client(&["px", "if rank() == 1: missing"]);
    assert_ne!(failed.code(), 0);
    let said = failed.stdout + &failed.stderr;
    assert!(said.contains("NameError") && said.contains("missing"), "{said}");
}

#[test]
fn an_engine_says_why_it_cannot_be_python() {
    let mut command = Command::new(program("engine"));
    let finished = run(command.arg("--python=/nowhere/python"));
    assert_eq!(finished.code(), 1);
    assert!(finished.stderr.contains("/nowhere/python cannot be run"), "{}", finished.stderr);
    assert!(finished.stderr.contains("--python=/path/to/python"), "{}", finished.stderr);

    let mut command = Command::new(program("engine"));
    let python = format!("--python={}", interpreter().display());
    let finished = run(command.arg(python).env("COMMWORLD_PYTHON_PLUGIN", "/nowhere/plugin.so"));
    assert_eq!(finished.code(), 1);
    assert!(finished.stderr.contains("libcommworld_python.so is not at /nowhere"), "{}", finished.stderr);
}

/// Adds Python engines of one MPI world, in the environment of the tests.
fn add_python_engines(cluster: &mut TestCluster, n: usize) {
    let python = format!("--python={}", interpreter().display());
    cluster.add_program_with("engine", Engines::Mpi, n, &[&python]);
}

/// Whether a process of this profile is alive, as far as its environment tells.
fn is_in_an_environment(profile: &Path) -> bool {
    let variable = [b"PROFILE_DIR=", profile.as_os_str().as_encoded_bytes()].concat();
    let processes = std::fs::read_dir("/proc").expect("Linux has it").flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("environ")).ok())
        .any(|environment| environment.split(|byte| *byte == 0).any(|found| found == variable))
}

/// A controller, and `n` engines of ipyparallel on their way; the programs wait for them.
#[track_caller]
fn cluster_with(n: usize) -> TestCluster {
    let mut cluster = TestCluster::controller(&["--ping", "500"]);
    add_engines(&mut cluster, n);
    cluster
}

#[track_caller]
fn add_engines(cluster: &mut TestCluster, n: usize) {
    for index in 0..n {
        let mut command = python_without_arguments(cluster.profile());
        command.args(["-m", "ipyparallel.engine", "--InteractiveShell.colors=nocolor", "--profile-dir"]);
        command.arg(cluster.profile());
        cluster.add_launcher(&mut command, &format!("engine-{index}"));
    }
}

trait RunProgram {
    /// Runs a program against this cluster; fails the test if that fails.
    fn run(&self, program: &str);
}

impl RunProgram for TestCluster {
    #[track_caller]
    fn run(&self, program: &str) {
        run(&mut python(self.profile(), program)).ok();
    }
}

/// The command that runs a program of `programs/`.
#[track_caller]
fn python(profile: &Path, program: &str) -> Command {
    let mut command = python_without_arguments(profile);
    if program.ends_with(".ipy") {
        command.args(["-m", "IPython", "--no-banner", "--colors=NoColor", "--HistoryManager.enabled=False"]);
    }
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign/programs");
    command.env("PYTHONPATH", &programs).arg(programs.join(program));
    command
}

/// Python with ipyparallel, away from the profiles of whoever runs the tests.
#[track_caller]
fn python_without_arguments(profile: &Path) -> Command {
    let mut command = Command::new(interpreter());
    for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("IPP_")) {
        command.env_remove(variable);
    }
    command
        .env("PROFILE_DIR", profile)
        .env("IPYTHONDIR", profile.join("ipython"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env_remove("COMMWORLD_CONTROLLER")
        .current_dir(profile.parent().expect("it is in a temporary directory"));
    command
}

/// The Python that `scripts/foreign.sh` prepares, and finds at once when that was done.
#[track_caller]
fn interpreter() -> &'static Path {
    static INTERPRETER: OnceLock<PathBuf> = OnceLock::new();
    INTERPRETER.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/foreign.sh");
        let output = Command::new(script).output().expect("it is in the repository");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "scripts/foreign.sh failed:\n{errors}");
        PathBuf::from(String::from_utf8(output.stdout).expect("a path in UTF-8").trim())
    })
}
