"""The command `receive`: the result of a run under seal, which the sites hand over together."""

from __future__ import annotations

import secrets
from pathlib import Path

from coordinator.home.home import Home
from coordinator.run import results
from fedcervix.core.plan import check
from fedcervix.disk.files import digest_file, write_secret
from fedcervix.disk.storage import damaged, disk
from fedcervix.errors import RunError
from fedcervix.models.sealed_files import read_header, unseal
from fedcervix.runtime.printing import say
from fedcervix.trust.boxes import KEY_BYTES, NamedKey, OwnKey
from fedcervix.trust.chain import Values, read
from fedcervix.trust.result_releases import NOTE_FILE, RECIPIENT, SEALED_FILE, opened_result_key

KEY_FILE = "recipient.key"


def receive(home: Home, folder: Path | None) -> None:
    """Print the key to which sites hand over; with a folder of theirs, store the model. Raises RunError."""
    own = _own(home)
    if folder is None:
        say(f"the key of this coordinator's operator: {own.public.key.hex()}")
        say("the sites give the result of a run to it together: site-agent release RUN --to KEY")
        return
    note, sealed = _note(folder), folder / SEALED_FILE
    with disk(sealed, "read"):
        header = read_header(sealed)
    known = results.read(home.results, header.run).model if results.is_stored(home.results, header.run) else None
    if known != header.digest:
        raise RunError(
            f"{folder} holds model {header.digest[:12]} of run {header.run}, which is not the result of a run here",
            cause="it is from another federation, or a site has handed over another model",
            next_step=home.command("runs"),
        )
    giver = NamedKey(str(note["site"]), bytes.fromhex(str(note["key"])))
    key = opened_result_key(own, giver, header, bytes.fromhex(str(note["box"])))
    to = results.model_of(home.results, header.run)
    unseal(sealed, key, to)
    assert digest_file(to) == known
    say(f"the model of run {header.run}: {to}")


def _own(home: Home) -> OwnKey:
    """Return the key pair of the recipient, made when it is first asked for. Raises StorageError."""
    home.insist()
    file = home.key_file(KEY_FILE)
    with disk(file, "read"):
        known = file.read_bytes() if file.exists() else b""
    if not known:
        known = secrets.token_hex(KEY_BYTES).encode()
        write_secret(file, known)
    return OwnKey(RECIPIENT, bytes.fromhex(known.decode()))


def _note(folder: Path) -> Values:
    file = folder / NOTE_FILE
    with disk(file, "read"):
        text = file.read_bytes().decode(errors="replace")
    try:
        found = read(text)
        check({"site", "key", "box"} <= found.keys(), "it lacks a key")
    except ValueError as error:
        raise damaged(file, error, next_step="ask the site that sent the folder to send it again") from error
    return found
