"""Running a test's scenario in a network namespace of its own, so that the host's network stays as it is.

A scenario is a function of a module that takes no arguments; `in_namespace(scenario)` runs it in a process under
unshare(1), with loopback up, and fails with what it said. Where the host allows no namespace the test is skipped.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAR = "10.99.0.2"
NEAR = "10.99.0.1"


def in_namespace(scenario: Callable[[], None], seconds: float = 300.0, **more: str) -> None:
    """Run it there, with `more` in its environment."""
    unshare = ["unshare", "--net"] if os.getuid() == 0 else ["unshare", "--map-root-user", "--net"]
    for tool in ("unshare", "nsenter", "ip"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (Debian packages util-linux and iproute2)")
    tried = subprocess.run([*unshare, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"this host allows no network namespace: {tried.stderr.strip()}")
    program = (
        f"import subprocess; subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)\n"
        f"from {scenario.__module__} import {scenario.__name__}; {scenario.__name__}()"
    )
    with tempfile.TemporaryDirectory(prefix="cn-") as directory:
        environment = {
            **os.environ,
            "XDG_RUNTIME_DIR": directory,
            "CELAJE_HOME": f"{directory}/home",
            "CELAJE_CACHE": f"{directory}/cache",
            "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
            **more,
        }
        done = subprocess.run(
            [*unshare, sys.executable, "-W", "error", "-c", program],
            capture_output=True, text=True, env=environment, timeout=seconds,
        )  # fmt: skip
    if "CAP_NET_ADMIN" in done.stderr or "No such file or directory for the pool" in done.stderr:
        pytest.skip(f"no TUN device can be made here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stdout + done.stderr


def ip(*words: str) -> None:
    """The command ip, in this namespace."""
    subprocess.run(["ip", *words], check=True)


@contextlib.contextmanager
def far_host(route: str | None = None) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Another host, FAR, on a wire to this namespace's NEAR; gives what starts a Python program there. `route`: a
    network that it reaches through this namespace."""
    holder = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
    programs: list[subprocess.Popen[str]] = []
    enter = ["nsenter", "--net", "--target", str(holder.pid)]
    try:
        while os.readlink(f"/proc/{holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            pass
        ip("link", "add", "near", "type", "veth", "peer", "name", "far")
        ip("link", "set", "far", "netns", str(holder.pid))
        ip("address", "add", f"{NEAR}/24", "dev", "near")
        ip("link", "set", "near", "up")
        there = [
            ["link", "set", "lo", "up"],
            ["address", "add", f"{FAR}/24", "dev", "far"],
            ["link", "set", "far", "up"],
        ]
        if route is not None:
            there.append(["route", "add", route, "via", NEAR])
        for words in there:
            subprocess.run([*enter, "ip", *words], check=True)

        def run(program: str) -> subprocess.Popen[str]:
            started = subprocess.Popen(
                [*enter, sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            programs.append(started)
            return started

        yield run
    finally:
        for program in programs:
            program.kill()
            program.communicate()
        holder.kill()
        holder.wait()
