"""Python imports this first in the processes of test_no_network.py: no address but loopback can be reached.

Every attempt is written into the file that OFFLINE_ATTEMPTS names, and fails as on a machine without a network.
"""

import errno
import os
import sys
from typing import Any

LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0", "ip6-localhost")


def _forbid(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) and address else None  # a path, of a local socket
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    if host is None or str(host).startswith(LOOPBACK):
        return
    with open(os.environ["OFFLINE_ATTEMPTS"], "a", encoding="utf-8") as file:
        file.write(f"{event} {host!r}\n")
    raise OSError(errno.ENETUNREACH, "Network is unreachable")


sys.addaudithook(_forbid)
