"""How the machine of an instance is made and removed, so that a kill in between harms no volume."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading

import msgspec
import pytest

from celaje import paths
from celaje.cloud.reconcile import launching
from celaje.cloud.reconcile.host_capacity import capacity, host_memory
from celaje.cloud.reconcile.launching import MachinePlan
from celaje.cloud.reconcile.process_watch import ProcessWatch
from celaje.cloud.settings import Settings
from celaje.errors import NotFound
from celaje.host import record
from celaje.host.interface_file import read_interface
from celaje.host.record import MachineDirectory
from celaje.network.messages import Attach, NetworkSettings
from tests.system.tiny_image import NAME, write_tiny_image

INSTANCE = "i-0123456789abcdef0"
INTERFACE = Attach(
    network=NetworkSettings(name="vpc-0123456789abcdef0", blocks=("172.31.0.0/16",)),
    interface=INSTANCE,
    host_name="ip-172-31-0-9",
    mac="02:00:00:00:00:01",
    subnet="172.31.0.0/20",
    address="172.31.0.9",
)
PLAN = MachinePlan(
    instance=INSTANCE,
    image=NAME,
    memory=64 << 20,
    cpus=1,
    mac="02:00:00:00:00:01",
    network="vpc-0123456789abcdef0",
    root="vol-0123456789abcdef0",
    attached=("vol-0123456789abcdef1",),
    store=(1 << 30,),
    cards=1,
    interfaces={0: INTERFACE},
)


@pytest.fixture(autouse=True)
def _image() -> None:
    write_tiny_image(paths.home())


def test_further_interfaces_have_documents_of_their_own_which_go_when_they_do() -> None:
    further = msgspec.structs.replace(
        INTERFACE, interface="eni-0123456789abcdef0", address="172.31.0.10", mac="02:00:00:00:00:02"
    )
    directory = launching.made(changed(interfaces={0: INTERFACE, 1: further}))
    assert (read_interface(directory), read_interface(directory, 1)) == (INTERFACE, further)
    assert directory.record().options.cards == 1
    launching.made(PLAN)
    assert (read_interface(directory), read_interface(directory, 1)) == (INTERFACE, None)


def changed(**changes: object) -> MachinePlan:
    return dataclasses.replace(PLAN, **changes)  # type: ignore[arg-type]  # the test says what fits


def test_a_machine_is_what_its_plan_says_however_often_it_is_made() -> None:
    for _ in range(2):
        directory = launching.made(PLAN)
        held = directory.record()
        assert (held.instance, held.root, held.options.memory) == (INSTANCE, PLAN.root, 64 << 20)
        assert [disk.source for disk in held.attached] == [
            "vol-0123456789abcdef1",
            str(directory.path / "instance-store-0.raw"),
        ]
        assert read_interface(directory) == INTERFACE
    assert record.names() == [INSTANCE]


def test_a_stopped_instance_starts_as_what_it_has_become() -> None:
    launching.made(PLAN)
    directory = launching.made(changed(memory=128 << 20, cpus=2, attached=(), store=()))
    held = directory.record()
    assert (held.options.memory, held.options.cpus, held.attached) == (128 << 20, 2, ())


def test_a_machine_that_was_made_needs_its_image_no_more() -> None:
    launching.made(PLAN)
    assert launching.made(changed(image="")).record().boot.firmware is not None
    launching.remove(INSTANCE)
    with pytest.raises(NotFound):
        launching.made(changed(image=""))


def test_the_instance_store_is_empty_after_a_stop() -> None:
    directory = launching.made(PLAN)
    store = directory.path / "instance-store-0.raw"
    assert store.stat().st_size == 1 << 30
    assert store.stat().st_blocks == 0
    store.write_bytes(b"secret")
    launching.without_store(INSTANCE)
    assert not store.exists()
    launching.made(PLAN)
    assert store.stat().st_blocks == 0


def test_a_machine_is_removed_without_its_volumes(monkeypatch: pytest.MonkeyPatch) -> None:
    launching.made(PLAN)
    seen = []

    def killed(directory: MachineDirectory) -> None:
        seen.append(directory.record())
        raise KeyboardInterrupt

    monkeypatch.setattr(MachineDirectory, "remove", killed)
    with pytest.raises(KeyboardInterrupt):
        launching.remove(INSTANCE)
    assert (seen[0].root, seen[0].attached) == (None, ())  # whoever sweeps up has no disk to take


def test_a_directory_in_the_making_names_no_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def create(wanted: record.Record) -> MachineDirectory:
        made.append(wanted)
        return real(wanted)

    real = record.create
    monkeypatch.setattr(record, "create", create)
    launching.made(PLAN)
    assert (made[0].root, made[0].attached) == (None, ())


def test_what_is_removed_already_is_no_mistake() -> None:
    launching.remove(INSTANCE)
    launching.without_store(INSTANCE)


def test_a_process_that_ends_is_told_of_once() -> None:
    told = threading.Semaphore(0)
    watch = ProcessWatch(lambda: told.release())
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    watch.watch(process.pid)
    watch.watch(process.pid)
    assert not told.acquire(timeout=0.05)
    process.communicate(b"\n")
    assert told.acquire(timeout=60)
    assert not told.acquire(timeout=0.05)
    watch.watch(process.pid)  # it has gone
    assert told.acquire(timeout=60)
    watch.close()


def test_a_host_has_its_memory_or_what_its_control_group_has() -> None:
    information = "MemTotal:        8388608 kB\nMemFree: 1 kB\n"
    assert host_memory(information, "max\n") == 8 << 30
    assert host_memory(information, f"{2 << 30}\n") == 2 << 30
    assert host_memory(information, f"{16 << 30}\n") == 8 << 30


def test_instances_have_what_the_owner_leaves_them() -> None:
    settings = msgspec.structs.replace(Settings(), reserved_memory=1024, memory_overcommit=1.5, cpu_overcommit=4)
    assert capacity(settings, 8 << 30, 2) == (7168 * 3 // 2, 8)
    assert capacity(settings, 512 << 20, 2) == (0, 8)
