"""Another verifier of a run's ledger, written from docs/ledger.md alone. It imports nothing of fedcervix."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

OF_A_TASK = {
    "UpdateStored": "update",
    "ScoreReported": "score",
    "ModelUnusable": "unusable",
    "ModelAdopted": "adopted",
    "BoxesStored": "boxes",
    "ReleaseStored": "release",
    "CloseSigned": "close",
}
WHAT = {**OF_A_TASK, "SiteAttached": "ready", "SiteRefused": "refusal", "SiteFailed": "failure"}


class BrokenError(Exception):
    """What does not hold."""


def insist(holds: object, what: str) -> None:
    if not holds:
        raise BrokenError(what)


def tagged(*texts: str) -> bytes:
    return b"".join(b"%d:%s," % (len(text.encode()), text.encode()) for text in texts)


def strict(text: str) -> dict:
    def once(pairs):
        names = [name for name, _ in pairs]
        insist(names == sorted(set(names)), "keys not sorted, or twice")
        return dict(pairs)

    def refuse(found):
        raise BrokenError(f"a number {found}")

    insist(text.isascii() and text.isprintable(), "not printable ASCII")
    try:
        return json.loads(text, object_pairs_hook=once, parse_float=refuse, parse_constant=refuse)
    except ValueError as error:
        raise BrokenError(f"not JSON: {error}") from error


def signed(key, signature: str, *texts: str) -> bool:
    try:
        key.verify(bytes.fromhex(signature), tagged(*texts), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def as_said(value):
    """Return a value of an event in the form of a record."""
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, dict):
        return {name: as_said(found) for name, found in value.items() if name != "run"}
    if not isinstance(value, list) or all(isinstance(one, str) for one in value if value):
        return value if value or not isinstance(value, list) else {}
    if all(isinstance(box, str) for _, box in value):
        return hashlib.sha256(tagged("fedcervix boxes 1", *(text for pair in value for text in pair))).hexdigest()
    return {name: float(number).hex() for name, number in value}


def verify(run_folder: Path, ledger_key_pem: bytes) -> dict[int, set[str]]:
    """Return by round which sites have countersigned its head. Raises BrokenError."""
    lines = [line for line in (run_folder / "ledger.jsonl").read_text().split("\n") if line]
    found = [strict(line) for line in (run_folder / "ledger-signatures.jsonl").read_text().split("\n") if line]
    records = {one["entry"]: one["signature"] for one in found if "entry" in one}
    ledger_key = serialization.load_pem_public_key(ledger_key_pem)
    previous, round_, keys, all_keys, signers, ends = "0" * 64, 0, {}, {}, set(), {}
    for number, line in enumerate(lines):
        try:
            entry = strict(line)
            insist((entry["entry"], entry["previous"]) == (number, previous), "it does not follow")
            insist((entry["kind"] == "genesis") == (number == 0), "the genesis is the first")
            insist(entry["round"] >= round_, "an earlier round")
            previous = hashlib.sha256(tagged("fedcervix ledger 1", line)).hexdigest()
            if entry["kind"] == "genesis":
                genesis = entry
            elif entry["kind"] == "certificate":
                certificate = x509.load_pem_x509_certificate(entry["certificate"].encode())
                certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(genesis["authority"].encode()))
                names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
                uri = f"fedcervix://{genesis['federation']}/site/{entry['site']}"
                insist(uri in names.get_values_for_type(x509.UniformResourceIdentifier), "another name")
                keys[entry["site"]] = certificate.public_key()
                all_keys.setdefault(entry["site"], []).append(certificate.public_key())
            elif entry["kind"] == "event":
                check_event(genesis, entry, records.get(number, ""), keys, signers)
            last = entry["round"] + (entry["kind"] == "end")
            ends.update(dict.fromkeys(range(round_, last), (number + 1, previous)))
            round_ = entry["round"]
        except (BrokenError, KeyError, TypeError, ValueError, InvalidSignature) as error:
            raise BrokenError(f"entry {number}: {error!r}") from error
    heads = [(one, strict(one["head"])) for one in found if "head" in one]
    insist(any("site" not in one for one, _ in heads), "no head")
    countersigned: dict[int, set[str]] = {}
    for one, head in heads:
        where = (head["run"], ends.get(head["round"]))
        insist(where == (genesis["run"], (head["entries"], head["hash"])), f"the head of round {head['round']}")
        if "site" not in one:
            insist(signed(ledger_key, one["signature"], "fedcervix head 1", one["head"]), "the head is not signed")
            continue
        texts = ("fedcervix countersignature 1", one["site"], one["head"])
        held = any(signed(key, one["signature"], *texts) for key in all_keys[one["site"]])
        insist(held, f"the countersignature of {one['site']}")
        countersigned.setdefault(head["round"], set()).add(one["site"])
    return countersigned


def check_event(genesis: dict, entry: dict, signature: str, keys: dict, signers: set[str]) -> None:
    event = json.loads(entry["event"])
    site = event.get("site")
    if "record" not in entry:
        insist(event["event"] not in OF_A_TASK or site not in signers, "it is not signed")
        return
    record, plan = strict(entry["record"]), hashlib.sha256(genesis["plan"].encode()).hexdigest()
    own = {"run": genesis["run"], "plan": plan, "site": site, "what": WHAT[event["event"]]}
    insist(all(record[name] == value for name, value in own.items()), "the record is another's")
    said = {name: value for name, value in record.items() if name not in {*own, "head", "egress"}}
    insist(all(as_said(event[name]) == value for name, value in said.items()), "the record says something else")
    insist(signed(keys[site], signature, "fedcervix record 1", entry["record"]), "the record is not signed")
    signers.add(site)


def verify_egress(file: Path, ends: dict[int, str] | None = None) -> dict[str, int]:
    """Return how many bytes left for each run, at most. `ends`: hashes that partners have. Raises BrokenError."""
    previous, sent, runs = "0" * 64, {}, {}
    lines = [line for line in file.read_text().split("\n") if line.endswith('"}')]
    for number, line in enumerate(lines):
        entry = strict(line)
        insist((entry["entry"], entry["previous"]) == (number, previous), f"entry {number} does not follow")
        previous = hashlib.sha256(tagged("fedcervix egress 1", line)).hexdigest()
        insist((ends or {}).get(number + 1, previous) == previous, f"entry {number} is not the one that was signed")
        if entry["kind"] == "left":
            insist(entry["bytes"] <= sent[entry["of"]], f"entry {number} ends no upload")
            sent[entry["of"]] = entry["bytes"]
        else:
            sent[number], runs[number] = entry["bytes"] - entry.get("from", 0), entry.get("run", "")
    insist(max(ends or {0: ""}) <= len(lines), f"entry {len(lines)} is missing")
    return {run: sum(sent[number] for number in runs if runs[number] == run) for run in set(runs.values())}


def egress_ends(run_folder: Path, site: str) -> dict[int, str]:
    """Return where a site's egress ledger ended, as it has signed in a run: hashes by number of entries."""
    entries = [strict(line) for line in (run_folder / "ledger.jsonl").read_text().split("\n") if line]
    records = [strict(entry["record"]) for entry in entries if "record" in entry]
    ends = [record["egress"] for record in records if record["site"] == site and "egress" in record]
    return {end["entries"]: end["hash"] for end in ends if end["entries"]}
