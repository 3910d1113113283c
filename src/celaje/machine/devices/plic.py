"""The platform-level interrupt controller ("RISC-V Platform-Level Interrupt Controller Specification" 1.0.0).

Each source has a gateway that turns its level into a request: a request is made pending once, is claimed once, and
only when the handler has completed it does the gateway look at the level again. A context is what can be
interrupted: a hart in machine mode or in supervisor mode. It sees the sources it enables whose priority is above its
threshold, the highest priority first and of equals the lowest number.

    0x000000 + 4 * source             priority (0: never)                  chapter 4
    0x001000 + 4 * word               pending, one bit a source            chapter 5
    0x002000 + 0x80 * context + ...   enable, one bit a source             chapter 6
    0x200000 + 0x1000 * context       threshold                            chapter 7
    0x200004 + 0x1000 * context       claim (read), completion (write)     chapters 8 and 9

Registers are 32 bits wide and are read and written whole.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from celaje.machine.bus import AccessRefused, SavedState

SIZE = 0x600000
PENDING = 0x1000
ENABLE = 0x2000
ENABLE_STRIDE = 0x80
CONTEXT = 0x200000
CONTEXT_STRIDE = 0x1000
HIGHEST_PRIORITY = 7


class Plic:
    """Sources 1 to `source_count`; `outputs[i]` drives the interrupt line of context i."""

    size = SIZE

    def __init__(self, source_count: int, outputs: Sequence[Callable[[bool], None]]) -> None:
        self.source_count = source_count
        self._outputs = list(outputs)
        self._sources = (2 << source_count) - 2  # a bit for each; source 0 is "none"
        self._words = source_count // 32 + 1
        self._lock = threading.Lock()
        self._level = 0
        self._driven = [False] * len(self._outputs)
        self._clear()

    def _clear(self) -> None:
        self._priority = [0] * (self.source_count + 1)
        self._pending = 0
        self._claimed = 0
        self._enable = [0] * len(self._outputs)
        self._threshold = [0] * len(self._outputs)

    def set_level(self, source: int, level: bool) -> None:
        """Drive the input of `source`. From any thread."""
        bit = 1 << source
        with self._lock:
            if level:
                self._level |= bit
                self._pending |= bit & ~self._claimed
            else:
                # The request stays pending: the gateway has already passed it on (chapter 1.5).
                self._level &= ~bit
            self._drive()

    def _best(self, context: int, above: int) -> int:
        """The source that `context` should handle next, of those with a priority over `above`; 0 for none."""
        best = 0
        ready = self._pending & self._enable[context]
        while ready:
            source = (ready & -ready).bit_length() - 1
            ready &= ready - 1
            if self._priority[source] > above:
                best, above = source, self._priority[source]
        return best

    def _drive(self) -> None:
        # Under the lock, so that the lines change in the order of the states that they show.
        pending = self._pending
        for context, output in enumerate(self._outputs):
            level = bool(pending & self._enable[context]) and self._best(context, self._threshold[context]) != 0
            if level != self._driven[context]:
                self._driven[context] = level
                output(level)

    def _claim(self, context: int) -> int:
        # A claim does not look at the threshold (chapter 8): that only holds back the notification.
        source = self._best(context, 0)
        if source:
            self._pending &= ~(1 << source)
            self._claimed |= 1 << source
            self._drive()
        return source

    def _complete(self, context: int, source: int) -> None:
        # A completion for a source that the context does not enable is ignored (chapter 9).
        bit = 1 << source if source <= self.source_count else 0
        if bit & self._enable[context] & self._claimed:
            self._claimed &= ~bit
            self._pending |= bit & self._level
            self._drive()

    def read(self, offset: int, size: int) -> int:
        if size != 4 or offset & 3:
            raise AccessRefused
        with self._lock:
            if offset >= CONTEXT:
                context, register = divmod(offset - CONTEXT, CONTEXT_STRIDE)
                if context < len(self._outputs):
                    if register == 0:
                        return self._threshold[context]
                    if register == 4:
                        return self._claim(context)
            elif offset >= ENABLE:
                context, register = divmod(offset - ENABLE, ENABLE_STRIDE)
                if context < len(self._outputs):
                    return self._enable[context] >> 8 * register & 0xFFFFFFFF
            elif offset >= PENDING:
                return self._pending >> 8 * (offset - PENDING) & 0xFFFFFFFF
            elif offset >> 2 <= self.source_count:
                return self._priority[offset >> 2]
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        if size != 4 or offset & 3:
            raise AccessRefused
        with self._lock:
            if offset >= CONTEXT:
                context, register = divmod(offset - CONTEXT, CONTEXT_STRIDE)
                if context < len(self._outputs):
                    if register == 0:
                        self._threshold[context] = value & HIGHEST_PRIORITY
                        self._drive()
                    elif register == 4:
                        self._complete(context, value)
            elif offset >= ENABLE:
                context, register = divmod(offset - ENABLE, ENABLE_STRIDE)
                if context < len(self._outputs) and register < 4 * self._words:
                    shift = 8 * register
                    kept = self._enable[context] & ~(0xFFFFFFFF << shift)
                    self._enable[context] = (kept | value << shift) & self._sources
                    self._drive()
            elif offset < PENDING and 0 < offset >> 2 <= self.source_count:
                self._priority[offset >> 2] = value & HIGHEST_PRIORITY
                self._drive()

    def reset(self) -> None:
        with self._lock:
            self._clear()
            self._pending = self._level
            self._drive()

    def save(self) -> SavedState:
        with self._lock:
            return {
                "priority": list(self._priority),
                "pending": self._words_of(self._pending),
                "claimed": self._words_of(self._claimed),
                "level": self._words_of(self._level),
                "enable": [word for enable in self._enable for word in self._words_of(enable)],
                "threshold": list(self._threshold),
            }

    def restore(self, state: SavedState) -> None:
        contexts, words = len(self._outputs), self._words
        lengths = {"priority": self.source_count + 1, "pending": words, "claimed": words, "level": words}
        lengths |= {"enable": contexts * words, "threshold": contexts}
        fields: dict[str, list[int]] = {}
        for name, length in lengths.items():
            values = state[name]
            if not isinstance(values, list) or len(values) != length:
                raise ValueError(f"the PLIC's {name} must be {length} numbers, not {values!r}")
            fields[name] = values
        with self._lock:
            self._priority = list(fields["priority"])
            self._threshold = list(fields["threshold"])
            self._pending = self._number(fields["pending"])
            self._claimed = self._number(fields["claimed"])
            self._level = self._number(fields["level"])
            self._enable = [self._number(fields["enable"][i * words : (i + 1) * words]) for i in range(contexts)]
            self._drive()

    def _words_of(self, bits: int) -> list[int]:
        return [bits >> 32 * word & 0xFFFFFFFF for word in range(self._words)]

    def _number(self, words: list[int]) -> int:
        return sum(word << 32 * index for index, word in enumerate(words)) & self._sources
