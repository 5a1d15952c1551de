#!/bin/sh
# A world of engines as a job of Slurm. Lines whose blank has no value are left out.
#SBATCH --job-name={{name}}
#SBATCH --ntasks={{ranks}}
#SBATCH --nodes={{nodes}}
#SBATCH --time={{walltime}}
#SBATCH --partition={{queue}}
#SBATCH --account={{account}}
#SBATCH --output={{output}}
#SBATCH --open-mode=append
#SBATCH --no-requeue

# Chooses srun or mpiexec so that all ranks are one MPI world, and becomes it.
exec {{command}}
