"""Compiled kernels in engines of both kinds, by ipyparallel's client: PSUM is the module that a test has compiled."""

import os

import ipyparallel as ipp
import numpy as np
from setting import connect, equal, fails

PSUM = os.environ["PSUM"]

rc = connect(2)
both = rc[:]
both.block = True

if os.environ["ENGINES"] == "native":
    # They run their own language: a call is a cell, and its value comes as text or by a name.
    both.execute(f'load("{PSUM}")')
    result = both.execute("psum_c(linspace(0, 1, 5) + rank())", silent=False)
    equal([metadata["execute_result"]["data"]["text/plain"] for metadata in result.metadata], ["10.0", "10.0"])
    fails("TypeError", both.execute, "psum_c(1)")
else:
    equal(both.apply_sync(ipp.Reference("load"), PSUM), [["psum_c", "moments_c"]] * 2)
    # At the prompt ...
    both.execute("import numpy as np; a = np.linspace(0, 1, 5) + rank(); s = psum_c(a)")
    equal(both["s"], [10.0, 10.0])
    # ... and by name, with names of the engines or arrays of the client.
    equal(both.apply_sync(ipp.Reference("psum_c"), ipp.Reference("a")), [10.0, 10.0])
    equal(both.apply_sync(ipp.Reference("psum_c"), np.ones(4)), [8.0, 8.0])
    centred, mean = both.apply_sync(ipp.Reference("moments_c"), np.array([[1.0, 2.0], [3.0, 6.0]]).T)[0]
    equal((centred.tolist(), mean), ([[-2.0, 0.0], [-1.0, 3.0]], 3.0))
    fails("TypeError", both.apply_sync, ipp.Reference("psum_c"), np.ones(4, dtype="int32"))
    fails("ValueError", both.apply_sync, ipp.Reference("moments_c"), np.ones(0))
    equal(both.apply_sync(lambda: psum_c.__doc__)[0].startswith("psum_c(a): the sum of all elements"), True)
    fails("FileNotFoundError", both.apply_sync, ipp.Reference("load"), "/nowhere/libx.so")
    # The file is the client's alone: rank 0 has its bytes, MPI brings them to the others.
    equal(both.apply_sync(ipp.Reference("load_all"), "libpsum_c.so", open(PSUM, "rb").read())[1], ["psum_c", "moments_c"])
    equal(both.apply_sync(ipp.Reference("psum_c"), np.ones(4)), [8.0, 8.0])
rc.close()
