"""A guest (guest.py) on a real link of a network's process, and the host's side beside it: everything over loopback.

`until` lets both go on until something has come true. Nothing asserts on time; a minute without it is a hang.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable

from celaje.network import client, messages
from celaje.network.buffers import Buffer
from celaje.network.messages import Attach, Attached, NetworkSettings
from celaje.network.tcp import NEVER
from tests.network.guest import Guest

HANGS_SECONDS = 60.0


class AttachedGuest:
    """One machine, attached by the real client unless it is attached already."""

    def __init__(self, request: Attach, attachment: client.Attachment | None = None) -> None:
        attachment = attachment or client.attach(request)
        self.request = request
        self.attached: Attached = attachment.attached
        self.link: socket.socket = attachment.link
        address = int.from_bytes(socket.inet_aton(self.attached.address), "big")
        mac = bytes.fromhex(request.mac.replace(":", ""))
        self.guest = Guest(mac, address, self._send, time.monotonic)
        self.gone = False
        self._unsent: deque[bytes] = deque()

    def _send(self, parts: list[Buffer]) -> None:
        self._unsent.append(b"".join(parts))
        self._flush()

    def _flush(self) -> None:
        """As much as the link takes; it is a wire, so the rest is sent later, in order."""
        try:
            while self._unsent:
                self.link.send(self._unsent[0])
                self._unsent.popleft()
        except BlockingIOError:
            return
        except OSError:
            self.gone = True

    def turn(self, seconds: float = 0.0) -> None:
        """Take what came, waiting at most so long for it."""
        ready = readable([self], seconds)
        for _ in range(64 if ready else 0):
            try:
                message = self.link.recv(70_000)
            except BlockingIOError:
                break
            except OSError:
                message = b""
            if not message:
                self.gone = True
                break
            self.guest.receive(message)
        self._flush()
        self.guest.turn()

    def until(self, condition: Callable[[], object]) -> None:
        """Go on until it holds."""
        until(condition, self)

    def close(self) -> None:
        self.link.close()


def readable(guests: Iterable[AttachedGuest], seconds: float) -> bool:
    """Whether something has come for one of them, waiting at most so long: by poll(2), as there may be thousands."""
    poller = select.poll()
    for one in guests:
        poller.register(one.link, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def until(condition: Callable[[], object], *guests: AttachedGuest) -> None:
    """Let the guests go on until the condition holds."""
    ends = time.monotonic() + HANGS_SECONDS
    while not condition():
        assert time.monotonic() < ends, "it never came true"
        wait = min(0.02, *(max(0.0, one.guest.deadline() - time.monotonic()) for one in guests if not one.gone), 0.02)
        readable([one for one in guests if not one.gone], 0.0 if wait == NEVER else wait)
        for one in guests:
            if not one.gone:
                one.turn()


def attach_request(name: str = "web", number: int = 1, **more: object) -> Attach:
    """What a machine asks for."""
    settings: dict[str, object] = {
        "network": NetworkSettings(name="test"),
        "interface": name,
        "host_name": name,
        "mac": f"52:54:00:00:00:{number:02x}",
        "groups": messages.default_groups(name),
    }
    return Attach(**{**settings, **more})  # type: ignore[arg-type]
