"""What the chart of `deploy/kubernetes` renders is valid for Kubernetes, and keeps what the units and compose keep."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fedcervix import __version__
from fedcervix.errors import EXIT_CODES
from tests.unit.test_deploy import PERSON_ACTS
from tools.helm import find

yaml = pytest.importorskip("yaml", reason="kubernetes-validate is not installed: make setup")
kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="it is not installed: make setup")

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "kubernetes" / "fedcervix"
EXAMPLES = sorted((ROOT / "deploy" / "kubernetes" / "examples").glob("*.yaml"))
SCRIPT = CHART / "supervise.py"
KUBERNETES = "1.35"
Manifest = dict[str, Any]

HELM = find()
needs_helm = pytest.mark.skipif(HELM is None, reason="helm is not installed: make chart fetches it")
each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)


def helm(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(HELM), *map(str, words)], capture_output=True, text=True, check=False)


@cache
def rendered(example: Path, *settings: str) -> tuple[Manifest, ...]:
    """Return the objects of a release."""
    options = [word for setting in settings for word in ("--set", setting)]
    done = helm("template", "trial", CHART, "--namespace", "fed", "--values", example, *options)
    assert done.returncode == 0, done.stderr
    return tuple(one for one in yaml.safe_load_all(done.stdout) if one)


def of_kind(objects: tuple[Manifest, ...], *kinds: str) -> list[Manifest]:
    return [one for one in objects if one["kind"] in kinds]


each_release = pytest.mark.parametrize(
    ("example", "settings"),
    [
        pytest.param(example, settings, id=f"{example.stem}-{name}")
        for example in EXAMPLES
        for name, settings in {"runs": (), "maintenance": ("maintenance=true",)}.items()
    ],
)


@needs_helm
@each_example
def test_helm_finds_nothing_to_complain_of(example: Path) -> None:
    done = helm("lint", "--strict", CHART, "--values", example)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_helm
@each_release
def test_what_is_rendered_is_valid(example: Path, settings: tuple[str, ...]) -> None:
    for one in rendered(example, *settings):
        kubernetes_validate.validate(one, KUBERNETES, strict=True)


@needs_helm
@each_release
def test_the_pod_has_no_rights_and_one_home(example: Path, settings: tuple[str, ...]) -> None:
    [workload] = of_kind(rendered(example, *settings), "StatefulSet", "Job")
    pod = workload["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "fsGroup": 10001,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert "memory" in container["resources"]["limits"]
    assert {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")} <= {
        "/var/lib/fedcervix",
        "/tmp",
        "/dev/shm",
    }
    [home] = [one for one in container["env"] if one["name"].endswith("_HOME")]
    assert home["value"].startswith("/var/lib/fedcervix/")  # private: the volume's own folder belongs to a group


@needs_helm
@each_release
def test_there_is_exactly_one_and_its_volume_stays(example: Path, settings: tuple[str, ...]) -> None:
    [workload] = of_kind(rendered(example, *settings), "StatefulSet", "Job")
    spec = workload["spec"]
    if workload["kind"] == "Job":
        assert (spec["parallelism"], spec["completions"]) == (1, 1)
        claims = [v["persistentVolumeClaim"]["claimName"] for v in spec["template"]["spec"]["volumes"][:1]]
        [kept] = of_kind(rendered(example, "maintenance=true"), "StatefulSet")
        assert claims == [f"home-{kept['metadata']['name']}-0"]  # the one that maintenance has filled
        return
    assert spec["replicas"] == 1
    [claim] = spec["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] in (["ReadWriteOnce"], ["ReadWriteOncePod"])
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}


@needs_helm
def test_the_coordinator_is_reached_with_its_tls_untouched_and_sees_who_calls() -> None:
    objects = rendered(ROOT / "deploy/kubernetes/examples/coordinator.yaml")
    assert not of_kind(objects, "Ingress", "Gateway", "HTTPRoute")
    service, _ = of_kind(objects, "Service")
    assert service["spec"]["externalTrafficPolicy"] == "Local"
    [container] = of_kind(objects, "StatefulSet")[0]["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["tcpSocket"] == {"port": "federation"}
    assert "livenessProbe" not in container
    [budget] = of_kind(objects, "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 0
    [policy] = of_kind(objects, "NetworkPolicy")
    assert policy["spec"]["egress"] == []  # it opens no connections
    [rule] = policy["spec"]["ingress"]
    assert rule["ports"] == [{"port": 8443, "protocol": "TCP"}]
    assert [one["ipBlock"]["cidr"] for one in rule["from"]] == ["203.0.113.0/24", "198.51.100.0/24"]


@needs_helm
def test_the_coordinator_may_be_let_out_for_notifications_alone() -> None:
    settings = ("coordinator.allowTo[0].cidr=192.0.2.25/32", "coordinator.allowTo[0].port=587")
    [policy] = of_kind(rendered(ROOT / "deploy/kubernetes/examples/coordinator.yaml", *settings), "NetworkPolicy")
    names, mail = policy["spec"]["egress"]
    assert {(port["port"], port["protocol"]) for port in names["ports"]} == {(53, "UDP"), (53, "TCP")}
    assert mail == {"to": [{"ipBlock": {"cidr": "192.0.2.25/32"}}], "ports": [{"port": 587, "protocol": "TCP"}]}


@needs_helm
@pytest.mark.parametrize("example", [path for path in EXAMPLES if "site" in path.stem], ids=lambda path: path.stem)
def test_a_site_is_not_reached_and_reaches_one_address(example: Path) -> None:
    objects = rendered(example)
    assert not of_kind(objects, "Service", "Ingress")
    [policy] = of_kind(objects, "NetworkPolicy")
    assert (policy["spec"]["ingress"], policy["spec"]["policyTypes"]) == ([], ["Ingress", "Egress"])
    names, one = policy["spec"]["egress"]
    assert {port["port"] for port in names["ports"]} == {53}
    [to] = one["to"]
    assert to["ipBlock"]["cidr"].endswith("/32")
    [workload] = of_kind(objects, "StatefulSet", "Job")
    [container] = workload["spec"]["template"]["spec"]["containers"]
    [data] = [mount for mount in container["volumeMounts"] if mount["mountPath"] == "/data"]
    assert data["readOnly"] is True


@needs_helm
def test_a_gpu_is_asked_for_where_one_is_wanted() -> None:
    limits = {
        example.stem: of_kind(rendered(example), "StatefulSet", "Job")[0]["spec"]["template"]["spec"]["containers"][0][
            "resources"
        ]["limits"]
        for example in EXAMPLES
    }
    assert limits["site"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in limits["site-job"]


@needs_helm
@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (("image.repository=",), "/image/repository"),
        (("role=both",), "/role"),
        (("role=site",), "/site/connectTo/cidr"),
        (("coordinator.port=443",), "/coordinator/port"),
        (("coordinator.allowFrom[0]=sites.example.org",), "/coordinator/allowFrom/0"),
        (("home.accessMode=ReadWriteMany",), "/home/accessMode"),
        (("home.sise=10Gi",), "/home"),
        (("image.digest=latest",), "/image/digest"),
    ],
    ids=lambda value: value[0].replace("/", "_") if isinstance(value, tuple) else None,
)
def test_wrong_values_are_refused_by_their_name(settings: tuple[str, ...], named: str) -> None:
    options = [word for setting in settings for word in ("--set", setting)]
    done = helm("template", "trial", CHART, "--values", ROOT / "deploy/kubernetes/examples/coordinator.yaml", *options)
    assert done.returncode != 0
    assert f"'{named}" in done.stderr, done.stderr


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"] == chart["name"]


# --- the script ---------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return a PATH on which each program ends with the code that FAKE_CODE says."""
    for name in ("coordinator", "site-agent"):
        file = tmp_path / name
        file.write_text('#!/bin/sh\nexit "$FAKE_CODE"\n')
        file.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


ROLES = {"coordinator": "coordinator", "site-statefulset": "site", "site-job": "site"}


def supervised(what: str, path: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), what],
        env={**os.environ, "PATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], timeout_s: float = 30) -> int:
    """Wait for the end; a process that does not end is killed, and the test fails."""
    try:
        return process.wait(timeout_s)
    finally:
        process.kill()
        process.communicate()


def outcome(what: str, code: int, path: str) -> tuple[int | None, str]:
    """Let the program end with a code; return the script's own and its line.

    None: it waited until it was told to stop.
    """
    process = supervised(what, path, FAKE_CODE=str(code))
    assert process.stderr is not None
    said = process.stderr.readline()  # ends with the process, or with the line that it waits
    if said:
        process.terminate()
    own = ended(process)
    assert not said or own == 0
    return None if said else own, said


@pytest.mark.parametrize("what", ROLES)
def test_after_what_a_person_must_do_it_waits_and_else_it_ends(what: str, path: str) -> None:
    """The codes are those of the runbook."""
    mine = PERSON_ACTS[ROLES[what]] if what != "site-job" else set()
    waits = mine | ({0, 11, 20, 21} if what == "coordinator" else set())  # no run: a restart would find none
    for code in EXIT_CODES.keys() - {130, 141}:
        own, said = outcome(what, code, path)
        if code in waits:
            assert own is None, code
            assert f"exit code {code}" in said
            assert "then delete this pod" in said
        else:
            assert own == (0 if code == 20 else code)


@needs_helm
def test_a_job_ends_for_good_after_the_same_codes() -> None:
    [job] = of_kind(rendered(ROOT / "deploy/kubernetes/examples/site-job.yaml"), "Job")
    fails, _ = job["spec"]["podFailurePolicy"]["rules"]
    assert set(fails["onExitCodes"]["values"]) == PERSON_ACTS["site"]


def test_a_signal_reaches_the_program_and_its_own_code_is_kept(tmp_path: Path) -> None:
    program = tmp_path / "coordinator"
    program.write_text(
        f"#!{sys.executable}\nimport signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(130))\n"
        "print('ready', flush=True)\nsignal.pause()\n"
    )
    program.chmod(0o755)
    process = supervised("coordinator", f"{tmp_path}:{os.environ['PATH']}")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert ended(process) == 130
