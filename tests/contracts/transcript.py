"""A conversation as text: one block per message, every field by its name, nothing that varies from run to run.

Rules
1. The fields are asked of the message (protobuf's reflection): a new one appears here by itself.
2. What varies and says nothing (times, versions, tokens, the ports of this machine) is replaced by a word in `<>`.
3. Of keys and certificates, whose they are; of models, how many bytes, in which chunks, and their SHA-256.
4. A JSON document within a message is laid out over lines; said again, it is `<the document above>`.
5. Headers that are ours stand above the fields, as `header NAME: VALUE`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

GOLDEN = Path(__file__).parents[1] / "golden"
RENEWS = "python -m pytest tests/contracts --rewrite"
MARK = "=== "
"""begins a block"""
INDENT = "  "

VARYING = {
    **dict.fromkeys(
        ("at", "since", "until", "now", "begun_at", "ended_at", "lease_ends_at", "cut_at", "mended_at", "heard_at"),
        "<time>",
    ),
    **dict.fromkeys(("left_low_s", "left_high_s"), "<seconds>"),
    **dict.fromkeys(("calls_open", "calls_refused", "connections", "received_bytes", "sent_bytes"), "<count>"),
    **dict.fromkeys(("software", "software_version"), "<version>"),
    **dict.fromkeys(("instance", "fedcervix-instance"), "<token>"),
    "hash": "<hash of an entry>",
}
"""fields, headers and keys of JSON documents that are other in each run, and what stands in their place"""
WITHIN = {
    re.compile(r"localhost:\d+"): "<here>",
    re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"): "<time>",
    re.compile(r"\bfedcervix \d[0-9A-Za-z.+-]*"): "fedcervix <version>",
}
"""the same for what stands within a text"""


DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
DER = re.compile(r"\b304[4-6]02[0-9a-f]{134,138}\b")
"""a signature as text"""

P_256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
"""how a SubjectPublicKeyInfo of that kind begins"""


def _entry(text: str) -> str:
    """Say what an entry of a ledger is: its hash and times are other in each run."""
    entry = json.loads(text)
    what = json.loads(entry["event"]) if "event" in entry else entry
    told = [entry["kind"], *filter(None, [what.get("event"), what.get("site")])]
    return f"<entry {entry['entry']}, round {entry['round']}: {' '.join(told)}>"


def _head(text: str) -> str:
    head = json.loads(text)
    return f"<head of round {head['round']}: {head['entries']} entries, their hash>"


SIGNED: Mapping[str, Callable[[str], str]] = {
    "signature": lambda _: "<signature>",
    "countersignature": lambda _: "<signature>",
    "ledger_key": lambda _: "<PEM: public key>",
    "head": _head,
    "text": _entry,
}
"""fields of bytes that are other in each run, or texts of a ledger -> what is said of them"""
NONE: Mapping[str, str] = {}


class Transcript:
    """The blocks so far. Not thread-safe: its owner holds a lock."""

    def __init__(self, remark: str, *, secret: bool = False) -> None:
        self._lines = [f"# {line}".rstrip() for line in remark.strip().splitlines()]
        self._said: list[Any] = []
        self._digests: dict[str, str] | None = {} if secret else None
        """of a run that draws keys: digests follow from them, so each has a number, as they came; None: of others"""

    def text(self) -> str:
        """Return the whole file."""
        return "\n".join(self._lines) + "\n"

    def message(self, head: str, message: Message, headers: Mapping[str, str] = NONE) -> None:
        """Add a message."""
        self._block(f"{head}: {message.DESCRIPTOR.name}", [*_headers(headers), *self._fields(message)])

    def chunks(self, head: str, chunks: Sequence[bytes], headers: Mapping[str, str] = NONE) -> None:
        """Add a stream of raw chunks, as it arrived."""
        whole = b"".join(chunks)
        sizes = " + ".join(str(len(chunk)) for chunk in chunks) or "none"
        lines = [f"chunks: {sizes}", f"bytes: {len(whole)}", f"sha256: {hashlib.sha256(whole).hexdigest()}"]
        self._block(f"{head}: raw chunks", [*_headers(headers), *lines])

    def refusal(self, head: str, code: str, details: str) -> None:
        """Add a call that ended with an error: its status code, and its details (what, cause, next step)."""
        lines = [json.dumps(_masked(text), ensure_ascii=False) for text in json.loads(details)]
        self._block(f"{head}: {code}", ["details:", *(INDENT + line for line in lines)])

    def _block(self, title: str, lines: list[str]) -> None:
        self._lines += ["", MARK + title, *(self._numbered(line).rstrip() for line in lines)]

    def _numbered(self, line: str) -> str:
        known = self._digests
        if known is None:
            return line
        line = DER.sub("<signature>", line)
        return DIGEST.sub(lambda found: known.setdefault(found[0], f"<digest {len(known) + 1}>"), line)

    # --- fields ---

    def _fields(self, message: Message) -> Iterator[str]:
        """Yield the lines of a message: every field that is set, and every one that counts as said when it is not."""
        for field in message.DESCRIPTOR.fields:
            if not field.has_presence or message.HasField(field.name):
                yield from self._field(field, getattr(message, field.name))

    def _field(self, field: FieldDescriptor, value: Any) -> Iterator[str]:
        if field.name in VARYING and value:
            yield f"{field.name}: {VARYING[field.name]}"
        elif field.is_repeated:
            yield from self._several(field, value)
        elif field.message_type is not None:
            yield f"{field.name}:"
            yield from (INDENT + line for line in self._fields(value))
        else:
            first, *more = self._scalar(field, value)
            yield f"{field.name}: {first}"
            yield from more

    def _several(self, field: FieldDescriptor, values: Any) -> Iterator[str]:
        yield f"{field.name}:"
        if isinstance(values, Mapping):
            yield from (f"{INDENT}{json.dumps(key)}: {values[key]!r}" for key in sorted(values))
            return
        for value in values:
            lines = self._fields(value) if field.message_type is not None else self._scalar(field, value)
            yield from (f"{INDENT}{'- ' if first else '  '}{line}" for first, line in _first(lines))

    def _scalar(self, field: FieldDescriptor, value: Any) -> list[str]:
        if field.enum_type is not None:
            return [field.enum_type.values_by_number[value].name]
        if isinstance(value, bytes) and field.name in SIGNED:
            return [SIGNED[field.name](value.decode("latin-1")) if value else '""']
        if isinstance(value, bytes) and field.name == "record":
            return self._document(value.decode()) or ['""']
        if isinstance(value, bytes):
            return [whose(value)]
        if isinstance(value, str):
            return self._document(value) or [json.dumps(_masked(value), ensure_ascii=False)]
        return [repr(value)]

    def _document(self, text: str) -> list[str]:
        """Return the lines of a JSON document; nothing where the text is no such thing."""
        if not text.startswith("{"):
            return []
        first, *more = json.dumps(self._settled(json.loads(text)), indent=2, ensure_ascii=False).splitlines()
        return [first, *(INDENT + line for line in more)]

    def _settled(self, value: Any, depth: int = 0) -> Any:
        """Return a JSON value without what varies, and without a document that was said in full before."""
        if isinstance(value, list):
            return [self._settled(each, depth + 1) for each in value]
        if not isinstance(value, dict):
            return _masked(value) if isinstance(value, str) else value
        settled = {
            key: VARYING[key] if key in VARYING and each is not None else self._settled(each, depth + 1)
            for key, each in value.items()
        }
        if settled in self._said:
            return "<the document above>"
        if depth == 0:
            self._said.append(settled)
        return settled


def _first(lines: Iterator[str] | list[str]) -> Iterator[tuple[bool, str]]:
    return ((number == 0, line) for number, line in enumerate(lines))


def _headers(headers: Mapping[str, str]) -> list[str]:
    return [f"header {name}: {VARYING.get(name, headers[name])}" for name in sorted(headers)]


def _masked(text: str) -> str:
    for varies, word in WITHIN.items():
        text = varies.sub(word, text)
    return text


def whose(content: bytes) -> str:
    """Say what bytes are: a certificate or a signing request by its names, anything else by size and SHA-256."""
    if content.startswith(b"-----BEGIN CERTIFICATE REQUEST-----"):
        return f"<PEM: signing request of {_uri(x509.load_pem_x509_csr(content).extensions)}>"
    if content.startswith(b"-----BEGIN CERTIFICATE-----"):
        found = x509.load_pem_x509_certificate(content)
        valid = found.not_valid_after_utc - found.not_valid_before_utc
        return f"<PEM: certificate of {_uri(found.extensions)}, valid for {valid.days} days>"
    if content.startswith(P_256):
        return "<public key>"
    return f"<{len(content)} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}>"


def _uri(extensions: x509.Extensions) -> str:
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return str(names.get_values_for_type(x509.UniformResourceIdentifier)[0])


# --- the golden files ---------------------------------------------------------------------------------------------


def difference(golden: Path, text: str) -> str:
    """Return what is other than in the golden file, and what renews it; nothing where all is as it was."""
    kept = golden.read_text() if golden.exists() else ""
    if kept == text:
        return ""
    names = {"fromfile": f"{golden.parent.name}/{golden.name}", "tofile": "the conversation now"}
    lines = difflib.unified_diff(kept.splitlines(), text.splitlines(), **names, n=8, lineterm="")
    return "\n".join(
        [
            f"the wire is not as {golden.name} has it.",
            f"If it shall be so: {RENEWS}",
            "(another agent's author reads these files: a change of the wire belongs into the change log)",
            "",
            *lines,
        ]
    )


def excerpt(text: str, title: str, which: int, count: int) -> str:
    """Return `count` blocks of a golden file, from the `which`-th (from 1) whose title this is; ValueError if none."""
    blocks = [MARK + block.rstrip() for block in text.split(f"\n{MARK}")[1:]]
    found = [number for number, block in enumerate(blocks) if block.splitlines()[0] == MARK + title]
    if len(found) < which:
        raise ValueError(f"no block {title!r} number {which}")
    return "\n\n".join(blocks[found[which - 1] :][:count]) + "\n"
