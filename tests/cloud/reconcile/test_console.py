"""Consoles as clients see them: text, a picture of the terminal, and what is left of them after the machine."""

from __future__ import annotations

import base64
import io
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from celaje.cloud.reconcile import machines
from celaje.cloud.reconcile.console_screenshot import COLUMNS, LINES, drawn, shown
from celaje.cloud.state.instances import RUNNING, TERMINATED
from celaje.host.console_ring import ConsoleRing
from celaje.host.record import MachineDirectory
from tests.cloud.ec2.test_instances import _images, become, launched  # noqa: F401  images, for all tests
from tests.cloud.served import ServedCloud, refusal


@pytest.fixture
def speaking(served_cloud: ServedCloud, ec2: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A running instance whose guest has said something."""
    monkeypatch.setenv("CELAJE_HOME", str(tmp_path))
    [instance] = launched(ec2)
    become(served_cloud, instance, RUNNING)
    directory = MachineDirectory.of(instance)
    directory.path.mkdir(parents=True)
    with ConsoleRing(directory.ring, write=True) as ring:
        ring.append(b"booting\r\n\x1b[31mlogin:\x1b[0m ")
    return instance


def text(said: bytes) -> list[str]:
    return [line.rstrip() for line in shown(said).display]


def picture(ec2: Any, instance: str) -> Image.Image:
    answer = ec2.get_console_screenshot(InstanceId=instance, WakeUp=True)
    return Image.open(io.BytesIO(base64.b64decode(answer["ImageData"])))


def test_a_screenshot_is_a_picture_of_what_the_terminal_shows(ec2: Any, speaking: str) -> None:
    found = picture(ec2, speaking)
    assert (found.format, found.size) == ("JPEG", (COLUMNS * 6, LINES * 13))
    expected = Image.open(io.BytesIO(drawn(shown(b"booting\r\n\x1b[31mlogin:\x1b[0m "))))
    assert found.tobytes() == expected.tobytes()
    lines = [found.crop((0, at * 13, found.width, (at + 1) * 13)).getextrema() for at in range(3)]
    assert lines[0][0][1] > 150  # something light
    (_, red), (_, green), _ = lines[1][:3]
    assert red > 150
    assert lines[2][0][1] < 50  # nothing
    assert green > 0


def test_the_terminal_follows_what_guests_write() -> None:
    assert text(b"one\r\ntwo\x1b[1;1Hthree\x1b[K\r\n")[:2] == ["three", "two"]
    assert text(b"gone\x1b[2J\x1b[Hleft")[0] == "left"
    scrolled = text(b"".join(b"line %d\r\n" % number for number in range(100)))
    assert scrolled[LINES - 2] == "line 99"


def test_no_bytes_of_a_guest_end_the_terminal() -> None:
    chosen = random.Random(7)
    alphabet = b"\x1b[]()?;0123456789ABCDEFGHJKLMPSTXmhlrgdsu \r\n\x08\x07\x9b\xff\xc3"
    for _ in range(100):
        said = bytes(chosen.choice(alphabet) for _ in range(2000))
        assert len(shown(said + b"\x1bc\r\n").display) == LINES
    assert drawn(shown(bytes(range(256)) * 64)).startswith(b"\xff\xd8")
    assert text(b"\x1b[?5;9999?m\x1b[?q\r\n\x1b[H\x1b[2Jafter")[0] == "after"


def test_test_pictures_are_left_out_of_screens() -> None:
    """pyte takes milliseconds for each, and 16 KiB of them kept the daemon busy for nine seconds."""
    assert not any("E" in line for line in shown(b"a\x1b#8b\x1b\x1b#8#8").display)


def test_only_a_running_instance_has_a_screen(served_cloud: ServedCloud, ec2: Any, speaking: str) -> None:
    become(served_cloud, speaking, TERMINATED, "terminated")
    assert refusal(ec2.get_console_screenshot, InstanceId=speaking)[0] == "IncorrectInstanceState"


def test_what_was_said_outlives_the_machine_for_as_long_as_the_instance_is_listed(
    served_cloud: ServedCloud, ec2: Any, speaking: str
) -> None:
    machines.keep_console(speaking)
    machines.keep_console("i-00000000000000000")  # it never had a machine
    MachineDirectory.of(speaking).ring.unlink()
    machines.keep_console(speaking)  # again, after a kill between the two
    become(served_cloud, speaking, TERMINATED, "terminated")
    said = ec2.get_console_output(InstanceId=speaking)["Output"]
    assert said.startswith("booting")
    machines.forget_console(speaking)
    assert "Output" not in ec2.get_console_output(InstanceId=speaking)
