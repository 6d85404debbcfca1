"""A network of its own for one process, that a test can cut: packets vanish without a word, as behind a switch that has lost its power.

The process lives in a network namespace that a pair of virtual cards joins to this machine. Where a packet goes is written in the table
of neighbours at either end. A cut names a neighbour that is not there: the cards stay up and take all packets, and nobody hears of them.
It can be made in one direction alone.
"""

from __future__ import annotations

import contextlib
import enum
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

REASON = "ip, of iproute2, is not installed"
_OWN, _OTHER, _NOBODY = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:0f"
_names = iter(range(10**6))


class NoNetworkError(Exception):
    """This machine does not let a network be made; says why."""


class Direction(enum.StrEnum):
    """Which packets vanish."""

    BOTH = "both"
    TO_PROCESS = "to the process"
    FROM_PROCESS = "from the process"


@dataclass(frozen=True)
class CutNetwork:
    """The network. Addresses are those of 198.18.0.0/15, which are set apart for tests.

    Attributes:
        name: Of the namespace.
        card: Of this machine's end.
        own: Address of this machine in it.
        other: Address of the process.
    """

    name: str
    card: str
    own: str
    other: str

    @property
    def command(self) -> tuple[str, ...]:
        """What stands before the command of a process that is to live in it."""
        return ("nsenter", f"--net=/run/netns/{self.name}")

    def cut(self, direction: Direction = Direction.BOTH) -> None:
        """Let packets vanish from now on."""
        if direction is not Direction.FROM_PROCESS:
            _ip("neigh", "replace", self.other, "lladdr", _NOBODY, "dev", self.card, "nud", "permanent")
        if direction is not Direction.TO_PROCESS:
            _ip("-n", self.name, "neigh", "replace", self.own, "lladdr", _NOBODY, "dev", _CARD, "nud", "permanent")

    def mend(self) -> None:
        """Let all packets through again."""
        _ip("neigh", "replace", self.other, "lladdr", _OTHER, "dev", self.card, "nud", "permanent")
        _ip("-n", self.name, "neigh", "replace", self.own, "lladdr", _OWN, "dev", _CARD, "nud", "permanent")


@contextmanager
def cut_network() -> Iterator[CutNetwork]:
    """Give a network that is whole.

    Raises:
        NoNetworkError: None can be made here.
    """
    if shutil.which("ip") is None:
        raise NoNetworkError(REASON)
    number = next(_names)
    place = (os.getpid() * 8 + number) % 2**15 * 4  # of networks of four addresses, of which the first and the last are not used
    base = f"198.{18 + (place >> 16)}.{place >> 8 & 255}"
    network = CutNetwork(
        f"test-{os.getpid()}-{number}", f"t{os.getpid()}n{number}"[:15], f"{base}.{place % 256 + 1}", f"{base}.{place % 256 + 2}"
    )
    _ip("netns", "add", network.name)
    try:
        _ip("link", "add", network.card, "address", _OWN, "type", "veth", "peer", "name", _CARD, "address", _OTHER, "netns", network.name)
        _ip("addr", "add", f"{network.own}/30", "dev", network.card)
        _ip("-n", network.name, "addr", "add", f"{network.other}/30", "dev", _CARD)
        for end in (("link", "set", network.card), ("-n", network.name, "link", "set", _CARD), ("-n", network.name, "link", "set", "lo")):
            _ip(*end, "up")
        network.mend()
        yield network
    finally:
        with contextlib.suppress(NoNetworkError):  # it goes with its other end
            _ip("link", "del", network.card)
        _ip("netns", "del", network.name)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoNetworkError(f"no network can be made here: {done.stderr.strip()}")


_CARD = "cut0"  # in the namespace
