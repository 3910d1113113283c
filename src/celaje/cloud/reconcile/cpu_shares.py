"""What instances get of the host's CPUs, kept by the kernel where this process may say so: control groups, version 2.

    DELEGATED/              the daemon's own group, in which it may make others (such as systemd's Delegate=yes gives)
      celaje-daemon/        the daemon: a group whose children have controllers has no processes of its own
      celaje-instances/
        i-…/                one machine: cpu.max is its type's vCPUs, cpu.weight in proportion to them

Where there is no such group (another user's, version 1, a container that does not delegate) machines share the CPUs as
any processes do, and the log says why.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)

MOUNTED = Path("/sys/fs/cgroup")
PERIOD_MICROSECONDS = 100_000
WEIGHT_OF_A_CPU, HEAVIEST = 100, 10_000  # the kernel's default is 100, for one process as for a group


class CpuShares:
    """Keeps shares below `delegated`, None where there is nothing to keep them with."""

    def __init__(self, delegated: Path | None) -> None:
        self._instances = None if delegated is None else _prepared(delegated)

    @property
    def kept(self) -> bool:
        """Whether anything is."""
        return self._instances is not None

    def place(self, instance: str, process: int, vcpus: int) -> None:
        """The machine's process, with all its threads, has the share of so many CPUs from now on."""
        if self._instances is None:
            return
        group = self._instances / instance
        try:
            group.mkdir(exist_ok=True)
            (group / "cpu.max").write_text(f"{vcpus * PERIOD_MICROSECONDS} {PERIOD_MICROSECONDS}")
            (group / "cpu.weight").write_text(str(min(vcpus * WEIGHT_OF_A_CPU, HEAVIEST)))
            (group / "cgroup.procs").write_text(str(process))
        except OSError as error:  # it runs all the same
            log.warning("%s has no CPU share of its own: %s", instance, error)

    def release(self, instance: str) -> None:
        """The machine has gone."""
        if self._instances is not None:
            with contextlib.suppress(OSError):
                (self._instances / instance).rmdir()


def delegated_group(mounted: Path = MOUNTED, membership: Path = Path("/proc/self/cgroup")) -> Path | None:
    """The group that this process is in, if it is one of version 2 with a CPU controller that this process may use."""
    try:
        lines = membership.read_text().splitlines()
        own = next(line.removeprefix("0::/") for line in lines if line.startswith("0::/"))
        group = mounted / own
        usable = "cpu" in (group / "cgroup.controllers").read_text().split() and os.access(group, os.W_OK)
    except (OSError, StopIteration):
        usable = False
    if not usable:
        log.info(
            "CPU shares are not kept: no control group of version 2 with a CPU controller is delegated to this user"
        )
        return None
    return group


def _prepared(delegated: Path) -> Path | None:
    daemon, instances = delegated / "celaje-daemon", delegated / "celaje-instances"
    try:
        daemon.mkdir(exist_ok=True)
        (daemon / "cgroup.procs").write_text(str(os.getpid()))
        (delegated / "cgroup.subtree_control").write_text("+cpu")
        instances.mkdir(exist_ok=True)
        (instances / "cgroup.subtree_control").write_text("+cpu")
    except OSError as error:
        log.info("CPU shares are not kept: %s gives no controller to groups below it (%s)", delegated, error)
        return None
    log.info("CPU shares are kept in %s", instances)
    return instances
