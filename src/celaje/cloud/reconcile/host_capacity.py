"""What this host has to give to instances, by the owner's rules of overcommitment."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

from sqlalchemy.orm import Session

from celaje.cloud.ec2.instance_types import ARCHITECTURES
from celaje.cloud.settings import Settings
from celaje.cloud.state.hosts import LOCAL, Host

MIB = 1 << 20
_MEMORY = Path("/proc/meminfo")
_LIMIT = Path("/sys/fs/cgroup/memory.max")


def host_memory(information: str, limit: str) -> int:
    """Bytes of memory, of /proc/meminfo's text, or what memory.max of a control group says if that is less."""
    total = next(int(line.split()[1]) * 1024 for line in information.splitlines() if line.startswith("MemTotal:"))
    return min(total, int(limit)) if limit.strip().isdigit() else total


def capacity(settings: Settings, memory: int, cpus: int) -> tuple[int, int]:
    """(MiB, vCPUs) that instances may have on a host of `memory` bytes and `cpus` CPUs."""
    free = max(0, memory // MIB - settings.reserved_memory)
    return int(free * settings.memory_overcommit), int(cpus * settings.cpu_overcommit)


def note_host(session: Session, settings: Settings, now: datetime.datetime) -> None:
    """Note what this host has."""
    try:
        limit = _LIMIT.read_text()
    except OSError:
        limit = "max"  # no control groups, or none of version 2
    memory, cpus = capacity(settings, host_memory(_MEMORY.read_text(), limit), len(os.sched_getaffinity(0)))
    session.merge(Host(id=LOCAL, memory=memory, cpus=cpus, architectures=" ".join(ARCHITECTURES), noted=now))
