"""What a person can get wrong with `celaje vm run`: one line that names the thing and what to do, exit status 2."""

from __future__ import annotations

import gzip
import os
import pty
import struct
import subprocess
import sys
from pathlib import Path

import pytest

SPIN = struct.pack("<I", 0x0000006F)  # j .


def run(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`celaje vm run` with these words, as a process of its own in directory `cwd`."""
    return subprocess.run(
        [sys.executable, "-m", "celaje", "vm", "run", *map(str, words)],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def assert_refused(done: subprocess.CompletedProcess[str], *named: str) -> None:
    """Exit status 2, nothing on stdout, one line on stderr that has each of `named`."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("celaje: ")
    assert done.stderr.count("\n") == 1
    for text in named:
        assert text in done.stderr


def elf(machine: int, elf_class: int = 2) -> bytes:
    """The header of an executable for `machine` (e_machine), with nothing in it."""
    identification = b"\x7fELF" + bytes([elf_class, 1, 1]) + bytes(9)
    addresses = "QQQ" if elf_class == 2 else "III"
    size = 64 if elf_class == 2 else 52
    return identification + struct.pack("<HHI" + addresses + "IHHHHHH", 2, machine, 1, 0, 0, 0, 0, size, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], ["nothing to run", "celaje image build debian-mini"]),
        (["--initrd", "initrd"], ["--kernel FILE"]),
        (["--append", "quiet"], ["--kernel FILE"]),
        (["--firmware", "spin", "--append", "quiet"], ["--append", "--kernel FILE"]),
        (["--firmware", "spin", "--memory", "512"], ["'512'", "512M"]),
        (["--firmware", "spin", "--memory", "0M"], ["memory"]),
        (["--firmware", "spin", "--memory", "1023K"], ["memory"]),
        (["--firmware", "spin", "--memory", "123456789T"], ["memory"]),
        (["--firmware", "spin", "--cpus", "0"], ["'0'", "whole number from 1"]),
        (["--firmware", "spin", "--cpus", "9999"], ["9999"]),
        (["--firmware", "spin", "--timeout", "soon"], ["'soon'", "seconds"]),
        (["--firmware", "spin", "--engine", "steam"], ["'steam'", "translate"]),
        (["--firmware", "spin", "--frobnicate"], ["--frobnicate", "celaje vm run --help"]),
        (["--kernel"], ["--kernel", "celaje vm run --help"]),
        (["nobody-built-this"], ["nobody-built-this", "celaje image"]),
    ],
)
def test_words_that_make_no_machine_are_refused(words: list[str], named: list[str], tmp_path: Path) -> None:
    (tmp_path / "spin").write_bytes(SPIN)
    assert_refused(run(*words, cwd=tmp_path), *named)
    assert [path.name for path in tmp_path.iterdir()] == ["spin"]


@pytest.mark.parametrize("option", ["--kernel", "--firmware", "--disk"])
@pytest.mark.parametrize("kind", ["missing", "directory", "empty"])
def test_a_file_that_is_not_there_or_has_nothing_is_named(option: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "spin").write_bytes(SPIN)
    if kind == "directory":
        (tmp_path / "thing").mkdir()
    elif kind == "empty":
        (tmp_path / "thing").touch()
    start = ["--firmware", "spin"] if option == "--disk" else []
    assert_refused(run(*start, option, "thing", "--timeout", "5", cwd=tmp_path), "thing")


def test_an_initrd_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(linux_image())
    assert_refused(run("--kernel", "kernel", "--initrd", "thing", cwd=tmp_path), "thing")


def linux_image() -> bytes:
    """A Linux image whose whole kernel is one jump to itself (Documentation/arch/riscv/boot-image-header)."""
    return SPIN + bytes(4) + struct.pack("<QQQI", 0x200000, 4096, 0, 2) + bytes(12) + b"RISCV\0\0\0RSC\x05" + bytes(4)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"not a kernel at all, but long enough to hold a header of sixty-four bytes", "RISC-V"),
        (elf(62), "x64"),
        (elf(183), "AArch64"),
        (elf(243, elf_class=1), "32-bit"),
        (elf(243)[:40], "damaged"),
        (gzip.compress(linux_image())[:-12], "cut short"),
        (gzip.compress(b"no kernel either" * 8), "RISC-V"),
        (SPIN * 2 + struct.pack("<QQQI", 0, 1 << 40, 0, 2) + bytes(12) + b"RISCV\0\0\0RSC\x05" + bytes(4), "memory"),
    ],
    ids=["text", "x86-64", "aarch64", "rv32", "short ELF", "short gzip", "gzipped text", "too big"],
)
def test_a_kernel_that_is_none_is_refused_with_what_it_is(content: bytes, named: str, tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(content)
    assert_refused(run("--kernel", "kernel", "--timeout", "5", cwd=tmp_path), "kernel", named)


def test_a_disk_that_is_no_whole_number_of_sectors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "spin").write_bytes(SPIN)
    (tmp_path / "disk").write_bytes(bytes(1000))
    assert_refused(run("--firmware", "spin", "--disk", "disk", "--timeout", "5", cwd=tmp_path), "disk", "512")


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (tmp_path / "spin").write_bytes(SPIN)
    (tmp_path / "disk").write_bytes(bytes(1024))
    (tmp_path / "disk").chmod(0)
    assert_refused(run("--firmware", "spin", "--disk", "disk", cwd=tmp_path), "disk", "ermission")


def test_statistics_that_could_not_be_written_are_refused_before_the_machine_runs(tmp_path: Path) -> None:
    (tmp_path / "spin").write_bytes(SPIN)
    assert_refused(run("--firmware", "spin", "--stats", "nowhere/stats.json", cwd=tmp_path), "nowhere/stats.json")


def test_a_cache_that_is_no_directory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spin").write_bytes(SPIN)
    (tmp_path / "cache").write_bytes(b"")
    monkeypatch.setenv("CELAJE_CACHE", str(tmp_path / "cache"))
    done = run("--firmware", "spin", "--engine", "translate", "--timeout", "5", cwd=tmp_path)
    assert_refused(done, str(tmp_path / "cache"))


def test_a_cache_with_no_room_is_named_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    """A cache on a file system of 64 KiB, in a mount namespace that goes away with the test."""
    (tmp_path / "spin").write_bytes(SPIN)
    (tmp_path / "cache").mkdir()
    mount = "mount -t tmpfs -o size=64k celaje-test cache"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], cwd=tmp_path, capture_output=True).returncode:
        pytest.skip("this host lets nobody make a mount namespace (unshare -rm)")
    script = mount + ' && export CELAJE_CACHE="$PWD/cache"; "$@"; status=$?; find cache -type f -size +0; exit $status'
    command = [sys.executable, "-m", "celaje", "vm", "run", "--firmware", "spin", "--timeout", "5"]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", *command],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert_refused(done, str(tmp_path / "cache"), "room")


def test_a_terminal_that_another_job_has_is_refused(tmp_path: Path) -> None:
    """A machine started in the background of a shell: the terminal belongs to the foreground job."""
    (tmp_path / "spin").write_bytes(SPIN)
    master, terminal = pty.openpty()
    background = (
        "import fcntl, os, sys, termios\n"
        "os.setsid()\n"
        "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    os.setpgid(0, 0)\n"
        "    os.execv(sys.executable, [sys.executable, '-m', 'celaje', *sys.argv[1:]])\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", background, "vm", "run", "--firmware", "spin", "--timeout", "10"],
            cwd=tmp_path,
            stdin=terminal,
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        os.close(terminal)
        os.close(master)
    assert_refused(done, "terminal", "occupied", "fg")
