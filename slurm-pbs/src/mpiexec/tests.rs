//! Command lines as they must be, and output captured from Open MPI 4.1.4 and MPICH 4.0.2.

use expect_test::{Expect, expect};

use super::*;
use crate::job::Ranks;

const OPEN_MPI_SIGNAL: &str = include_str!("../../tests/golden/openmpi-rank-1-killed.txt");
const OPEN_MPI_EXIT: &str = include_str!("../../tests/golden/openmpi-rank-1-exits-7.txt");
const OPEN_MPI_ABORT: &str = include_str!("../../tests/golden/openmpi-rank-1-aborts-9.txt");
const OPEN_MPI_MISSING: &str = include_str!("../../tests/golden/openmpi-missing-program.txt");
const OPEN_MPI_ROOT: &str = include_str!("../../tests/golden/openmpi-refuses-root.txt");
const OPEN_MPI_SLOTS: &str = include_str!("../../tests/golden/openmpi-slots.txt");
const MPICH_SIGNAL: &str = include_str!("../../tests/golden/mpich-rank-1-segfault.txt");
const MPICH_ABORT: &str = include_str!("../../tests/golden/mpich-rank-1-aborts-9.txt");
const MPICH_MISSING: &str = include_str!("../../tests/golden/mpich-missing-program.txt");
const MPICH_VERSION: &str = include_str!("../../tests/golden/mpich-version.txt");

fn spec() -> LaunchSpec {
    let mut spec =
        LaunchSpec::new("4".parse::<Ranks>().unwrap(), "/opt/engine", vec!["--mpi".into(), "a b".into()]);
    spec.environment.insert("OMP_NUM_THREADS".into(), "1".into());
    spec
}

fn mpiexec(flavor: Flavor, version: &str) -> Mpiexec {
    Mpiexec { flavor, version: version.into() }
}

fn check_line(mpiexec: &Mpiexec, as_root: bool, expected: Expect) {
    expected.assert_eq(&mpiexec.arguments(&spec(), as_root).join(" | "));
}

fn check_complaint(flavor: Flavor, output: &str, expected: Expect) {
    expected.assert_eq(&Complaint::find(flavor, output).map(|found| found.to_string()).unwrap_or_default());
}

#[test]
fn open_mpi_4_oversubscribes_unbound_and_tagged() {
    check_line(
        &mpiexec(Flavor::OpenMpi, "4.1.4"),
        false,
        expect![
            "-n | 4 | --map-by | :OVERSUBSCRIBE | --bind-to | none | --tag-output | -x | OMP_NUM_THREADS=1 | /opt/engine | --mpi | a b"
        ],
    );
}

#[test]
fn open_mpi_as_root_is_told_to_allow_it() {
    check_line(
        &mpiexec(Flavor::OpenMpi, "4.1.4"),
        true,
        expect![
            "-n | 4 | --allow-run-as-root | --map-by | :OVERSUBSCRIBE | --bind-to | none | --tag-output | -x | OMP_NUM_THREADS=1 | /opt/engine | --mpi | a b"
        ],
    );
}

#[test]
fn open_mpi_5_renamed_the_tag_option() {
    check_line(
        &mpiexec(Flavor::OpenMpi, "5.0.3"),
        false,
        expect![
            "-n | 4 | --map-by | :OVERSUBSCRIBE | --bind-to | none | --output | TAG | -x | OMP_NUM_THREADS=1 | /opt/engine | --mpi | a b"
        ],
    );
}

#[test]
fn mpich_needs_no_permission_from_anybody() {
    check_line(
        &mpiexec(Flavor::Mpich, "4.0.2"),
        true,
        expect!["-n | 4 | -prepend-rank | -genv | OMP_NUM_THREADS | 1 | /opt/engine | --mpi | a b"],
    );
}

#[test]
fn launchers_are_recognised_by_their_version_text() {
    let found = |text| Mpiexec::from_version_text(text).map(|found| found.to_string());
    assert_eq!(found("mpiexec (OpenRTE) 4.1.4\n\nReport bugs to …"), Ok("Open MPI 4.1.4".into()));
    assert_eq!(found("mpirun (Open MPI) 5.0.3"), Ok("Open MPI 5.0.3".into()));
    assert_eq!(found("prterun (PRRTE) 3.0.2"), Ok("Open MPI 3.0.2".into()));
    assert_eq!(found(MPICH_VERSION), Ok("MPICH 4.0.2".into()));
    assert_eq!(
        found("Intel(R) MPI Library for Linux* OS, Version 2021.5 Build 20211102 (id: 9279b7d62)"),
        Ok("MPICH 2021.5".into())
    );
    assert_eq!(
        Mpiexec::from_version_text("slurm 22.05.8").unwrap_err().to_string(),
        "\"slurm 22.05.8\" is neither Open MPI nor MPICH; name one of these with --mpiexec"
    );
    assert!(Mpiexec::from_version_text("").is_err());
}

#[test]
fn libraries_tell_their_mpi() {
    let found = Flavor::from_library_name;
    assert_eq!(found("libmpi.so.40"), Some(Flavor::OpenMpi));
    assert_eq!(found("libmpich.so.12"), Some(Flavor::Mpich));
    assert_eq!(found("libmpi.so.12"), Some(Flavor::Mpich));
    assert_eq!(found("libmpi.so.12.1.1"), Some(Flavor::Mpich));
    assert_eq!(found("libmpi_cxx.so.40"), None);
    assert_eq!(found("libc.so.6"), None);
}

#[test]
fn open_mpi_names_the_rank_that_a_signal_killed() {
    check_complaint(
        Flavor::OpenMpi,
        OPEN_MPI_SIGNAL,
        expect!["rank 1 on vm exited on signal 9 (SIGKILL: killed, by somebody or for lack of memory)"],
    );
}

#[test]
fn open_mpi_names_the_rank_that_exited_and_its_code() {
    check_complaint(Flavor::OpenMpi, OPEN_MPI_EXIT, expect!["rank 1 exited with code 7"]);
}

#[test]
fn both_name_the_rank_that_aborted() {
    check_complaint(Flavor::OpenMpi, OPEN_MPI_ABORT, expect!["rank 1 called MPI_Abort with code 9"]);
    check_complaint(Flavor::Mpich, MPICH_ABORT, expect!["rank 1 called MPI_Abort with code 9"]);
}

#[test]
fn both_name_the_program_they_cannot_execute() {
    check_complaint(Flavor::OpenMpi, OPEN_MPI_MISSING, expect!["mpiexec could not execute ./nosuch"]);
    check_complaint(Flavor::Mpich, MPICH_MISSING, expect!["mpiexec could not execute ./nosuch"]);
}

#[test]
fn open_mpi_refusing_root_or_slots_is_understood() {
    check_complaint(Flavor::OpenMpi, OPEN_MPI_ROOT, expect!["mpiexec refuses to run as root"]);
    check_complaint(Flavor::OpenMpi, OPEN_MPI_SLOTS, expect!["mpiexec found fewer slots than engines"]);
}

#[test]
fn mpich_tells_the_signal_but_not_the_rank() {
    check_complaint(
        Flavor::Mpich,
        MPICH_SIGNAL,
        expect!["a rank on vm exited on signal 11 (SIGSEGV: segmentation fault)"],
    );
}

#[test]
fn a_rank_that_prints_a_launchers_words_is_not_believed() {
    let output =
        "[1,0]<stdout>:mpiexec noticed that process rank 3 with PID 0 on node x exited on signal 9\n";
    assert_eq!(Complaint::find(Flavor::OpenMpi, output), None);
}

#[test]
fn exit_codes_of_the_launcher_are_explained() {
    let open_mpi = mpiexec(Flavor::OpenMpi, "4.1.4");
    let mpich = mpiexec(Flavor::Mpich, "4.0.2");
    assert_eq!(
        open_mpi.explain_exit(Exit::Code(139)),
        "a rank exited on signal 11 (SIGSEGV: segmentation fault)"
    );
    assert_eq!(open_mpi.explain_exit(Exit::Code(205)), "mpiexec lost its daemon on another host");
    assert_eq!(open_mpi.explain_exit(Exit::Code(1)), "mpiexec exited with code 1");
    assert_eq!(
        mpich.explain_exit(Exit::Code(11)),
        "a rank exited with code 11, or on signal 11 (SIGSEGV: segmentation fault)"
    );
    assert_eq!(mpich.explain_exit(Exit::Signal(15)), "mpiexec exited on signal 15 (SIGTERM: asked to end)");
}

#[test]
fn rank_tags_come_off_and_other_brackets_stay() {
    let split = |flavor, line| {
        let (rank, text) = split_rank_tag(flavor, line);
        (rank, text.into_owned())
    };
    let found = |rank: u32, text: &str| (Some(rank), text.to_owned());
    let untagged = |text: &str| (None, text.to_owned());
    assert_eq!(split(Flavor::OpenMpi, "[1,12]<stderr>:oh"), found(12, "oh"));
    assert_eq!(split(Flavor::OpenMpi, "[prterun-vm-7@1,2]<stdout>: oh"), found(2, "oh"));
    assert_eq!(split(Flavor::OpenMpi, "[1,1]<stdout>: indented"), found(1, " indented"));
    assert_eq!(split(Flavor::OpenMpi, "[vm:09683] ***"), untagged("[vm:09683] ***"));
    assert_eq!(split(Flavor::Mpich, "[3] oh"), found(3, "oh"));
    assert_eq!(split(Flavor::Mpich, "[3]"), found(3, ""));
    assert_eq!(split(Flavor::Mpich, "[3]x"), untagged("[3]x"));
    assert_eq!(split(Flavor::Mpich, "plain"), untagged("plain"));
}

#[test]
fn a_line_that_a_rank_wrote_in_pieces_is_one_line() {
    let line = "[1,1]<stderr>:panicked at [1,1]<stderr>:main.rs[1,1]<stderr>::7";
    assert_eq!(split_rank_tag(Flavor::OpenMpi, line), (Some(1), "panicked at main.rs:7".into()));
}

#[test]
fn ranks_of_one_machine_share_memory_by_the_name_that_their_open_mpi_has_for_it() {
    let of =
        |flavor, version: &str| Mpiexec { flavor, version: version.to_owned() }.shared_memory_transport();
    assert_eq!(of(Flavor::OpenMpi, "4.1.4"), Some("self,vader"));
    assert_eq!(of(Flavor::OpenMpi, "5.0.3"), Some("self,sm"));
    assert_eq!(of(Flavor::OpenMpi, "unknown"), None);
    assert_eq!(of(Flavor::Mpich, "4.0.2"), None);
}
