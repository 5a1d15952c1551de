//! Inside a job: what the batch system gave us, and which launcher makes all its ranks one MPI world.
//!
//! The wrong launcher does not fail. It starts so many worlds of one rank, each of which reports success: MPICH
//! under `srun --mpi=pmix`, either MPI under `srun` without a plugin, a program of one MPI under the `mpiexec` of
//! the other. So the launcher is chosen by the engine's MPI library and by what `srun --mpi=list` has; engines
//! refuse a world of another size than they were told (`engine --expect-size`) in case that was wrong.

use crate::mpiexec::Flavor;

/// What kind of allocation this process runs in, from the variables of its environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// Slurm's.
    pub is_slurm: bool,
    /// The job, as the system names it.
    pub job_id: Option<String>,
    /// How many ranks it was made for.
    pub ranks: Option<u32>,
    /// The file that PBS wrote, one line for each rank.
    pub node_file: Option<String>,
    /// Whether this process is one of a step (`srun --pty bash`): a step inside needs `--overlap`.
    pub is_in_step: bool,
}

impl Allocation {
    /// Reads the variables; `lines_of` counts the lines of a file. None: this is not inside a job.
    pub fn find(
        variable: impl Fn(&str) -> Option<String>,
        lines_of: impl Fn(&str) -> Option<u32>,
    ) -> Option<Allocation> {
        let number = |name: &str| variable(name)?.parse().ok();
        if let Some(job_id) = variable("SLURM_JOB_ID") {
            return Some(Allocation {
                is_slurm: true,
                job_id: Some(job_id),
                ranks: number("SLURM_NTASKS").or_else(|| number("SLURM_JOB_CPUS_PER_NODE")),
                node_file: None,
                // Slurm's batch script is a step too, but not one that holds the job's processors.
                is_in_step: variable("SLURM_STEP_ID")
                    .is_some_and(|step| step.parse::<u32>().is_ok_and(|id| id < BATCH_STEP)),
            });
        }
        let job_id = variable("PBS_JOBID")?;
        let node_file = variable("PBS_NODEFILE");
        let ranks = node_file.as_deref().and_then(lines_of).or_else(|| number("PBS_NP"));
        Some(Allocation { is_slurm: false, job_id: Some(job_id), ranks, node_file, is_in_step: false })
    }
}

/// From here on, numbers of steps have meanings of their own (batch script, external, interactive).
const BATCH_STEP: u32 = 0xffff_fff0;

/// What starts the ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// `srun --mpi=TYPE`.
    Srun {
        /// The plugin by which ranks find each other.
        mpi: String,
        /// Whether the ranks share processors with the step that we are in.
        overlap: bool,
    },
    /// The `mpiexec` of the engine's MPI, which finds the nodes by itself or in this file.
    Mpiexec {
        /// One line for each rank.
        node_file: Option<String>,
    },
}

/// Why no launcher would make one world.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "srun has no plugin for {flavor} (it needs {wanted}; `srun --mpi=list` has: {found}), and there is no mpiexec of {flavor}"
)]
pub struct NoPlacement {
    flavor: Flavor,
    wanted: &'static str,
    found: String,
}

impl Placement {
    /// For engines linked with `flavor`. `srun_list` is what `srun --mpi=list` printed; `has_mpiexec` says whether
    /// the `mpiexec` of that MPI is there.
    pub fn choose(
        allocation: &Allocation,
        flavor: Flavor,
        srun_list: Option<&str>,
        has_mpiexec: bool,
    ) -> Result<Placement, NoPlacement> {
        let plugins = srun_list.map(plugins).unwrap_or_default();
        let wanted = wanted_plugin(flavor);
        if allocation.is_slurm && plugins.iter().any(|plugin| plugin == wanted) {
            return Ok(Placement::Srun { mpi: wanted.to_owned(), overlap: allocation.is_in_step });
        }
        if has_mpiexec {
            return Ok(Placement::Mpiexec { node_file: allocation.node_file.clone() });
        }
        Err(NoPlacement { flavor, wanted, found: plugins.join(", ") })
    }

    /// What `srun` is told, before the program.
    pub fn srun_arguments(mpi: &str, overlap: bool, ranks: u32) -> Vec<String> {
        let mut arguments = vec![format!("--mpi={mpi}"), format!("--ntasks={ranks}"), "--label".to_owned()];
        arguments.extend(overlap.then(|| "--overlap".to_owned()));
        arguments
    }
}

/// The plugin of `srun` by which the ranks of this MPI find each other.
pub fn wanted_plugin(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::OpenMpi => "pmix",
        Flavor::Mpich => "pmi2",
    }
}

/// The plugins that `srun --mpi=list` names.
pub fn plugins(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.trim_start_matches("srun:").trim());
    let words = lines.filter(|line| !line.is_empty() && !line.contains(' '));
    words.map(str::to_owned).collect()
}

/// Takes the rank off a line that `srun --label` tagged: `12: text`.
pub fn split_label(line: &str) -> (Option<u32>, &str) {
    let Some((label, text)) = line.split_once(':') else { return (None, line) };
    match label.trim_start().parse() {
        Ok(rank) => (Some(rank), text.strip_prefix(' ').unwrap_or(text)),
        Err(_) => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MPI_LIST: &str = include_str!("../tests/golden/slurm-mpi-list.txt");

    fn in_job(variables: &[(&str, &str)]) -> Option<Allocation> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(found, _)| *found == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Allocation::find(variable, |file| (file == "/nodes").then_some(6))
    }

    #[test]
    fn an_allocation_tells_its_size_and_a_login_node_has_none() {
        assert_eq!(in_job(&[("PATH", "/bin")]), None);
        let slurm = in_job(&[("SLURM_JOB_ID", "7"), ("SLURM_NTASKS", "16")]).unwrap();
        assert_eq!((slurm.is_slurm, slurm.ranks, slurm.is_in_step), (true, Some(16), false));
        let pbs = in_job(&[("PBS_JOBID", "7.a"), ("PBS_NODEFILE", "/nodes")]).unwrap();
        assert_eq!((pbs.is_slurm, pbs.ranks, pbs.node_file.as_deref()), (false, Some(6), Some("/nodes")));
    }

    #[test]
    fn a_batch_script_is_no_step_that_holds_processors() {
        let step = |id| in_job(&[("SLURM_JOB_ID", "7"), ("SLURM_STEP_ID", id)]).unwrap().is_in_step;
        assert!(step("0"));
        assert!(!step("4294967291"));
    }

    #[test]
    fn each_mpi_gets_the_plugin_that_makes_one_world_or_its_own_mpiexec() {
        let slurm = Allocation { is_slurm: true, ..Allocation::default() };
        let srun = |mpi: &str| Ok(Placement::Srun { mpi: mpi.to_owned(), overlap: false });
        let choose = |flavor, list| Placement::choose(&slurm, flavor, list, true);
        assert_eq!(choose(Flavor::OpenMpi, Some(MPI_LIST)), srun("pmix"));
        assert_eq!(choose(Flavor::Mpich, Some(MPI_LIST)), srun("pmi2"));
        let mpiexec = Placement::Mpiexec { node_file: None };
        assert_eq!(
            choose(Flavor::OpenMpi, Some("MPI plugin types are...\n\tnone\n\tpmi2\n")),
            Ok(mpiexec.clone())
        );
        assert_eq!(choose(Flavor::OpenMpi, None), Ok(mpiexec));
    }

    #[test]
    fn pbs_names_the_hosts_in_a_file() {
        let pbs = Allocation { node_file: Some("/nodes".into()), ..Allocation::default() };
        let found = Placement::choose(&pbs, Flavor::OpenMpi, Some(MPI_LIST), true);
        assert_eq!(found, Ok(Placement::Mpiexec { node_file: Some("/nodes".into()) }));
    }

    #[test]
    fn without_a_launcher_the_words_say_what_is_missing() {
        let slurm = Allocation { is_slurm: true, ..Allocation::default() };
        let said = Placement::choose(&slurm, Flavor::OpenMpi, Some("\tnone\n\tpmi2\n"), false).unwrap_err();
        assert_eq!(
            said.to_string(),
            "srun has no plugin for Open MPI (it needs pmix; `srun --mpi=list` has: none, pmi2), and there is no \
             mpiexec of Open MPI"
        );
    }

    #[test]
    fn a_label_is_a_number_and_a_colon() {
        assert_eq!(split_label(" 3: hello: you"), (Some(3), "hello: you"));
        assert_eq!(split_label("error: x"), (None, "error: x"));
    }
}
