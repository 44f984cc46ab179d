"""Machines for tests, on this one: each a set of namespaces with an address, a home, and an sshd of its own.

They share the file system but for ``/home``, ``/tmp`` and ``/mnt``, which are of each alone (though the project
and its Python are seen even there), and meet on a bridge that no other network sees. What runs in them ends with
them. Needs root, iproute2 and openssh-server.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

NEEDED = ("ip", "unshare", "nsenter", "setpriv", "mount", "ssh", "ssh-keygen", "rsync", "/usr/sbin/sshd")
_OWN = ("home", "tmp", "mnt")
_SHOWN = (Path(__file__).parents[1], Path(sys.prefix), Path(sys.base_prefix))
_ENDS_WITH_US = ("setpriv", "--pdeathsig", "KILL")
_SETUP = """
set -e
mount --make-rprivate /
mount -t tmpfs -o size=2g none /dev/shm
{shown}
mount --rbind {own}/home /home
mount --rbind {own}/tmp /tmp
mount --rbind {own}/mnt /mnt
mkdir -p /run/sshd
mount --bind {own}/passwd /etc/passwd
hostname {name}
mount --bind {own}/hosts /etc/hosts
for _ in $(seq 200); do if ip link show eth0 >/dev/null 2>&1; then break; fi; sleep 0.05; done
ip link set lo up
ip address add {address}/24 dev eth0
ip link set eth0 up
exec {command}
"""
_SSHD = """
Port 22
ListenAddress {address}
HostKey {work}/host_key
AuthorizedKeysFile {work}/key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
PidFile none
AcceptEnv LANG
"""


def missing() -> list[str]:
    """What this machine lacks for :class:`Hosts`."""
    lacking = [name for name in NEEDED if shutil.which(name) is None]
    if os.geteuid() != 0:
        return [*lacking, "root"]
    allowed = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True)
    return lacking if allowed.returncode == 0 else [*lacking, "namespaces"]


class Hosts:
    """Machines ``10.77.0.1``, ``.2`` ...; the first is where a user sits and has no sshd.

    Args:
        names: of the machines.

    Attributes:
        work: a folder that all of them see, with ``key``, the private key that opens each.
    """

    def __init__(self, names: Sequence[str]):
        self.names = tuple(names)
        self.work = Path(tempfile.mkdtemp(prefix="hosts-", dir="/var/tmp"))
        self._processes: list[subprocess.Popen] = []
        self._inside: dict[str, int] = {}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def address(self, name: str) -> str:
        return f"10.77.0.{self.names.index(name) + 1}"

    def own(self, name: str) -> Path:
        """What a machine has alone: ``home``, ``tmp`` and ``mnt``."""
        return self.work / name

    def run(self, name: str, command: str, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess:
        """A shell command on a machine; its output is one text."""
        return subprocess.run(
            self._enter(name, command), env=self._environment() | environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout,
        )  # fmt: skip

    def start(self, name: str, command: str, log: Path, **environment: str) -> subprocess.Popen:
        """A shell command on a machine, in the background."""
        with log.open("w") as out:
            process = subprocess.Popen(
                self._enter(name, command), env=self._environment() | environment, stdin=subprocess.DEVNULL,
                stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self._processes.append(process)
        return process

    def _enter(self, name: str, command: str) -> list[str]:
        return ["nsenter", "--target", str(self._inside[name]), "--all", "/bin/bash", "-c", command]

    def _environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTEST_"))}
        return kept | {"HOME": "/home", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def _start(self) -> None:
        for key in ("key", "host_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.work / key)], check=True)
        switch = subprocess.Popen([*_ENDS_WITH_US, "unshare", "--net", "sleep", "infinity"])
        self._processes.append(switch)
        _until(lambda: _net(switch.pid) != _net(os.getpid()))
        in_switch = ["nsenter", "--target", str(switch.pid), "--net", "ip"]
        subprocess.run([*in_switch, "link", "add", "bridge", "type", "bridge"], check=True)
        subprocess.run([*in_switch, "link", "set", "bridge", "up"], check=True)
        for number, name in enumerate(self.names):
            inside = self._host(name, login=number > 0)
            port = f"port{number}"
            link = ["link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(inside)]
            subprocess.run([*in_switch, *link], check=True)
            subprocess.run([*in_switch, "link", "set", port, "master", "bridge", "up"], check=True)
            self._inside[name] = inside
        for name in self.names[1:]:
            _until(lambda name=name: self.run(self.names[0], _knock(self.address(name))).returncode == 0)

    def _host(self, name: str, login: bool) -> int:
        own, address = self.own(name), self.address(name)
        for folder in _OWN:
            (own / folder).mkdir(parents=True)
        shown = [path for path in dict.fromkeys(_SHOWN) if path.parts[1] in _OWN]
        for path in shown:
            own.joinpath(*path.parts[1:]).mkdir(parents=True, exist_ok=True)
        (own / "tmp").chmod(0o1777)
        passwd = Path("/etc/passwd").read_text().splitlines()
        homes = ["root:x:0:0:root:/home:/bin/bash" if line.startswith("root:") else line for line in passwd]
        (own / "passwd").write_text("\n".join(homes) + "\n")
        known = "".join(f"{self.address(each)} {each}\n" for each in self.names)
        (own / "hosts").write_text(f"127.0.0.1 localhost\n{known}")
        (own / "sshd_config").write_text(_SSHD.format(address=address, work=self.work))
        command = f"/usr/sbin/sshd -D -e -f {own}/sshd_config" if login else "sleep infinity"
        binds = "\n".join(f"mount --bind {path} {own}{path}" for path in shown)
        script = _SETUP.format(own=own, name=name, address=address, command=command, shown=binds)
        separate = ["--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
        with (own / "log").open("w") as log:
            outer = subprocess.Popen(
                [*_ENDS_WITH_US, "unshare", *separate, "/bin/sh", "-c", script], stdout=log, stderr=log
            )
        self._processes.append(outer)
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        _until(lambda: children.read_text().split() and _net(int(children.read_text().split()[0])) != _net(os.getpid()))
        return int(children.read_text().split()[0])

    def _stop(self) -> None:
        for process in reversed(self._processes):  # a machine's first process takes the others of it along
            process.kill()
            process.wait()
        shutil.rmtree(self.work, ignore_errors=True)


def _knock(address: str) -> str:
    return f"exec 3<>/dev/tcp/{address}/22"


def _net(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


def _until(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("a machine did not come up")
        time.sleep(0.05)
