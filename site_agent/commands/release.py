"""The command `release`: this site's word that somebody may have a result; with enough other words, the result."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from fedcervix.disk.files import make_folder, write_whole
from fedcervix.disk.storage import disk
from fedcervix.errors import ConfigError, PolicyError
from fedcervix.lineage.decisions import SHORT
from fedcervix.models.sealed_files import seal
from fedcervix.runtime.printing import say
from fedcervix.trust.boxes import KEY_BYTES, OwnKey
from fedcervix.trust.chain import text_of
from fedcervix.trust.key_texts import private_key
from fedcervix.trust.result_releases import NOTE_FILE, SEALED_FILE, ResultRelease, boxed_key, release_faults, released
from fedcervix.trust.sealed_models import Header
from site_agent.home import SiteHome
from site_agent.store import model_store
from site_agent.store.egress import Egress
from site_agent.store.model_store import CervixModel
from site_agent.store.retired_models import check_usable
from site_agent.store.run_store import RunStore, federation_of

DAY_S = 86_400


def release(home: SiteHome, run: str, to: str, days: int, into: Path | None, files: Sequence[Path]) -> None:
    """Sign a release; with `into`, check those of the others and hand the model over in that folder.

    Raises ConfigError, ModelError, PolicyError, StorageError.
    """
    _check_sealed(home, run)
    model = model_store.read(home.models / run)
    model.check()
    check_usable(home, f"model {model.digest[:SHORT]}", [model.digest], again="", forced=True)
    own = _own(home, model, to, days)
    if into is None:
        file = Path(f"release-{run}-{own.site}.json")
        write_whole(file, own.text.encode())
        say(f"wrote {file}: this site agrees for {days} days that model {model.digest[:12]} goes to the key {to}")
        say("one site collects these files, and hands the model over: the same command with --into FOLDER FILE...")
        return
    others = [_read(file) for file in files]
    _check(home, run, own, others)
    size_bytes = model.weights.stat().st_size
    with Egress(home.egress, f"key {own.recipient}").model(model.digest, 0, size_bytes, None, run=run) as leaves:
        leaves(size_bytes, size_bytes)
        _hand_over(home, model, own, others, into)
    say(f"wrote {into}: send this folder to the recipient, who opens it with: coordinator receive {into}")


def _check_sealed(home: SiteHome, run: str) -> None:
    """Raise ConfigError where a run was not under seal: its result is at the coordinator already."""
    found = federation_of(home, run)
    if found is not None and not found.plan.terms.sealed:
        raise ConfigError(
            f"run {run} was not under seal, so nobody has to release its result",
            cause="the coordinator of such a run has the model itself",
            next_step=f"tell the coordinator: coordinator export {run}",
        )


def _own(home: SiteHome, model: CervixModel, to: str, days: int) -> ResultRelease:
    site = home.certificate().identity.name
    try:
        bare = ResultRelease(model.run, model.digest, to, int(time.time()) + days * DAY_S, site)
    except ValueError as error:
        raise ConfigError(
            f"no release can be made: {error}",
            cause="the key is that which `coordinator receive` prints; the model is the result of a run",
            next_step=home.command("release RUN --to KEY"),
        ) from error
    return released(private_key(home.pem("site.key")), bare)


def _read(file: Path) -> ResultRelease:
    with disk(file, "read"):
        text = file.read_bytes().decode(errors="replace")
    try:
        return ResultRelease.parse(text.strip())
    except ValueError as error:
        raise ConfigError(
            f"{file} is no release: {error}",
            cause="it was changed, or is another file",
            next_step="ask that site again",
        ) from error


def _check(home: SiteHome, run: str, own: ResultRelease, others: Sequence[ResultRelease]) -> None:
    """Raise PolicyError unless enough sites agree."""
    store = RunStore(home.run_folder(run))
    sites, asked = store.plan().sites, home.config().policy.releases
    keys = {name: key for name, key in store.keys().items() if name in sites and name != own.site}
    needed = min(asked or len(sites), len(sites))
    faults = release_faults(own, others, keys, time.time())
    agreed = [own.site, *(other.site for other in others)]
    if len(agreed) < needed:
        faults.append(f"{needed} sites must agree ([policy] releases); these do: {', '.join(agreed)}")
    if faults:
        raise PolicyError(
            f"the model is not handed over: {'; '.join(faults)}",
            cause="the file of a site is missing in this command, has expired, or names another model or key",
            next_step=f"ask {', '.join(name for name in sites if name not in agreed) or 'these sites'} for the file "
            f"that `site-agent release {run} --to {own.recipient}` writes there",
        )


def _hand_over(
    home: SiteHome, model: CervixModel, own: ResultRelease, others: Sequence[ResultRelease], into: Path
) -> None:
    header = Header(
        federation=home.certificate().identity.federation,
        run=model.run,
        plan=model.plan_digest,
        round=model.round or 0,
        hop=0,
        sender=own.site,
        base="",
        digest=model.digest,
        content=model.digest,
        size_bytes=model.weights.stat().st_size,
    )
    giver, key = OwnKey(own.site, secrets.token_bytes(KEY_BYTES)), secrets.token_bytes(KEY_BYTES)
    make_folder(into)
    seal(model.weights, header, key, into / SEALED_FILE)
    note = {
        "site": own.site,
        "key": giver.public.key.hex(),
        "box": boxed_key(giver, own.recipient, header, key).hex(),
        "releases": [one.text for one in (own, *others)],
    }
    write_whole(into / NOTE_FILE, text_of(note).encode())
