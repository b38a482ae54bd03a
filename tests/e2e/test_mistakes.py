"""What people get wrong: each mistake has its exit code, and says what happened, why, and what to do next."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedcervix.errors import (
    ConfigError,
    DataError,
    FedcervixError,
    IdentityError,
    LinkError,
    PolicyError,
    RunError,
)
from fedcervix.models.weights import write_tensors
from fedcervix.transport import identity
from tests.e2e.loopback import Federation, Process, call

Federate = Callable[..., Federation]

pytestmark = pytest.mark.timeout(120)


def assert_explained(text: str, *words: str) -> None:
    """What happened, the likely cause, the next command: and no traceback."""
    for word in ("error: ", "likely cause: ", "next: ", *words):
        assert word in text, f"{word!r} is not in:\n{text}"
    assert "Traceback" not in text


def assert_ends(process: Process, error: type[FedcervixError], *words: str) -> None:
    assert process.ended() == error.exit_code, process.text
    assert_explained(process.text, *words)


# --- at the coordinator ------------------------------------------------------------------------------------------


def test_a_port_in_use_and_a_second_coordinator_on_one_home(federate: Federate) -> None:
    federation = federate()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        process = federation.coordinate("--mode", "csfssl", "--bind", address, listening=False)
        assert_ends(process, RunError, address)

    first = federation.coordinate("--mode", "csfssl")  # nothing is left of the failed start
    second = federation.coordinate("--mode", "csfssl", listening=False)
    assert_ends(second, RunError, "a coordinator is already running", f"(pid {first.pid})")
    assert first.running()
    assert federation.overview()["outcome"] is None


def test_an_unknown_key_in_coordinator_toml_names_the_nearest_one(federate: Federate) -> None:
    federation = federate(recipe={"batch_imges": 8})
    process = federation.coordinate("--mode", "csfssl", listening=False)
    assert_ends(process, ConfigError, str(federation.home.config_file), "`recipe.batch_imges`", "`batch_images`")


def test_commands_before_anything_was_set_up(tmp_path: Path) -> None:
    for words, error in (
        (("coordinator", "--home", "nowhere", "start", "--mode", "csfssl"), ConfigError),
        (("site-agent", "--home", "nowhere"), ConfigError),
        (("site-agent", "--home", "nowhere", "join", "no.toml"), FedcervixError),
    ):
        code, text = call(*words, cwd=tmp_path)
        assert code not in (0, 1), text
        assert code == error.exit_code or error is FedcervixError, text
        assert_explained(text)


def test_a_mode_that_differs_from_the_unfinished_run_s_is_no_new_run(federate: Federate) -> None:
    federation = federate()
    federation.coordinate("--mode", "csfssl").kill()
    process = federation.coordinate("--mode", "ppfssl", listening=False)
    assert_ends(process, RunError, "its mode is csfssl", "with --new it is ended and a new run begins")


# --- at a site ---------------------------------------------------------------------------------------------------


def test_an_unknown_key_in_site_toml_names_the_nearest_one(federate: Federate) -> None:
    federation = federate()
    federation.coordinate("--mode", "csfssl")
    home = federation.enrol("nhs")
    home.config_file.write_text(home.config_file.read_text().replace("threads", "treads"))
    assert_ends(federation.agent("nhs"), ConfigError, str(home.config_file), "`hardware.treads`", "`threads`")


def test_an_agent_without_its_coordinator_says_so_waits_and_connects(federate: Federate) -> None:
    federation = federate(sites=("nhs",), terms={"rounds": 1})
    federation.coordinate("--mode", "csfssl").kill()
    federation.enrol("nhs")
    agent = federation.light("nhs")
    agent.says("cannot be reached (connection refused)")
    agent.says("trying again automatically")
    federation.finish(federation.coordinate(), agent)


def test_two_agents_on_one_home(federate: Federate) -> None:
    federation = federate()
    federation.coordinate("--mode", "csfssl")
    federation.enrol("nhs")
    first = federation.light("nhs")
    first.says("attached to run")
    assert_ends(federation.agent("nhs"), RunError, "an agent is already running")
    assert first.running()


def test_joining_where_nobody_listens(federate: Federate, tmp_path: Path) -> None:
    federation = federate()
    coordinator = federation.coordinate("--mode", "csfssl")
    code, text = call("coordinator", "--home", federation.home.folder, "invite", "nhs", cwd=tmp_path)
    assert code == 0, text
    coordinator.kill()
    code, text = call("site-agent", "--home", tmp_path / "site", "join", "nhs.invitation.toml", cwd=tmp_path)
    assert code == LinkError.exit_code
    assert_explained(text, "connection refused")

    # Nothing was used up: once the coordinator is there, the same command works.
    federation.coordinate()
    code, text = call("site-agent", "--home", tmp_path / "site", "join", "nhs.invitation.toml", cwd=tmp_path)
    assert code == 0, text


def test_joining_where_another_federation_s_coordinator_answers(
    federate: Federate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said as `check` says it, and the network library adds no lines of its own."""
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)  # this process has imported what sets it
    ours, theirs = federate(), federate()
    ours.coordinate("--mode", "csfssl")
    theirs.coordinate("--mode", "csfssl")
    home = ours.enrol("nhs")
    ours.settle("nhs", port=theirs.port)
    code, text = call("coordinator", "--home", ours.home.folder, "invite", "alts", cwd=tmp_path)
    assert code == 0, text
    file = tmp_path / "alts.invitation.toml"
    file.write_text(file.read_text().replace(f":{ours.port}", f":{theirs.port}"))
    _, joined = call("site-agent", "--home", tmp_path / "site", "join", file.name, cwd=tmp_path)
    _, checked = call("site-agent", "--home", home.folder, "check", cwd=tmp_path)
    for text in (joined, checked):
        assert "is not this federation's coordinator" in text
        assert "another federation's coordinator, or an antivirus or proxy" in text
        assert "ssl_transport_security" not in text
        assert "is not running" not in text
    assert "skipped coordinator: " in checked


def test_a_certificate_for_another_federation(federate: Federate) -> None:
    ours, theirs = federate(), federate()
    ours.coordinate("--mode", "csfssl")
    theirs.coordinate("--mode", "csfssl")
    home = ours.enrol("nhs")
    ours.settle("nhs", port=theirs.port)

    code, text = call("site-agent", "--home", home.folder, "check", cwd=ours.folder)
    assert code == IdentityError.exit_code
    assert "is not this federation's coordinator" in text
    assert "another federation's coordinator, or an antivirus or proxy" in text
    assert "next: " in text

    agent = ours.light("nhs")
    agent.says("its certificate is not of this federation")


def test_a_certificate_that_has_expired(federate: Federate) -> None:
    federation = federate()
    federation.coordinate("--mode", "csfssl")
    home = federation.enrol("nhs")
    key, who = home.pem("site.key"), identity.Identity("cervix", "site", "nhs")
    made = datetime.now(UTC) - timedelta(minutes=3)
    old = identity.issue(federation.home.authority(), identity.public_key(key), who, made, timedelta(minutes=1))
    home.key_file("site.crt").write_bytes(old)
    assert_ends(
        federation.agent("nhs"),
        IdentityError,
        "has expired",
        "this machine's clock says",
        "coordinator renew",
        f"`site-agent --home {home.folder} join",
    )


def test_a_plan_that_the_site_s_policy_forbids_is_refused_in_words(federate: Federate) -> None:
    federation = federate()
    federation.coordinate("--mode", "csfssl")
    federation.enrol("nhs", rounds_max=1, sites=["elsewhere"])
    agent = federation.agent("nhs")
    differences = (
        "the plan asks up to 2 rounds; [policy] rounds_max is 1",
        "the plan names alts; [policy] sites allows elsewhere",
    )
    assert_ends(agent, PolicyError, *differences)
    [seen] = [site for site in federation.overview()["sites"] if site["site"] == "nhs"]
    assert seen["presence"] == "refused"
    for difference in differences:
        assert difference in seen["reason"]
    code, text = call("coordinator", "--home", federation.home.folder, "status", cwd=federation.folder)
    assert (code, "refused" in text) == (0, True)

    # The two sides have talked: the engineer changes the policy, and the site is in.
    federation.settle("nhs", rounds_max=2)
    federation.light("nhs")
    federation.until("nhs is present", lambda seen: seen["sites"][0]["presence"] == "present")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (("patient", "pasient"), ("has no column 'patient'", "column 'pasient' was probably meant to be 'patient'")),
        ((",1\n", ",yes\n"), ("column label: found 'yes'; expected 0 = control, 1 = case, empty = unlabelled",)),
    ],
)
def test_a_damaged_manifest_is_named_before_anything_is_trained(
    collections: dict[str, Path], tmp_path: Path, damage: tuple[str, str], words: tuple[str, ...]
) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text((collections["nhs"] / "manifest.csv").read_text().replace(*damage))
    code, text = call("site-agent", "data", "check", manifest, cwd=tmp_path)
    assert code == DataError.exit_code
    assert_explained(text, "manifest.csv", *words)


def test_bad_data_stops_a_site_until_it_is_mended_and_a_corrupt_image_does_not(
    federate: Federate, collections: dict[str, Path], tmp_path: Path
) -> None:
    """One run, three of a data manager's days: a wrong label, then a broken JPEG, then the result."""
    folder = tmp_path / "doe-jane-1970"
    shutil.copytree(collections["nhs"], folder)
    manifest = folder / "manifest.csv"
    good = manifest.read_text()
    manifest.write_text(good.replace(",1\n", ",yes\n", 1))
    federation = federate(sites=("nhs",), terms={"rounds": 1, "epochs_per_round": 1})
    coordinator = federation.coordinate("--mode", "csfssl")
    federation.enrol("nhs", manifest)
    agent = federation.agent("nhs")
    assert_ends(agent, DataError, "found 'yes'", "incidents/INC-")

    [failure] = federation.until("the failure is seen", lambda seen: seen["failures"])
    [seen] = federation.overview()["sites"]
    assert seen["presence"] == "failed"
    assert "expected 0 = control, 1 = case" in failure["hint"]
    assert "doe-jane" not in str(federation.overview())
    [incident] = federation.site("nhs").incidents.iterdir()
    assert incident.name == f"{failure['incident']}.txt"
    assert incident.stat().st_mode & 0o777 == 0o600
    assert "manifest.csv" in incident.read_text()  # the full account, for the site's eyes

    manifest.write_text(good)
    broken = folder / good.splitlines()[1].split(",")[0]
    broken.write_bytes(broken.read_bytes()[:2000] + b"\0" * 100)
    agent = federation.agent("nhs")
    federation.finish(coordinator, agent)
    assert federation.record()["outcome"] == "OK"  # it failed on the way, but it counted in every round
    code, text = call("site-agent", "data", "check", manifest, "--unreadable-max", "0.2", cwd=tmp_path)
    assert (code, "1 unreadable, left out" in text) == (0, True), text
    [counted] = federation.record()["ledger"][0]["contributions"]
    everything: dict[str, Any] = {"images": len(good.splitlines()) - 1}
    assert 0 < counted["images"] < everything["images"]


def test_a_model_that_cannot_be_averaged_as_the_plan_says_ends_the_run_in_words(federate: Federate) -> None:
    federation = federate(terms={"batch_norm": "pooled-variance"}, run={"base": "first.safetensors"})
    lonely = {"weight": np.zeros(4, np.float32), "norm.running_var": np.ones(4, np.float32)}
    write_tensors(federation.home.folder / "first.safetensors", lonely)
    coordinator = federation.coordinate("--mode", "csfssl")
    for site in federation.sites:
        federation.enrol(site)
    sites = [federation.light(site) for site in federation.sites]
    federation.finish(coordinator, *sites, code=21)
    assert "norm.running_var has no norm.running_mean" in coordinator.text
    assert federation.record()["outcome"] == "ABORTED"


# --- before round 1 ----------------------------------------------------------------------------------------------


def test_a_site_without_enough_images_ends_before_the_others_wait_for_it(federate: Federate, tmp_path: Path) -> None:
    """Three women with a picture each: one to validate on, which contrastive learning cannot."""
    federation = federate(terms={"rounds": 1})
    federation.coordinate("--mode", "csfssl")
    lines = ["image,patient,label"]
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,woman-{number},")
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    home = federation.enrol("nhs", tmp_path / "manifest.csv")
    code, text = call("site-agent", "--home", home.folder, "check", cwd=tmp_path)
    assert code == DataError.exit_code, text
    assert "FAULT   training" in text
    assert_ends(federation.agent("nhs"), DataError, "valid")
    [site] = [site for site in federation.overview()["sites"] if site["site"] == "nhs"]
    assert site["presence"] == "failed"


def test_check_says_what_a_round_costs_here(federate: Federate, collections: dict[str, Path]) -> None:
    federation = federate(terms={"rounds": 1})
    federation.coordinate("--mode", "csfssl")
    home = federation.enrol("nhs", collections["nhs"] / "manifest.csv")
    code, text = call("site-agent", "--home", home.folder, "check", cwd=federation.folder)
    assert code == 0, text
    for subject in ("time: a round takes", "memory: ", "disk: "):
        assert f"ok      {subject}" in text
