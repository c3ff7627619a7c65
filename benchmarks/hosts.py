"""Several hosts on one Linux machine, for benchmarks and tests of jobs over a network.

    with hosts.made(2, gbit_per_s=10, cores=[{0}, {1}]) as (a, b):
        a.run(["mpirun", "-hosts", "a,b", "-np", "4", "birdsonnx", "train", "config.json"], check=True)

Each host has namespaces of its own for the network, the hostname, mounts, processes and shared memory: an
address, a name that the others resolve (a, b, c, ...), an empty /run and /dev/shm, and an sshd that listens
on its private address alone. `ssh b` works on each of them as it is, with keys made for the occasion, and so
does every launcher that calls ssh. All hosts see the machine's files, but for what `Host.own` makes theirs.

Nothing has a name outside, nothing touches the machine's own network, and the hosts end with the process that
made them, however that ends.
"""

import contextlib
import functools
import os
import shutil
import signal
import string
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

TOOLS = ("ip", "unshare", "nsenter", "sshd", "ssh", "ssh-keygen", "taskset", "tc")
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
NAMESPACES = ("--net", "--uts", "--mount", "--pid", "--ipc")

# The first process of a host. Orphans are its children, and are reaped where it ignores their signal. It says
# the number that it has outside; when its stdin ends, because who made it is gone, all of the host ends.
INIT = """
read number rest < /proc/self/stat
mount -t proc proc /proc; mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /dev/shm
mkdir /run/sshd
echo $number
trap '' CHLD
exec cat
"""

SSHD = """
ListenAddress {address}
HostKey {folder}/key
AuthorizedKeysFile {folder}/key.pub
StrictModes no
UsePAM no
PermitRootLogin yes
PidFile none
MaxStartups 100
"""

SSH = """
Host *
    IdentityFile {folder}/key
    UserKnownHostsFile /dev/null
    StrictHostKeyChecking no
    LogLevel ERROR
"""


@functools.cache
def why_not() -> str | None:
    """Why no hosts can be made here; None: they can."""
    if sys.platform != "linux":
        return "network namespaces are Linux'"
    if os.geteuid() != 0:
        return "it takes root"
    missing = [name for name in TOOLS if shutil.which(name, path=PATH) is None]
    if missing:
        return f"{', '.join(missing)} not found: Debian's packages iproute2, util-linux, openssh-server"
    tried = _tool("unshare", *NAMESPACES, "--fork", "mount", "-t", "tmpfs", "tmpfs", "/run", check=False)
    return f"namespaces are not allowed: {tried.stderr.strip()}" if tried.returncode else None


@contextlib.contextmanager
def made(
    count: int,
    gbit_per_s: float | None = None,
    cores: Sequence[set[int]] | None = None,
) -> Iterator[list["Host"]]:
    """So many hosts on one switch.

    Args:
        count: 26 at the most.
        gbit_per_s: each link carries so much in each direction; None: as much as the machine can.
        cores: those of each host; None: all hosts share the machine's.

    Raises:
        RuntimeError: it is not possible here; the message is the reason.
    """
    if (reason := why_not()) is not None:
        raise RuntimeError(f"no hosts can be made here: {reason}")
    with contextlib.ExitStack() as made_here:
        folder = Path(made_here.enter_context(tempfile.TemporaryDirectory(prefix="hosts_")))
        _tool("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key"))
        names = string.ascii_lowercase[:count]
        addresses = {name: f"10.9.0.{number}" for number, name in enumerate(names, 1)}
        known = "".join(f"{address} {name}\n" for name, address in addresses.items())
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{known}")
        (folder / "ssh_config").write_text(SSH.format(folder=folder))
        switch = Switch()
        made_here.callback(switch.kill)
        hosts = []
        for number, (name, address) in enumerate(addresses.items()):
            host = Host(switch, name, address, folder, None if cores is None else cores[number])
            made_here.callback(host.kill)
            host.start_services()
            host.shape(gbit_per_s)
            hosts.append(host)
        yield hosts


class _Place:
    """Namespaces and the process that holds them."""

    def __init__(self, words: Sequence[str] = ()) -> None:
        command = ["unshare", *NAMESPACES, "--fork", "--kill-child", *words, "sh", "-c", INIT]
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL  # its end by a signal unshare complains about
        self._holder = subprocess.Popen(_found(command), stdin=pipe, stdout=pipe, stderr=nothing, text=True)
        assert self._holder.stdout is not None
        self.number = int(self._holder.stdout.readline())
        """Of the first process inside, as it is called outside."""
        self._inside = ["nsenter", f"--target={self.number}", *NAMESPACES]
        self._words = words

    def command(self, words: Sequence[str], cwd: Path | None = None) -> list[str]:
        """What runs `words` inside when it is run outside; `cwd`: in which folder, None: in this one."""
        folder = Path.cwd() if cwd is None else cwd.resolve()
        return _found([*self._inside, f"--wdns={folder}", *self._words, *words])

    def tool(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run one of the machine's tools inside. Raises RuntimeError where it fails."""
        return _tool(*self.command(words))

    def kill(self) -> None:
        """End everything inside at once, as kill -9 does; again does nothing."""
        if self._holder.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.number, signal.SIGKILL)
            self._holder.communicate()


class Switch(_Place):
    """What the hosts' links go to."""

    def __init__(self) -> None:
        super().__init__()
        self.tool("ip", "link", "add", "bridge", "type", "bridge")
        self.tool("ip", "link", "set", "bridge", "up")

    def connect(self, number: int, port: str) -> None:
        """Lay a link to the place whose first process is given; there it is called eth0."""
        self.tool("ip", "link", "add", port, "type", "veth", "peer", "name", f"{port}_far")
        _tool("nsenter", f"--target={self.number}", "--net", "ip", "link", "set", f"{port}_far",
              "netns", str(number), "name", "eth0")  # fmt: skip
        self.tool("ip", "link", "set", port, "master", "bridge", "up")


class Host(_Place):
    """One of them.

    Attributes:
        name: what it calls itself, and the others call it.
        address: IPv4.
    """

    def __init__(
        self, switch: Switch, name: str, address: str, folder: Path, cores: set[int] | None = None
    ) -> None:
        super().__init__([] if cores is None else ["taskset", "--cpu-list", ",".join(map(str, cores))])
        self.name = name
        self.address = address
        self._switch = switch
        self._port = f"to_{name}"
        self._folder = folder
        self._owned = 0
        switch.connect(self.number, self._port)
        self.tool("hostname", name)
        self.tool("ip", "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            self.tool("ip", "link", "set", device, "up")

    def start_services(self) -> None:
        """sshd, and what ssh has to know."""
        self.tool("mount", "--bind", str(self._folder / "hosts"), "/etc/hosts")
        self.tool("mount", "--bind", str(self._folder / "ssh_config"), "/etc/ssh/ssh_config")
        settings = self._folder / f"sshd_{self.name}"
        settings.write_text(SSHD.format(address=self.address, folder=self._folder))
        # By its full path, as it wants it; what it prints it would keep the pipe for.
        command = self.command([str(shutil.which("sshd", path=PATH)), "-f", str(settings)])
        subprocess.run(
            command,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def start(self, words: Sequence[str], cwd: Path | None = None, **options: Any) -> "subprocess.Popen[str]":
        """Start a command on this host, with `subprocess.Popen`'s options."""
        options = {"stdin": subprocess.DEVNULL, "text": True, **options}
        return subprocess.Popen(self.command(words, cwd), **options)

    def run(
        self, words: Sequence[str], cwd: Path | None = None, **options: Any
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command on this host, with `subprocess.run`'s options; stdout and stderr are kept."""
        options = {"stdin": subprocess.DEVNULL, "text": True, "capture_output": True, **options}
        return subprocess.run(self.command(words, cwd), **options)

    def shape(self, gbit_per_s: float | None) -> None:
        """Give the link a speed, in each direction; None: as much as the machine can."""
        for place, device in ((self, "eth0"), (self._switch, self._port)):
            _tool(*place.command(["tc", "qdisc", "del", "dev", device, "root"]), check=False)
            if gbit_per_s is not None:  # the burst holds four frames as the kernel hands them over, of 64 KB
                rate = [f"{round(1000 * gbit_per_s)}mbit", "burst", "256kb", "latency", "100ms"]
                place.tool("tc", "qdisc", "add", "dev", device, "root", "tbf", "rate", *rate)

    def unplug(self) -> None:
        """Pull the cable out of the switch: from now on nobody hears of this host, nor it of them."""
        self._switch.tool("ip", "link", "set", self._port, "down")

    def plug(self) -> None:
        """Put the cable back."""
        self._switch.tool("ip", "link", "set", self._port, "up")

    def own(self, path: Path, copied: bool = True) -> None:
        """Let this host alone see another folder at `path`: a copy of what is there, or an empty one. It is
        in memory."""
        self._owned += 1
        place = f"/run/own_{self._owned}"
        copy = 'cp -a "$1/." "$0"' if copied else ":"
        self.tool("sh", "-c", f'mkdir "$0" && {copy} && mount --bind "$0" "$1"', place, str(path))

    def processes(self) -> dict[int, str]:
        """What runs here but for the host's own services: number outside -> command line."""
        here = _namespace(self.number)
        found = {}
        numbers = [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]
        for number in numbers:
            if here is None or number == self.number or _namespace(number) != here:
                continue
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                if words and "[listener]" not in words:  # one without words is a zombie
                    found[number] = words
        return found


def _namespace(number: int) -> str | None:
    try:
        return str(Path(f"/proc/{number}/ns/pid").readlink())
    except OSError:
        return None


def _found(command: Sequence[str]) -> list[str]:
    """With the full path of the tool that it begins with, which lies in /usr/sbin perhaps."""
    return [shutil.which(command[0], path=PATH) or command[0], *command[1:]]


def _tool(*words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PATH": PATH}
    done = subprocess.run(
        _found(words), env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done
