"""What instances get of the host's CPUs, kept by the kernel where this process may say so: by control groups.

Of version 2, below a group that is this process's own, such as systemd's Delegate=yes gives:

    OWN/                    in which the daemon may make others
      celaje-daemon/        the daemon: a group whose children have controllers has no processes of its own
      celaje-instances/
        i-…/                one machine: cpu.max is its type's vCPUs, cpu.weight in proportion to them

Of version 1, below the group that this process is in, whose processes stay where they are: celaje-instances/i-…, with
cpu.cfs_quota_us and cpu.shares.

Where there is neither (another user's, a container that does not delegate) machines share the CPUs as any processes do,
and the log says why.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

MOUNTED = Path("/sys/fs/cgroup")
INSTANCES = "celaje-instances"
PERIOD_MICROSECONDS = 100_000
# What a group weighs by itself, which is what a process does: a machine weighs that for each of its vCPUs.
_WEIGHT, _HEAVIEST = 100, 10_000  # of version 2
_SHARES, _MOST_SHARES = 1024, 262_144  # of version 1


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """A group below which this process may make others, and the version (1 or 2) of what it is controlled by."""

    path: Path
    version: int


class CpuShares:
    """Keeps shares below `own`, None where there is nothing to keep them with."""

    def __init__(self, own: ControlGroup | None) -> None:
        self._own = own if own is not None and _prepared(own) else None
        self._changing = threading.Lock()  # the last instance's group takes the one around it with it

    @property
    def kept(self) -> bool:
        """Whether anything is."""
        return self._own is not None

    def place(self, instance: str, process: int, vcpus: int) -> None:
        """The machine's process, with all its threads, has the share of so many CPUs from now on."""
        if self._own is None:
            return
        try:
            try:
                self._place(self._own, instance, process, vcpus)
            except FileNotFoundError:  # another cloud of this group's has just taken away what was empty
                self._place(self._own, instance, process, vcpus)
        except OSError as error:  # it runs all the same
            log.warning("%s has no CPU share of its own: %s", instance, error)

    def _place(self, own: ControlGroup, instance: str, process: int, vcpus: int) -> None:
        group = own.path / INSTANCES / instance
        with self._changing:
            _make_instances(own)
            group.mkdir(exist_ok=True)
        for name, value in _limits(own.version, vcpus):
            (group / name).write_text(value)
        (group / "cgroup.procs").write_text(str(process))

    def release(self, instance: str) -> None:
        """The machine has gone."""
        if self._own is None:
            return
        with self._changing:
            with contextlib.suppress(OSError):
                (self._own.path / INSTANCES / instance).rmdir()
            _remove_instances(self._own)


def own_group(mounted: Path = MOUNTED, membership: Path = Path("/proc/self/cgroup")) -> ControlGroup | None:
    """The group that this process is in, if it has a CPU controller and this process may make others in it."""
    try:
        paths = _paths(membership.read_text())
    except OSError:
        paths = {}
    for version, controller, top in ((2, "", mounted), (1, "cpu", mounted / "cpu")):
        if controller not in paths:
            continue
        group = top / paths[controller].lstrip("/")
        if os.access(group, os.W_OK) and _controls_cpus(group, version):
            return ControlGroup(group, version)
    log.info("CPU shares are not kept: this user may make no control groups that have a CPU controller")
    return None


def _paths(membership: str) -> dict[str, str]:
    """Where a process is, by the controllers of version 1 and "" for version 2; see cgroups(7)."""
    paths = {}
    for line in membership.splitlines():
        number, controllers, path = line.split(":", 2)
        for controller in controllers.split(",") if number != "0" else [""]:
            paths[controller] = path
    return paths


def _controls_cpus(group: Path, version: int) -> bool:
    if version == 1:
        return (group / "cpu.cfs_quota_us").exists()
    try:
        return "cpu" in (group / "cgroup.controllers").read_text().split()
    except OSError:
        return False


def _limits(version: int, vcpus: int) -> list[tuple[str, str]]:
    """The files of a machine's group, in the order in which they are written."""
    quota = vcpus * PERIOD_MICROSECONDS
    if version == 1:
        return [
            ("cpu.cfs_period_us", str(PERIOD_MICROSECONDS)),
            ("cpu.cfs_quota_us", str(quota)),
            ("cpu.shares", str(min(vcpus * _SHARES, _MOST_SHARES))),
        ]
    return [
        ("cpu.max", f"{quota} {PERIOD_MICROSECONDS}"),
        ("cpu.weight", str(min(vcpus * _WEIGHT, _HEAVIEST))),
    ]


def _make_instances(own: ControlGroup) -> None:
    instances = own.path / INSTANCES
    instances.mkdir(exist_ok=True)
    if own.version == 2:
        (instances / "cgroup.subtree_control").write_text("+cpu")


def _remove_instances(own: ControlGroup) -> None:
    with contextlib.suppress(OSError):  # there are some, of this cloud or another
        (own.path / INSTANCES).rmdir()


def _prepared(own: ControlGroup) -> bool:
    """Whether groups below it can have shares."""
    try:
        if own.version == 2:
            daemon = own.path / "celaje-daemon"
            daemon.mkdir(exist_ok=True)
            (daemon / "cgroup.procs").write_text(str(os.getpid()))
            (own.path / "cgroup.subtree_control").write_text("+cpu")
        _make_instances(own)
        for left in [entry for entry in (own.path / INSTANCES).iterdir() if entry.is_dir()]:
            with contextlib.suppress(OSError):  # there is a machine in it
                left.rmdir()
        _remove_instances(own)
    except OSError as error:
        log.info("CPU shares are not kept: %s gives no controller to groups below it (%s)", own.path, error)
        return False
    log.info("CPU shares are kept in %s", own.path / INSTANCES)
    return True
