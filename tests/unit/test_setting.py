"""With which recipe a command trains, what it says of keys without effect, and how a training is stopped."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner

from fedcervix.core.plan import Recipe
from fedcervix.errors import INTERRUPTED, ConfigError, RunError, StorageError
from site_agent.cli import recipe_options
from site_agent.commands.command_line import command_line
from site_agent.commands.pretrain import check_room
from site_agent.commands.setting import RECIPE_OPTIONS, machine_of, setting
from site_agent.commands.stopping import stops
from site_agent.home import SiteHome
from site_agent.training.checkpoints import Checkpoint
from site_agent.training.stopping import Stop, Stoppable

SAVED = Checkpoint({"model.w": torch.ones(1)}, {"step": 1})


@pytest.fixture
def home(tmp_path: Path) -> SiteHome:
    home = SiteHome(tmp_path / "home")
    home.folder.mkdir()
    home.config_file.write_text("[hardware]\ndevice = 'cpu'\nthreads = 1\n")
    return home


# --- the recipe ---------------------------------------------------------------------------------------------------


def test_a_recipe_file_s_keys_lie_over_a_profile(home: SiteHome, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text("profile = 'demo'\nwidth = 8\n")
    found = setting(home, None, file, 3)
    assert (found.recipe.architecture, found.recipe.width, found.seed) == ("resnet18", 8, 3)


def test_a_recipe_file_that_is_not_there_is_not_called_a_missing_home(home: SiteHome, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no recipe file") as found:
        setting(home, None, tmp_path / "none.toml", None)
    assert "--profile NAME" in found.value.next_step


@pytest.mark.parametrize("table", ["run.recipe", "recipe"])
def test_a_table_copied_from_coordinator_toml_is_explained(home: SiteHome, tmp_path: Path, table: str) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(f"[{table}]\nwidth = 8\n")
    with pytest.raises(ConfigError, match="the keys are at the top"):
        setting(home, None, file, None)


def test_a_home_that_is_not_there_says_how_to_train_without_a_federation(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as found:
        setting(SiteHome(tmp_path / "none"), None, None, None)
    assert "without a federation" in found.value.next_step


def test_keys_without_effect_are_named(home: SiteHome, capsys: pytest.CaptureFixture[str]) -> None:
    machine_of(home, Recipe())
    assert capsys.readouterr().err == ""
    home.config_file.write_text(home.config_file.read_text() + "processes = 2\n")
    machine_of(home, Recipe(proximal=0.1))
    assert "processes = 2 is for federated training" in (said := capsys.readouterr().err)
    assert "proximal = 0.1 has no effect here" in said


def test_a_model_that_will_find_no_room_is_not_trained(tmp_path: Path) -> None:
    check_room(tmp_path / "models", 1)
    assert (tmp_path / "models").is_dir()
    with pytest.raises(StorageError, match="has room for"):
        check_room(tmp_path / "models", 1 << 60)


# --- stopping -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_for_a_checkpoint_which_ends_the_training(
    tmp_path: Path, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        stopped_with_checkpoint(tmp_path, number)
    assert ended.value.code == INTERRUPTED
    assert Stoppable(tmp_path, "contract", Stop()).latest() is not None
    assert "stopped; continue with: site-agent go-on" in capsys.readouterr().err


def stopped_with_checkpoint(folder: Path, number: signal.Signals) -> None:
    with stops("site-agent go-on") as stop, stop.waits_for_checkpoint():
        kept = Stoppable(folder, "contract", stop)
        assert not kept.due()
        os.kill(os.getpid(), number)
        assert kept.due()
        kept.keep(SAVED)
        pytest.fail("it went on")


def test_a_second_signal_waits_for_nothing() -> None:
    with pytest.raises(SystemExit):
        signalled_twice()


def signalled_twice() -> None:
    with stops("") as stop, stop.waits_for_checkpoint():
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it went on")


def test_where_no_checkpoint_can_be_kept_the_first_signal_ends() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        signalled_while_reading()
    assert signal.getsignal(signal.SIGTERM) is before


def signalled_while_reading() -> None:
    with stops(""):
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it went on")


def test_a_checkpoint_in_its_turn_ends_nothing(tmp_path: Path) -> None:
    kept = Stoppable(tmp_path, "contract", Stop())
    kept.keep(SAVED)
    assert kept.latest() is not None


@click.command("trial")
@recipe_options
@click.option("--also", multiple=True)
@click.option("--width", default="8,16", callback=lambda *given: tuple(given[2].split(",")))
@click.option("--restart", is_flag=True)
@click.pass_obj
def trial(home: SiteHome, **_given: object) -> None:
    click.echo(command_line(home, "trial"))
    click.echo(command_line(home, "finetune", RECIPE_OPTIONS))


def test_the_command_that_goes_on_has_what_was_given_but_never_begins_anew() -> None:
    words = ["--recipe", "my recipe.toml", "--seed", "3", "--also", "a", "--also", "b", "--width", "4,8", "--restart"]
    said = CliRunner().invoke(trial, words, obj=SiteHome(Path("/h")), catch_exceptions=False).output.splitlines()
    assert [set(line.split(" --")) for line in said] == [
        {"site-agent", "home /h trial", "recipe 'my recipe.toml'", "seed 3", "also a", "also b", "width 4,8"},
        {"site-agent", "home /h finetune", "recipe 'my recipe.toml'", "seed 3"},
    ]


def test_two_of_a_kind_do_not_work_in_one_home_and_others_do(home: SiteHome) -> None:
    with contextlib.ExitStack() as held:
        held.enter_context(home.locked("lock-pretrain", who="another pretrain"))
        held.enter_context(home.locked("lock-finetune", who="another finetune"))
        with pytest.raises(RunError, match="another pretrain is already running"):
            held.enter_context(home.locked("lock-pretrain", who="another pretrain"))
