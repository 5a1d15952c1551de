"""ipyparallel's own ways to start a cluster start our controller, when the profile says so.

This is how a user does it: one line in the profile's ipcluster_config.py.
"""

import os
import subprocess
import sys

import ipyparallel as ipp
from setting import equal

PROFILE_DIR = os.environ["PROFILE_DIR"]
os.makedirs(PROFILE_DIR, exist_ok=True)
with open(os.path.join(PROFILE_DIR, "ipcluster_config.py"), "w") as file:
    file.write("c = get_config()\n")
    file.write(f"c.ControllerLauncher.controller_cmd = [{os.environ['CONTROLLER']!r}]\n")


def executable(pid):
    return os.path.basename(os.readlink(f"/proc/{pid}/exe"))


# The class, in a program. Its engines are found by the information that it hands them.
with ipp.Cluster(n=2, profile_dir=PROFILE_DIR, cluster_id="mine") as rc:
    equal(rc[:].apply_sync(lambda: 5), [5, 5])
    equal(executable(rc.cluster.controller.pid), "controller")
    rc.cluster.restart_engines_sync()
    rc.wait_for_engines(2, timeout=40, interactive=False)
    equal(rc[:].apply_sync(lambda: 6), [6, 6])
equal(os.listdir(os.path.join(PROFILE_DIR, "security")), [])


# The command.
def ipcluster(command, *arguments):
    subprocess.run([sys.executable, "-m", "ipyparallel.cluster", command, "--profile-dir", PROFILE_DIR, *arguments],
                   check=True, timeout=40)


ipcluster("start", "-n", "2", "--daemonize")
try:
    cluster = ipp.Cluster.from_file(profile_dir=PROFILE_DIR, cluster_id="")
    equal(executable(cluster.controller.pid), "controller")
    with cluster.connect_client_sync() as rc:
        rc.wait_for_engines(2, timeout=40, interactive=False)
        equal(rc.load_balanced_view().map_sync(lambda x: x + 1, range(5)), [1, 2, 3, 4, 5])
finally:
    ipcluster("stop")
