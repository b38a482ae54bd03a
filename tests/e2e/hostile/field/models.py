"""Attacks of a site that takes part: models that fill, cost or spoil something, and numbers that are not true."""

from __future__ import annotations

import hashlib
import json
import math
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from safetensors.numpy import load, save

from fedcervix.wire import federation_pb2 as wire
from tests.e2e.hostile.field.attacker import ATTACH, FETCH, OFFER, PUSH, REPORT, WIRE_VERSION, Attacker
from tests.e2e.hostile.field.frames import Headers, Line, message

State = dict[str, np.ndarray]
VARIANCE = 1e4
"""so large that what honest sites add to it keeps it positive"""
CHUNK_BYTES = 1 << 18
ANSWERS = wire.ReportReply.Answer


def first_model(numbers: int) -> State:
    """Return a model with the statistics of a layer, as a network has them."""
    chance = np.random.default_rng(0)
    return {
        "bn1.num_batches_tracked": np.zeros((), np.int64),
        "bn1.running_mean": np.zeros(64, np.float32),
        "bn1.running_var": np.full(64, VARIANCE, np.float32),
        "weight": chance.standard_normal(numbers).astype(np.float32),
    }


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Participant:
    """A site that takes part, on one connection."""

    me: Attacker
    line: Line
    _stream: int = 0
    _heard: int = 0
    """messages of the stream that were looked at"""

    def attach(self) -> None:
        """Come, and accept whatever the plan is. Raises OSError where that is refused."""
        request = wire.AttachRequest(wire_version=WIRE_VERSION, instance=self.me.instance)
        self._stream = self.line.call(ATTACH, request.SerializeToString())
        said = self._news()
        if not said:
            raise ConnectionError("not let in")
        welcome = said[0].welcome
        self.report(ready=wire.Ready(run=welcome.run, plan_digest=digest_of(welcome.plan.encode())))
        self.me.say("attached")

    def tasks(self) -> Iterator[wire.Task]:
        """Yield what this site is asked to do, until time is up or the stream ends."""
        while said := self._news():
            if said[-1].HasField("task"):  # a newer instruction replaces an older one
                yield said[-1].task

    def _news(self) -> list[wire.FromCoordinator]:
        """Wait for what was not heard yet; nothing where time is up or the stream has ended."""
        while self.me.goes_on():
            there = self.line.messages(self._stream)
            if len(there) > self._heard:
                news, self._heard = there[self._heard :], len(there)
                return [wire.FromCoordinator.FromString(data) for data in news]
            if self._stream in self.line.ended:
                break
            self.line.pump(min(0.5, self.me.left_s))
        return []

    def call(self, path: str, data: bytes, headers: Headers = ()) -> bytes | None:
        return self.line.answer(self.line.call(path, data, [*self.me.who, *headers]))

    def report(self, **what: object) -> str:
        """Say something; return the answer's name, or "not answered"."""
        reply = self.call(REPORT, wire.FromSite(at=time.time(), **what).SerializeToString())  # type: ignore[arg-type]
        if reply is None:
            return "not answered"
        return ANSWERS.Name(wire.ReportReply.FromString(reply).answer).removeprefix("ANSWER_").lower()

    def fetch(self, digest: str) -> bytes:
        """Return a model. Raises OSError where it is not given."""
        stream = self.line.call(FETCH, wire.BlobRequest(digest=digest).SerializeToString(), self.me.who)
        self.line.answer(stream)
        data = b"".join(self.line.messages(stream))
        if digest_of(data) != digest:
            raise ConnectionError("no model came")
        return data

    def push(self, data: bytes, *, until_bytes: int | None = None) -> bool:
        """Send a model, or its beginning; say whether it arrived."""
        digest = digest_of(data)
        offer = wire.OfferRequest(digest=digest, size_bytes=len(data)).SerializeToString()
        reply = self.call(OFFER, offer)
        if reply is None:
            return False
        offset = wire.OfferReply.FromString(reply).offset
        if offset == len(data):
            return True
        place = {"fedcervix-digest": digest, "fedcervix-offset": str(offset), "fedcervix-size": str(len(data))}
        stream = self.line.open(PUSH, [*self.me.who, *place.items()])
        end = len(data) if until_bytes is None else min(until_bytes, len(data))
        for at in range(offset, end, CHUNK_BYTES):
            self.line.write(stream, message(data[at : min(at + CHUNK_BYTES, end)]))
        if until_bytes is not None:
            self.line.reset(stream)
            return False
        self.line.write(stream, b"", ends=True)
        return self.line.answer(stream) is not None

    def update(self, asked: wire.Task, digest: str, **numbers: object) -> str:
        """Report a model."""
        said = {"images": 10, "steps": 5, "loss": 1.0, "seconds": 0.1, **numbers}
        return self.report(update=wire.Update(task=asked, digest=digest, **said))  # type: ignore[arg-type]

    def score(self, asked: wire.Task, **numbers: object) -> str:
        """Report a score."""
        said = {"loss_sum": 4.0, "count": 4, "images": 10, "gauges": {"unit_std": 0.5}, **numbers}
        return self.report(score=wire.Score(task=asked, **said))  # type: ignore[arg-type]


Train = Callable[[Participant, wire.Task], None]
Score = Callable[[Participant, wire.Task], object]


def take_part(me: Attacker, train: Train, score: Score = Participant.score) -> None:
    """Do what a site does, but training and scoring as the attack has it."""

    def work(line: Line) -> None:
        site = Participant(me, line)
        site.attach()
        for asked in site.tasks():
            if asked.kind == wire.Task.KIND_SCORE:
                score(site, asked)
            elif asked.kind == wire.Task.KIND_SEED:
                data = save(first_model(me.numbers))
                site.push(data)
                me.counts[f"first model {site.update(asked, digest_of(data))}"] += 1
            else:
                train(site, asked)
        me.wait(0.2)

    me.persist(work)


def moved(base: State, seed: int) -> State:
    """Return what an honest site would send."""
    chance = np.random.default_rng(seed)
    return {
        name: values + chance.standard_normal(values.shape).astype(np.float32)
        if values.dtype == np.float32 and not name.endswith("running_var")
        else values
        for name, values in base.items()
    }


def honest(site: Participant, asked: wire.Task) -> None:
    """Send what is wanted, and say so."""
    data = save(moved(load(site.fetch(asked.base)), site.me.chance.getrandbits(32)))
    if site.push(data):
        site.me.counts[f"honest updates {site.update(asked, digest_of(data))}"] += 1


# --- poison -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Poison:
    """What is wrong with an update: its weights, or the numbers that it comes with."""

    weights: Callable[[State], State] = lambda base: moved(base, 1)
    numbers: Mapping[str, object] = field(default_factory=dict)


def _negative(base: State) -> State:
    variance = base["bn1.running_var"].copy()
    variance[0] = -1e6
    return {**moved(base, 1), "bn1.running_var": variance}


def _huge_step(base: State) -> State:
    return {**moved(base, 1), "weight": np.full_like(base["weight"], 1e30)}


def _one_huge(base: State) -> State:
    weight = base["weight"].copy()
    weight[0] = 3e38
    return {**moved(base, 1), "weight": weight}


def _not_finite(base: State) -> State:
    weight = base["weight"].copy()
    weight[-1] = math.nan
    return {**moved(base, 1), "weight": weight}


POISONS: dict[str, Poison] = {
    "negative variance": Poison(_negative),
    "step of 1e30": Poison(_huge_step),
    "one number of 3e38": Poison(_one_huge),
    "NaN": Poison(_not_finite),
    "the base itself": Poison(dict),
    "variance of 0": Poison(lambda base: {**moved(base, 1), "bn1.running_var": np.zeros(64, np.float32)}),
    "sign turned": Poison(lambda base: {**moved(base, 1), "weight": -1e3 * base["weight"]}),
    "2^31 images": Poison(numbers={"images": 2**31}),
    "2^63 images": Poison(numbers={"images": 2**63}),
    "loss of -1e308": Poison(numbers={"loss": -1e308}),
    "loss of 1e308": Poison(numbers={"loss": 1e308}),
    "steps of 2^63": Poison(numbers={"steps": 2**63}),
    "seconds of -1": Poison(numbers={"seconds": -1.0}),
}
BAD_SCORES: dict[str, dict[str, object]] = {
    "score of -1e308": {"loss_sum": -1e308},
    "score of 1e308": {"loss_sum": 1e308},
    "score of 2^63 images": {"count": 2**63},
    "score of no images": {"count": 0},
    "gauge of 1e308": {"gauges": {"unit_std": 1e308}},
}


def poison(me: Attacker) -> None:
    """Make the first model; then in each task try every poison until one is taken, and else send an honest update."""
    earlier: list[bytes] = []

    def train(site: Participant, asked: wire.Task) -> None:
        raw = site.fetch(asked.base)
        base = load(raw)
        kinds = {name: (save(kind.weights(base)), kind.numbers) for name, kind in POISONS.items()}
        if earlier and earlier[0] != raw:
            kinds["an earlier model"] = (earlier[0], {})
        for name, (data, numbers) in me.chance.sample(list(kinds.items()), len(kinds)):
            if not me.goes_on() or me.counts[f"accepted {name}"]:
                continue
            answer = "not taken" if not site.push(data) else _said(site, asked, data, numbers)
            me.counts[f"{answer} {name}"] += 1
            if answer == "accepted":
                break
        else:
            honest(site, asked)
        earlier.append(raw)

    take_part(me, train)


def _said(site: Participant, asked: wire.Task, data: bytes, numbers: Mapping[str, object]) -> str:
    try:
        return site.update(asked, digest_of(data), **numbers)
    except ValueError:  # the message itself cannot say so
        return "unsayable"


def bad_scores(me: Attacker) -> None:
    """Train honestly, and report scores that cannot be."""

    def score(site: Participant, asked: wire.Task) -> None:
        for name, numbers in BAD_SCORES.items():
            me.counts[f"{site.score(asked, **numbers)} {name}"] += 1
        site.score(asked)

    take_part(me, honest, score)


def takes_part_honestly(me: Attacker) -> None:
    """Do what a site does: no attack, but what others are compared with."""
    take_part(me, honest)


# --- models that cost ---------------------------------------------------------------------------------------------


UNREPORTED = 30


def blobs_never_reported(me: Attacker) -> None:
    """Send one model after the other for each task, and report only the last."""

    def train(site: Participant, asked: wire.Task) -> None:
        base = site.fetch(asked.base)
        for _ in range(UNREPORTED):
            me.counts["models"] += me.goes_on() and site.push(base[:-16] + me.chance.randbytes(16))
        honest(site, asked)

    take_part(me, train)


HEADER_TENSORS, NAME_CHARS = 95_000, 80


def long_header() -> bytes:
    """Return a safetensors file of 13 MB of header and little else: as many tensors as it may name."""
    ends = range(4, 4 * HEADER_TENSORS + 4, 4)
    tensors = {f"{end:0{NAME_CHARS}}": {"dtype": "F32", "shape": [1], "data_offsets": [end - 4, end]} for end in ends}
    text = json.dumps(tensors, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * 4 * HEADER_TENSORS


def long_headers(me: Attacker) -> None:
    """Send a model of 13 MB of header once, and report it again and again."""
    data = long_header()

    def train(site: Participant, asked: wire.Task) -> None:
        if not site.push(data):
            me.counts["models not taken"] += 1
            me.wait(0.2)
            return
        for _ in range(20):
            if not me.goes_on():
                return
            me.counts[f"reports {site.update(asked, digest_of(data))}"] += 1
        honest(site, asked)

    take_part(me, train)


def cut_pushes(me: Attacker) -> None:
    """Begin to send a model and cut it, again and again, from where it was cut."""

    def train(site: Participant, asked: wire.Task) -> None:
        base = site.fetch(asked.base)
        ends_s = time.monotonic() + 2.0
        while me.goes_on() and time.monotonic() < ends_s:
            data = base[:-16] + me.chance.randbytes(16)
            site.push(data, until_bytes=len(data) - 1)
            me.counts["cut pushes"] += 1
        honest(site, asked)

    take_part(me, train)


def slow_pushes(me: Attacker) -> None:
    """Send a model byte by byte, on as many calls as go."""

    def train(site: Participant, asked: wire.Task) -> None:
        base = site.fetch(asked.base)
        streams = []
        for _ in range(20):
            data = base[:-16] + me.chance.randbytes(16)
            place = {"fedcervix-digest": digest_of(data), "fedcervix-offset": "0", "fedcervix-size": str(len(data))}
            streams.append(site.line.open(PUSH, [*me.who, *place.items()]))
        ends_s = time.monotonic() + 3.0
        while me.goes_on() and time.monotonic() < ends_s:
            for stream in streams:
                site.line.write(stream, message(b"x"))
            site.line.pump(0.2)
        for stream in streams:
            site.line.reset(stream)
        honest(site, asked)

    take_part(me, train)


def fetches_that_are_not_read(me: Attacker) -> None:
    """Ask for the model on many calls, with a window of 0."""

    def work(line: Line) -> None:
        site = Participant(me, line)
        site.attach()
        for asked in site.tasks():
            if not asked.base:
                return
            unread = Line(me.door, window=0)
            try:
                for _ in range(40):
                    unread.call(FETCH, wire.BlobRequest(digest=asked.base).SerializeToString(), me.who)
                    me.counts["fetches"] += 1
                unread.pump(0.5)
            finally:
                unread.close()
            if asked.kind == wire.Task.KIND_SCORE:
                site.score(asked)
            else:
                honest(site, asked)

    me.persist(work)
