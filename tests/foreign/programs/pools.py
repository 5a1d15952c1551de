"""The cluster as a pool: joblib's back end, and concurrent.futures."""

import concurrent.futures
import os

import ipyparallel as ipp
import joblib
from setting import connect, equal, fails


def square(x):
    return x * x


rc = connect(2)
view = rc.load_balanced_view()
pids = set(rc[:].apply_sync(os.getpid))

# joblib: functions of the program itself need cloudpickle, as with joblib's own back ends
rc[:].use_cloudpickle()
view.register_joblib_backend("cluster", make_default=False)
with joblib.parallel_config(backend="cluster"):
    equal(joblib.Parallel(n_jobs=-1)(joblib.delayed(square)(x) for x in range(60)), [x * x for x in range(60)])
    equal(set(joblib.Parallel(n_jobs=2, batch_size=1)(joblib.delayed(os.getpid)() for _ in range(20))) <= pids, True)
    try:
        joblib.Parallel(n_jobs=-1)(joblib.delayed(divmod)(1, x) for x in (1, 0))
        raise AssertionError("an error of a task was lost")
    except ipp.RemoteError as error:
        equal(error.ename, "ZeroDivisionError")

# Executors
with rc.executor() as pool:
    equal(list(pool.map(square, range(20))), [x * x for x in range(20)])
    futures = [pool.submit(pow, 2, x) for x in range(10)]
    equal({future.result(timeout=30) for future in concurrent.futures.as_completed(futures, timeout=30)},
          {2**x for x in range(10)})
    fails("ZeroDivisionError", pool.submit(divmod, 1, 0).result, timeout=30)
equal(rc[0].executor.submit(os.getpid).result(timeout=30), rc[0].apply_sync(os.getpid))
rc.close()
