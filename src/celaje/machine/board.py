"""The `virt` board: what is where, how it is wired, and the device tree that says so.

The map is that of QEMU's board of this name, so that kernels, firmware and teaching systems made for it run unmodified.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from celaje.engine.memory import GuestMemory
from celaje.engine.protocol import Engine
from celaje.machine.boot.device_tree import Node, Value, wide
from celaje.machine.bus import Bus
from celaje.machine.console import Console
from celaje.machine.devices import aclint, finisher, plic
from celaje.machine.devices.aclint import Aclint
from celaje.machine.devices.empty_slot import EmptySlot
from celaje.machine.devices.finisher import Finisher
from celaje.machine.devices.htif import Htif
from celaje.machine.devices.plic import Plic
from celaje.machine.devices.rtc import Rtc
from celaje.machine.devices.uart import Uart
from celaje.machine.devices.vmgenid import GenerationIdentifier
from celaje.machine.offers import Offers
from celaje.machine.processor import ProcessorDescription
from celaje.machine.verdict import Verdict
from celaje.machine.virtio.device import VirtioDevice
from celaje.machine.virtio.mmio import VirtioMmio
from celaje.machine.virtio.slot import VirtioSlot

# fmt: off
FINISHER_BASE = 0x0010_0000
RTC_BASE      = 0x0010_1000
VMGENID_BASE  = 0x0010_2000  # not on QEMU's board
ACLINT_BASE   = 0x0200_0000
PLIC_BASE     = 0x0C00_0000
UART_BASE     = 0x1000_0000
VIRTIO_BASE   = 0x1000_1000  # and seven more, a page each
SLOT_BASE     = 0x1001_0000  # of devices that come and go, a page each; not on QEMU's board
RAM_BASE      = 0x8000_0000

VIRTIO_INTERRUPT  = 1        # at the PLIC; and seven more
UART_INTERRUPT    = 10
RTC_INTERRUPT     = 11
VMGENID_INTERRUPT = 12
SLOT_INTERRUPT    = 16       # and the following
# fmt: on

VIRTIO_SLOTS = 8
SLOTS_MOST = 14
VIRTIO_STRIDE = 0x1000
INTERRUPT_SOURCES = 95
TIMEBASE = 10_000_000  # Hz
UART_CLOCK = 3_686_400  # Hz: 230,400 baud times 16

# A hart's interrupt lines: machine software and timer, supervisor and machine external.
MSI, MTI, SEI, MEI = 3, 7, 9, 11


@dataclass(frozen=True, slots=True)
class HtifSymbols:
    """Where a bare-metal program has its HTIF doublewords (guest-physical)."""

    tohost: int
    fromhost: int | None


class Board:
    """One machine's devices around the harts of `engine`, whose memory it makes: `memory_size` bytes.

    `end` is called with the guest's verdict, from any thread. `virtio` fills the slots from the first on. `slots` are
    places for devices that come and go, those of `plugged` are in them; `left` hears of one that has left. Memory
    begins as `contents`, a private mapping, or as zeros.
    """

    def __init__(
        self,
        engine: Engine,
        memory_size: int,
        console: Console,
        end: Callable[[Verdict], None],
        *,
        wake: Callable[[int], None],
        virtio: Sequence[VirtioDevice] = (),
        slots: int = 0,
        plugged: Mapping[int, VirtioDevice] = MappingProxyType({}),
        left: Callable[[VirtioDevice], None] = lambda device: None,
        htif: HtifSymbols | None = None,
        isa: ProcessorDescription | None = None,
        contents: mmap.mmap | None = None,
    ) -> None:
        if len(virtio) > VIRTIO_SLOTS:
            raise ValueError(f"the board has {VIRTIO_SLOTS} virtio slots, not {len(virtio)}")
        if not 0 <= slots <= SLOTS_MOST:
            raise ValueError(f"the board has up to {SLOTS_MOST} slots for devices that come and go, not {slots}")
        self.engine = engine
        self.isa = isa or ProcessorDescription()
        self._wake = wake
        self.offers = Offers()
        self.ram = GuestMemory(RAM_BASE, memory_size, contents)
        engine.add_memory(self.ram)

        harts = range(len(engine.harts))
        self.plic = Plic(INTERRUPT_SOURCES, [self.line(hart, line) for hart in harts for line in (MEI, SEI)])
        self.aclint = Aclint(engine, [self.line(hart, MSI) for hart in harts])
        self.rtc = Rtc(partial(self.plic.set_level, RTC_INTERRUPT))
        self.generation = GenerationIdentifier(partial(self.plic.set_level, VMGENID_INTERRUPT))
        self.uart = Uart(console, partial(self.plic.set_level, UART_INTERRUPT))
        self.bus = Bus()
        self.bus.add(FINISHER_BASE, Finisher(end))
        self.bus.add(RTC_BASE, self.rtc)
        self.bus.add(VMGENID_BASE, self.generation)
        self.bus.add(ACLINT_BASE, self.aclint)
        self.bus.add(PLIC_BASE, self.plic)
        self.bus.add(UART_BASE, self.uart)
        self.virtio: list[VirtioMmio] = []
        for slot in range(VIRTIO_SLOTS):
            base = VIRTIO_BASE + slot * VIRTIO_STRIDE
            if slot < len(virtio):
                interrupt = partial(self.plic.set_level, VIRTIO_INTERRUPT + slot)
                self.virtio.append(VirtioMmio(virtio[slot], self.ram, interrupt, self.offers.make))
                self.bus.add(base, self.virtio[-1])
            else:
                self.bus.add(base, EmptySlot())
        self.slots: list[VirtioSlot] = []
        """For devices that come and go."""
        for slot in range(slots):
            place = VirtioSlot(self.ram, partial(self.plic.set_level, SLOT_INTERRUPT + slot), left)
            if slot in plugged:
                place.plug(plugged[slot])
            self.slots.append(place)
            self.bus.add(SLOT_BASE + slot * VIRTIO_STRIDE, place)
        self.htif: Htif | None = None
        if htif is not None and self.ram.contains(htif.tohost, 8) and htif.tohost % 8 == 0:
            self.htif = Htif(htif.tohost, htif.fromhost, self.ram, console, end)
            engine.watch(htif.tohost)

    def set_line(self, hart: int, line: int, level: bool) -> None:
        """Drive an interrupt line of a hart. From any thread."""
        self.engine.harts[hart].set_line(line, level)
        self._wake(hart)

    def line(self, hart: int, line: int) -> Callable[[bool], None]:
        """`set_line` for one line."""
        return partial(self.set_line, hart, line)

    def detach(self) -> None:
        """No device touches memory or has a thread of the board's any more. The virtio devices live on."""
        for window in self.virtio:
            window.reset()
        for place in self.slots:
            place.reset()
        self.rtc.close()
        self.uart.close()
        if self.htif is not None:
            self.htif.close()

    def device_tree(
        self,
        arguments: str = "",
        initrd: tuple[int, int] | None = None,
        seed: bytes = b"",
        chosen: Mapping[str, Value] = MappingProxyType({}),
    ) -> Node:
        """What the guest is told: `arguments` is the kernel's command line, `initrd` its first and last address + 1,
        `chosen` more of what is chosen."""
        root = Node("", {"#address-cells": 2, "#size-cells": 2, "compatible": "riscv-virtio", "model": "celaje,virt"})
        root.add("chosen", {**self._chosen(arguments, initrd, seed), **chosen})
        root.add(f"memory@{RAM_BASE:x}", {"device_type": "memory", "reg": wide(RAM_BASE, self.ram.size)})
        harts = range(len(self.engine.harts))
        # Phandles: 1 to n the harts, then their interrupt controllers, the PLIC, the finisher.
        processors = [1 + hart for hart in harts]
        controllers = [1 + len(harts) + hart for hart in harts]
        interrupts, system = 1 + 2 * len(harts), 2 + 2 * len(harts)
        root.children.append(self._cpus(processors, controllers))
        soc = root.add("soc", {"#address-cells": 2, "#size-cells": 2, "compatible": "simple-bus", "ranges": b""})

        def device(name: str, base: int, size: int, properties: dict[str, Value]) -> None:
            soc.add(f"{name}@{base:x}", {"reg": wide(base, size), **properties})

        def wired(source: int) -> dict[str, Value]:
            return {"interrupts": source, "interrupt-parent": interrupts}

        device(
            "test",
            FINISHER_BASE,
            Finisher.size,
            {"compatible": ["sifive,test1", "sifive,test0", "syscon"], "phandle": system},
        )
        device("rtc", RTC_BASE, Rtc.size, {"compatible": "google,goldfish-rtc", **wired(RTC_INTERRUPT)})
        device(
            "rng",
            VMGENID_BASE,
            GenerationIdentifier.size,
            {"compatible": "microsoft,vmgenid", **wired(VMGENID_INTERRUPT)},
        )
        device(
            "clint",
            ACLINT_BASE,
            aclint.SIZE,
            {
                "compatible": ["sifive,clint0", "riscv,clint0"],
                "interrupts-extended": [cell for phandle in controllers for cell in (phandle, MSI, phandle, MTI)],
            },
        )
        device(
            "plic",
            PLIC_BASE,
            plic.SIZE,
            {
                "compatible": ["sifive,plic-1.0.0", "riscv,plic0"],
                "#interrupt-cells": 1,
                "#address-cells": 0,
                "interrupt-controller": b"",
                "interrupts-extended": [cell for phandle in controllers for cell in (phandle, MEI, phandle, SEI)],
                "riscv,ndev": INTERRUPT_SOURCES,
                "phandle": interrupts,
            },
        )
        device(
            "serial",
            UART_BASE,
            Uart.size,
            {"compatible": "ns16550a", "clock-frequency": UART_CLOCK, **wired(UART_INTERRUPT)},
        )
        # A kernel finds them in this order, and so the machine's first network card is its first interface.
        places = [(VIRTIO_BASE, VIRTIO_INTERRUPT, len(self.virtio)), (SLOT_BASE, SLOT_INTERRUPT, len(self.slots))]
        for first, interrupt, count in places:
            for slot in range(count):
                base = first + slot * VIRTIO_STRIDE
                wires = wired(interrupt + slot)
                device("virtio_mmio", base, VirtioMmio.size, {"compatible": "virtio,mmio", **wires})
        for name, value in (("poweroff", finisher.PASS), ("reboot", finisher.RESET)):
            root.add(name, {"compatible": f"syscon-{name}", "regmap": system, "offset": 0, "value": value})
        return root

    def _chosen(self, arguments: str, initrd: tuple[int, int] | None, seed: bytes) -> dict[str, Value]:
        chosen: dict[str, Value] = {"stdout-path": f"/soc/serial@{UART_BASE:x}"}
        if arguments:
            chosen["bootargs"] = arguments
        if initrd:
            chosen["linux,initrd-start"], chosen["linux,initrd-end"] = wide(initrd[0]), wide(initrd[1])
        if seed:
            chosen["rng-seed"] = seed
        return chosen

    def _cpus(self, processors: list[int], controllers: list[int]) -> Node:
        cpus = Node("cpus", {"#address-cells": 1, "#size-cells": 0, "timebase-frequency": TIMEBASE})
        cores = Node("cpu-map").add("cluster0")
        for hart, (processor, controller) in enumerate(zip(processors, controllers, strict=True)):
            node = cpus.add(
                f"cpu@{hart:x}",
                {
                    "device_type": "cpu",
                    "reg": hart,
                    "status": "okay",
                    "compatible": "riscv",
                    "riscv,isa": self.isa.isa,
                    "riscv,isa-base": self.isa.base,
                    "riscv,isa-extensions": list(self.isa.extensions),
                    "riscv,cbom-block-size": self.isa.cache_block,
                    "riscv,cboz-block-size": self.isa.cache_block,
                    "mmu-type": self.isa.mmu,
                    "phandle": processor,
                },
            )
            node.add(
                "interrupt-controller",
                {
                    "#address-cells": 0,
                    "#interrupt-cells": 1,
                    "interrupt-controller": b"",
                    "compatible": "riscv,cpu-intc",
                    "phandle": controller,
                },
            )
            cores.add(f"core{hart}", {"cpu": processor})
        cpus.add("cpu-map").children.append(cores)
        return cpus
