//! Compiled kernels are loaded into engines that run, and what is wrong with them is said.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tests::{Engines, TestCluster, program, run, signal, wait_until};

/// A folder for what a test compiles.
struct Workshop {
    folder: tempfile::TempDir,
}

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The compiler of the MPI that the engines use.
fn compiler(variable: &str, usual: &str) -> Command {
    Command::new(std::env::var_os(variable).unwrap_or_else(|| usual.into()))
}

impl Workshop {
    fn new() -> Workshop {
        Workshop { folder: tempfile::tempdir().expect("a temporary directory") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// As docs/KERNELS.md says.
    #[track_caller]
    fn c(&self, source: &Path, library: &str) -> String {
        let mut command = compiler("MPICC", "mpicc");
        command.args(["-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-I"]);
        command.arg(project("module/include")).arg("-o").arg(self.path(library)).arg(source);
        run(&mut command).ok();
        self.text(library)
    }

    #[track_caller]
    fn c_text(&self, source: &str, library: &str) -> String {
        let file = self.path(&format!("{library}.c"));
        std::fs::write(&file, source).expect("the folder is ours");
        self.c(&file, library)
    }

    #[track_caller]
    fn cpp(&self, source: &str, library: &str) -> String {
        let file = self.path(&format!("{library}.cpp"));
        std::fs::write(&file, source).expect("the folder is ours");
        let mut command = compiler("CXX", "c++");
        command.args(["-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-I"]);
        command.arg(project("module/include")).arg("-o").arg(self.path(library)).arg(&file);
        run(&mut command).ok();
        self.text(library)
    }

    #[track_caller]
    fn fortran(&self, source: &Path, library: &str) -> String {
        let mut command = compiler("MPIF90", "mpif90");
        command
            .args(["-O2", "-shared", "-fPIC", "-J"])
            .arg(self.folder.path())
            .arg("-o")
            .arg(self.path(library));
        run(command.arg(project("module/include/commworld.f90")).arg(source)).ok();
        self.text(library)
    }

    fn text(&self, library: &str) -> String {
        self.path(library).to_str().expect("a path in UTF-8").to_owned()
    }
}

fn kernel(name: &str) -> PathBuf {
    project("mpi-examples/kernels").join(name)
}

fn rust_kernels() -> String {
    program("libkernels_rust.so").to_str().expect("a path in UTF-8").to_owned()
}

/// What the client says of code that fails.
#[track_caller]
fn error_of(cluster: &TestCluster, code: &str) -> String {
    failure(cluster, &["px", code])
}

#[track_caller]
fn failure(cluster: &TestCluster, arguments: &[&str]) -> String {
    let finished = cluster.client(arguments);
    assert_eq!(finished.code(), 1, "{arguments:?} fails: {finished:?}");
    finished.stdout + &finished.stderr
}

#[track_caller]
fn assert_says(told: &str, words: &[&str]) {
    for word in words {
        assert!(told.contains(word), "{word:?} is missing in: {told}");
    }
}

/// `[1.5, 2.0]` as numbers.
#[track_caller]
fn pulled(cluster: &TestCluster, name: &str) -> serde_json::Value {
    serde_json::from_str(&cluster.client(&["pull", name, "--json"]).ok()).expect("--json prints JSON")
}

#[track_caller]
fn kernels_of_three_languages_sum_over_all_ranks(n: usize) {
    let cluster = TestCluster::start(Engines::Mpi, n);
    let workshop = Workshop::new();
    cluster.client(&["px", "a = rand(1000)"]).ok();
    let libraries = [
        ("psum_c", workshop.c(&kernel("psum.c"), "libpsum_c.so")),
        ("psum_f", workshop.fortran(&kernel("psum.f90"), "libpsum_f.so")),
        ("psum_rust", rust_kernels()),
    ];
    for (function, library) in &libraries {
        let told = cluster.client(&["load", library]).ok();
        assert_says(&told, &[function, &format!("on {n} engines")]);
        cluster.client(&["px", &format!("difference = abs({function}(a) - psum(a))")]).ok();
        for difference in pulled(&cluster, "difference").as_array().expect("a list") {
            assert!(difference.as_f64().expect("a number") < 1e-9, "{function}: {difference}");
        }
    }
}

#[test]
fn kernels_of_three_languages_sum_over_2_ranks() {
    kernels_of_three_languages_sum_over_all_ranks(2);
}

#[test]
fn kernels_of_three_languages_sum_over_4_ranks() {
    kernels_of_three_languages_sum_over_all_ranks(4);
}

#[test]
fn arrays_reach_a_kernel_and_come_back_whatever_their_order_in_memory() {
    let cluster = TestCluster::start(Engines::Mpi, 2);
    let workshop = Workshop::new();
    cluster.client(&["load", &workshop.c(&kernel("psum.c"), "libpsum_c.so")]).ok();
    cluster.client(&["load", &workshop.fortran(&kernel("psum.f90"), "libpsum_f.so")]).ok();
    cluster
        .client(&["px", "m = reshape(arange(6) * 1.0, [2, 3]); t = transposed_f(m); u = transpose(m)"])
        .ok();
    assert_eq!(pulled(&cluster, "t")[0], serde_json::json!([[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]));
    // A transposed view has strides; Fortran must see it in C order.
    assert_eq!(pulled(&cluster, "transposed_f(u)")[0], pulled(&cluster, "m")[0]);
    let moments = pulled(&cluster, "moments_c(u)");
    assert_eq!(moments[1], serde_json::json!([[[-2.5, 0.5], [-1.5, 1.5], [-0.5, 2.5]], 2.5]));
    // By name, with a value of the client.
    let applied = cluster.client(&["apply", "moments_c", "[1.0, 2.0]", "--json"]).ok();
    let applied: serde_json::Value = serde_json::from_str(&applied).expect("--json prints JSON");
    assert_eq!(applied[0], serde_json::json!([[-0.5, 0.5], 1.5]));
}

#[test]
fn a_kernel_in_cpp_throws_within_its_walls_and_an_uncaught_exception_is_named() {
    let source = r#"
        #include "commworld.h"
        #include <algorithm>
        #include <stdexcept>
        #include <vector>

        static double median(std::vector<double> elements) {
            if (elements.empty()) throw std::invalid_argument("the array is empty");
            auto middle = elements.begin() + elements.size() / 2;
            std::nth_element(elements.begin(), middle, elements.end());
            return *middle;
        }

        static int32_t median_cpp(const commworld_call *call) {
            commworld_value a;
            if (commworld_array(call, 0, COMMWORLD_F64, 1, COMMWORLD_C_ORDER, &a)) return 1;
            const double *elements = static_cast<const double *>(a.data);
            try {
                return commworld_give_real(call, median({elements, elements + a.length}));
            } catch (const std::exception &error) {
                return commworld_fail(call, "ValueError", "median_cpp: %s", error.what());
            }
        }

        static int32_t throws(const commworld_call *) { throw std::runtime_error("nobody catches this"); }

        COMMWORLD_MODULE(
            COMMWORLD_FUNCTION(median_cpp, "median_cpp(a)", "the middle element in order")
            COMMWORLD_FUNCTION(throws, "throws()", "breaks the rule"))
    "#;
    let cluster = TestCluster::start(Engines::Local, 1);
    let workshop = Workshop::new();
    cluster.client(&["load", &workshop.cpp(source, "libmedian.so")]).ok();
    assert_eq!(pulled(&cluster, "median_cpp(array([3.0, 9.0, 1.0]))"), serde_json::json!([3.0]));
    assert_says(&error_of(&cluster, "median_cpp(zeros(0))"), &["ValueError: median_cpp: the array is empty"]);
    assert_says(&error_of(&cluster, "throws()"), &["it crashed by SIGABRT in throws of libmedian.so"]);
}

#[test]
fn what_does_not_fit_a_kernel_is_said_with_its_signature() {
    let cluster = TestCluster::start(Engines::Mpi, 2);
    let workshop = Workshop::new();
    cluster.client(&["load", &workshop.c(&kernel("psum.c"), "libpsum_c.so")]).ok();
    cluster.client(&["load", &rust_kernels()]).ok();
    let told = error_of(&cluster, "psum_c(array([1, 2]))");
    assert_says(
        &told,
        &["TypeError", "argument 1 of psum_c", "i64 and shape [2]", "f64 with 1 axis", "psum_c(a)"],
    );
    assert_says(&error_of(&cluster, "psum_c(zeros([2, 2]))"), &["shape [2, 2]", "1 axis"]);
    assert_says(&error_of(&cluster, "psum_c(\"text\")"), &["a string"]);
    assert_says(&error_of(&cluster, "psum_c([1.0])"), &["TypeError", "array(x)"]);
    assert_says(&error_of(&cluster, "psum_c()"), &["psum_c needs argument 1"]);
    assert_says(&error_of(&cluster, "psum_rust(zeros(2), 1)"), &["psum_rust takes 1 argument, not 2"]);
    assert_says(
        &error_of(&cluster, "smooth(zeros([3, 3]), 0.5)"),
        &["ValueError", "0.5 is not from 0 to 0.25"],
    );
    cluster.client(&["px", "psum_c(zeros(2))"]).ok();
}

#[test]
fn an_error_or_a_panic_ends_the_call_and_not_the_engine() {
    let cluster = TestCluster::start(Engines::Mpi, 2);
    let workshop = Workshop::new();
    cluster.client(&["load", &workshop.c(&kernel("faults.c"), "libfaults.so")]).ok();
    cluster.client(&["load", &rust_kernels()]).ok();
    let told = error_of(&cluster, "refuse()");
    assert_says(
        &told,
        &["[rank 0] ValueError: rank 0 does not like it", "[rank 1] ValueError: rank 1 does not"],
    );
    assert_says(&error_of(&cluster, "wordless()"), &["RuntimeError: wordless failed and returned 7"]);
    assert_says(&error_of(&cluster, "panics()"), &["PanicError: rank 0 has had enough"]);
    assert_says(&error_of(&cluster, "too_much()"), &["MemoryError", "too_much"]);
    cluster.client(&["px", "s = psum(1)"]).ok();
    assert_eq!(pulled(&cluster, "s"), serde_json::json!([2, 2]));
}

#[test]
fn what_is_not_a_module_of_this_version_is_refused_with_the_reason() {
    let cluster = TestCluster::start(Engines::Mpi, 2);
    let workshop = Workshop::new();
    let newer = workshop.c_text("unsigned commworld_abi(void) { return 9; }", "libnewer.so");
    assert_says(
        &failure(&cluster, &["load", &newer]),
        &["libnewer.so was built for version 9", "has version 1"],
    );
    let other = workshop.c_text("int answer(void) { return 42; }", "libother.so");
    assert_says(&failure(&cluster, &["load", &other]), &["libother.so is not a module", "commworld_abi"]);
    let missing = workshop.c_text("void nowhere(void);\nvoid f(void) { nowhere(); }", "libmissing.so");
    assert_says(&failure(&cluster, &["load", &missing]), &["cannot load libmissing.so", "nowhere"]);
    std::fs::write(workshop.path("words.so"), "hello").expect("the folder is ours");
    assert_says(
        &failure(&cluster, &["load", &workshop.text("words.so")]),
        &["ImportError", "cannot load words.so"],
    );
    let absent = failure(&cluster, &["load", &workshop.text("absent.so")]);
    assert_says(&absent, &["absent.so", "No such file"]);
    let told = error_of(&cluster, "load(\"/nowhere/libx.so\")");
    assert_says(&told, &["FileNotFoundError", "/nowhere/libx.so", "paths are the engine's"]);
    let builtin = "#include \"commworld.h\"\nstatic int32_t psum(const commworld_call *c) { (void)c; return 0; }\n\
                   COMMWORLD_MODULE(COMMWORLD_FUNCTION(psum, \"psum()\", \"\"))\n";
    assert_says(
        &failure(&cluster, &["load", &workshop.c_text(builtin, "libtaken.so")]),
        &["`psum` is a builtin"],
    );
    cluster.client(&["px", "psum(1)"]).ok();
}

#[test]
fn a_module_that_is_compiled_anew_replaces_what_it_defined() {
    let version = |number: i32, other: &str| {
        format!(
            "#include \"commworld.h\"\n\
             static int32_t answer(const commworld_call *c) {{ return commworld_give_integer(c, {number}); }}\n\
             static int32_t {other}(const commworld_call *c) {{ (void)c; return 0; }}\n\
             COMMWORLD_MODULE(COMMWORLD_FUNCTION(answer, \"answer()\", \"version {number}\")\n\
             COMMWORLD_FUNCTION({other}, \"{other}()\", \"\"))\n"
        )
    };
    let cluster = TestCluster::start(Engines::Mpi, 2);
    let workshop = Workshop::new();
    let library = workshop.c_text(&version(1, "old"), "libanswer.so");
    cluster.client(&["load", &library]).ok();
    assert_eq!(pulled(&cluster, "answer()"), serde_json::json!([1, 1]));
    // A function defined at the prompt goes on to call what has its name then.
    cluster.client(&["px", "fn twice() { answer() * 2 }"]).ok();

    workshop.c_text(&version(21, "newer"), "libanswer.so");
    cluster.client(&["load", &library]).ok();
    assert_eq!(pulled(&cluster, "answer()"), serde_json::json!([21, 21]));
    assert_eq!(pulled(&cluster, "twice()"), serde_json::json!([42, 42]));
    assert_says(&cluster.client(&["px", "help(answer)"]).ok(), &["answer(): version 21 (from libanswer.so)"]);
    cluster.client(&["px", "newer()"]).ok();
    assert_says(&error_of(&cluster, "old()"), &["old"]);

    // Another file may not take the name.
    std::fs::copy(&library, workshop.path("libother.so")).expect("the folder is ours");
    let told = failure(&cluster, &["load", &workshop.text("libother.so")]);
    assert_says(&told, &["libanswer.so has a function `answer` already"]);
}

#[test]
fn a_kernel_that_computes_is_interrupted_and_the_next_call_is_right() {
    let cluster = TestCluster::start(Engines::Mpi, 2);
    let workshop = Workshop::new();
    cluster.client(&["load", &workshop.c(&kernel("faults.c"), "libfaults.so")]).ok();
    let client = cluster.connect();
    for stuck in ["spin()", "if rank() == 0 { spin() } else { psum(1) }"] {
        let result = client.all().execute(stuck).expect("the engines are there");
        wait_until("it runs", || {
            let states = client.engine_status(&client::Targets::All, Duration::from_secs(5));
            let states =
                serde_json::to_value(states.expect("engines answer while they compute")).expect("data");
            states.as_object().is_some_and(|all| all.values().all(|state| !state["running"].is_null()))
        });
        let interrupted = Instant::now();
        client.all().interrupt().expect("the engines are there").get().expect("they answer");
        let outcomes = result.join(Duration::from_secs(10)).expect("it ends");
        assert!(interrupted.elapsed() < Duration::from_secs(5), "{:?}", interrupted.elapsed());
        for outcome in outcomes {
            let error = outcome.result.expect_err("it was interrupted").to_string();
            assert!(error.contains("KeyboardInterrupt"), "{error}");
        }
        cluster.client(&["px", "s = psum(1)"]).ok();
        assert_eq!(pulled(&cluster, "s"), serde_json::json!([2, 2]));
    }
}

#[test]
fn a_kernel_that_crashes_on_one_rank_is_named_with_its_signal() {
    let cluster = TestCluster::start(Engines::Mpi, 4);
    let workshop = Workshop::new();
    cluster.client(&["load", &workshop.c(&kernel("faults.c"), "libfaults.so")]).ok();
    let told = error_of(&cluster, "crash(1)");
    assert_says(&told, &["[rank 1]", "it crashed by SIGSEGV in crash of libfaults.so"]);
}

#[test]
fn a_signal_that_no_kernel_caused_blames_none() {
    let cluster = TestCluster::start(Engines::Local, 1);
    let workshop = Workshop::new();
    cluster.client(&["load", &workshop.c(&kernel("faults.c"), "libfaults.so")]).ok();
    let client = cluster.connect();
    let engines = client.engines();
    let pid = engines[0].description.as_ref().expect("ours").pid;
    let result = client.all().execute("sleep(60)").expect("the engine is there");
    signal(pid, Signal::SIGABRT);
    let outcomes = result.join(Duration::from_secs(20)).expect("it ends");
    let error = outcomes.into_iter().next().expect("one").result.expect_err("its engine died").to_string();
    assert!(error.contains("EngineError") && !error.contains("libfaults"), "{error}");
}

#[test]
fn a_module_can_be_loaded_as_an_engine_starts() {
    let workshop = Workshop::new();
    let library = workshop.c(&kernel("psum.c"), "libpsum_c.so");
    let mut cluster = TestCluster::controller(&[]);
    cluster.add_program_with("engine", Engines::Mpi, 2, &["--module", &library, "-c", "s = psum_c(ones(3))"]);
    cluster.client(&["wait", "-n", "2"]).ok();
    assert_eq!(pulled(&cluster, "s"), serde_json::json!([6.0, 6.0]));

    let mut command = Command::new(program("engine"));
    let refused = run(command.args(["--module", "/nowhere/libx.so", "--profile-dir"]).arg(cluster.profile()));
    assert_ne!(refused.code(), 0);
    assert_says(&refused.stderr, &["/nowhere/libx.so", "No such file"]);
}

#[test]
fn a_cluster_is_started_with_a_module_of_the_current_directory() {
    let workshop = Workshop::new();
    workshop.c(&kernel("psum.c"), "libpsum_c.so");
    let place = format!("--profile-dir={}", workshop.path("profile").display());
    let command = |name: &str, arguments: &[&str]| {
        let mut command = Command::new(program(name));
        command.current_dir(workshop.folder.path()).arg(&place).args(arguments);
        run(&mut command)
    };
    command("cluster", &["start", "-n", "2", "--module", "libpsum_c.so", "--daemonize"]).ok();
    let sums = command("client", &["pull", "psum_c(ones(3))", "--json"]);
    command("cluster", &["stop"]).ok();
    assert_eq!(sums.ok().trim(), "[6.0,6.0]");

    let refused = command("cluster", &["start", "-n", "2", "--module", "absent.so", "--timeout", "20"]);
    assert_ne!(refused.code(), 0);
    assert_says(&refused.stderr, &["absent.so", "No such file"]);
}

#[test]
fn a_file_of_the_clients_machine_reaches_all_ranks_or_none() {
    let cluster = TestCluster::start(Engines::Mpi, 2);
    let workshop = Workshop::new();
    let library = workshop.c(&kernel("psum.c"), "libpsum_c.so");
    let told = failure(&cluster, &["--targets", "0", "load", &library]);
    assert_says(&told, &["engine 1 is of the same MPI world", "target it as well"]);
    let told = cluster.client(&["--json", "load", &library]).ok();
    let told: serde_json::Value = serde_json::from_str(&told).expect("--json prints JSON");
    assert_eq!(told, serde_json::json!({"engines": 2, "functions": ["psum_c", "moments_c"]}));
    assert_says(&cluster.client(&["px", "help(\"psum_c\")"]).ok(), &["psum_c(a): the sum of all elements"]);
    let client = cluster.connect();
    wait_until("completion knows it", || {
        let completed =
            client.all().complete("psum_", 5, Duration::from_secs(5)).expect("the engine answers");
        completed.matches.contains(&"psum_c".to_owned())
    });
}
