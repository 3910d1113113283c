from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from celaje.errors import HostError, InputError, NotFound, UsageError
from celaje.host import record
from celaje.host.machine_options import Boot, DiskOption, MachineOptions
from celaje.host.messages import AttachedDisk
from celaje.host.record import MachineDirectory, Outcome, ProcessExit, Run
from tests.machine_processes import wait_until

OPTIONS = MachineOptions(image="debian-mini", disks=(DiskOption("/x", read_only=True),), memory=1 << 30, timeout=2.5)


def make(name: str = "web", boot: Boot | None = None, options: MachineOptions = OPTIONS) -> MachineDirectory:
    return record.create(record.new_record(name, options, boot or Boot(append="quiet")))


def test_a_record_is_read_as_it_was_written() -> None:
    directory = make()
    found = directory.record()
    assert found.options == OPTIONS
    assert found.boot == Boot(append="quiet")
    assert found.name == "web"
    assert int(found.mac.split(":")[0], 16) & 3 == 2
    changed = msgspec.structs.replace(found, attached=(AttachedDisk(source="vol-1"),))
    directory.write_record(changed)
    assert directory.record() == changed
    assert sorted(path.name for path in directory.path.iterdir()) == ["lock", "machine.json"]
    assert directory.path.stat().st_mode & 0o777 == 0o700


def test_the_images_files_stay_when_the_image_goes_and_files_of_ones_own_are_used_in_place(tmp_path: Path) -> None:
    for name in ("kernel", "initrd"):
        (tmp_path / name).write_text(name)
    options = MachineOptions(image="one", kernel=str(tmp_path / "kernel"))
    directory = make(options=options, boot=Boot(str(tmp_path / "kernel"), str(tmp_path / "initrd")))
    (tmp_path / "initrd").unlink()
    boot = directory.record().boot
    assert boot.kernel == str(tmp_path / "kernel")
    assert boot.initrd == str(directory.path / "initrd")
    assert Path(boot.initrd).read_text() == "initrd"


def test_an_images_file_may_be_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_text("kernel")
    (tmp_path / "kernel").symlink_to("vmlinux")
    boot = make(boot=Boot(str(tmp_path / "kernel"))).record().boot
    assert boot.kernel is not None
    assert Path(boot.kernel).read_text() == "kernel"


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a/b", "..", "a" * 29, "ä", "a\n"])
def test_what_is_no_host_name_is_no_machines_name(name: str) -> None:
    with pytest.raises(UsageError, match="lower-case letters, digits and hyphens"):
        MachineDirectory.of(name)


def test_a_name_is_taken_once_and_nothing_half_made_is_left() -> None:
    make()
    with pytest.raises(UsageError, match="start it with `celaje vm start web`"):
        make()
    with pytest.raises(HostError, match="cannot make the machine's directory"):
        make("other", Boot("/does/not/exist"))
    assert record.names() == ["web"]
    assert [path.name for path in record.machines_directory().iterdir()] == ["web"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no record"),
        ("[]", "is no record"),
        ('{"format": 2}', "has format 2, and this celaje knows format 1"),
        ('{"format": 1, "name": "web"}', "is no record"),
        ('{"format": 1, "surprise": 1}', "is no record"),
        ("\xff", "is no record"),
        ('{"format": 1, "surprise": ' + "[" * 5000, "is no record"),
    ],
)
def test_a_damaged_record_is_a_clear_error(text: str, said: str) -> None:
    directory = make()
    (directory.path / "machine.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=said) as caught:
        directory.record()
    assert "celaje vm rm web" in str(caught.value)


def test_options_that_mean_nothing_are_a_damaged_record() -> None:
    directory = make()
    where = directory.path / "machine.json"
    where.write_text(where.read_text().replace('"debian-mini"', "null"))
    with pytest.raises(InputError, match="is no record"):
        directory.record()


def test_a_machine_that_there_is_not_says_which_there_are() -> None:
    with pytest.raises(NotFound, match="make it: celaje vm start web debian-mini"):
        MachineDirectory.of("web").record()
    make("one")
    with pytest.raises(NotFound, match="there are: one"):
        MachineDirectory.of("web").record()


def test_the_lock_says_which_process_has_it_and_goes_with_it() -> None:
    directory = make()
    assert directory.holder() is None
    program = f"""
import sys
from pathlib import Path
from celaje.host.record import MachineDirectory
MachineDirectory(Path({str(directory.path)!r})).lock()
print("locked", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"locked\n"
            assert directory.holder() == process.pid
            with pytest.raises(HostError, match="runs already"):
                directory.lock()
            with pytest.raises(HostError, match="runs already"):
                directory.remove()
            assert directory.holder() == process.pid
        finally:
            process.kill()
    assert directory.holder() is None
    directory.remove()
    assert record.names() == []
    assert list(record.machines_directory().iterdir()) == []


def test_the_lock_of_a_machine_that_is_gone_is_not_that_of_the_next_one_of_its_name() -> None:
    """Who waits for a machine that is being removed must not run the next one beside whoever has that."""
    directory = make()
    held = directory.lock()
    refused: list[str] = []

    def wait() -> None:
        try:
            os.close(directory.lock(patience=60))
        except HostError as error:
            refused.append(str(error))

    waits = threading.Thread(target=wait)
    waits.start()
    lock = os.path.realpath(directory.path / "lock")
    descriptors = Path("/proc/self/fd")
    wait_until(lambda: sum(os.path.realpath(one) == lock for one in descriptors.iterdir()) == 2)
    os.replace(directory.path, directory.path.with_name(".gone"))
    again = make().lock()
    os.close(held)
    waits.join()
    assert len(refused) == 1
    assert "was removed, or made anew" in refused[0]
    assert directory.holder() == os.getpid()
    os.close(again)


def test_a_look_by_the_process_that_has_the_lock_does_not_drop_it() -> None:
    directory = make()
    descriptor = directory.lock()
    assert directory.holder() == os.getpid()
    assert directory.holder() == os.getpid()
    with pytest.raises(HostError, match="runs already"):
        directory.lock()
    os.close(descriptor)
    assert directory.holder() is None


def test_an_outcome_counts_for_the_run_that_it_is_of() -> None:
    directory = make()
    assert (directory.run(), directory.outcome(), directory.process_exit()) == (None, None, None)
    directory.write_run(Run(process=5, started=1.0))
    directory.write_outcome(Outcome(process=5, ended=2.0, kind="power-off"))
    directory.write_process_exit(ProcessExit(process=5, status=0))
    outcome = directory.outcome()
    assert outcome is not None
    assert outcome.kind == "power-off"
    assert directory.process_exit() == ProcessExit(process=5, status=0)
    directory.write_run(Run(process=6, started=3.0))
    assert (directory.outcome(), directory.process_exit()) == (None, None)


def test_the_control_sockets_path_is_short_however_deep_the_directory_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELAJE_HOME", str(tmp_path / ("d" * 100) / ("e" * 100)))
    directory = make()
    with directory.socket_path() as path:
        assert len(os.fsencode(path)) < 60
        Path(path).write_text("x")
    assert (directory.path / "control").read_text() == "x"
