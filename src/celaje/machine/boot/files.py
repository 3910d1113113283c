"""What a machine's files put into its memory before its harts start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from celaje.machine.board import RAM_BASE, Board, HtifSymbols
from celaje.machine.boot import device_tree, efi, payload
from celaje.machine.boot.device_tree import Value
from celaje.machine.boot.firmware import dynamic_info
from celaje.machine.boot.payload import Payload
from celaje.machine.config import MachineConfig
from celaje.machine.hart_states import HartStates, StartRequest

BOOT_HART = 0
SEED_BYTES = 32


@dataclass(frozen=True, slots=True)
class Files:
    """What the configuration's files put into memory. Kept only until it is there: a kernel is 30 MB."""

    firmware: Payload | None
    kernel: Payload | None
    initrd: bytes | None

    @classmethod
    def read(cls, config: MachineConfig) -> Files:
        """Raises InputError or NotFound for a file that is not what it must be."""
        firmware = kernel = initrd = None
        if config.firmware is not None:
            firmware = payload.firmware(config.firmware)
        if config.kernel is not None:
            kernel = payload.kernel(config.kernel, RAM_BASE, above_firmware=firmware is not None)
        if config.initrd is not None:
            initrd = payload.read_file(config.initrd, "initrd")
        return cls(firmware, kernel, initrd)

    @property
    def htif(self) -> HtifSymbols | None:
        """The doublewords of the program that starts, if it has them."""
        start = self.firmware or self.kernel
        return None if start is None or start.tohost is None else HtifSymbols(start.tohost, start.fromhost)

    def load(self, config: MachineConfig, board: Board, states: HartStates) -> int | None:
        """Fill memory and ask the harts to start. Returns where firmware, if it is that, finds what starts next."""
        loaded = [part for part in (self.firmware, self.kernel) if part is not None]
        for part in loaded:
            payload.load(board.ram, part)
        seed = os.urandom(SEED_BYTES)

        def tables(address: int) -> tuple[bytes, dict[str, Value]]:
            if config.identity is None or self.firmware is not None:
                return b"", {}
            return efi.tables(config.identity, address, (board.ram.base, board.ram.base + board.ram.size))

        def blob(initrd: tuple[int, int] | None, chosen: Mapping[str, Value]) -> bytes:
            return device_tree.flatten(board.device_tree(config.append, initrd, seed, chosen), BOOT_HART)

        some, chosen = tables(board.ram.base)
        end = max(part.end for part in loaded)
        place = payload.place(board.ram, end, len(blob((0, 0), chosen)), self.initrd, len(some))
        some, chosen = tables(place.tables)
        board.ram.write(place.tables, some)
        board.ram.write(place.device_tree, blob(place.initrd, chosen))
        if place.initrd is not None and self.initrd is not None:
            board.ram.write(place.initrd[0], self.initrd)
        if self.firmware is not None:
            information = 0
            if self.kernel is not None:
                information = place.information
                board.ram.write(information, dynamic_info(self.kernel.entry, BOOT_HART))
            for hart in range(config.cpus):
                states.start(hart, StartRequest(self.firmware.entry, place.device_tree))
            return information
        assert self.kernel is not None
        states.start(BOOT_HART, StartRequest(self.kernel.entry, place.device_tree))
        return None
