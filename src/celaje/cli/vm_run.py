"""`celaje vm run`: a computer in this terminal until it ends; how it ended is a line on stderr and the exit status."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from celaje.cli.arguments import Parser, count, seconds, size
from celaje.errors import UsageError
from celaje.machine.verdict import Verdict, VerdictKind

if TYPE_CHECKING:
    from celaje.machine.machine import Disk, MachineConfig

# What a person reads, and the exit status. The status of a time limit is that of timeout(1).
OUTCOMES: dict[VerdictKind, tuple[int, str]] = {
    VerdictKind.POWER_OFF: (0, "the guest powered off"),
    VerdictKind.PASS: (0, "the guest passed"),
    VerdictKind.REBOOT: (0, "the guest asked for a restart"),
    VerdictKind.LEFT: (0, "left with Ctrl-A x; the machine was switched off"),
    VerdictKind.FAIL: (1, "the guest failed"),
    VerdictKind.DIED: (3, "the guest died"),
    VerdictKind.TIMEOUT: (124, "the time limit was reached; the machine was switched off"),
}

EPILOG = """\
At a terminal, Ctrl-A x switches the machine off, and Ctrl-A Ctrl-A types a Ctrl-A.

An image is never written: what the guest changes goes to an overlay that is thrown away. A --disk is written, unless
it is given as FILE,readonly. With an image, --kernel, --initrd and --firmware replace what it brings (another kernel
leaves its initrd out), and --append adds to its command line.

Exit status: 0 power-off in order, or a bare-metal program that passed; 1 one that failed (its number is on stderr and
in the statistics); 2 wrong use or input; 3 the guest died; 124 the time limit was reached.

  celaje vm run debian-mini
  celaje vm run --kernel Image --initrd initrd.gz --append "console=ttyS0 quiet" --no-reboot
  celaje vm run --firmware fw_dynamic.elf --kernel Image --disk root.img
  celaje vm run --firmware test.elf --timeout 10 --stats stats.json"""


def parser() -> Parser:
    """The options, as `celaje vm run --help` shows them."""
    found = Parser("vm run", "Runs a computer in this terminal: an image, a kernel, a firmware.", EPILOG)
    add = found.add_argument
    add("image", nargs="?", metavar="IMAGE", help="an image's name (`celaje image ls`) or directory")
    add("--kernel", type=Path, metavar="FILE", help="a Linux Image, plain or gzipped, or an ELF file: supervisor mode")
    add("--initrd", type=Path, metavar="FILE", help="the kernel's first file system")
    add("--append", metavar="TEXT", help="the kernel's command line")
    add("--firmware", type=Path, metavar="FILE", help="an ELF file, or a flat one for 0x80000000: machine mode")
    add("--disk", action="append", default=[], metavar="FILE[,readonly]", help="a raw disk; may be given again")
    add("--memory", type=size, default=size("512M"), metavar="SIZE", help="such as 512M (the default) or 2G")
    add("--cpus", type=count, default=1, metavar="N", help="harts (1)")
    add("--engine", choices=("auto", "translate", "evaluate"), default="auto", help="what executes (auto)")
    add("--no-reboot", action="store_true", help="a restart ends the machine")
    add("--timeout", type=seconds, metavar="SECONDS", help="switch the machine off after this time")
    add("--stats", metavar="FILE", help="write statistics as JSON when the machine has ended")
    return found


def check(chosen: argparse.Namespace) -> None:
    """Refuse combinations that mean nothing. Raises UsageError."""
    if not (chosen.image or chosen.kernel or chosen.firmware):
        raise UsageError(
            "nothing to run: give an image's name, --kernel FILE or --firmware FILE; "
            "`celaje image build debian-mini` makes an image"
        )
    for option in ("initrd", "append"):
        if getattr(chosen, option) is not None and not (chosen.kernel or chosen.image):
            raise UsageError(f"--{option} is for a kernel: give --kernel FILE or an image with it")


def disk(text: str) -> Disk:
    """A disk from `FILE[,readonly]`."""
    from celaje.machine.machine import Disk

    file = text.removesuffix(",readonly")
    if not file:
        raise UsageError(f"a disk is FILE or FILE,readonly, not {text!r}")
    return Disk(Path(file), read_only=file != text)


def configuration(chosen: argparse.Namespace) -> MachineConfig:
    """The machine that the options describe, with the image's files where there is one."""
    from celaje.machine.machine import Disk, MachineConfig

    kernel, initrd, firmware = chosen.kernel, chosen.initrd, chosen.firmware
    append = chosen.append or ""
    disks: list[Disk] = []
    if chosen.image:
        from celaje.image.store import open_image

        image = open_image(chosen.image)
        if kernel is None:
            kernel, initrd = image.file("kernel"), initrd or image.file("initrd")
        firmware = firmware or image.file("firmware")
        append = f"{image.description.command_line} {append}".strip()
        own = image.file("disk")
        if own:
            disks.append(Disk(own, throwaway=True))
    return MachineConfig(
        memory=chosen.memory,
        cpus=chosen.cpus,
        kernel=kernel,
        initrd=initrd,
        append=append,
        firmware=firmware,
        disks=[*disks, *map(disk, chosen.disk)],
        no_reboot=chosen.no_reboot,
        timeout=chosen.timeout,
    )


def outcome(verdict: Verdict) -> tuple[int, str]:
    """Exit status and line for a verdict."""
    status, text = OUTCOMES[verdict.kind]
    if verdict.kind is VerdictKind.FAIL:
        text += f" with number {verdict.number}"
    return status, f"{text}: {verdict.reason}" if verdict.reason else text


def run(words: list[str]) -> int:
    """Run the machine. Returns the exit status of its verdict; raises CelajeError for wrong use or input."""
    chosen = parser().parse_args(words)
    check(chosen)

    from celaje.cli.engines import factory
    from celaje.cli.statistics_file import statistics_file
    from celaje.machine.machine import Machine
    from celaje.machine.terminal import standard_streams

    with (
        statistics_file(chosen.stats) as write_statistics,
        Machine(configuration(chosen), factory(chosen.engine)) as machine,
    ):
        with standard_streams(machine.leave) as console:
            verdict = machine.run(console)
        told = {"kind": verdict.kind.value, "number": verdict.number, "reason": verdict.reason}
        write_statistics({"verdict": told, **machine.statistics()})
    status, line = outcome(verdict)
    print(f"celaje: {line}", file=sys.stderr)
    return status
