//! Modules of compiled functions: compiles a kernel of `kernels/`, and loads it into the engines, which need not
//! restart. `docs/KERNELS.md` says what a module is.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use client::View;

/// Where the kernels' sources are.
fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compiles a kernel in C (`wave.c`), and loads it. `MPICC` names another compiler than `mpicc`: it must be that of the
/// engines' MPI.
pub fn load_c(view: &View, source: &str) -> anyhow::Result<()> {
    let mut command = Command::new(std::env::var_os("MPICC").unwrap_or_else(|| "mpicc".into()));
    // Products and sums are rounded one by one, so that a serial run gives the same.
    command.args(["-O2", "-ffp-contract=off", "-shared", "-fPIC", "-I"]).arg(project("../module/include"));
    compile_and_load(view, command, &[project("kernels").join(source)])
}

/// Compiles a kernel in Fortran (`multiply.f90`), and loads it. `MPIF90` names another compiler than `mpif90`.
pub fn load_fortran(view: &View, source: &str) -> anyhow::Result<()> {
    let mut command = Command::new(std::env::var_os("MPIF90").unwrap_or_else(|| "mpif90".into()));
    command.args(["-O2", "-shared", "-fPIC"]);
    compile_and_load(
        view,
        command,
        &[project("../module/include/commworld.f90"), project("kernels").join(source)],
    )
}

/// Loads the kernels in Rust, which `cargo build --package kernels-rust` has built where this program is.
pub fn load_rust(view: &View) -> anyhow::Result<()> {
    let own = std::env::current_exe()?;
    let library = own.ancestors().map(|folder| folder.join("libkernels_rust.so")).find(|file| file.is_file());
    let library = library.context("build the kernels first: cargo build --package kernels-rust")?;
    view.load(&library)?.get().with_context(|| format!("load {}", library.display()))?;
    Ok(())
}

fn compile_and_load(view: &View, mut command: Command, sources: &[PathBuf]) -> anyhow::Result<()> {
    let name = sources.last().and_then(|source| source.file_name()).context("there is no source")?;
    let folder = tempfile::tempdir()?;
    // `wave.c` and `wave.f90` are two modules; one of the same name would replace the other.
    let library = folder.path().join(format!("lib{}.so", name.to_string_lossy().replace('.', "_")));
    // Fortran's interfaces (*.mod) are written into the current directory.
    let status = command.current_dir(&folder).arg("-o").arg(&library).args(sources).status();
    let status = status.with_context(|| format!("run {}", command.get_program().to_string_lossy()))?;
    ensure!(status.success(), "{command:?}: {status}");
    view.load(&library)?.get().with_context(|| format!("load {}", library.display()))?;
    Ok(())
}
