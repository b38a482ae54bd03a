"""STUDY.toml: what it may say, and how it is told what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from cervix_study.planning.grid import axes
from cervix_study.settings import StudyConfig, read
from fedcervix.errors import ConfigError
from tests.unit.study_cases import SITES, asked


def test_defaults_are_written_out(tmp_path: Path) -> None:
    found = axes(asked(tmp_path))
    assert (found.batch_images, found.federated_batch_images, found.width) == ((8,), (8,), (64,))
    assert (found.epochs_per_round, found.seeds, found.profiles) == ((1,), (0,), ("paper",))


def test_recipe_keys_lie_over_every_profile(tmp_path: Path) -> None:
    found = asked(tmp_path, 'profiles = ["paper", "recommended"]').profiles
    assert [used.recipe.architecture for used in found.values()] == ["resnet18", "resnet18"]
    assert [used.recipe.augment.rotation_deg for used in found.values()] == [20.0, 180.0]


def test_a_ring_of_all_is_one_from_each_site(tmp_path: Path) -> None:
    assert asked(tmp_path, 'starts = ["ppfssl"]').settings.starts == ("ppfssl-from-nhs", "ppfssl-from-alts")


def test_a_relative_path_begins_at_the_file(tmp_path: Path) -> None:
    assert asked(tmp_path).path("alts/manifest.csv") == tmp_path / "alts" / "manifest.csv"


@pytest.mark.parametrize(
    ("axes", "more", "said"),
    [
        ('startz = ["ssl"]', "", "unknown key `axes.startz` (did you mean `starts`?)"),
        ('starts = ["ssl", "sssl"]', "", "found 'sssl'"),
        ("seeds = []", "", "seeds is empty"),
        ("seeds = [1, 1]", "", "seeds contains a value twice"),
        ("folds = 2", "", "folds is 0, or 3 or more; found 2"),
        ("label_fractions = [1.0]", "", "below 1 (1 is always included)"),
        ('controls = ["equal-updates"]', "", "compares cssl with ssl"),
        ('controls = ["one-site-batches"]', "", "trains cssl in another way"),
        ('controls = ["shufled-labels"]', "", "found 'shufled-labels'"),
        ('starts = ["imagenet"]', "", "needs machine.imagenet_weights"),
        ("", "[terms]\nseed = 3", "terms.seed and axes.seeds set the same value"),
        ("", "[machine]\nworkers = 0", "workers must be 1 to 10000; found 0"),
        ("", "[recipe.augment]\nzoom = 1.0", "unknown key `recipe.augment.zoom` (did you mean `zoom_min`?)"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, axes: str, more: str, said: str) -> None:
    with pytest.raises(ConfigError) as found:
        asked(tmp_path, axes, more)
    assert said in found.value.what
    assert str(tmp_path / "study.toml") in found.value.what


@pytest.mark.parametrize(
    ("sites", "said"),
    [
        (SITES.replace("manifest =", "manifst ="), "unknown key `sites.1.manifst` (did you mean `manifest`?)"),
        (SITES.replace('"alts"', '"nhs"', 1), "two [[sites]] tables have the same name"),
        (SITES.replace('manifest = "alts/manifest.csv"', ""), "has a manifest or a phantom, not both"),
        (SITES.replace('"alts"', '"pooled"', 1), "not `pooled`"),
        (SITES.replace('manifest = "alts/manifest.csv"', 'phantom = "alts"\nwomen = 6\ntest_women = 1'), "found 1"),
        (f"{SITES}test_women = 9\n", "test_women is for a phantom"),
        (
            f'{SITES}phantom_stages = ["acetic", "other"]\n',
            "phantom_stages are some of native, acetic, green and iodine, each once; found acetic, other",
        ),
        (f'{SITES}phantom_stages = ["vinegar"]\n', "phantom_stages.0: expected 'native', 'acetic'"),
        (f"{SITES}phantom_devices = 3\n", "phantom_devices must be 1 to 2"),
        (
            SITES.replace("women = 12", "women = 12\ntest_women = 9") + "[axes]\nfolds = 3\n",
            "set test_women to 0",
        ),
        (SITES.partition('[[sites]]\nname = "alts"')[0], "csfssl and ppfssl need at least two"),
    ],
)
def test_what_is_wrong_with_a_site_is_named(tmp_path: Path, sites: str, said: str) -> None:
    file = tmp_path / "study.toml"
    file.write_text(f'name = "case"\n{sites}')
    with pytest.raises(ConfigError) as found:
        read(file)
    assert said in found.value.what
    assert "docs/study.md" in found.value.next_step


def with_architecture(tmp_path: Path, axes: str, lines: str) -> StudyConfig:
    file = asked(tmp_path, "").file
    text = file.read_text().replace("[axes]\n", f"[axes]\n{axes}\n").replace('architecture = "resnet18"', lines)
    file.write_text(text)
    return read(file)


def test_imagenet_s_weights_that_are_a_package_need_no_file(tmp_path: Path) -> None:
    lite0 = 'architecture = "efficientnet_lite0"'
    assert with_architecture(tmp_path, 'starts = ["random", "imagenet"]', lite0).from_imagenet
    assert not with_architecture(tmp_path, 'starts = ["random"]', lite0).from_imagenet


def test_a_model_to_start_from_needs_its_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"machine\.start_weights names no file"):
        with_architecture(tmp_path, "", f'architecture = "resnet18"\nstart = "{"ab" * 32}"')
