//! Whether the launcher started the world that was asked for, or as many worlds of one rank.
//!
//! A program linked to one MPI library and started by another's `mpiexec`, or by `srun` without PMI, comes up
//! as n singletons, each of which believes to be the whole world, and MPI reports nothing. The launchers tell
//! each process how many they started through the environment; comparing that with the world's size shows it.

/// Which family the MPI library belongs to; decides which launcher fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Open MPI.
    OpenMpi,
    /// MPICH and what descends from it (Intel MPI, MVAPICH, Cray MPICH).
    Mpich,
    /// Neither.
    Other,
}

impl Family {
    /// From what `MPI_Get_library_version` says (MPI 3.1, section 8.1.1).
    pub fn of(library_version: &str) -> Family {
        let is = |name: &str| library_version.contains(name);
        if is("Open MPI") {
            Family::OpenMpi
        } else if is("MPICH") || is("Intel(R) MPI") || is("MVAPICH") {
            Family::Mpich
        } else {
            Family::Other
        }
    }

    fn fix(self) -> &'static str {
        match self {
            Family::OpenMpi => {
                "start it with Open MPI's own mpiexec (mpiexec.openmpi on Debian) or with `srun --mpi=pmix`"
            }
            Family::Mpich => {
                "start it with MPICH's own mpiexec (mpiexec.mpich on Debian) or with `srun --mpi=pmi2`"
            }
            Family::Other => "start it with the mpiexec that belongs to this library",
        }
    }
}

/// How many processes a launcher says that it started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launched {
    /// The number.
    pub size: usize,
    /// The environment variable that says so.
    pub variable: &'static str,
}

/// Innermost launcher first: an `mpiexec` inside of a Slurm job step sets its own and leaves Slurm's in place.
const VARIABLES: [&str; 6] = [
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
    "MV2_COMM_WORLD_SIZE",
    "PALS_SIZE",
    "FLUX_JOB_SIZE",
    "SLURM_STEP_NUM_TASKS",
];

/// What the launcher says, by its environment. `SLURM_NTASKS` is not looked at: a batch script has it too.
pub fn launched(lookup: impl Fn(&str) -> Option<String>) -> Option<Launched> {
    VARIABLES.into_iter().find_map(|variable| {
        let size = lookup(variable)?.trim().parse().ok().filter(|&size| size > 0)?;
        Some(Launched { size, variable })
    })
}

/// Why this world is not the one that was asked for, and what to do.
pub fn refusal(
    world: usize,
    expected: Option<usize>,
    launched: Option<&Launched>,
    library_version: &str,
) -> Option<String> {
    let library = library_version.lines().next().unwrap_or_default();
    let library = library.split(", package").next().unwrap_or_default().trim();
    let fix = Family::of(library_version).fix();
    if let Some(Launched { size, variable }) = launched
        && *size != world
    {
        let world = if world == 1 { "a world of its own".to_owned() } else { format!("a world of {world}") };
        return Some(format!(
            "the launcher started {size} processes ({variable}={size}), but this one is in {world}: \
             the program is linked to {library}, which does not understand this launcher; {fix}"
        ));
    }
    let expected = expected.filter(|&expected| expected != world)?;
    if launched.is_none() && world == 1 {
        return Some(format!(
            "{expected} ranks were asked for, but no launcher was seen and this process is alone in its \
             world: the program is linked to {library}; {fix}, with {expected} processes"
        ));
    }
    Some(format!(
        "{expected} ranks were asked for, but the world has {world}; start {expected} processes (mpiexec -n \
         {expected})"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN_MPI: &str = "Open MPI v4.1.4, package: Debian OpenMPI, ident: 4.1.4";
    const MPICH: &str = "MPICH Version:\t4.0.2\nMPICH Release date:\tThu Apr  7";

    fn environment(pairs: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn the_innermost_launcher_is_believed() {
        let inside = environment(&[("SLURM_STEP_NUM_TASKS", "2"), ("OMPI_COMM_WORLD_SIZE", "8")]);
        assert_eq!(launched(inside), Some(Launched { size: 8, variable: "OMPI_COMM_WORLD_SIZE" }));
        assert_eq!(launched(environment(&[("SLURM_NTASKS", "4")])), None);
        assert_eq!(launched(environment(&[("PMI_SIZE", "many")])), None);
    }

    #[test]
    fn the_world_that_was_launched_is_accepted() {
        let four = launched(environment(&[("PMI_SIZE", "4")]));
        assert_eq!(refusal(4, Some(4), four.as_ref(), MPICH), None);
        assert_eq!(refusal(4, None, four.as_ref(), MPICH), None);
        assert_eq!(refusal(1, None, None, MPICH), None);
    }

    #[test]
    fn singletons_of_the_wrong_mpiexec_are_told_the_right_one() {
        let four = launched(environment(&[("PMI_SIZE", "4")]));
        assert_eq!(
            refusal(1, Some(4), four.as_ref(), OPEN_MPI).expect("a singleton"),
            "the launcher started 4 processes (PMI_SIZE=4), but this one is in a world of its own: the \
             program is linked to Open MPI v4.1.4, which does not understand this launcher; start it with \
             Open MPI's own mpiexec (mpiexec.openmpi on Debian) or with `srun --mpi=pmix`"
        );
        let four = launched(environment(&[("OMPI_COMM_WORLD_SIZE", "4")]));
        assert!(refusal(1, None, four.as_ref(), MPICH).expect("a singleton").contains("mpiexec.mpich"));
    }

    #[test]
    fn singletons_without_a_launcher_are_told_to_use_one() {
        assert!(refusal(1, Some(4), None, OPEN_MPI).expect("alone").contains("no launcher was seen"));
        assert!(refusal(2, Some(4), None, OPEN_MPI).expect("two of four").contains("the world has 2"));
    }
}
