"""The machine that makes file systems for images: celaje's own, with its console in memory."""

from __future__ import annotations

from collections.abc import Callable

from celaje.errors import GuestError
from celaje.image.filesystem import MachineRun, RunMachine
from celaje.machine.config import MachineConfig
from celaje.machine.console import BufferConsole
from celaje.machine.machine import EngineFactory, Machine
from celaje.machine.verdict import VerdictKind
from celaje.machine.virtio.block import VirtioBlock
from celaje.machine.virtio.block_backend import RawFile

LAST_WORDS = 400


class ToldConsole(BufferConsole):
    """A console in memory that tells somebody every line."""

    def __init__(self, told: Callable[[str], None]) -> None:
        super().__init__()
        self._told = told
        self._begin = 0

    def put(self, byte: int) -> None:
        super().put(byte)
        if byte == ord("\n"):
            line = self.output[self._begin :].decode(errors="replace").strip()
            self._begin = len(self.output)
            self._told(line)


def builder(engine: EngineFactory) -> RunMachine:
    """What runs a machine on `engine` to its end and gives back what its console said."""

    def run(wanted: MachineRun) -> str:
        files = [RawFile(disk.path, read_only=disk.read_only, serial=disk.serial.encode()) for disk in wanted.disks]
        config = MachineConfig(
            memory=wanted.memory_mib << 20,
            cpus=wanted.harts,
            kernel=wanted.kernel,
            initrd=wanted.initrd,
            append=wanted.command_line,
            devices=[VirtioBlock(file) for file in files],
            no_reboot=True,
            timeout=wanted.timeout,
        )
        console = ToldConsole(wanted.told)
        with Machine(config, engine) as machine:
            verdict = machine.run(console)
        said = console.output.decode(errors="replace")
        if verdict.kind is not VerdictKind.POWER_OFF:
            raise GuestError(
                f"the machine that makes the file system ended with {verdict.kind.value} "
                f"{verdict.reason}; its console said last: {said[-LAST_WORDS:]}"
            )
        return said

    return run
