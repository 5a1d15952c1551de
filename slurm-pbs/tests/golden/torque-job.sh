#!/bin/sh
# A world of engines as a job of PBS. Lines whose blank has no value are left out.
#PBS -N engines
#PBS -l nodes=2:ppn=2
#PBS -l walltime=01:00:00
#PBS -q debug
#PBS -j oe
#PBS -o /p/log/engines-0.out
#PBS -r n

cd "${PBS_O_WORKDIR:-$HOME}" || exit 1
# PBS keeps output on the node until the job has ended: this can be read while it runs.
exec >>/p/log/engines-0.log 2>&1
# Chooses mpiexec and its hosts so that all ranks are one MPI world, and becomes it.
exec /bin/cluster launch -n 4
