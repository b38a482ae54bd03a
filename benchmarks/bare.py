"""What the wire alone costs: the same bytes between as many processes, averaged, and nothing else.

    python -m benchmarks.bare tls|grpc server KEYS MODEL ROUNDS SITES     prints its port, then the time of each average
    python -m benchmarks.bare tls|grpc site KEYS PORT MODEL_BYTES ROUNDS

Each round the server sends its model to every site, every site sends it back, and the server averages what came (in
float64, in blocks, site by site). Mutual TLS with the federation's own certificates, one connection to a site, buffers
made once. No digest, no disk, no check of what arrives, no answer that is remembered: no federation could run so.

    tls     sockets of the standard library, 1 MiB at a time
    grpc    two streaming calls of raw bytes, messages of 1 MiB, the synchronous interface
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks.payloads import number_at

CHUNK_BYTES = 1 << 20
BLOCK_NUMBERS = 65_536
LIMITS = [("grpc.max_receive_message_length", 4 << 20), ("grpc.max_send_message_length", 4 << 20)]


class Rounds:
    """The server's model, a buffer for every site, and the average of them."""

    def __init__(self, model: Path, sites: int) -> None:
        self.model = bytearray(model.read_bytes())
        self.inboxes = [bytearray(len(self.model)) for _ in range(sites)]
        self.averaged_at: list[float] = []
        self._data_start = number_at(model)
        self._all_here = threading.Barrier(sites, action=self._average)

    def turn(self) -> None:
        """Say that a site's model is here; returns when all were averaged."""
        self._all_here.wait()

    def _average(self) -> None:
        models = [np.frombuffer(inbox, np.float32, offset=self._data_start) for inbox in self.inboxes]
        out = np.frombuffer(self.model, np.float32, offset=self._data_start)
        total, term = np.empty((2, BLOCK_NUMBERS))
        for start in range(0, len(out), BLOCK_NUMBERS):
            span = slice(start, start + BLOCK_NUMBERS)
            count = len(out[span])
            np.multiply(models[0][span], 1.0, out=total[:count], dtype=np.float64)
            for model in models[1:]:
                np.multiply(model[span], 1.0, out=term[:count], dtype=np.float64)
                total[:count] += term[:count]
            total[:count] /= len(models)
            np.copyto(out[span], total[:count], casting="same_kind")
        self.averaged_at.append(time.time())


def parts(data: bytearray) -> Iterator[memoryview]:
    """Yield the chunks of a buffer, without copying."""
    view = memoryview(data)
    for start in range(0, len(data), CHUNK_BYTES):
        yield view[start : start + CHUNK_BYTES]


def fill(data: bytearray, chunks: Iterable[bytes]) -> None:
    """Copy what arrives into a buffer."""
    view, at = memoryview(data), 0
    for chunk in chunks:
        view[at : at + len(chunk)] = chunk
        at += len(chunk)


# --- sockets ---


def tls_server(keys: Path, rounds: Rounds, count: int) -> None:
    """Serve every site in a thread of its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / "server.crt", keys / "server.key")
    context.load_verify_locations(keys / "authority.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listener:
        say(listener.getsockname()[1])
        lines = [context.wrap_socket(listener.accept()[0], server_side=True) for _ in rounds.inboxes]
        each(lambda number: _tls_serve(lines[number], rounds, number, count), len(lines))


def _tls_serve(line: ssl.SSLSocket, rounds: Rounds, number: int, count: int) -> None:
    for _ in range(count):
        send(line, rounds.model)
        receive(line, rounds.inboxes[number])
        rounds.turn()
    line.close()


def tls_site(keys: Path, port: int, model_bytes: int, count: int) -> None:
    """Take the model and send it back, so many times."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(keys / "site.crt", keys / "site.key")
    context.load_verify_locations(keys / "authority.crt")
    model = bytearray(model_bytes)
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost") as line:
        for _ in range(count):
            receive(line, model)
            send(line, model)


def send(line: ssl.SSLSocket, data: bytearray) -> None:
    """Send a buffer, chunk by chunk."""
    for part in parts(data):
        line.sendall(part)


def receive(line: ssl.SSLSocket, data: bytearray) -> None:
    """Fill a buffer."""
    view = memoryview(data)
    while view:
        count = line.recv_into(view[:CHUNK_BYTES])
        if not count:
            raise ConnectionError("the connection was cut")
        view = view[count:]


# --- gRPC ---


def grpc_server(keys: Path, rounds: Rounds, count: int) -> None:
    """Serve two streaming calls until every site has had its rounds."""
    credentials = grpc.ssl_server_credentials(
        [((keys / "server.key").read_bytes(), (keys / "server.crt").read_bytes())],
        (keys / "authority.crt").read_bytes(),
        require_client_auth=True,
    )
    sites = len(rounds.inboxes)
    left = threading.Semaphore(0)

    def down(_request: bytes, _context: grpc.ServicerContext) -> Iterator[bytes]:
        yield from map(bytes, parts(rounds.model))

    def up(chunks: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        number = int(dict(context.invocation_metadata())["number"])
        fill(rounds.inboxes[number], chunks)
        rounds.turn()
        left.release()
        return b""

    table = {"Down": grpc.unary_stream_rpc_method_handler(down), "Up": grpc.stream_unary_rpc_method_handler(up)}
    server = grpc.server(ThreadPoolExecutor(2 * sites + 2), options=LIMITS)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bare", table)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    say(port)
    for _ in range(sites * count):
        left.acquire()
    server.stop(grace=5).wait()


def grpc_site(keys: Path, port: int, model_bytes: int, count: int) -> None:
    """Take the model and send it back, so many times."""
    pems = ((keys / name).read_bytes() for name in ("authority.crt", "site.key", "site.crt"))
    credentials = grpc.ssl_channel_credentials(*pems)
    number = keys.parent.name.removeprefix("site")
    model = bytearray(model_bytes)
    with grpc.secure_channel(f"localhost:{port}", credentials, options=LIMITS) as channel:
        down: Any = channel.unary_stream("/bare/Down")
        up: Any = channel.stream_unary("/bare/Up")
        for _ in range(count):
            fill(model, down(b""))
            up(map(bytes, parts(model)), metadata=(("number", number),))


# --- both ---


def each(work: Callable[[int], None], count: int) -> None:
    """Do the work for every number below `count` at once; an error in any ends with it."""
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))


def say(value: object) -> None:
    """Print a line for the program that started this one."""
    print(json.dumps(value), flush=True)


SERVERS = {"tls": tls_server, "grpc": grpc_server}
SITES = {"tls": tls_site, "grpc": grpc_site}


def main() -> None:
    """Be a server or a site."""
    kind, role, keys, *rest = sys.argv[1:]
    if role == "server":
        model, count, sites = Path(rest[0]), int(rest[1]), int(rest[2])
        rounds = Rounds(model, sites)
        SERVERS[kind](Path(keys), rounds, count)
        say(rounds.averaged_at)
    else:
        SITES[kind](Path(keys), *map(int, rest))


if __name__ == "__main__":
    main()
