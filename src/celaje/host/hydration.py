"""Hydration in the background: what a volume that was made from a snapshot does not have yet is fetched while a machine
uses it, so that it becomes as fast as a plain file without anybody waiting.

A thread per volume, only as long as there is something to fetch. It fetches a chunk (512 KiB)
when the guest has asked nothing of that disk for a moment, at a bounded rate, and leaves the host's disk some room. It
may be ended between any two chunks; what it has brought is kept, and the next one goes on from there. Its priority is
that of the others: a thread of a lower one that is not given a processor while it holds the interpreter's lock would
keep them all waiting.
"""

from __future__ import annotations

import logging
import os
import threading
import time

from celaje.disk.chunk_store import CHUNK
from celaje.disk.volume import Volume

log = logging.getLogger(__name__)

RATE = 32 << 20  # bytes a second at most
QUIET_SECONDS = 0.1  # for which the guest must have asked nothing
RESERVE = 512 << 20  # bytes of the host's disk that are left to others
RETRY_SECONDS = 60.0  # after a chunk store that does not answer, or a disk that is full
KEPT_EACH = 64 << 20  # bytes after which what was brought is made durable
LEAVING_SECONDS = 1.0  # that `stop` waits for a chunk that is on its way


class Hydration:
    """Of one open volume, until it is whole or `stop`. Bytes, bytes a second, seconds."""

    def __init__(
        self,
        volume: Volume,
        rate: float = RATE,
        quiet: float = QUIET_SECONDS,
        reserve: int = RESERVE,
        retry: float = RETRY_SECONDS,
    ) -> None:
        self._volume = volume
        self._rate = rate
        self._quiet = quiet
        self._reserve = reserve
        self._retry = retry
        self._stopping = threading.Event()
        self._next = 0.0
        self._brought = 0
        self._thread = threading.Thread(target=self._run, name="hydration", daemon=True)

    def start(self) -> None:
        """Begin, unless there is nothing to do."""
        if not self._volume.read_only and not self._volume.whole:
            self._thread.start()

    def stop(self) -> None:
        """No chunk is asked for after this. Waits for one that is on its way, but not for long."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(LEAVING_SECONDS)

    @property
    def active(self) -> bool:
        """Whether it goes on."""
        return self._thread.is_alive()

    def _run(self) -> None:
        name = self._volume.description.name
        told = ""
        while True:
            try:
                done = self._volume.hydrate(stopped=self._stopped)
                self._volume.keep_hydrated()
                if done:
                    log.info("volume %s has all of its snapshot now", name)
                return
            except OSError as error:
                reason = error.strerror or str(error)
                if reason != told:
                    log.warning("volume %s fetches nothing more of its snapshot for now: %s", name, reason)
                told = reason
            if self._stopping.wait(self._retry):
                return

    def _stopped(self) -> bool:
        """Waits until the next chunk may be fetched; True if none may any more."""
        if self._brought >= KEPT_EACH:
            self._volume.keep_hydrated()
            self._brought = 0
        if self._stopping.wait(max(0.0, self._next - time.monotonic())):
            return True
        while self._volume.asked:
            self._volume.asked = False
            if self._stopping.wait(self._quiet):
                return True
        told = False
        while self._no_room():
            if not told:
                log.warning("volume %s fetches nothing more: its disk is nearly full", self._volume.description.name)
            told = True
            if self._stopping.wait(self._retry):
                return True
        self._next = time.monotonic() + CHUNK / self._rate
        self._brought += CHUNK
        return False

    def _no_room(self) -> bool:
        held = os.statvfs(self._volume.directory)
        return held.f_bavail * held.f_frsize < self._reserve
