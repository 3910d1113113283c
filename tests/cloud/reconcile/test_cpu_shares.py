"""CPU shares: what is written, with a directory in the place of the kernel's control groups, and what the kernel does,
where it has groups that this user may make others in."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from celaje.cloud.reconcile.cpu_shares import INSTANCES, ControlGroup, CpuShares, own_group

BUSY = "input(); import os; os.fork()\nwhile True: pass"  # two processes, once a line has come


@pytest.fixture
def group(tmp_path: Path) -> Path:
    found = tmp_path / "fs" / "user" / "celaje"
    found.mkdir(parents=True)
    (found / "cgroup.controllers").write_text("cpuset cpu memory\n")
    return found


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    """A process that works in two, in which it is once a line has come."""
    with subprocess.Popen([sys.executable, "-c", BUSY], stdin=subprocess.PIPE, start_new_session=True) as process:
        yield process
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)


def test_the_group_that_is_delegated_is_found(tmp_path: Path, group: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("1:name=systemd:/x\n0::/user/celaje\n")
    assert own_group(tmp_path / "fs", membership) == ControlGroup(group, 2)
    (group / "cgroup.controllers").write_text("memory\n")
    assert own_group(tmp_path / "fs", membership) is None
    membership.write_text("4:memory:/x\n")
    assert own_group(tmp_path / "fs", membership) is None
    assert own_group(tmp_path / "fs", tmp_path / "missing") is None


def test_the_group_of_version_1_is_found_where_version_2_has_no_cpus(tmp_path: Path, group: Path) -> None:
    (group / "cgroup.controllers").write_text("hugetlb\n")
    own = tmp_path / "fs" / "cpu" / "some" / "where"
    own.mkdir(parents=True)
    membership = tmp_path / "cgroup"
    membership.write_text("2:cpu,cpuacct:/some/where\n1:name=systemd:/x\n0::/user/celaje\n")
    assert own_group(tmp_path / "fs", membership) is None
    (own / "cpu.cfs_quota_us").write_text("-1\n")
    assert own_group(tmp_path / "fs", membership) == ControlGroup(own, 1)


def test_a_machine_has_the_share_of_its_vcpus(group: Path) -> None:
    shares = CpuShares(ControlGroup(group, 2))
    assert shares.kept
    assert (group / "celaje-daemon" / "cgroup.procs").read_text() == str(os.getpid())
    shares.place("i-1", 4711, 2)
    machine = group / INSTANCES / "i-1"
    assert (machine / "cpu.max").read_text() == "200000 100000"
    assert (machine / "cpu.weight").read_text() == "200"
    assert (machine / "cgroup.procs").read_text() == "4711"
    shares.place("i-2", 4712, 192)
    assert (group / INSTANCES / "i-2" / "cpu.weight").read_text() == "10000"


def test_a_machine_has_its_share_by_version_1_too(group: Path) -> None:
    shares = CpuShares(ControlGroup(group, 1))
    shares.place("i-1", 4711, 2)
    machine = group / INSTANCES / "i-1"
    assert (machine / "cpu.cfs_period_us").read_text() == "100000"
    assert (machine / "cpu.cfs_quota_us").read_text() == "200000"
    assert (machine / "cpu.shares").read_text() == "2048"
    assert (machine / "cgroup.procs").read_text() == "4711"
    assert not (group / "celaje-daemon").exists()


def test_groups_that_machines_have_left_go_at_the_next_start(group: Path) -> None:
    (group / INSTANCES / "i-left").mkdir(parents=True)
    (group / INSTANCES / "i-1").mkdir()
    (group / INSTANCES / "i-1" / "cgroup.procs").write_text("4711")  # a directory that is not empty stays, as a group
    assert CpuShares(ControlGroup(group, 1)).kept
    assert [each.name for each in (group / INSTANCES).iterdir()] == ["i-1"]


def test_nothing_is_kept_where_nothing_is_delegated(tmp_path: Path) -> None:
    shares = CpuShares(None)
    assert not shares.kept
    shares.place("i-1", 4711, 2)
    shares.release("i-1")
    assert not CpuShares(ControlGroup(tmp_path / "missing" / "group", 2)).kept


def test_the_kernel_holds_a_machine_to_its_share_and_groups_go_with_it(busy: subprocess.Popen[bytes]) -> None:
    own = own_group()
    if own is None or own.version == 2:  # which would move these tests to another group
        pytest.skip("this user may make no control groups of version 1 that have a CPU controller")
    shares = CpuShares(own)
    instance = f"i-test{os.getpid()}"
    group = own.path / INSTANCES / instance
    shares.place(instance, busy.pid, 1)
    assert busy.stdin is not None
    busy.stdin.write(b"\n")
    busy.stdin.flush()
    until = time.monotonic() + 60
    # The kernel counts the periods of what has a quota; whether it had to wait in one depends on what else there is.
    while not int(dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())["nr_periods"]):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert str(busy.pid) in (group / "cgroup.procs").read_text().split()
    assert int((group / "cpu.cfs_quota_us").read_text()) == int((group / "cpu.cfs_period_us").read_text())
    shares.release(instance)
    assert group.exists()  # somebody is in it
    os.killpg(busy.pid, 9)
    busy.wait()
    while (group / "cgroup.procs").read_text():  # the child, which is init's now
        assert time.monotonic() < until
        time.sleep(0.1)
    shares.release(instance)
    assert not group.exists()
