"""The metrics of a site, and who may read /metrics of a page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.errors import ConfigError, StorageError
from fedcervix.monitoring.bearer import bearer_token
from fedcervix.monitoring.exposition import CONTENT_TYPE, text
from fedcervix.monitoring.route import metrics_route
from site_agent.federation.activity import Doing
from site_agent.monitoring import names
from site_agent.monitoring.measuring import fixed, measured
from site_agent.page.gpus import Gpu
from site_agent.page.seen import LeftFor, SeenCertificate, SeenDisk, SeenEgress, SeenRun, SeenSite
from site_agent.store.task_results import History, ScoreResult, TrainResult
from tests.unit.asgi import ask

TOKEN = "t" * 43
SECRET = "MUELLER-1961"
PLAN = Plan(mode="csfssl", sites=("nhs", "alts"), profile="paper", terms=Terms(), recipe=Recipe())


def seen() -> SeenSite:
    trained = TrainResult(digest="5" * 64, images=66, steps=9, loss=2.5, seconds=60.0, said=(SECRET,))
    scored = ScoreResult(loss_sum=20.0, count=10, images=66, gauges=dict.fromkeys(names.GAUGES, 0.5), said=(SECRET,))
    doing = Doing(
        written_at=90.0, pid=7, state="train", since=80.0, task=SECRET, round=3, stage=SECRET, done=1, of=4,
        unit=SECRET, images_per_s=40.0, heard_at=89.0, connected=True, line_since=10.0, rest=SECRET,
    )  # fmt: skip
    return SeenSite(
        at=100.0,
        name="nhs",
        federation="cervix",
        coordinator="hub.example:8443",
        alive=True,
        doing=doing,
        run=SeenRun(name="r", plan=PLAN, history=History({1: trained, 2: trained}, {1: scored})),
        incident="INC-2030-0001",
        incident_at=5.0,
        disk=SeenDisk(free_bytes=10, total_bytes=100),
        gpus=(Gpu(name="GPU 0: H200", memory_bytes=9, memory_used_bytes=3, busy=0.5, degrees=60),),
        certificates=tuple(
            SeenCertificate(title=title, not_before=1.0, not_after=2.0) for title in ("this site", "the authority")
        ),
        egress=SeenEgress(all=LeftFor(bytes=7, models=2, reports=3)),
        faults=(ConfigError(SECRET),),
    )


def found(one: SeenSite) -> dict[str, float]:
    """Return the samples by name and the values of their own labels."""
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(text(measured(one), fixed(one)).decode()):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert (labels.pop("federation"), labels.pop("site")) == ("cervix", "nhs")
            key = " ".join([sample.name.removeprefix("fedcervix_"), *labels.values()])
            assert key not in values
            values[key] = sample.value
    return values


def test_a_site_at_work() -> None:
    values = found(seen())
    wanted = {
        "agent_up": 1, "agent_connected": 1, "agent_trouble": 0, "agent_state train": 1, "agent_state wait": 0,
        "agent_round": 3, "agent_progress_ratio": 0.25, "agent_images_per_second": 40, "agent_training_loss": 2.5,
        "agent_validation_loss": 2.0, "agent_effective_rank": 0.5, "agent_sent_bytes_total": 7, "agent_images": 66,
        "agent_gpu_busy_ratio GPU 0: H200": 0.5, "agent_unreadable_files": 1, "disk_free_bytes agent": 10,
        "certificate_not_after_timestamp_seconds site agent": 2, "agent_last_incident_timestamp_seconds": 5,
    }  # fmt: skip
    assert {name: values.get(name) for name in wanted} == wanted
    assert not [name for name in values if name.startswith("agent_run_outcome")]


def test_nothing_of_a_person_a_path_or_an_error_is_in_them() -> None:
    lines = text(measured(seen()), fixed(seen())).decode().splitlines()
    samples = "\n".join(line for line in lines if not line.startswith("#"))
    assert not [word for word in (SECRET, "INC-", "hub.example", "/") if word in samples]


def test_every_metric_has_a_value_and_every_value_is_declared() -> None:
    ended = replace(seen(), run=replace(seen().run, outcome="OK"))  # type: ignore[type-var]
    assert {one.metric.name for one in measured(ended)} == {one.name for one in names.NAMES}


def test_of_an_agent_that_was_killed_nothing_is_shown_that_was_true_before() -> None:
    values = found(replace(seen(), alive=False))
    assert values["agent_up"] == 0
    assert not [name for name in values if name.startswith(("agent_connected", "agent_state", "agent_progress"))]
    assert values["agent_round"] == 2


def test_a_divided_gpu_has_no_number_for_how_busy_it_is() -> None:
    values = found(replace(seen(), gpus=(Gpu(name="GPU 0, part 1", memory_bytes=9, memory_used_bytes=3),)))
    assert [name for name in values if "gpu" in name] == [
        "agent_gpu_memory_used_bytes GPU 0, part 1",
        "agent_gpu_memory_bytes GPU 0, part 1",
    ]


def test_of_a_driver_that_hangs_nothing_is_shown() -> None:
    assert not [name for name in found(replace(seen(), gpus_silent_s=30.0)) if "gpu" in name]


def test_a_word_of_the_coordinator_is_no_outcome() -> None:
    strange = replace(seen(), run=replace(seen().run, outcome=SECRET))  # type: ignore[type-var]
    assert not [name for name in found(strange) if "outcome" in name]


# --- who may read them ----------------------------------------------------------------------------------------------


def served() -> Starlette:
    return Starlette(routes=[metrics_route(lambda: b"a 1\n", TOKEN)])


@pytest.mark.parametrize(
    "given",
    [{}, {"authorization": TOKEN}, {"authorization": f"Basic {TOKEN}"}, {"authorization": f"Bearer {TOKEN}x"},
     {"authorization": "Bearer "}, {"cookie": f"token={TOKEN}"}, {"authorization": "Bearer \xe9"}],
    ids=["nothing", "bare", "basic", "longer", "empty", "cookie", "not-ascii"],
)  # fmt: skip
def test_without_the_token_nothing_is_told(given: dict[str, str]) -> None:
    answer = ask(served(), f"/metrics?token={TOKEN}", headers=given)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert b"a 1" not in answer.body


def test_with_the_token_they_are_told() -> None:
    answer = ask(served(), "/metrics", headers={"authorization": f"Bearer {TOKEN}"})
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"a 1\n", CONTENT_TYPE)


def test_a_fault_is_one_line() -> None:
    def read() -> bytes:
        raise StorageError("the registry cannot be read", cause="damaged", next_step="restore it")

    app = Starlette(routes=[metrics_route(read, TOKEN)])
    answer = ask(app, "/metrics", headers={"authorization": f"Bearer {TOKEN}"})
    assert (answer.status, answer.text) == (503, "the registry cannot be read\n")


def test_a_token_is_made_once_and_is_closed_to_others(tmp_path: Path) -> None:
    token = bearer_token(tmp_path / "metrics.token")
    assert len(token) == 43
    assert bearer_token(tmp_path / "metrics.token") == token
    assert (tmp_path / "metrics.token").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content", [b"", b"short", b"a b" * 20, b"\xff" * 43], ids=["empty", "short", "blanks", "bytes"]
)
def test_a_file_without_a_token_lets_nobody_in(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.token").write_bytes(content)
    with pytest.raises(StorageError, match="it holds no token"):
        bearer_token(tmp_path / "metrics.token")
