"""A SLURM cluster of two nodes on this machine, which tests start and stop: Debian's build runs several `slurmd`."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from postgres import free_port, wait_for

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")

_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={home}/munge.socket,cred_expire=10
CryptoType=crypto/munge
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool-%n
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd-%n.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,requeue_delay=1
{nodes}
PartitionName=main Nodes=n1,n2 Default=YES PriorityTier=1 GraceTime=10 MaxTime=INFINITE State=UP OverSubscribe=NO
PartitionName=urgent Nodes=n1,n2 PriorityTier=10 MaxTime=INFINITE State=UP
"""


class Cluster:
    """Two nodes of `cpus` cores each; skips the test where SLURM is not installed or this is not root.

    Attributes:
        environment: Variables that have SLURM's commands find it.
    """

    def __init__(self, cpus: int = 4) -> None:
        missing = [name for name in _PROGRAMS if shutil.which(name) is None]
        if missing:
            pytest.skip(f"SLURM is not installed here ({', '.join(missing)})")
        if os.geteuid() != 0:
            pytest.skip("SLURM's daemons run as root")
        # A short path: that of a socket may have 108 characters.
        self.home = Path(tempfile.mkdtemp(prefix="pipeline-slurm-"))
        self.home.chmod(0o755)
        (self.home / "state").mkdir()
        host = socket.gethostname()
        nodes = "\n".join(
            f"NodeName=n{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs={cpus} State=UNKNOWN"
            for number in (1, 2)
        )
        conf = self.home / "slurm.conf"
        conf.write_text(_CONF.format(host=host, home=self.home, port=free_port(), nodes=nodes))
        self.environment = {**os.environ, "SLURM_CONF": str(conf)}
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start its daemons, and wait until both nodes are idle."""
        key = self.home / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        munge = [
            f"--{name}={self.home}/munge.{name}" for name in ("socket", "pid-file", "log-file", "seed-file")
        ]
        self._daemon("munged", "--foreground", "--force", f"--key-file={key}", *munge)
        wait_for(lambda: (self.home / "munge.socket").exists(), 20)
        self._daemon("slurmctld", "-D", "-f", self.environment["SLURM_CONF"])
        for node in ("n1", "n2"):
            self._daemon("slurmd", "-D", "-N", node, "-f", self.environment["SLURM_CONF"])
        wait_for(
            lambda: self.output("sinfo", "-h", "-p", "main", "-t", "idle", "-o", "%D").strip() == "2", 40
        )

    def stop(self) -> None:
        """End all jobs and daemons, and delete what they kept."""
        self.output("scancel", "--user", "root", "--signal=KILL", "--full")
        self.output("scancel", "--user", "root")
        deadline = time.monotonic() + 10
        while self.output("squeue", "-h") and time.monotonic() < deadline:
            time.sleep(0.2)
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
        for process in reversed(self._processes):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.home, ignore_errors=True)

    def output(self, *words: str) -> str:
        """What one of SLURM's commands prints; nothing where it fails."""
        return subprocess.run(
            words, env=self.environment, capture_output=True, text=True, timeout=30, check=False
        ).stdout

    def _daemon(self, *words: str) -> None:
        log = (self.home / f"{words[0]}.out").open("ab")
        with log:
            process = subprocess.Popen(words, env=self.environment, stdout=log, stderr=log, cwd=self.home)
        self._processes.append(process)
