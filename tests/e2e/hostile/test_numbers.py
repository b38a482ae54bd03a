"""Numbers that are not true, and models that were not trained: refused in words, over the real line."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from fedcervix.core.events import Answer, ScoreReported, Task, TaskKind, UpdateStored
from fedcervix.errors import RemoteError
from tests.e2e.hostile.test_parsing import Models, joined
from tests.e2e.loopback import Federation, call

pytestmark = pytest.mark.timeout(120)

SITES = ("nhs", "alts", "mallory")
TERMS = {"rounds": 1, "epochs_per_round": 1, "average": "by-images", "quorum": 3}
NUMBERS = 1000


def test_a_site_that_sends_what_it_did_not_train_or_numbers_that_cannot_be_does_not_count(
    federate: Callable[..., Federation],
) -> None:
    """Before: each of these was accepted; losses of -1e308 made `-Infinity` in record.json, which is no JSON."""
    made = federate(sites=SITES, terms=TERMS)
    process, models = made.coordinate("--mode", "csfssl"), Models(made.folder / "models")
    lines = joined(made)
    task = models.seeded(lines, NUMBERS)
    digests = {site: models.made(value, NUMBERS) for value, site in enumerate(SITES, 1)}
    for site in ("nhs", "alts"):
        models.push(lines[site], digests[site])
        assert models.report(lines[site], site, task, digests[site])[0] is Answer.ACCEPTED

    mallory = lines["mallory"]
    for copied, words in ((task.base, "that the site was given"), (digests["nhs"], "that another site has sent")):
        models.push(mallory, copied)
        answer, reason = models.report(mallory, "mallory", task, copied)
        assert answer is Answer.REFUSED
        assert words in reason
        assert "Training always changes some numbers" in reason

    models.push(mallory, digests["mallory"])
    for numbers in ((2**31, 0.5, 1.0), (10, -1e308, 1.0), (10, 0.5, -1.0)):
        images, loss, seconds = numbers
        with pytest.raises(RemoteError, match="is a number from"):
            mallory.report(UpdateStored("mallory", task, digests["mallory"], images, 1, loss, seconds, 0.0))
    answer, reason = mallory.report(UpdateStored("mallory", task, digests["mallory"], 10, 1, -5.0, 1.0, 0.0))
    assert (answer, "nt-xent is never negative" in reason) == (Answer.REFUSED, True)
    honest = UpdateStored("mallory", task, digests["mallory"], 99_999_999, 1, 0.5, 1.0, 0.0)
    assert mallory.report(honest)[0] is Answer.ACCEPTED

    made.until("the average is scored", lambda now: now["phase"] == "scoring")
    candidate = made.overview()["ledger"][0]["model"]
    score = Task(task.run, TaskKind.SCORE, 1, candidate)
    with pytest.raises(RemoteError, match="loss_sum / count is a number from"):
        mallory.report(ScoreReported("mallory", score, -1e308, 1, 10, (), 0.0))
    for site in SITES:
        images = 10 if site != "mallory" else 99_999_999
        assert lines[site].report(ScoreReported(site, score, 4.0, 4, images, (), 0.0))[0] is Answer.ACCEPTED
    [weight] = [part["weight"] for part in made.overview()["ledger"][0]["contributions"] if part["site"] == "mallory"]
    assert weight == pytest.approx(0.9), "it says that it has nearly all images; it was .9999999 before"
    assert call("coordinator", "--home", made.home.folder, "abort", cwd=made.folder)[0] == 0
    assert process.ended() in (0, 21)
    [record] = made.home.results.glob("*/record.json")

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    assert json.loads(record.read_text(), parse_constant=refuse)["ledger"]
