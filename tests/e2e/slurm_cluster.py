"""A Slurm of two nodes on this machine, for as long as a block lasts.

Controller, nodes and their authentication are processes of their own with a folder, ports and a key of their
own, on the loopback interface: nothing in /etc/slurm or /etc/munge is read or written, and a Slurm that runs
here already hears nothing of it.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

NODES = ("n1", "n2")
DAEMONS = ("munged", "slurmctld", "slurmd")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
"""States of a job."""
TIMEOUT_S = 60
"""For a daemon to be there, or a job to change."""

# CPUs and memory are claimed as the batch scripts want them, whatever there is: config_overrides. All waits
# are the shortest that Slurm allows, since a test waits for them. NoInAddrAny: the loopback interface alone.
CONFIG = """
ClusterName=birdsonnx
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin={task_plugin}
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=5
KillWait=5
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=100000,bf_interval=1
{nodes}
PartitionName=birds Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def obstacle() -> str:
    """Why no Slurm can be started here; empty where one can."""
    missing = [name for name in (*DAEMONS, "sbatch", "srun", "setpriv") if _path_of(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed (Debian's slurm-wlm and munge: scripts/system-packages)"
    if os.geteuid() != 0:
        return "Slurm's daemons need root"
    return ""


@dataclass
class Cluster:
    """A Slurm that runs."""

    folder: Path
    environment: dict[str, str]
    """In which Slurm's commands talk to it."""
    daemons: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    """`munged`, `slurmctld`, and each of `NODES`."""

    def call(self, *words: object, **variables: str) -> str:
        """What one of Slurm's commands prints. Raises CalledProcessError."""
        done = subprocess.run(
            [str(word) for word in words],
            env=self.environment | variables,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=TIMEOUT_S,
        )
        return done.stdout

    def submit(self, *words: object, **variables: str) -> str:
        """The number of the job that `sbatch words…` makes."""
        return self.call("sbatch", "--parsable", *words, **variables).strip()

    def facts(self, job: str) -> dict[str, str]:
        """What `scontrol show job` says."""
        words = self.call("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait_for(self, job: str, *states: str, restarts: int = 0) -> dict[str, str]:
        """The job's facts once it is in one of the states, after so many restarts at least."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            facts = self.facts(job)
            if facts["JobState"] in states and int(facts["Restarts"]) >= restarts:
                return facts
            if facts["JobState"] in ENDED:
                break
            time.sleep(0.05)
        place = f"{facts['JobState']} ({facts['Reason']}, exit code {facts['ExitCode']})"
        raise RuntimeError(f"job {job} is {place}, not {' or '.join(states)}")

    def start_again(self, job: str, restarts: int) -> None:
        """Start a job now that was put into the queue for the so-manieth time. Slurm itself waits for two
        minutes, in which what is left of the step before ends: its messages would be taken for those of the
        next, which has the same number."""
        self.wait_for(job, "PENDING", restarts=restarts)
        deadline = time.monotonic() + TIMEOUT_S
        while any(_name(each) in ("slurmstepd", "srun") for each in self._processes()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"job {job} does not end")
            time.sleep(0.05)
        # slurmd has taken back the job's credential, and takes any of the same second for that one.
        time.sleep(1.1)
        self.call("scontrol", "update", f"jobid={job}", "StartTime=now")
        self.wait_for(job, "RUNNING", restarts=restarts)

    def ended(self, job: str, restarts: int = 0) -> dict[str, str]:
        """The job's facts once it has ended, however it did."""
        return self.wait_for(job, *ENDED, restarts=restarts)

    def kill_rank(self, rank: int) -> None:
        """End one rank of the only job."""
        [process] = _processes(f"SLURM_CONF={self.environment['SLURM_CONF']}", f"SLURM_PROCID={rank}")
        os.kill(process, signal.SIGKILL)

    def break_node(self, node: str) -> None:
        """End all of a node at once, as a power cut does: daemon, managers of steps, and their tasks."""
        tasks = _processes(f"SLURM_CONF={self.environment['SLURM_CONF']}", f"SLURMD_NODENAME={node}")
        managers = {_parent(task) for task in tasks} & set(self._processes())
        for process in (self.daemons[node].pid, *managers - {self.daemons[node].pid}, *tasks):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.daemons[node].wait()

    def _processes(self) -> list[int]:
        """All that belong to this Slurm, which give their variables to those that they start."""
        return _processes(f"SLURM_CONF={self.environment['SLURM_CONF']}")

    def stop(self) -> None:
        """End the daemons, and everything that they have started."""
        for process in reversed(self.daemons.values()):
            process.terminate()
        for process in self.daemons.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
        while left := self._processes():
            for each in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
            time.sleep(0.05)
        for process in self.daemons.values():
            process.wait()


@contextlib.contextmanager
def running(task_plugin: str = "task/none") -> Iterator[Cluster]:
    """A Slurm of `NODES`, each of which claims 32 CPUs and 64 GB."""
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="slurm"))  # short, as the path of a socket has to be
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        environment["SLURM_CONF"] = str(_configure(folder, task_plugin))
        cluster = Cluster(folder, environment)
        stack.callback(cluster.stop)
        _start(cluster, "munged", _munged(folder))
        _await(cluster, lambda: (folder / "munge.socket").exists())
        _start(cluster, "slurmctld", ["slurmctld", "-D", "-c"])
        for node in NODES:
            _start(cluster, node, ["slurmd", "-D", "-N", node])
        _await(cluster, lambda: _states(cluster) == {"idle"})
        yield cluster


def _path_of(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")


def _configure(folder: Path, task_plugin: str) -> Path:
    (folder / "state").mkdir()
    host = socket.gethostname().split(".")[0]
    controller, *ports = _free_ports(1 + len(NODES))
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=32 RealMemory=64000"
        for name, port in zip(NODES, ports, strict=True)
    )
    text = CONFIG.format(
        folder=folder, host=host, controller=controller, task_plugin=task_plugin, nodes=nodes
    )
    path = folder / "slurm.conf"
    path.write_text(text)
    return path


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _munged(folder: Path) -> list[str]:
    """The command of the daemon that signs messages, by a key of its own."""
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    folder.chmod(0o711)
    files = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munged.pid"}
    files |= {"log-file": folder / "munged.log", "seed-file": folder / "munged.seed"}
    return ["munged", "--foreground", *(f"--{name}={path}" for name, path in files.items())]


def _start(cluster: Cluster, name: str, command: Sequence[str]) -> None:
    """A daemon, which ends with this process, however that ends."""
    program = _path_of(command[0])
    assert program is not None
    words = ["setpriv", "--pdeathsig", "KILL", program, *command[1:]]
    with (cluster.folder / f"{name}.out").open("wb") as out:
        cluster.daemons[name] = subprocess.Popen(
            words, env=cluster.environment, stdout=out, stderr=out, start_new_session=True
        )


def _states(cluster: Cluster) -> set[str]:
    done = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--format=%T"],
        env=cluster.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return set(done.stdout.split())


def _await(cluster: Cluster, condition: Callable[[], bool]) -> None:
    """Raises RuntimeError, with what the daemons said, where one ends or it takes too long."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        dead = [name for name, process in cluster.daemons.items() if process.poll() is not None]
        if dead or time.monotonic() > deadline:
            said = "\n".join(path.read_text(errors="replace") for path in cluster.folder.glob("*.out"))
            raise RuntimeError(f"Slurm does not start ({', '.join(dead) or 'too slow'}):\n{said}")
        time.sleep(0.05)


def _processes(*variables: str) -> list[int]:
    """Those in whose environment all the variables are."""
    wanted = {variable.encode() for variable in variables}
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended
            if wanted <= set(path.read_bytes().split(b"\0")):
                found.append(int(path.parent.name))
    return found


def _parent(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has ended
        return 0


def _name(process: int) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text().strip()
    except OSError:  # it has ended
        return ""
