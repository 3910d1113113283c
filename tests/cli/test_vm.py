"""The commands that start, list and change machines, on bare-metal programs that start at once."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import termios
import threading
from pathlib import Path

import msgspec
import pytest

from celaje.cli import command, machine_options
from celaje.disk.volumes import VolumeStore
from celaje.errors import InputError
from celaje.host import inventory, record
from celaje.host.record import MachineDirectory
from tests.machine_processes import Machines, wait_until
from tests.system.test_vm_run import ECHO, FOREGROUND, PASS, wait_until_raw

Capture = pytest.CaptureFixture[str]
CELAJE = [sys.executable, "-m", "celaje"]


@pytest.fixture
def echo(tmp_path: Path) -> str:
    path = tmp_path / "echo"
    path.write_bytes(ECHO)
    return str(path)


def say(capsys: Capture, *words: str, status: int = 0) -> str:
    """What the command says: on stdout if it must succeed, else its one line of error."""
    found = command.main(list(words))
    told = capsys.readouterr()
    assert found == status, told.err
    if status:
        assert told.err.startswith("celaje: ")
        assert told.err.count("\n") == 1
        return told.err
    return told.out


def start(capsys: Capture, name: str, firmware: str, *words: str, status: int = 0) -> str:
    return say(capsys, "vm", "start", name, "--firmware", firmware, "--memory", "16M", *words, status=status)


def listed(capsys: Capture) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(say(capsys, "vm", "ls", "--json"))
    return found


def test_no_machine_says_how_to_make_the_first(capsys: Capture, runtime: Path) -> None:
    assert "celaje vm start web debian-mini" in say(capsys, "vm", "ls")
    assert listed(capsys) == []
    assert "there is no machine 'web'; make it: celaje vm start web debian-mini" in say(
        capsys, "vm", "start", "web", status=2
    )


def test_a_machine_from_its_start_to_its_removal(capsys: Capture, machines: Machines, echo: str) -> None:
    assert start(capsys, "one", echo, "--cpus", "2") == "one runs\n  celaje vm console one\n"
    heading, row = say(capsys, "vm", "ls").splitlines()
    assert heading.split() == ["NAME", "STATE", "ADDRESS", "PUBLIC", "PORTS", "NOTE"]
    assert row.split() == ["one", "running"]
    (told,) = listed(capsys)
    assert (told["name"], told["state"], told["cpus"], told["memory"]) == ("one", "running", 2, 16 << 20)
    assert told["process"] == MachineDirectory.of("one").holder()
    assert "celaje vm resume one" in say(capsys, "vm", "pause", "one")
    assert "paused" in say(capsys, "vm", "ls")
    assert say(capsys, "vm", "resume", "one") == "one runs\n"
    assert say(capsys, "vm", "reset", "one") == "one starts anew\n"
    assert "instructions" in say(capsys, "vm", "stats", "one")
    assert json.loads(say(capsys, "vm", "stats", "one", "--json"))["console"]["output_bytes"] == 0
    assert "stop it first: celaje vm stop one" in say(capsys, "vm", "rm", "one", status=2)
    assert say(capsys, "vm", "kill", "one") == "one is off\n"
    assert "off" in say(capsys, "vm", "ls")
    assert say(capsys, "vm", "start", "one").startswith("one runs\n")
    assert say(capsys, "vm", "rm", "one", "--force") == "one is removed\n"
    assert record.names() == []


def test_a_guest_that_does_not_listen_to_its_power_button_is_switched_off_unless_told_otherwise(
    capsys: Capture, machines: Machines, echo: str
) -> None:
    start(capsys, "one", echo)
    assert "celaje vm kill one" in say(capsys, "vm", "stop", "one", "--no-kill", "--timeout", "0.2", status=3)
    assert inventory.look(MachineDirectory.of("one")).state == "running"
    say(capsys, "vm", "pause", "one")
    assert "first: celaje vm resume one" in say(capsys, "vm", "stop", "one", status=2)
    say(capsys, "vm", "resume", "one")
    assert "did not listen" in say(capsys, "vm", "stop", "one", "--timeout", "0.2")
    assert inventory.look(MachineDirectory.of("one")).state == "off"


@pytest.mark.parametrize("verb", ["pause", "resume", "reset", "stop", "kill", "stats", "console"])
def test_what_does_not_run_says_how_to_start_it(capsys: Capture, machines: Machines, verb: str) -> None:
    machines.made("one")
    said = say(capsys, "vm", verb, "one", status=2)
    assert "the machine one does not run" in said
    assert "celaje vm start one" in said
    assert "there is no machine 'two'; there are: one" in say(capsys, "vm", verb, "two", status=2)


def test_several_machines_are_named_at_once_and_nothing_is_done_if_one_is_unknown(
    capsys: Capture, machines: Machines
) -> None:
    machines.started("one")
    machines.started("two")
    assert "no machine 'three'" in say(capsys, "vm", "kill", "one", "three", status=2)
    assert inventory.look(MachineDirectory.of("one")).state == "running"
    assert say(capsys, "vm", "kill", "one", "two") == "one is off\ntwo is off\n"


def test_a_start_that_cannot_be_is_refused_and_leaves_nothing(
    capsys: Capture, machines: Machines, echo: str, tmp_path: Path
) -> None:
    assert "neither starts nor ends with a hyphen" in say(capsys, "vm", "start", "no.name", status=2)
    assert "nothing to run" not in say(capsys, "vm", "start", "one", "--memory", "1G", status=2)
    (tmp_path / "empty").write_bytes(b"")
    assert "is empty" in say(capsys, "vm", "start", "one", "--firmware", str(tmp_path / "empty"), status=2)
    assert record.names() == []
    (tmp_path / "large").write_bytes(bytes(32 << 20))
    assert "did not begin" in start(capsys, "one", str(tmp_path / "large"), status=3)
    assert record.names() == []
    start(capsys, "one", echo)
    assert "there is a machine one already" in say(capsys, "vm", "start", "one", "--firmware", echo, status=2)
    assert "--memory is for a new machine" in say(capsys, "vm", "start", "one", "--memory", "1G", status=2)
    assert "runs already" in say(capsys, "vm", "start", "one", status=2)
    assert "--root-size is of an image's disk" in say(
        capsys, "vm", "start", "two", "--firmware", echo, "--root-size", "1G", status=2
    )
    key = tmp_path / "key.pub"
    key.write_text("ssh-ed25519 AAAA me\n")
    assert "give it one: --network user" in say(
        capsys, "vm", "start", "two", "--firmware", echo, "--ssh-key", str(key), status=2
    )
    assert record.names() == ["one"]


def test_a_machine_that_has_ended_when_its_start_returns_is_no_error(
    capsys: Capture, machines: Machines, tmp_path: Path
) -> None:
    (tmp_path / "pass").write_bytes(PASS)
    assert start(capsys, "one", str(tmp_path / "pass")).startswith("one ")
    assert record.names() == ["one"]


def test_paths_are_kept_absolute(
    capsys: Capture, machines: Machines, echo: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    start(capsys, "one", "echo")
    say(capsys, "vm", "kill", "one")
    monkeypatch.chdir("/")
    assert say(capsys, "vm", "start", "one").startswith("one runs")


def test_a_machine_that_died_says_so_in_the_list(capsys: Capture, machines: Machines) -> None:
    directory = machines.started("one")
    process = directory.holder()
    assert process is not None
    os.kill(process, 9)
    wait_until(directory.process_exit)
    assert "its process was ended by SIGKILL" in say(capsys, "vm", "ls")


def test_a_record_that_cannot_be_read_does_not_hide_the_others_and_can_be_removed(
    capsys: Capture, machines: Machines
) -> None:
    machines.made("one")
    machines.made("two")
    (MachineDirectory.of("one").path / "machine.json").write_text("{")
    assert command.main(["vm", "ls"]) == 2
    told = capsys.readouterr()
    assert "two" in told.out
    assert "celaje vm rm one" in told.err
    assert say(capsys, "vm", "rm", "one") == "one is removed\n"


def test_the_console_through_a_pipe_ends_with_the_machine(machines: Machines) -> None:
    machines.started("one")
    done = subprocess.run([*CELAJE, "vm", "console", "one"], input=b"hello q", capture_output=True, timeout=60)
    assert done.stdout == b"hello q"
    assert done.stderr == b"celaje: the machine one has ended (power-off)\n"
    log = subprocess.run([*CELAJE, "vm", "console", "--log", "one"], capture_output=True, check=True, timeout=60)
    assert log.stdout == b"hello q"


def test_what_is_typed_on_when_the_machine_has_ended_is_no_mistake(machines: Machines) -> None:
    machines.started("one")
    typed = b"hello q" + bytes(4 << 20)
    done = subprocess.run([*CELAJE, "vm", "console", "one"], input=typed, capture_output=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, b"hello q")
    assert done.stderr == b"celaje: the machine one has ended (power-off)\n"


def test_the_console_of_a_machine_that_is_off_points_to_its_log(capsys: Capture, machines: Machines) -> None:
    machines.started("one")
    say(capsys, "vm", "kill", "one")
    assert "celaje vm console --log one" in say(capsys, "vm", "console", "one", status=2)


def test_ctrl_a_x_leaves_the_console_and_the_machine_goes_on(machines: Machines) -> None:
    directory = machines.started("one")
    master, terminal = pty.openpty()
    try:
        before = termios.tcgetattr(terminal)
        process = subprocess.Popen(
            [sys.executable, "-c", FOREGROUND, *CELAJE, "vm", "console", "one"],
            stdin=terminal,
            stdout=terminal,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        wait_until_raw(terminal)
        os.write(master, b"ab\x03\x01\x01")
        seen = b""
        while len(seen) < 4:
            assert select.select([master], [], [], 60)[0], seen
            seen += os.read(master, 100)
        assert seen == b"ab\x03\x01"
        os.write(master, b"\x01x")
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0
        assert b"one goes on; join it again: celaje vm console one" in said
        assert termios.tcgetattr(terminal) == before
    finally:
        os.close(terminal)
        os.close(master)
    assert inventory.look(directory).state == "running"


def test_disks_are_attached_and_detached_running_or_not(capsys: Capture, machines: Machines, tmp_path: Path) -> None:
    volume = VolumeStore().create("data", size=1 << 20)
    (tmp_path / "raw.img").write_bytes(bytes(1 << 20))
    file = str(tmp_path / "raw.img")
    directory = machines.made("one")
    assert "from its next start on" in say(capsys, "vm", "attach", "one", "data")
    assert "attached already" in say(capsys, "vm", "attach", "one", volume.id, status=2)
    say(capsys, "vm", "start", "one")
    assert listed(capsys)[0]["disks"] == [volume.id]
    assert "attached already" in say(capsys, "vm", "attach", "one", "data", status=2)
    said = say(capsys, "vm", "attach", "one", file, "--read-only")
    assert "SCSI target 1" in said
    seen = inventory.look(directory)
    assert seen.description is not None
    assert [(disk.source, disk.read_only) for disk in seen.description.disks] == [(volume.id, False), (file, True)]
    assert say(capsys, "vm", "detach", "one", "data") == "data is detached from one\n"
    assert "is not attached" in say(capsys, "vm", "detach", "one", "data", status=2)
    VolumeStore().remove("data")
    say(capsys, "vm", "kill", "one")
    assert "there is no volume 'data'" in say(capsys, "vm", "detach", "one", "data", status=2)
    os.unlink(file)
    assert f"celaje vm detach one {file}" in say(capsys, "vm", "start", "one", status=2)
    assert say(capsys, "vm", "detach", "one", file) == f"{file} is detached from one\n"
    assert say(capsys, "vm", "start", "one").startswith("one runs")
    assert "there is no volume 'none'" in say(capsys, "vm", "attach", "one", "none", status=2)
    assert "there is no file ./none" in say(capsys, "vm", "attach", "one", "./none", status=2)


def test_a_machines_volumes_are_kept_for_it_and_change_while_it_runs(capsys: Capture, machines: Machines) -> None:
    store = VolumeStore()
    store.create("data", size=1 << 20)
    root = store.create("root", size=1 << 20)
    directory = machines.made("one")
    directory.write_record(msgspec.structs.replace(directory.record(), root=root.id))
    say(capsys, "vm", "attach", "one", "data")
    assert "celaje vm detach one data" in say(capsys, "vm", "volume", "rm", "data", status=2)
    assert "celaje vm rm one" in say(capsys, "vm", "volume", "rm", "root", status=2)
    for _ in range(2):  # off, then running
        size = store.describe("root").size
        for name in ("data", "root"):
            assert f"{name} has" in say(capsys, "vm", "volume", "grow", name, f"{2 * size >> 20}M")
            taken = say(capsys, "vm", "volume", "snapshot", name, "--description", "before").split()[0]
            found = store.snapshots.describe(taken)
            assert (found.size, found.description) == (2 * size, "before")
        if directory.holder() is None:
            say(capsys, "vm", "start", "one")
    seen = inventory.look(directory)
    assert seen.description is not None
    assert [disk.size for disk in seen.description.disks] == [4 << 20, 4 << 20]
    say(capsys, "vm", "rm", "--force", "one")
    assert store.names() == ["data"]
    assert say(capsys, "vm", "volume", "rm", "data") == "data is removed\n"


def test_a_volume_that_another_machine_has_is_refused(capsys: Capture, machines: Machines) -> None:
    VolumeStore().create("data", size=1 << 20)
    machines.started("one")
    machines.started("two")
    say(capsys, "vm", "attach", "one", "data")
    assert "is in use" in say(capsys, "vm", "attach", "two", "data", status=2)


def test_what_ssh_needs_is_printed_for_machines_with_a_network(capsys: Capture, machines: Machines) -> None:
    machines.made("one", network={})
    machines.made("two")
    said = say(capsys, "vm", "ssh-config")
    assert "Host one.celaje" in said
    assert "two" not in said
    assert "proxy one %p" in said
    assert say(capsys, "vm", "ssh-config", "one") == said


def test_a_machine_without_a_network_is_reached_by_its_console(capsys: Capture, machines: Machines) -> None:
    machines.started("one")
    assert "celaje vm console one" in say(capsys, "ssh", "one", status=2)
    assert "no machine 'two'" in say(capsys, "ssh", "admin@two", status=2)
    assert "a port is a number" in say(capsys, "proxy", "one", "ssh", status=2)
    assert "no running machine is called 10.0.0.1" in say(capsys, "proxy", "10.0.0.1", "22", status=2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no public key"),
        ("hello world", "is no public key"),
        ("ssh-ed25519", "is no public key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nx", r"give .*key\.pub"),
    ],
)
def test_what_is_no_public_key_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(InputError, match=said):
        machine_options.ssh_keys([tmp_path / "key"])


def test_keys_are_read_once_each(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("# mine\nssh-ed25519 AAAA me\n\necdsa-sha2-nistp256 BBBB\n")
    assert machine_options.ssh_keys([tmp_path / "key"] * 2) == ("ssh-ed25519 AAAA me", "ecdsa-sha2-nistp256 BBBB")
    with pytest.raises(InputError, match="ssh-keygen"):
        machine_options.ssh_keys([tmp_path / "none"])


def test_user_data_has_a_limit(tmp_path: Path) -> None:
    assert machine_options.user_data(None) is None
    (tmp_path / "data").write_bytes(bytes(16_384))
    assert machine_options.user_data(tmp_path / "data") == bytes(16_384)
    (tmp_path / "data").write_bytes(bytes(16_385))
    with pytest.raises(InputError, match="at most 16,384 bytes"):
        machine_options.user_data(tmp_path / "data")
    with pytest.raises(InputError, match="cannot be read"):
        machine_options.user_data(tmp_path / "none")


def test_machines_started_at_once_by_different_commands_all_run(machines: Machines, echo: str) -> None:
    def one(name: str) -> None:
        words = ["vm", "start", name, "--firmware", echo, "--memory", "16M"]
        outputs.append(subprocess.run([*CELAJE, *words], capture_output=True, text=True, timeout=120))

    outputs: list[subprocess.CompletedProcess[str]] = []
    threads = [threading.Thread(target=one, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [(done.returncode, done.stderr) for done in outputs] == [(0, "")] * 3
    assert [seen.state for seen in inventory.look_around()[0]] == ["running"] * 3
