#!/bin/sh
# A world of engines as a job of Slurm. Lines whose blank has no value are left out.
#SBATCH --job-name=engines
#SBATCH --ntasks=4
#SBATCH --nodes=2
#SBATCH --time=01:00:00
#SBATCH --partition=debug
#SBATCH --output=/p/log/engines-0.out
#SBATCH --open-mode=append
#SBATCH --no-requeue

# Chooses srun or mpiexec so that all ranks are one MPI world, and becomes it.
exec /bin/cluster launch -n 4
