"""How the device tree describes a processor to the guest."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProcessorDescription:
    """What software is told. The last three are what mvendorid, marchid and mimpid read.

    `base` and `extensions` as Linux's riscv/extensions binding names them, letters first, in order.
    """

    base: str = "rv64i"
    extensions: tuple[str, ...] = (
        *("i", "m", "a", "f", "d", "c"),
        *("zicbom", "zicboz", "zicntr", "zicond", "zicsr", "zifencei", "zihpm", "zba", "zbb", "zbs", "sstc", "svinval"),
    )
    mmu: str = "riscv,sv57"
    cache_block: int = 64  # bytes, what the cbo instructions work on
    vendor: int = 0
    architecture: int = 0
    implementation: int = 0

    @property
    def isa(self) -> str:
        """The one string of the older binding: rv64imafdc_zicbom_…"""
        letters = "".join(name for name in self.extensions if len(name) == 1)
        names = [name for name in self.extensions if len(name) > 1]
        return "_".join([self.base.rstrip("i") + letters, *names])
