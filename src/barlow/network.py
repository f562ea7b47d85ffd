"""The network, which nothing here uses unless a user has asked for it by name: `cifar10`, `timm:resnet50.a1_in1k`.

Libraries that download try again and again where there is no network, for minutes. So the host is asked first, once.
"""

import socket
import threading
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from barlow import exits

SECONDS = 4.0
"""How long a host may take to answer."""

PORTS = {"http": 80, "https": 443}


class Unreachable(ValueError):
    """There is no way to a host; the message says which, and why."""

    exit_code = exits.IO


def check_reachable(url: str) -> None:
    """Asks whether the host of an address answers, or the proxy that is set for it.

    Raises:
        Unreachable: it does not, within `SECONDS`.
    """
    parts = urlsplit(url)
    proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
    target = urlsplit(proxy) if proxy else parts
    host, port = target.hostname or "", target.port or PORTS.get(target.scheme, 443)
    found: list[str] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=SECONDS).close()
            found.append("")
        except OSError as error:
            found.append(error.strerror or str(error) or type(error).__name__)

    # In a thread, because looking up a name has no limit of its own.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(SECONDS)
    reason = found[0] if found else f"no answer in {SECONDS:g} seconds"
    if reason:
        raise Unreachable(f"{host} cannot be reached: {reason}")
