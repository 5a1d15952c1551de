"""The parallel sum in Python, driven by ipyparallel's own client: mpi4py on the engines, and a compiled kernel beside it.

Needs Python engines, `cluster start -n 4 --python`, with mpi4py and NumPy, and `mpicc`. PROFILE_DIR names another cluster
than the default one.
"""

import os
import pathlib
import subprocess
import tempfile

import ipyparallel as ipp
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
KERNELS, INCLUDE = HERE.parent / "kernels", HERE.parent.parent / "module" / "include"

rc = ipp.Client(profile_dir=os.environ.get("PROFILE_DIR"))
rc.wait_for_engines(1, timeout=30, interactive=False)
world = rc[:]
world.block = True

with world.sync_imports(quiet=True):
    import numpy
    from mpi4py import MPI


def psum(a):
    """The sum of all elements of all ranks' arrays, on every rank."""
    own, total = numpy.array(numpy.sum(a), "d"), numpy.array(0.0, "d")
    MPI.COMM_WORLD.Allreduce(own, total)
    return float(total)


world["psum_python"] = psum
world.scatter("a", np.arange(1000.0))
expected = [499_500.0] * len(world)
assert world.apply(psum, ipp.Reference("a")) == expected
world.execute("s = psum_python(a)")
assert world["s"] == expected

# The same kernel that C people use; the engines load it while they run.
with tempfile.TemporaryDirectory() as folder:
    library = pathlib.Path(folder) / "libpsum_c.so"
    compiler = os.environ.get("MPICC", "mpicc")
    subprocess.run([compiler, "-shared", "-fPIC", "-I", INCLUDE, "-o", library, KERNELS / "psum.c"], check=True)
    world.apply(ipp.Reference("load_all"), library.name, library.read_bytes())
assert world.apply(ipp.Reference("psum_c"), ipp.Reference("a")) == expected
print(f"{expected[0]} in Python and in C on {len(world)} ranks")
rc.close()
