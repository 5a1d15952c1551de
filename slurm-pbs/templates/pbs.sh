#!/bin/sh
# A world of engines as a job of PBS. Lines whose blank has no value are left out.
#PBS -N {{name}}
#PBS -l {{resources}}
#PBS -l walltime={{walltime}}
#PBS -q {{queue}}
#PBS -A {{account}}
#PBS -j oe
#PBS -o {{output}}
#PBS -r n

cd "${PBS_O_WORKDIR:-$HOME}" || exit 1
# PBS keeps output on the node until the job has ended: this can be read while it runs.
exec >>{{log}} 2>&1
# Chooses mpiexec and its hosts so that all ranks are one MPI world, and becomes it.
exec {{command}}
