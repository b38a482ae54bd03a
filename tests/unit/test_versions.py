"""Two ends agree on a version of the wire, or one of them waits and says what to install where."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedcervix.core.plan_formats import FORMAT
from fedcervix.errors import LinkError, VersionError
from fedcervix.transport import codec
from fedcervix.transport.versions import HERE, WIRE_VERSIONS, Build, End, agreed, newest_common
from fedcervix.wire import federation_pb2 as wire

TODAY, NEXT, LATER = Build("0.1.0", 2, 2, 1, 1), Build("0.2.0", 2, 3, 1, 2), Build("0.3.0", 3, 4, 1, 2)


def test_this_software_speaks_one_version_or_two_that_follow_each_other() -> None:
    assert len(WIRE_VERSIONS) <= 2
    assert list(WIRE_VERSIONS) == [*range(WIRE_VERSIONS[0], WIRE_VERSIONS[-1] + 1)]
    assert agreed(HERE, HERE, at="site") == agreed(HERE, HERE, at="coordinator") == WIRE_VERSIONS[-1]


@pytest.mark.parametrize(
    ("site", "coordinator", "spoken"),
    [
        (TODAY, TODAY, 2),
        (TODAY, NEXT, 2),
        (NEXT, TODAY, 2),
        (NEXT, NEXT, 3),
        (Build("", 3, 3, 1), NEXT, 3),
        (LATER, NEXT, 3),
        (NEXT, LATER, 3),
        (LATER, LATER, 4),
        (TODAY, LATER, 0),
        (LATER, TODAY, 0),
        (Build("", 0, 0, 1), TODAY, 0),
    ],
)
def test_the_newest_version_that_both_speak_is_spoken(site: Build, coordinator: Build, spoken: int) -> None:
    assert newest_common(site, coordinator) == newest_common(coordinator, site) == spoken
    if spoken:
        assert agreed(site, replace(coordinator, plan_format=1), at="coordinator") == spoken


WAITS = "; until then a running agent waits, and tries again by itself"


@pytest.mark.parametrize(
    ("site", "coordinator", "at_site", "at_coordinator"),
    [
        (
            LATER,
            TODAY,
            (
                "this site (fedcervix 0.3.0) speaks versions 3 to 4 of the protocol, the coordinator version 2",
                "ask the coordinator's operator to install a fedcervix that speaks version 3 of the protocol" + WAITS,
            ),
            (
                "the site speaks versions 3 to 4 of the protocol, this coordinator (fedcervix 0.1.0) version 2",
                "install a fedcervix at the coordinator that speaks version 3 of the protocol",
            ),
        ),
        (
            TODAY,
            LATER,
            (
                "this site (fedcervix 0.1.0) speaks version 2 of the protocol, the coordinator versions 3 to 4",
                "ask the coordinator's operator which fedcervix to install here: one that speaks version 3 of the"
                " protocol" + WAITS,
            ),
            (
                "the site speaks version 2 of the protocol, this coordinator (fedcervix 0.3.0) versions 3 to 4",
                "install a fedcervix at the site that speaks version 3 of the protocol, as fedcervix 0.3.0 here does",
            ),
        ),
        (
            Build("0.2.0", 2, 3, 2, 2),
            NEXT,
            (
                "this site (fedcervix 0.2.0) computes with numerics 2, the run with numerics 1",
                "ask the coordinator's operator which fedcervix to install here: one that computes with numerics 1"
                + WAITS,
            ),
            (
                "the site computes with numerics 2, the run with numerics 1",
                "install a fedcervix at the site that computes with numerics 1, as fedcervix 0.2.0 here does",
            ),
        ),
        (
            TODAY,
            NEXT,
            (
                "the plan of the run has format 2; this site (fedcervix 0.1.0) reads formats up to 1",
                "ask the coordinator's operator which fedcervix to install here: one that reads plans of format 2"
                + WAITS,
            ),
            (
                "the plan of the run has format 2; the site reads formats up to 1",
                "install a fedcervix at the site that reads plans of format 2, as fedcervix 0.2.0 here does",
            ),
        ),
    ],
)
def test_each_end_says_in_its_own_words_what_differs_and_what_to_install_where(
    site: Build, coordinator: Build, at_site: tuple[str, str], at_coordinator: tuple[str, str]
) -> None:
    ends: tuple[tuple[End, tuple[str, str]], ...] = (("site", at_site), ("coordinator", at_coordinator))
    for end, words in ends:
        with pytest.raises(VersionError) as caught:
            agreed(site, coordinator, at=end)
        assert (caught.value.what, caught.value.next_step) == words
        assert isinstance(caught.value, LinkError), "another try may help"


@pytest.mark.parametrize("claimed", ["0.1.0", "9.9.9+call.555-0100", ""])
def test_what_the_other_end_calls_its_software_is_part_of_no_advice(claimed: str) -> None:
    """It may call it as this end does: to install that would be no advice. Or it may be no version at all."""
    other, words = Build(claimed, 7, 7), "speaks version 7 of the protocol"
    ends: tuple[tuple[End, Build, Build], ...] = (("coordinator", other, TODAY), ("site", TODAY, other))
    for end, site, coordinator in ends:
        with pytest.raises(VersionError) as caught:
            agreed(site, coordinator, at=end)
        said = f"{caught.value.what} {caught.value.cause} {caught.value.next_step}"
        assert words in caught.value.next_step
        assert said.count("0.1.0") == 1, "of this end"
        assert "9.9.9" not in said


def test_a_coordinator_says_in_a_header_what_it_speaks() -> None:
    assert codec.read_versions(codec.write_versions(LATER)) == replace(LATER, software="")
    for text in ("", "2 2 1", "2 2 1 1 1", "3 2 1 1", "2 2 1 -1", "2 2 1 \u0661", "2 2 1 " + "9" * 10):
        assert codec.read_versions(text) is None


def test_an_agent_says_what_it_speaks_and_one_that_names_a_single_version_speaks_that() -> None:
    assert codec.read_build(codec.write_attach(LATER, None)) == LATER
    assert codec.read_build(wire.AttachRequest(wire_version=2)) == Build("", 2, 2, 1, 1)


def test_a_version_s_name_that_is_none_is_not_kept() -> None:
    """It goes into the record, which every site reads."""
    assert codec.read_build(wire.AttachRequest(wire_version=2, software_version="0.1.0\u2028<b>")).software == ""


def test_a_range_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(codec.RemoteError, match="lowest version of the protocol is above the highest"):
        codec.read_build(wire.AttachRequest(wire_version=3, wire_version_max=2))


RUN = "20260101-000000-csfssl-00000000"


def test_a_plan_of_an_unknown_format_is_another_version_s_and_not_a_fault() -> None:
    later = FORMAT + 1
    said = wire.Welcome(federation="cervix", run=RUN, plan=f'{{"format":{later}}}', wire_version=WIRE_VERSIONS[-1])
    with pytest.raises(VersionError, match=rf"has format {later}; this site .* reads formats up to {FORMAT}"):
        codec.read_from_coordinator(wire.FromCoordinator(welcome=said))


@pytest.mark.parametrize("version", [WIRE_VERSIONS[-1] + 1, WIRE_VERSIONS[0] - 1, 0])
@pytest.mark.parametrize("rest", [{"run": RUN, "plan": "{}"}, {}], ids=["a plan that is none", "nothing else"])
def test_a_welcome_in_a_version_that_is_not_spoken_here_is_no_fault_whatever_else_it_says(
    version: int, rest: dict[str, str]
) -> None:
    """The agent waits, as for any other version. Such a welcome ended it."""
    welcome = wire.FromCoordinator(welcome=wire.Welcome(wire_version=version, **rest))
    with pytest.raises(VersionError, match=f"the coordinator version {version}"):
        codec.read_from_coordinator(welcome)
