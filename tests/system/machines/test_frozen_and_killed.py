"""Machines that are frozen and go on, that crash beside others, and that are killed while their guests write."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from celaje.cli.command import main
from celaje.disk.volumes import VolumeStore
from celaje.host import inventory
from celaje.host.control import wait_until_off
from celaje.host.messages import DiskDescription
from celaje.host.record import MachineDirectory
from celaje.network import client
from tests.host.test_machine_snapshot import console, talk
from tests.machine_processes import Machines, wait_until
from tests.system.debian_guest import Guest, celaje, remove, restored, ssh

Frozen = dict[str, Path]
Leaving = Callable[[Guest], Guest]
Repetitions = Callable[[int, int], int]

# Writes files with their sums to three places and reads all of them back, again and again; what is wrong is in
# /tmp/wrong, and how far it is in /tmp/round, which is replaced as a whole: a reader would see it empty for a moment.
CHECKS = """
dd if=/dev/urandom of=/dev/shm/pattern bs=64k count=32 2>/dev/null
cd /dev/shm && md5sum pattern > pattern.sum
round=0
while :; do
    for place in /root/load /mnt /dev/shm; do
        mkdir -p $place && cd $place
        name=file$((round % 5))
        dd if=/dev/urandom of=$name bs=8k count=$((round % 7 + 1)) conv=fsync 2>/dev/null
        md5sum $name > $name.sum
        sync
        echo 3 > /proc/sys/vm/drop_caches
        md5sum -c *.sum > /tmp/checked 2>&1 || { echo $place $round; cat /tmp/checked; } >> /tmp/wrong
    done
    round=$((round + 1))
    echo $round > /tmp/round.new && mv /tmp/round.new /tmp/round
done
"""

# Says a number when the file system has promised to keep the file of that name, which is as often in it.
RECORDS = """
number=0
while :; do
    number=$((number + 1))
    yes $number | head -n 700 > /tmp/record
    dd if=/tmp/record of=/mnt/$number conv=fsync bs=4k 2>/dev/null && echo "kept $number."
done
"""
WHOLE = 'for file in $(seq {last}); do [ "$(sort -u /mnt/$file)" = $file ] || echo $file; done'


@pytest.fixture
def machines(home: Path, tmp_path: Path) -> Iterator[Machines]:
    """Bare-metal machines."""
    found = Machines(tmp_path / "firmware")
    yield found
    celaje("vm", "rm", "--force", "bare")


def with_volume(guest: Guest, name: str, size: int) -> str:
    """The disk of a new volume in the guest, with a file system at /mnt."""
    volume = VolumeStore().create(name, size=size)
    celaje("vm", "attach", guest.name, name)
    disk = f"/dev/disk/by-id/scsi-{volume.serial.decode()}"
    guest.wait(f"[ -b {disk} ]")
    guest.run(f"mkfs.ext4 -q {disk} && mount -t ext4 {disk} /mnt")
    return disk


def looked_at(guest: Guest, name: str, command: str) -> str:
    """What a command prints in a guest that has the volume `name` at /mnt; its file system must be clean."""
    disk = f"/dev/disk/by-id/scsi-{VolumeStore().describe(name).serial.decode()}"
    celaje("vm", "attach", guest.name, name)
    guest.wait(f"[ -b {disk} ]")
    guest.run(f"mount -t ext4 {disk} /mnt")
    said = guest.run(command)
    guest.run(f"umount /mnt && e2fsck -fn {disk} >/tmp/fsck 2>&1 || {{ cat /tmp/fsck; false; }}")
    celaje("vm", "detach", guest.name, name)
    guest.wait(f"[ ! -e {disk} ]")
    return said


def kill(name: str) -> None:
    """SIGKILL to the machine's process."""
    directory = MachineDirectory.of(name)
    process = directory.holder()
    assert process is not None
    os.kill(process, signal.SIGKILL)
    assert wait_until_off(directory, 60)


def test_a_connection_goes_on_when_one_end_is_frozen_and_restored(
    frozen: Frozen, leaving: Leaving, tmp_path: Path, key: Path
) -> None:
    one = restored("one", frozen["one"])
    two = leaving(restored("two", frozen["two"]))
    two.run("mkfifo /tmp/never; nc -l -p 6000 0<>/tmp/never > /tmp/came &")
    two.wait("netstat -lnt | grep -q :6000")
    one.run("{ i=0; while :; do i=$((i+1)); echo $i; usleep 10000; done | nc two 6000; } &")
    two.wait("[ $(wc -l < /tmp/came) -gt 20 ]")
    # What a machine says after it was frozen another will say again, and differently; so nothing may come after.
    celaje("vm", "pause", "one")
    celaje("vm", "snapshot", "one", tmp_path / "one.snap")
    remove(one)
    came = int(two.run("wc -l < /tmp/came"))
    leaving(restored("one", tmp_path / "one.snap"))
    two.wait(f"[ $(wc -l < /tmp/came) -gt {came + 20} ]")
    two.run("head -n -1 /tmp/came | awk '$1 != NR {exit 1}'")
    assert ssh("one", key, "hostname").stdout == "one\n"


def test_a_guest_that_checks_itself_finds_nothing_wrong_however_often_it_is_frozen(
    frozen: Frozen, repetitions: Repetitions, tmp_path: Path
) -> None:
    store = VolumeStore()
    guest = restored("checks0", frozen["one"], "user,network=checks")
    with_volume(guest, "checks", 32 << 20)
    guest.run(f"cat > /tmp/checks <<'END'\n{CHECKS}END\n")
    guest.run("echo 0 > /tmp/round; sh /tmp/checks &")
    for number in range(1, repetitions(5, 100) + 1):
        done = int(guest.run("cat /tmp/round"))
        guest.wait(f"[ $(cat /tmp/round) -gt {done} ]")
        file = tmp_path / f"{number}.snap"
        celaje("vm", "snapshot", guest.name, file)
        remove(guest)  # and the disks that it was restored with
        if number == 1:
            store.remove("checks")
        guest = restored(f"checks{number}", file, "user,network=checks")
        file.unlink()
        done = int(guest.run("cat /tmp/round"))
        guest.wait(f"[ $(cat /tmp/round) -gt {done + 1} ]")
        assert guest.run("cat /tmp/wrong 2>/dev/null || true") == ""
    celaje("vm", "volume", "check")
    attached = {disk.source for disk in guest_disks(guest.name)}
    assert attached
    remove(guest)
    assert not attached & {volume.id for volume in store.list()}


def guest_disks(name: str) -> list[DiskDescription]:
    """The disks of a machine that were attached to it."""
    described = inventory.look(MachineDirectory.of(name)).description
    assert described is not None
    return [disk for disk in described.disks if disk.target is not None]


def test_a_machine_that_crashes_is_nothing_to_the_others(
    frozen: Frozen, leaving: Leaving, machines: Machines, key: Path
) -> None:
    bare = machines.started("bare")
    two = leaving(restored("two", frozen["two"]))
    processes = {name: MachineDirectory.of(name).holder() for name in ("bare", "two")}
    two.run("{ i=0; while :; do i=$((i+1)); echo $i > /tmp/next; mv /tmp/next /tmp/beat; usleep 10000; done; } &")
    two.wait("[ -e /tmp/beat ]")

    def others_go_on() -> None:
        assert {name: MachineDirectory.of(name).holder() for name in processes} == processes
        beat = int(two.run("cat /tmp/beat"))
        two.wait(f"[ $(cat /tmp/beat) -gt {beat + 5} ]")
        with console(bare) as found:
            assert talk(found, b"still there") == b"still there"

    one = restored("one", frozen["one"])
    others_go_on()
    kill("one")
    assert inventory.look(MachineDirectory.of("one")).state == "died"
    others_go_on()
    remove(one)

    one = restored("one", frozen["one"])
    one.run("echo 1 > /proc/sys/kernel/sysrq")
    one.type("echo c > /proc/sysrq-trigger")
    one.wait_for("Kernel panic - not syncing")
    others_go_on()
    # It stands still by its own will; a busy host may be slow to tell.
    wait_until(lambda: inventory.look(MachineDirectory.of("one")).state == "running")
    remove(one)

    # The network's process: machines attach again, what was connected goes on, and new connections work.
    leaving(restored("one", frozen["one"]))
    two.run("mkfifo /tmp/never; nc -l -p 6000 0<>/tmp/never > /tmp/came &")
    two.wait("netstat -lnt | grep -q :6000")
    other = Guest("one")
    other.run("{ while usleep 10000; do echo on; done | nc two 6000; } &")
    two.wait("[ $(wc -l < /tmp/came) -gt 5 ]")
    process = client.statistics("default").process
    os.kill(process, signal.SIGKILL)
    two.wait("ping -c 1 -W 1 one >/dev/null")
    assert client.statistics("default").process != process
    came = int(two.run("wc -l < /tmp/came"))
    two.wait(f"[ $(wc -l < /tmp/came) -gt {came + 5} ]")
    assert ssh("one", key, "hostname").stdout == "one\n"
    assert {name: MachineDirectory.of(name).holder() for name in processes} == processes
    other.close()


def test_what_a_guest_was_promised_is_in_snapshots_of_its_disk_and_there_after_a_kill(
    frozen: Frozen, leaving: Leaving, repetitions: Repetitions, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    moments = random.Random(seed)
    store = VolumeStore()
    checker = leaving(restored("checker", frozen["two"], "user,network=checker"))
    for number in range(repetitions(3, 50)):
        writer = restored("writer", frozen["one"], "user,network=writer")
        with_volume(writer, "records", 64 << 20)
        writer.run(f"cat > /tmp/records <<'END'\n{RECORDS}END\n")
        writer.type("sh /tmp/records")

        def kept(writer: Guest = writer) -> int:
            writer.wait_for("kept ")
            return int(writer.wait_for("."))

        last = kept()
        enough = last + moments.randrange(1, 40)
        if number == 0:
            while last < 10:
                last = kept()
            capsys.readouterr()
            celaje("vm", "volume", "snapshot", "records")
            celaje("vm", "volume", "create", "midway", "--from-snapshot", capsys.readouterr().out.split()[0])
            assert looked_at(checker, "midway", WHOLE.format(last=last)) == ""
            store.remove("midway")
        while last < enough:
            last = kept()
        kill("writer")
        remove(writer)
        assert looked_at(checker, "records", WHOLE.format(last=last)) == ""
        celaje("vm", "volume", "check")
        store.remove("records")


@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_a_damaged_chunk_is_an_error_of_its_disk_and_of_nothing_else(
    frozen: Frozen, leaving: Leaving, home: Path, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = VolumeStore()
    raw = tmp_path / "raw.img"
    raw.write_bytes(random.Random(damage).randbytes(2 << 20))
    before = set((home / "store" / "chunks").rglob("*"))
    celaje("vm", "volume", "import", f"source-{damage}", raw)
    capsys.readouterr()
    celaje("vm", "volume", "snapshot", f"source-{damage}")
    snapshot = capsys.readouterr().out.split()[0]
    celaje("vm", "volume", "create", damage, "--from-snapshot", snapshot)
    chunks = sorted(path for path in set((home / "store" / "chunks").rglob("*")) - before if path.is_file())
    assert len(chunks) == 4
    if damage == "missing":
        chunks[0].unlink()
    else:
        content = bytearray(chunks[0].read_bytes())
        content[len(content) // 2] ^= 1
        chunks[0].write_bytes(content)
    guest = leaving(restored("reader", frozen["one"], "user,network=reader"))
    celaje("vm", "attach", "reader", damage)
    disk = f"/dev/disk/by-id/scsi-{store.describe(damage).serial.decode()}"
    guest.wait(f"[ -b {disk} ]")
    results = [guest.status(f"dd if={disk} of=/dev/null bs=512k skip={n} count=1 2>&1") for n in range(4)]
    assert sorted(status for status, _ in results) == [0, 0, 0, 1]
    assert any("I/O error" in said for _, said in results)
    guest.run("echo fine > /root/fine; sync; grep -q fine /root/fine")
    celaje("vm", "detach", "reader", damage)
    capsys.readouterr()
    assert main(["vm", "volume", "check", *(["--deep"] if damage == "altered" else [])]) == 1
    said = capsys.readouterr()
    assert chunks[0].name[:16] in said.out + said.err
    log = MachineDirectory.of("reader").log.read_text()
    assert chunks[0].name[:16] in log, log
    store.remove(damage)
    store.remove(f"source-{damage}")
    celaje("vm", "volume", "rm-snapshot", snapshot)
