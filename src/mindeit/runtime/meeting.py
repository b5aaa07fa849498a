"""Ranks wait for each other over plain sockets, without a time limit: MindSpore's collectives have one.

On CPU a rank that waits in a collective fails after 30 s (MindSpore 2.7 to 2.9) or ``MS_CPU_COMM_OP_TIMEOUT`` (2.10),
on Ascend after half an hour. So ranks meet here first, and enter a collective together.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NoReturn

from mindeit.errors import UserError

_PLACE_BYTES = 256
_LENGTH_BYTES = 8
_SECONDS_TO_CONNECT = 60
_SECONDS_TO_BE_ENDED = 30  # a rank that left ends all: the launcher is about to end this one, and names the other


class Meeting:
    """``share`` gives every rank what rank 0 passes, of ``_PLACE_BYTES`` bytes; all ranks make their meeting together.

    Rank 0 has a connection to each of the others, they have one to it.
    """

    def __init__(self, rank: int, ranks: int, share: Callable[[bytes], bytes], *, one_machine: bool) -> None:
        self.rank = rank
        if rank == 0:
            with _listen(one_machine) as server:
                address, port = server.getsockname()[:2]
                key = secrets.token_hex(16)
                place = json.dumps({"address": address, "port": port, "key": key})
                share(place.encode().ljust(_PLACE_BYTES))
                self._connections = _accept(server, ranks, key)
        else:
            found = _place(rank, share(bytes(_PLACE_BYTES)))
            self._connections = {0: _connect(rank, (found["address"], found["port"]), found["key"])}

    def gather(self, word: bytes = b"") -> list[bytes]:
        """On rank 0 the messages of all ranks, once all have come; the others return at once, then call `release`."""
        if self.rank:
            self._connections[0].send(word)
            return []
        return [word, *(line.receive() for _, line in sorted(self._connections.items()))]

    def release(self) -> None:
        """Rank 0 lets the others continue."""
        for line in self._connections.values():
            if self.rank:
                line.receive()
            else:
                line.send(b"")

    def wait(self) -> None:
        """Return once every rank is here."""
        self.gather()
        self.release()


def disagreements(values: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is not the same on all ranks: "lr is 0.02 on rank 0, 0.5 on rank 1, 2"."""
    found = []
    for key in dict.fromkeys(key for own in values for key in own):
        ranks: dict[str, list[str]] = {}
        for rank, own in enumerate(values):
            ranks.setdefault(str(own.get(key)), []).append(str(rank))
        if len(ranks) > 1:
            found.append(f"{key} is " + ", ".join(f"{value} on rank {', '.join(who)}" for value, who in ranks.items()))
    return found


def _place(rank: int, shared: bytes) -> dict[str, Any]:
    """Where rank 0 listens."""
    try:
        return json.loads(shared)
    except ValueError:
        raise UserError(f"rank {rank} got no address from rank 0: what the devices broadcast does not arrive") from None


class _Connection:
    """Messages between two ranks."""

    def __init__(self, other: int, connection: socket.socket) -> None:
        self._other, self._connection = other, connection
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(None)

    def send(self, word: bytes) -> None:
        try:
            self._connection.sendall(len(word).to_bytes(_LENGTH_BYTES, "big") + word)
        except OSError:
            self._left()

    def receive(self) -> bytes:
        try:
            return _read(self._connection, int.from_bytes(_read(self._connection, _LENGTH_BYTES), "big"))
        except OSError:
            self._left()

    def _left(self) -> NoReturn:
        time.sleep(_SECONDS_TO_BE_ENDED)
        raise UserError(f"rank {self._other} has left; its own output says why")


def _read(connection: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        part = connection.recv(min(length - len(parts), 2**20))
        if not part:
            raise ConnectionResetError
        parts += part
    return bytes(parts)


def _listen(one_machine: bool) -> socket.socket:
    """At the address by which the others reach the scheduler, if that is this machine's, else its main one."""
    named = os.environ.get("MS_SCHED_HOST")
    for address in filter(None, (named, "127.0.0.1" if one_machine else None)):
        try:
            return socket.create_server((address, 0), backlog=socket.SOMAXCONN)
        except OSError:  # another machine's
            pass
    return socket.create_server((own_address(), 0), backlog=socket.SOMAXCONN)


def _accept(server: socket.socket, ranks: int, key: str) -> dict[int, _Connection]:
    """A connection to each of the others; clients without the key are refused."""
    connections: dict[int, _Connection] = {}
    server.settimeout(_SECONDS_TO_CONNECT)
    while len(connections) < ranks - 1:
        try:
            connection, _ = server.accept()
        except OSError:  # in Python 3.9 socket.timeout is no TimeoutError
            missing = ", ".join(str(rank) for rank in range(1, ranks) if rank not in connections)
            raise UserError(
                f"rank {missing} did not reach rank 0 at {server.getsockname()[0]} within "
                f"{_SECONDS_TO_CONNECT} s; MS_SCHED_HOST names another address of its machine"
            ) from None
        connection.settimeout(_SECONDS_TO_CONNECT)
        try:
            sent_key, rank = (
                _read(connection, len(key)).decode(),
                int.from_bytes(_read(connection, _LENGTH_BYTES), "big"),
            )
        except (OSError, UnicodeDecodeError):
            continue
        if secrets.compare_digest(sent_key, key):
            connections[rank] = _Connection(rank, connection)
    return connections


def _connect(rank: int, place: tuple[str, int], key: str) -> _Connection:
    try:
        connection = socket.create_connection(place, timeout=_SECONDS_TO_CONNECT)
        connection.sendall(key.encode() + rank.to_bytes(_LENGTH_BYTES, "big"))
    except OSError as error:
        raise UserError(
            f"rank {rank} cannot reach rank 0 at {place[0]}, port {place[1]} ({error.strerror or error}); "
            "MS_SCHED_HOST names another address of its machine"
        ) from None
    return _Connection(0, connection)


def own_address() -> str:
    """The number by which other nodes reach this one (MindSpore takes no names); connecting UDP sends nothing."""
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.connect(("10.255.255.255", 1))
        return probe.getsockname()[0]
