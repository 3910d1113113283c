"""CPU shares, with a directory in the place of the kernel's control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from celaje.cloud.reconcile.cpu_shares import CpuShares, delegated_group


@pytest.fixture
def group(tmp_path: Path) -> Path:
    found = tmp_path / "fs" / "user" / "celaje"
    found.mkdir(parents=True)
    (found / "cgroup.controllers").write_text("cpuset cpu memory\n")
    return found


def test_the_group_that_is_delegated_is_found(tmp_path: Path, group: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("1:name=systemd:/x\n0::/user/celaje\n")
    assert delegated_group(tmp_path / "fs", membership) == group
    (group / "cgroup.controllers").write_text("memory\n")
    assert delegated_group(tmp_path / "fs", membership) is None
    membership.write_text("4:memory:/x\n")
    assert delegated_group(tmp_path / "fs", membership) is None


def test_a_machine_has_the_share_of_its_vcpus(group: Path) -> None:
    shares = CpuShares(group)
    assert shares.kept
    assert (group / "celaje-daemon" / "cgroup.procs").read_text() == str(os.getpid())
    shares.place("i-1", 4711, 2)
    machine = group / "celaje-instances" / "i-1"
    assert (machine / "cpu.max").read_text() == "200000 100000"
    assert (machine / "cpu.weight").read_text() == "200"
    assert (machine / "cgroup.procs").read_text() == "4711"
    shares.place("i-2", 4712, 192)
    assert (group / "celaje-instances" / "i-2" / "cpu.weight").read_text() == "10000"


def test_nothing_is_kept_where_nothing_is_delegated(tmp_path: Path) -> None:
    shares = CpuShares(None)
    assert not shares.kept
    shares.place("i-1", 4711, 2)
    shares.release("i-1")
    assert not CpuShares(tmp_path / "missing" / "group").kept
