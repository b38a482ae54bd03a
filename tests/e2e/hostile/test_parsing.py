"""What one site sends costs little to refuse, however often it is said: CPU, memory and log lines."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedcervix.core.events import Answer, Task, TaskKind, UpdateStored
from fedcervix.disk.files import digest_file
from fedcervix.errors import RemoteError
from fedcervix.models.blobs import BlobStore
from fedcervix.models.weights import write_tensors
from fedcervix.transport import codec, rpc
from fedcervix.transport.versions import HERE
from fedcervix.wire import federation_pb2 as wire
from site_agent.federation.link import GrpcLink
from tests.e2e.loopback import Federation, Process

pytestmark = pytest.mark.timeout(120)

SITES = ("nhs", "mallory")
NUMBERS = 2_000_000
HEADER_BYTES = 13_700_000
REPORTS = 20


def cpu_s(process: Process) -> float:
    """Return the processor seconds that a process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_bytes(process: Process) -> int:
    [line] = [line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])


def long_header() -> bytes:
    """Return a file whose header names more tensors than any model has."""
    entries, text_bytes = [], 0
    while text_bytes < HEADER_BYTES:
        entries.append(f'"{len(entries):0100}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}')
        text_bytes += len(entries[-1]) + 1
    header = f"{{{','.join(entries)}}}".encode()
    return struct.pack("<Q", len(header)) + header


def joined(made: Federation) -> dict[str, GrpcLink]:
    """Return the lines of all sites, which have accepted the plan."""
    lines = {}
    for site in made.sites:
        made.enrol(site)
        lines[site] = made.link(site)
        welcome = lines[site].welcome()
        assert isinstance(welcome, codec.Welcome)
        lines[site].report(codec.Ready(welcome.run, welcome.plan.digest))
    return lines


def run_of(line: GrpcLink) -> str:
    welcome = line.welcome()
    assert isinstance(welcome, codec.Welcome)
    return welcome.run


class Models:
    """What a site sends, made by hand."""

    def __init__(self, folder: Path) -> None:
        self.blobs = BlobStore(folder)

    def made(self, value: float, numbers: int = NUMBERS) -> str:
        making = self.blobs.scratch("model")
        digest = write_tensors(making, {"w": np.full(numbers, value, np.float32)})
        self.blobs.adopt(making, digest)
        return digest

    def of_bytes(self, content: bytes) -> str:
        making = self.blobs.scratch("model")
        making.write_bytes(content)
        digest = digest_file(making)
        self.blobs.adopt(making, digest)
        return digest

    def push(self, line: GrpcLink, digest: str) -> None:
        line.push(digest, self.blobs, lambda _done, _of: None)

    def report(self, line: GrpcLink, site: str, task: Task, digest: str) -> tuple[Answer, str]:
        return line.report(UpdateStored(site, task, digest, 10, 1, 0.5, 1.0, 0.0))

    def seeded(self, lines: dict[str, GrpcLink], numbers: int = NUMBERS) -> Task:
        """Have the first site make the first model; return the task that follows from it."""
        run, first = run_of(lines["nhs"]), self.made(0.0, numbers)
        self.push(lines["nhs"], first)
        assert self.report(lines["nhs"], "nhs", Task(run, TaskKind.SEED, 0, ""), first)[0] is Answer.ACCEPTED
        return Task(run, TaskKind.TRAIN, 1, first)


def test_a_header_that_no_model_has_costs_next_to_nothing_however_often_it_is_reported(
    federate: Callable[..., Federation],
) -> None:
    """Before: 1.6 s of CPU for each report of 150 bytes, and 562 MB of memory."""
    made = federate(sites=SITES, terms={"quorum": 1, "grace_s": 0.0})
    process, models = made.coordinate("--mode", "csfssl"), Models(made.folder / "models")
    lines = joined(made)
    task = models.seeded(lines)
    bad = models.of_bytes(long_header())
    models.push(lines["mallory"], bad)
    before_s, before_bytes, words = cpu_s(process), peak_bytes(process), set()
    for _ in range(REPORTS):
        with pytest.raises(RemoteError) as refused:
            models.report(lines["mallory"], "mallory", task, bad)
        words.add(refused.value.what)
    assert len(words) == 1
    assert "not a valid weights file: its header claims" in words.pop()
    assert (cpu_s(process) - before_s) / REPORTS < 0.2
    assert peak_bytes(process) - before_bytes < 50 * 2**20
    models.push(lines["nhs"], honest := models.made(1.0))
    assert models.report(lines["nhs"], "nhs", task, honest)[0] is Answer.ACCEPTED


def test_long_texts_make_short_lines_and_a_flood_of_them_few(federate: Callable[..., Federation]) -> None:
    """Before: 304 MB of log by 10 s of reports, each with a text of 16 KB or more."""
    made = federate(sites=SITES, terms={"quorum": 1, "grace_s": 0.0})
    process = made.coordinate("--mode", "csfssl")
    made.enrol("mallory")
    home = made.site("mallory")
    pems = {"authority_pem": "authority.crt", "certificate_pem": "site.crt", "key_pem": "site.key"}
    who = ((rpc.INSTANCE_KEY, "a" * 32),)
    with rpc.channel(f"localhost:{made.port}", **{part: home.pem(file) for part, file in pems.items()}) as channel:
        hello = wire.AttachRequest(wire_version=HERE.wire_max, instance="a" * 32)
        stream = rpc.stub(channel, rpc.ATTACH)(hello, timeout=60, wait_for_ready=True)
        task = wire.Task(run=next(stream).welcome.run, kind=wire.Task.KIND_TRAIN, round=1, base="b" * 64)
        texts = [wire.FromSite(update=wire.Update(task=task, digest="\\" * 3_500_000, images=1))] * 11
        texts += [wire.FromSite(update=wire.Update(task=task, digest="\U0001f600" * 4096, images=1))] * 400
        for message in texts:
            with pytest.raises(rpc.grpc.RpcError) as refused:
                rpc.stub(channel, rpc.REPORT)(message, timeout=60, metadata=who)
            assert len(refused.value.details() or "") < 8192
        stream.cancel()
    log = process.text
    lines = [line for line in log.splitlines() if "call refused" in line]
    assert max(map(len, log.splitlines())) <= 2100
    assert len(lines) <= 400
    assert len(log) < 600_000
