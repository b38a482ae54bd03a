"""A misspelt name of a model is told from a damaged model, before anything that takes time."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedcervix.errors import ModelError
from site_agent.store import model_store
from site_agent.store.checksummed_records import unknown
from tests.unit.sites import site


@pytest.mark.parametrize(
    ("name", "next_step"), [("imagenett", "finetune --start imagenet"), ("federated", "pretrain"), ("..", "pretrain")]
)
def test_a_misspelt_start_stops_before_an_image_is_opened(tmp_path: Path, name: str, next_step: str) -> None:
    clinic = site(tmp_path)
    clinic.manifest.unlink()
    with pytest.raises(ModelError) as refused:
        clinic.run("finetune", "--profile", "demo", "--start", name)
    assert refused.value.what == f"there is no start {name}"
    assert refused.value.cause == "the starts here: random, imagenet"
    assert refused.value.next_step == clinic.home.command(next_step)


def test_a_kind_in_place_of_a_name_is_told_the_newest_model_of_that_kind(tmp_path: Path) -> None:
    clinic = site(tmp_path)
    for run in ("run-one", "run-two"):
        clinic.federate(run, 1)
    with pytest.raises(ModelError, match="there is no start csfssl") as refused:
        clinic.run("finetune", "--profile", "demo", "--start", "csfssl")
    assert refused.value.cause == "that is the kind of a model; the models of this kind here: run-one, run-two"
    assert refused.value.next_step == clinic.home.command("finetune --start run-two")
    model_store.named(clinic.home, "run-two", ())


def test_a_model_without_its_record_is_a_damaged_one(tmp_path: Path) -> None:
    clinic = site(tmp_path)
    weights = clinic.home.models / "ssl" / model_store.WEIGHTS
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"")
    with pytest.raises(ModelError, match="is not a valid record of a cervix model"):
        model_store.named(clinic.home, "ssl", ())


def test_where_nothing_was_made_the_next_step_makes_it() -> None:
    error = unknown("classifier", "ssl", (), use="site-agent predict NAME IMAGES", make="site-agent finetune")
    assert (error.cause, error.next_step) == ("none was made here yet", "site-agent finetune")
