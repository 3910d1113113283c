"""An engine that executes a script. It stands where a real engine would, and knows no instruction set: what devices and
boards do with it proves that they know none either.

A script is a list of exits, or of functions of the hart that return one (to set registers first, or to look at what
came of the exit before). When it is used up the hart runs on without an exit until somebody interrupts it.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from celaje.engine.memory import GuestMemory
from celaje.engine.protocol import Exit, Hypercall, Interrupted, Recalled

Step = Exit | Callable[["FakeHart"], Exit]


def call(extension: int, function: int, *arguments: int) -> Step:
    """The hart makes an SBI call."""

    def step(hart: FakeHart) -> Exit:
        for index, argument in enumerate(arguments):
            hart.set("x", argument, 10 + index)
        hart.set("x", function, 16)
        hart.set("x", extension, 17)
        return Hypercall()

    return step


class FakeHart:
    """Everything that was done to it is there to be looked at."""

    def __init__(self, index: int, script: Iterable[Step]) -> None:
        self.index = index
        self.script = list(script)
        self.fields: dict[tuple[str, int], int] = defaultdict(int)
        self.answers: list[int | None] = []  # of the MMIO reads, in order; None: access fault
        self.lines: dict[int, bool] = {}
        self.translation_flushes = 0
        self.instruction_flushes = 0
        self.runs = 0
        self.idle = True  # what it is when it is recalled
        self._condition = threading.Condition()
        self._interrupted = False

    def run(self) -> Exit:
        self.runs += 1
        with self._condition:
            if self._interrupted or not self.script:
                self._condition.wait_for(lambda: self._interrupted)
                self._interrupted = False
                return Interrupted()
            step = self.script.pop(0)
        return step(self) if callable(step) else step

    def complete_read(self, value: int) -> None:
        self.answers.append(value)

    def fail_access(self) -> None:
        self.answers.append(None)

    def interrupt(self) -> None:
        with self._condition:
            self._interrupted = True
            self._condition.notify_all()

    def recall(self) -> None:
        self.script.insert(0, Recalled(self.idle))

    def set_line(self, line: int, level: bool) -> None:
        self.lines[line] = level
        bit = 1 << line
        self.fields["sip", 0] = self.fields["sip", 0] & ~bit | (bit if level else 0)

    def flush_translations(self) -> None:
        self.translation_flushes += 1

    def flush_instructions(self) -> None:
        self.instruction_flushes += 1

    def get(self, field: str, index: int = 0) -> int:
        return self.fields[field, index]

    def set(self, field: str, value: int, index: int = 0) -> None:
        if not 0 <= value < 1 << 64:
            raise ValueError(f"{field} has 64 bits, and {value:#x} has not")
        self.fields[field, index] = value

    def save(self) -> dict[str, list[int]]:
        names = {name for name, _ in self.fields}
        widths = {name: 1 + max(index for other, index in self.fields if other == name) for name in names}
        return {name: [self.get(name, index) for index in range(width)] for name, width in widths.items()}

    def restore(self, state: dict[str, list[int]]) -> None:
        self.fields.clear()
        for name, values in state.items():
            for index, value in enumerate(values):
                self.set(name, value, index)


class FakeEngine:
    """One hart a script. Its clock stands still until it is set."""

    def __init__(self, *scripts: Iterable[Step]) -> None:
        self.scripted = [FakeHart(index, script) for index, script in enumerate(scripts)]
        self.memory: list[GuestMemory] = []
        self.watched = 0
        self.ticks = 0
        self.closed = False

    @property
    def harts(self) -> Sequence[FakeHart]:
        return self.scripted

    def add_memory(self, memory: GuestMemory) -> None:
        self.memory.append(memory)

    def watch(self, address: int) -> None:
        self.watched = address

    def time(self) -> int:
        return self.ticks

    def set_time(self, ticks: int) -> None:
        self.ticks = ticks

    def start_dirty_log(self) -> None:
        for memory in self.memory:
            memory.dirty[:] = bytes(len(memory.dirty))

    def take_dirty_log(self) -> list[bytes]:
        log = [bytes(memory.dirty) for memory in self.memory]
        self.start_dirty_log()
        return log

    def trim(self) -> None:
        """There is nothing to give back."""

    def statistics(self) -> dict[str, int | float]:
        return {"instructions": sum(hart.runs for hart in self.scripted), "guest_seconds": 0.5, "decoded_bytes": 0}

    def close(self) -> None:
        self.closed = True
