"""Files that are sent to a connection."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

from celaje.cloud.aws.direct_transfer import send_file
from celaje.cloud.aws.streams import FileRange
from celaje.cloud.aws.threads import Pace


def test_a_file_that_goes_to_this_host_is_not_paced(tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    (tmp_path / "file").write_bytes(content)
    received = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taker = socket.create_connection(listener.getsockname())
        connection, _ = listener.accept()

    def take() -> None:
        while piece := taker.recv(1 << 20):
            received.extend(piece)

    with taker, connection:
        thread = threading.Thread(target=take)
        thread.start()
        body = FileRange(os.open(tmp_path / "file", os.O_RDONLY), 5, len(content) - 5)
        try:
            send_file(connection, body, 10, Pace(10, lambda: False))
        finally:
            body.close()
            connection.shutdown(socket.SHUT_WR)
            thread.join()
        congestion = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    assert congestion.rstrip(b"\0") == b"reno"
    assert received == content[5:]
