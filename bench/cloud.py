"""The cloud: how soon it answers, how soon its instances do, and what forty of them cost.

    python -m bench.cloud [--repeats 5] [--only api|start|launch|forty]...

Everything goes through what people use: the `celaje` command, the API, and connections to instances' public addresses,
in a CELAJE_HOME that is made for it. "SSH answers" is the server's banner. The launch and the same image under
`celaje vm run`, with the same memory and CPUs, alternate. bench/cloud_api.py compares the API with moto's server.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.util
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import cloud_api
from bench.cloud_api import IMAGE, Server, Shape, Wire, celaje, daemon, home, signed

PARTS = ("api", "start", "launch", "forty")
FORTY = 40
TYPE, MEMORY, CPUS = "t3.micro", "1G", "2"
SMALL_TYPE = "t3.nano"
PATIENCE = 600.0
PAUSE = 0.02
ASKED = 30  # times that the API is asked while forty instances run


def missing() -> str | None:
    """Why the cloud cannot be measured here; None if it can."""
    from celaje import paths

    if not (paths.home() / "images" / IMAGE).exists():
        return f"the image {IMAGE} is not there; `celaje image build {IMAGE}` makes it"
    return None


def peer_missing() -> str | None:
    """Why the API cannot be compared here; None if it can."""
    if importlib.util.find_spec("moto") is None:
        return "the API beside moto's server: moto is not installed; `make test` installs it"
    return None


def banner(address: str, port: int = 22) -> None:
    """Returns when the SSH server there has said its banner. RuntimeError if it has not for long.

    A connection that came before the server listens is given up after a second: its next attempt may be many seconds
    off, as TCP repeats them more and more seldom.
    """
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1) as connection:
            if connection.recv(64).startswith(b"SSH-"):
                return
        time.sleep(PAUSE)
    raise RuntimeError(f"no SSH at {address}:{port} for {PATIENCE:.0f} s")


# Starts of the cloud.


def started(place: Path, environment: dict[str, str]) -> float:
    """Seconds from `celaje up --detach` to its end and one answer more."""
    began = time.perf_counter()
    celaje(environment, "up", "--detach")
    with socket.create_connection(("127.0.0.1", daemon(place).port), timeout=PATIENCE) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        connection.recv(1)
    return time.perf_counter() - began


def starts(repeats: int) -> dict[str, float]:
    """A cloud's first start, and later ones; and how much of the later ones is processor time of the daemon."""
    first, later, cpu = [], [], []
    for _ in range(repeats):
        with home() as (place, environment):
            first.append(started(place, environment))
            celaje(environment, "down")
            later.append(started(place, environment))
            cpu.append(daemon(place).cpu())
            celaje(environment, "down")
    return {
        "cloud_first_up_seconds": statistics.median(first),
        "cloud_up_seconds": statistics.median(later),
        "cloud_up_cpu_seconds": statistics.median(cpu),
    }


# Instances.


@contextlib.contextmanager
def cloud() -> Iterator[tuple[Path, dict[str, str], Server]]:
    """A cloud that runs, whose default security group admits SSH; its instances are gone afterwards."""
    with home() as (place, environment):
        celaje(environment, "up", "--detach")
        server = daemon(place)
        try:
            server.found["image"] = cloud_api.awaited_image(server)
            server.ask(
                "ec2",
                "authorize_security_group_ingress",
                GroupName="default",
                IpPermissions=[
                    {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
                ],
            )
            yield place, environment, server
            terminate(server, [one["InstanceId"] for one in instances(server)])
            celaje(environment, "down")
        finally:
            _end_rest(place)


def instances(server: Server) -> list[Shape]:
    """All that are not terminated."""
    found = server.ask("ec2", "describe_instances")["Reservations"]
    return [one for each in found for one in each["Instances"] if one["State"]["Name"] != "terminated"]


def terminate(server: Server, identifiers: list[str]) -> None:
    """Returns when they are."""
    if identifiers:
        server.ask("ec2", "terminate_instances", InstanceIds=identifiers)
    while any(one["InstanceId"] in identifiers for one in instances(server)):
        time.sleep(0.2)


def _processes(place: Path) -> list[int]:
    """Those that were started with this CELAJE_HOME."""
    mark = f"CELAJE_HOME={place}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def _end_rest(place: Path) -> None:
    """What outlives a cloud on purpose, such as the process that machines are forked from; everything, if it failed."""
    for process in _processes(place):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)


def run_instances(server: Server, kind: str) -> tuple[float, str, str]:
    """(seconds until the answer, the instance, its public address)."""
    request = signed(
        server, "ec2", "run_instances", ImageId=server.found["image"], InstanceType=kind, MinCount=1, MaxCount=1
    )
    wire = Wire(server.port)
    began = time.perf_counter()
    answer = wire.ask(request).decode()
    seconds = time.perf_counter() - began
    wire.close()
    return seconds, _element(answer, "instanceId"), _element(answer, "ipAddress")


def _element(answer: str, name: str) -> str:
    return answer.partition(f"<{name}>")[2].partition(f"</{name}>")[0]


def launch(server: Server) -> tuple[float, float]:
    """(seconds until RunInstances answered, until SSH did)."""
    began = time.perf_counter()
    answered, instance, address = run_instances(server, TYPE)
    banner(address)
    seconds = time.perf_counter() - began
    terminate(server, [instance])
    return answered, seconds


def vm_run(environment: dict[str, str]) -> float:
    """Seconds from the start of `celaje vm run` to the banner of the guest."""
    port = cloud_api.free_port()
    command = [sys.executable, "-m", "celaje", "vm", "run", IMAGE, "--memory", MEMORY, "--cpus", CPUS]
    command += ["--network", f"user,forward=tcp:127.0.0.1:{port}:22"]
    null = subprocess.DEVNULL
    began = time.perf_counter()
    process = subprocess.Popen(command, stdin=null, stdout=null, stderr=null, env=environment)
    try:
        banner("127.0.0.1", port)
        return time.perf_counter() - began
    finally:
        process.kill()
        process.wait()


def launches(repeats: int) -> dict[str, float]:
    """Launches beside `celaje vm run`."""
    with cloud() as (_, environment, server):
        launch(server)  # the first one starts the network and the process that machines are forked from
        vm_run(environment)
        pairs = []
        for number in range(repeats):
            if number % 2:
                plain = vm_run(environment)
                pairs.append((*launch(server), plain))
            else:
                pairs.append((*launch(server), vm_run(environment)))
    return {
        "run_instances_seconds": statistics.median(answered for answered, _, _ in pairs),
        "launch_to_ssh_seconds": statistics.median(seconds for _, seconds, _ in pairs),
        "vm_run_to_ssh_seconds": statistics.median(plain for _, _, plain in pairs),
        "launch_ratio": statistics.median(seconds / plain for _, seconds, plain in pairs),
        "launch_over_bar": statistics.median(seconds / (1.3 * plain + 0.5) for _, seconds, plain in pairs),
    }


# Forty.


def forty() -> dict[str, float]:
    """Forty idle instances: launched, reached, asked for, counted, and found again by a new daemon."""
    with cloud() as (place, environment, server):
        began = time.perf_counter()
        launched = [run_instances(server, SMALL_TYPE) for _ in range(FORTY)]
        with ThreadPoolExecutor(FORTY) as pool:
            list(pool.map(lambda one: banner(one[2]), launched))
        reached = time.perf_counter() - began
        time.sleep(15)  # idle guests
        server_cpu, until = server.cpu(), time.monotonic() + 10
        wire = Wire(server.port)
        asked = []
        request = signed(server, "ec2", "describe_instances")
        for _ in range(ASKED):
            ask = time.perf_counter()
            wire.ask(request)
            asked.append(time.perf_counter() - ask)
            time.sleep(max(0.0, (until - time.monotonic()) / ASKED))
        wire.close()
        found = {
            "forty_reached_seconds": reached,
            "forty_run_instances_seconds": statistics.median(seconds for seconds, _, _ in launched),
            "forty_describe_seconds": statistics.median(asked),
            "forty_describe_worst_seconds": max(asked),
            "forty_daemon_cpu_share": (server.cpu() - server_cpu) / max(1e-9, 10 - (until - time.monotonic())),
            "forty_bytes": float(sum(_proportional(process) for process in _processes(place))),
        }
        os.kill(server.process, signal.SIGKILL)  # the hardest case: nobody said goodbye
        while Path(f"/proc/{server.process}").exists():
            time.sleep(PAUSE)
        found |= _adopted(place, environment)
        with ThreadPoolExecutor(FORTY) as pool:
            list(pool.map(lambda one: banner(one[2]), launched))
        return found


def _adopted(place: Path, environment: dict[str, str]) -> dict[str, float]:
    """Seconds from `celaje up` until all forty are running by the API, and watched by the daemon."""
    log = place / "cloud" / "log"
    said = log.stat().st_size
    began = time.perf_counter()
    celaje(environment, "up", "--detach")
    server = daemon(place)
    watched = f"{FORTY} machines run, and are watched".encode()
    while watched not in log.read_bytes()[said:]:
        if time.perf_counter() - began > PATIENCE:
            raise RuntimeError(f"{log} does not say that {FORTY} machines are watched")
        time.sleep(PAUSE)
    seconds = time.perf_counter() - began
    states = [one["State"]["Name"] for one in instances(server)]
    if states != ["running"] * FORTY:
        raise RuntimeError(f"after the daemon's new start instances are {states}")
    return {"forty_adopted_seconds": seconds}


def _proportional(process: int) -> int:
    """Bytes of memory that a process has, its part of what it shares counted."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("Pss:"))


def measures(repeats: int, only: list[str] | None = None) -> dict[str, float]:
    """Figures by the names of report.MEASURES, of all parts or some."""
    parts: dict[str, Callable[[], dict[str, float]]] = {
        "api": lambda: cloud_api.measures(repeats, cloud_api.show),
        "start": lambda: starts(repeats),
        "launch": lambda: launches(repeats),
        "forty": forty,
    }
    if peer_missing() is not None:
        del parts["api"]
    found: dict[str, float] = {}
    for name, part in parts.items():
        if not only or name in only:
            found |= part()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", action="append", choices=PARTS, help="one part (repeatable)")
    chosen = parser.parse_args()
    if (why := missing()) is not None:
        sys.exit(why)
    if (why := peer_missing()) is not None:
        print("skipped:", why)
    now = datetime.datetime.now(datetime.UTC)
    print(now.isoformat(timespec="minutes"), "load of the host before:", *os.getloadavg(), flush=True)
    for name, value in measures(chosen.repeats, chosen.only).items():
        print(f"{name:30} {value:14.3f}")


if __name__ == "__main__":
    main()
