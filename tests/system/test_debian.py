"""Debian 13's own kernel, through the command: to a shell and off again, from every start that there is.

The images are built before the tests (see .ci/run), as tests use no network.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from celaje.zstandard import compress
from demo.console import Console

PROMPT = "root@debian-mini:~# "
BOOT_SECONDS = 240.0
ANSWER_SECONDS = 60.0
COLUMNS = 80
PARTITION = 1 << 20  # where the image's file system starts on its disk, bytes

FindImage = Callable[[str], Path]
FindTool = Callable[[str], str]


def machine(*words: str | Path) -> Console:
    """`celaje vm run` with these words, its console at the test's hands."""
    command = [sys.executable, "-m", "celaje", "vm", "run", *map(str, words), "--network", "none", "--timeout", "600"]
    return Console(command, stderr=subprocess.PIPE)


def answer(console: Console, command: str) -> list[str]:
    """The lines that `command` prints in the guest's shell."""
    console.type(command)
    printed = console.wait_for(PROMPT, ANSWER_SECONDS).replace("\r", "").splitlines()
    echoed = 1 + (len(PROMPT) + len(command)) // COLUMNS  # the shell breaks the echo of what was typed
    return printed[echoed:]


def power_off(console: Console) -> None:
    """Leave in order; the command says so."""
    console.type("poweroff")
    assert console.close() == 0
    assert console.process.stderr is not None
    assert console.process.stderr.read() == b"celaje: the guest powered off\n"


def kernel_and_initrd(image: Path) -> list[str | Path]:
    """The words that boot the image's kernel into its initrd and leave it there."""
    return ["--kernel", image / "kernel", "--initrd", image / "initrd", "--append", "console=ttyS0 quiet"]


def test_debian_mini_has_less_than_64_mib_compressed(built_image: FindImage) -> None:
    compressed = 0
    for path in built_image("debian-mini").iterdir():
        with open(path, "rb") as file:
            while piece := file.read(4 << 20):
                compressed += len(compress(piece, 1))
    assert 0 < compressed < 64 << 20


@pytest.mark.parametrize("harts", [1, 2, 4])
def test_the_kernel_boots_from_an_initrd_to_a_shell_and_powers_off(harts: int, built_image: FindImage) -> None:
    image = built_image("debian-mini")
    with machine(*kernel_and_initrd(image), "--cpus", str(harts)) as console:
        console.wait_for(PROMPT, BOOT_SECONDS)
        assert answer(console, "nproc") == [str(harts)]
        # The C library reads the clock in user mode, without a system call.
        assert "real" in " ".join(answer(console, "time true"))
        power_off(console)


@pytest.mark.parametrize("harts", [1, 2, 4])
def test_a_disk_that_the_guest_wrote_is_found_intact(
    harts: int, built_image: FindImage, tool: FindTool, tmp_path: Path
) -> None:
    e2fsck, debugfs = tool("e2fsck"), tool("debugfs")
    image = built_image("debian-mini")
    disk = tmp_path / "disk.raw"
    shutil.copyfile(image / "disk.raw", disk)
    append = json.loads((image / "image.json").read_text())["command_line"]
    start = ["--kernel", image / "kernel", "--initrd", image / "initrd", "--append", append]
    with machine(*start, "--disk", disk, "--cpus", str(harts)) as console:
        console.wait_for(PROMPT, BOOT_SECONDS)
        answer(console, "dd if=/dev/urandom of=/root/noise bs=64k count=64 2>/dev/null")
        digest = answer(console, "sha256sum < /root/noise")
        answer(console, "mkdir /root/many; for i in $(seq 200); do echo $i > /root/many/$i; done; rm /root/many/1??")
        power_off(console)
    checked = subprocess.run([e2fsck, "-fn", f"{disk}?offset={PARTITION}"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    subprocess.run(
        [debugfs, "-R", f"dump /root/noise {tmp_path / 'noise'}", f"{disk}?offset={PARTITION}"],
        check=True,
        capture_output=True,
    )
    assert digest[0].split()[0] == hashlib.sha256((tmp_path / "noise").read_bytes()).hexdigest()


def test_what_a_guest_writes_to_an_image_is_gone_with_it(built_image: FindImage) -> None:
    image = built_image("debian-mini")
    for _ in range(2):
        with machine(image.resolve()) as console:
            console.wait_for(PROMPT, BOOT_SECONDS)
            assert answer(console, "ls /root") == []
            answer(console, "touch /root/mark; sync")
            power_off(console)


def test_what_is_piped_in_is_typed_whole_though_nobody_listens_yet(built_image: FindImage) -> None:
    words = [str(built_image("debian-mini")), "--network", "none", "--timeout", "300"]
    done = subprocess.run(
        [sys.executable, "-m", "celaje", "vm", "run", *words],
        input=b"uname -sm\npoweroff\n",
        capture_output=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    assert "Linux riscv64" in done.stdout.decode().replace("\r", "").split("\n")


def test_a_guest_that_restarts_comes_up_again(built_image: FindImage) -> None:
    with machine(*kernel_and_initrd(built_image("debian-mini"))) as console:
        console.wait_for(PROMPT, BOOT_SECONDS)
        answer(console, "touch /root/mark")
        console.type("reboot")
        console.wait_for("celaje: userland", BOOT_SECONDS)
        console.wait_for(PROMPT, BOOT_SECONDS)
        assert answer(console, "ls /root") == []
        power_off(console)


@pytest.mark.parametrize("harts", [1, 2])
def test_opensbi_boots_the_kernel_from_machine_mode(
    harts: int, built_image: FindImage, debian_file: Callable[[str, str], Path]
) -> None:
    firmware = debian_file("opensbi", "/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin")
    image = built_image("debian-mini")
    with machine("--firmware", firmware, *kernel_and_initrd(image), "--cpus", str(harts)) as console:
        assert "OpenSBI" in console.wait_for(PROMPT, BOOT_SECONDS)
        assert answer(console, "nproc") == [str(harts)]
        power_off(console)


def test_u_boot_boots_an_images_own_disk(built_image: FindImage) -> None:
    with machine(built_image("debian-mini-firmware").resolve()) as console:
        said = console.wait_for(PROMPT, BOOT_SECONDS)
        assert "U-Boot" in said
        assert "ext4" in "".join(answer(console, "grep ' / ' /proc/mounts"))
        power_off(console)
