"""Two connections that words go on, one from a guest to the far host and one from there to a guest's server: what
becomes of them while the network is changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.network.namespace import FAR
from tests.system.cloud_host import until

if TYPE_CHECKING:
    from tests.system.cloud_vpc import Vpc

PORT = 7001
WORDS = "/cgi-bin/words"  # a guest's server says words there as long as it is listened to
# On the far host: after each line that it reads it says what it has heard. An address in the line is asked for words,
# again and again if the connection ends, until another line has another one, or `-` for none.
TALKER = f"""
import socket, sys, threading, time
heard, connections, asked = [0, 0], [0, 0], [""]
def listen(connection, which):
    connections[which] += 1
    try:
        while data := connection.recv(4096):
            heard[which] += len(data)
    except OSError:
        pass
def accept():
    while True:
        threading.Thread(target=listen, args=(server.accept()[0], 0), daemon=True).start()
def ask(address, port):
    while asked[0] == address:
        try:
            connection = socket.create_connection((address, port), 2)
            connection.settimeout(None)
            connection.sendall(b"GET {WORDS} HTTP/1.0\\r\\n\\r\\n")
            listen(connection, 1)
        except OSError:
            pass
        time.sleep(0.1)
server = socket.create_server(("{FAR}", {PORT}))
threading.Thread(target=accept, daemon=True).start()
for line in sys.stdin:
    if words := line.split():
        asked[0] = words[0]
        threading.Thread(target=ask, args=(words[0], int(words[1])), daemon=True).start()
    print(*heard, *connections, flush=True)
"""


@dataclass(frozen=True, slots=True)
class Heard:
    """What the far host has heard so far: bytes by each, and how many connections these came by."""

    outward: int
    inward: int
    outward_connections: int
    inward_connections: int


class Talks:
    """`outward` and `inward` are the instances, which may be one; the latter is reached at `address` and `port`."""

    def __init__(self, vpc: Vpc, outward: str, inward: str, address: str, port: int) -> None:
        self._vpc, self._outward, self._inward = vpc, outward, inward
        self._far(f"{address} {port}")
        vpc.on(outward, f"((while usleep 100000; do echo word; done) | nc {FAR} {PORT} >/dev/null 2>&1 &)")
        self.heard = self._far()
        self.go_on()

    def _far(self, line: str = "") -> Heard:
        talker = self._vpc.talker
        assert talker.stdin is not None
        assert talker.stdout is not None
        talker.stdin.write(f"{line}\n")
        talker.stdin.flush()
        return Heard(*map(int, talker.stdout.readline().split()))

    def go_on(self) -> None:
        """Until words have come by both, from now on; `heard` is what has come then."""
        before = self._far()

        def more() -> bool:
            self.heard = self._far()
            return self.heard.outward > before.outward and self.heard.inward > before.inward

        until(more, "words by both connections")

    def fall_silent(self) -> None:
        """Until none has come by either for a second."""

        def silent() -> bool:
            before = self._far()
            self._vpc.on(self._inward, "sleep 1")
            now = self._far()
            return (now.outward, now.inward) == (before.outward, before.inward)

        until(silent, "the end of both")

    def end(self) -> None:
        """Both."""
        self._far("- 0")
        for instance in {self._outward, self._inward}:
            self._vpc.on(instance, "killall nc words 2>/dev/null")
