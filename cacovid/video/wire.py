"""Messages between `VideoWorker` and its process: 4 bytes of length, JSON; a clip's pixels follow raw.

JSON and not pickle, so that a decoder taken over by a hostile file cannot run code in the parent.
"""

import json
import socket
import time
from typing import Any


def send(link: socket.socket, message: dict[str, Any]) -> None:
    """Send one message."""
    data = json.dumps(message).encode()
    link.sendall(len(data).to_bytes(4, "big") + data)


def receive(link: socket.socket, deadline: float | None = None) -> dict[str, Any]:
    """The next message. `deadline` on the monotonic clock; raises TimeoutError past it, EOFError at hang-up."""
    head = bytearray(4)
    receive_into(link, memoryview(head), deadline)
    body = bytearray(int.from_bytes(head, "big"))
    receive_into(link, memoryview(body), deadline)
    message: dict[str, Any] = json.loads(body)
    return message


def receive_into(link: socket.socket, buffer: memoryview, deadline: float | None = None) -> None:
    """Fill `buffer`; raises as `receive`."""
    while len(buffer):
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            link.settimeout(left)
        count = link.recv_into(buffer)
        if count == 0:
            raise EOFError
        buffer = buffer[count:]
