"""An ordinary user's machine: no right to anything, a home of its own, and a server of the host's at port 22.

Root becomes such a user for these tests, one that the host has never heard of; anybody else is one already.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300.0
END_SERVERS = "from tests.machine_processes import end_servers; end_servers()"
# A mount namespace of the command's own, whose /etc/passwd has the user: ssh(1) runs for nobody else.
BECOME = (
    "mount --bind {passwd} /etc/passwd && cd {home} && "
    "exec setpriv --reuid={user} --regid={user} --clear-groups --inh-caps=-all --ambient-caps=-all "
    '--bounding-set=-all --no-new-privs -- sh -c \'exec "$0" "$@"\' "$@"'
)


@dataclass
class Person:
    """A user with a home."""

    user: int
    home: Path
    become: list[str]  # words before a command
    python: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(self.home / "run"),
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT), sysconfig.get_path("purelib")]),
        }

    def run(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of the user's."""
        command = [*self.become, *map(str, words)]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=self.environment, timeout=600
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def celaje(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(self.python, "-m", "celaje", *words, check=check)


def passwd_line(user: int, home: Path) -> str:
    return f"passer-by:x:{user}:{user}::{home}:/bin/sh\n"


def stranger(home: Path) -> Person:
    """A user whom the host does not know. Skips where root cannot become one, or celaje is out of its reach."""
    for tool in ("unshare", "setpriv"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (Debian: util-linux)")
    known = {entry.pw_uid for entry in pwd.getpwall()} | owners(Path("/proc"))
    user = next(number for number in range(61_000, 62_000) if number not in known)
    passwd = home / "passwd"
    passwd.write_text(Path("/etc/passwd").read_text() + passwd_line(user, home))
    for path in (home, *home.rglob("*")):
        os.chown(path, user, user)
    become = ["unshare", "--mount", "sh", "-c", BECOME.format(passwd=passwd, home=home, user=user), "become"]
    tried = subprocess.run([*become, "id", "-u"], capture_output=True, text=True)
    if tried.stdout.strip() != str(user):
        pytest.skip(f"root cannot become another user here: {tried.stderr.strip()}")
    reasons = []
    for python in dict.fromkeys([sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin")]):
        if python is None:
            continue
        person = Person(user, home, become, python)
        tried = person.run(python, "-m", "celaje", "vm", "ls", check=False)
        if tried.returncode == 0:
            return person
        reasons.append(f"{python}: {(tried.stderr.strip().splitlines() or ['no word'])[-1]}")
    pytest.skip(f"another user cannot run this celaje ({'; '.join(reasons)})")


def owners(*directories: Path) -> set[int]:
    """Whose the things in these directories are, some of which may go while they are looked at."""
    found = set()
    for directory in directories:
        with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    found.add(entry.stat(follow_symlinks=False).st_uid)
    return found


@pytest.fixture
def person(built_image: Callable[[str], Path]) -> Iterator[Person]:
    """With the image debian-mini, and a key of ssh. All that runs in this name ends with the test."""
    if shutil.which("ssh") is None:
        pytest.skip("ssh is not installed (Debian: openssh-client)")
    image = built_image("debian-mini").resolve()
    home = Path(tempfile.mkdtemp(prefix="celaje-", dir="/tmp"))  # where everybody may go, and sockets have short names
    try:
        (home / "run").mkdir(mode=0o700)
        (home / ".ssh").mkdir(mode=0o700)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / ".ssh/id_ed25519"], check=True)
        shutil.copytree(image, home / ".local/share/celaje/images/debian-mini")
        found = stranger(home) if os.geteuid() == 0 else Person(os.geteuid(), home, [], sys.executable)
        try:
            yield found
        finally:
            found.celaje("vm", "rm", "--force", "web", check=False)
            found.run(found.python, "-c", END_SERVERS)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def server_at_22() -> Iterator[str]:
    """What a server of every address at the host's port 22 says first; nothing where somebody else has that port."""
    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(socket.create_server(("0.0.0.0", 22), backlog=8))
        except OSError:
            yield ""
            return
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(b"SSH-2.0-the-host's own\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield "SSH-2.0-the-host's own"
        stop.set()
        socket.create_connection(("127.0.0.1", 22)).close()
        thread.join()


def greeting(address: str, port: int) -> str:
    with socket.create_connection((address, port), timeout=SECONDS) as connection:
        return connection.recv(64).partition(b"\r\n")[0].decode()


def test_an_ordinary_user_starts_a_machine_and_reaches_it_beside_the_hosts_own_server(
    person: Person, server_at_22: str
) -> None:
    assert person.run("id", "-u").stdout.strip() == str(person.user) != "0"
    said = person.celaje("vm", "start", "web", "debian-mini", "--ssh-key", person.home / ".ssh/id_ed25519.pub").stdout
    assert "celaje ssh web" in said
    assert person.celaje("ssh", "web", "--", "id", "-un").stdout == "admin\n"
    assert person.celaje("ssh", "root@web", "hostname; exit 0").stdout == "web\n"
    failed = person.celaje("ssh", "web", "exit 7", check=False)
    assert failed.returncode == 7

    # Port 22 of the machine's address is not the user's to serve, so it is served at another, and `ls` says which.
    (listed,) = json.loads(person.celaje("vm", "ls", "--json").stdout)
    (port,) = (one for one in listed["ports"] if one["guest_port"] == 22)
    assert port["host_address"] == listed["public_address"]
    assert "dropbear" in greeting(port["host_address"], port["host_port"])
    if server_at_22:
        assert port["host_port"] != 22
        assert port["reason"]
        assert greeting(port["host_address"], 22) == server_at_22
    assert str(port["host_port"]) in person.celaje("vm", "ls").stdout

    person.celaje("vm", "stop", "web")
    person.celaje("vm", "start", "web")
    assert person.celaje("ssh", "web", "--", "echo", "again").stdout == "again\n"
    person.celaje("vm", "rm", "--force", "web")
    assert json.loads(person.celaje("vm", "ls", "--json").stdout) == []
    assert json.loads(person.celaje("vm", "volume", "ls", "--json").stdout) == []
    assert owners(*(Path(directory) for directory, _, _ in os.walk(person.home))) == {person.user}


def test_a_host_without_an_ssh_client_logs_in_all_the_same(person: Person, tmp_path: Path) -> None:
    person.celaje("vm", "start", "web", "debian-mini", "--ssh-key", person.home / ".ssh/id_ed25519.pub")

    def without_ssh(*words: str) -> subprocess.CompletedProcess[str]:
        found = 'PATH=/nowhere exec "$0" -m celaje ssh "$@"'
        return person.run("/bin/sh", "-c", found, person.python, *words, check=False)

    assert without_ssh("web", "id -un; exit 7").stdout == "admin\n"
    assert without_ssh("web", "exit 7").returncode == 7
    assert "install openssh-client" in without_ssh("-L", "8080:localhost:80", "web").stderr
    known = person.home / ".local/share/celaje/machines/web/known_hosts"
    (alias, kind, key) = known.read_text().split()
    known.write_text(f"{alias} {kind} {key[::-1]}\n")
    refused = without_ssh("web", "true")
    assert (refused.returncode, "is not the one that" in refused.stderr) == (2, True)


def test_the_demo_passes_for_an_ordinary_user(person: Person) -> None:
    settings = person.home / ".local/share/celaje/cloud/settings.json"
    settings.parent.mkdir(mode=0o700)
    settings.write_text('{"port": 0, "images": ["debian-mini"]}')
    for path in (settings, settings.parent):
        os.chown(path, person.user, person.user)
    try:
        said = person.run(person.python, ROOT / "demo" / "cloud.py").stdout
        assert "written by the first instance" in said
        assert "hello from S3" in said
        assert "running 1" in person.celaje("status").stdout
    finally:
        person.celaje("terminate", "celaje-demo", check=False)
        person.celaje("down", check=False)
    assert json.loads(person.celaje("vm", "ls", "--json").stdout) == []
