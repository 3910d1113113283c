"""Page tables of Sv39, Sv48 and Sv57 for guests of tests (Privileged ISA, 10.3 to 10.6)."""

from __future__ import annotations

from tests.engine.translate.assembly import BASE, DEVICES, Guest

V, R, W, X, U, G, A, D = (1 << bit for bit in range(8))
CODE = V | R | X | A
DATA = V | R | W | A | D
ALL = V | R | W | X | A | D
SCHEMES = {3: 8, 4: 9, 5: 10}  # levels: satp's mode


class PageTables:
    """Tables in guest memory from `root` on; each new table takes the next page."""

    def __init__(self, guest: Guest, root: int, levels: int = 3) -> None:
        self._guest = guest
        self.root = root
        self.levels = levels
        self._free = root + 4096

    @property
    def satp(self) -> int:
        return self.satp_of(0)

    def satp_of(self, space: int) -> int:
        """With an address space's number."""
        return SCHEMES[self.levels] << 60 | space << 44 | self.root >> 12

    def entry(self, virtual: int, level: int = 0) -> int:
        """Guest-physical address of the entry of `virtual` at a level; tables above it are made."""
        table = self.root
        for above in range(self.levels - 1, level, -1):
            at = table + (virtual >> 12 + 9 * above & 511) * 8
            if not self._guest.word(at):
                self._guest.put(at, self._free >> 2 | V)
                self._free += 4096
            table = self._guest.word(at) >> 10 << 12
        return table + (virtual >> 12 + 9 * level & 511) * 8

    def map(self, virtual: int, physical: int, flags: int = ALL, level: int = 0) -> int:
        """Enter a page (or superpage); the address of its entry."""
        at = self.entry(virtual, level)
        self._guest.put(at, physical >> 12 << 10 | flags)
        return at


TABLES = BASE + 0x100000
FRAMES = BASE + 0x200000  # pages that tests map somewhere
VIRTUAL = 0x10_0000_0000  # far from what is mapped to itself


class Supervisor(Guest):
    """A hart in supervisor mode with BASE's gigabyte and the devices mapped to themselves; traps end the program."""

    def __init__(self, text: str, levels: int = 3, mode: int = 1, flags: int = ALL, **values: int) -> None:
        super().__init__(text, **values)
        self.tables = PageTables(self, TABLES, levels)
        self.tables.map(BASE, BASE, flags, level=2)
        self.tables.map(DEVICES, DEVICES, flags)
        self.load_trap_handler()
        self.open_protection()
        self.hart.set("mode", mode)
        self.hart.set("satp", self.tables.satp)
