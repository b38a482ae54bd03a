"""Two ends agree on a version of the wire, or one of them waits and says what to install where."""

from __future__ import annotations

import pytest

from fedcervix.core.plan_formats import FORMAT
from fedcervix.errors import LinkError, VersionError
from fedcervix.transport import codec
from fedcervix.transport.versions import HERE, WIRE_VERSIONS, Build, agreed, newest_common
from fedcervix.wire import federation_pb2 as wire

TODAY, NEXT, LATER = Build("0.1.0", 2, 2, 1, 1), Build("0.2.0", 2, 3, 1, 2), Build("0.3.0", 3, 4, 1, 2)


def test_this_software_speaks_one_version_or_two_that_follow_each_other() -> None:
    assert len(WIRE_VERSIONS) <= 2
    assert list(WIRE_VERSIONS) == [*range(WIRE_VERSIONS[0], WIRE_VERSIONS[-1] + 1)]
    assert agreed(HERE, HERE, numerics=HERE.numerics, plan_format=1) == WIRE_VERSIONS[-1]


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
        assert agreed(site, coordinator, numerics=1, plan_format=1) == spoken


@pytest.mark.parametrize(
    ("site", "coordinator", "numerics", "what", "next_step"),
    [
        (
            LATER,
            TODAY,
            1,
            (
                "the site (fedcervix 0.3.0) speaks versions 3 to 4 of the protocol, "
                "the coordinator (fedcervix 0.1.0) version 2"
            ),
            "install fedcervix 0.3.0 at the coordinator",
        ),
        (
            TODAY,
            LATER,
            1,
            (
                "the site (fedcervix 0.1.0) speaks version 2 of the protocol, "
                "the coordinator (fedcervix 0.3.0) versions 3 to 4"
            ),
            "install fedcervix 0.3.0 at the site",
        ),
        (
            Build("0.2.0", 2, 3, 2, 2),
            NEXT,
            1,
            "the site (fedcervix 0.2.0) computes with numerics 2, the run with numerics 1",
            "install fedcervix 0.2.0 at the site",
        ),
        (
            TODAY,
            NEXT,
            1,
            "the site (fedcervix 0.1.0) reads plans up to format 1, that of the run has 2",
            "install fedcervix 0.2.0 at the site",
        ),
        (
            NEXT,
            Build("0.3.0", 3, 4, 2, 2),
            1,
            "the run began with numerics 1, the coordinator (fedcervix 0.3.0) computes with numerics 2",
            "install the earlier version at the coordinator to finish the run, or end the run there",
        ),
    ],
)
def test_what_to_install_and_where_is_said(
    site: Build, coordinator: Build, numerics: int, what: str, next_step: str
) -> None:
    with pytest.raises(VersionError) as caught:
        agreed(site, coordinator, numerics=numerics, plan_format=2)
    assert (caught.value.what, caught.value.next_step) == (what, next_step)
    assert isinstance(caught.value, LinkError), "another try may help"


def test_an_agent_says_what_it_speaks_and_one_that_names_a_single_version_speaks_that() -> None:
    assert codec.read_build(codec.write_attach(LATER, None)) == LATER
    assert codec.read_build(wire.AttachRequest(wire_version=2)) == Build("", 2, 2, 1, 1)


def test_a_version_s_name_that_is_none_is_not_kept() -> None:
    """It goes into the record, which every site reads."""
    assert codec.read_build(wire.AttachRequest(wire_version=2, software_version="0.1.0\u2028<b>")).software == ""


def test_a_range_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(codec.RemoteError, match="lowest version of the protocol is above the highest"):
        codec.read_build(wire.AttachRequest(wire_version=3, wire_version_max=2))


def test_a_plan_of_an_unknown_format_is_another_version_s_and_not_a_fault() -> None:
    later = FORMAT + 1
    message = wire.FromCoordinator(welcome=wire.Welcome(federation="cervix", run="r", plan=f'{{"format":{later}}}'))
    with pytest.raises(VersionError, match=f"has format {later}; fedcervix .* reads formats up to {FORMAT}"):
        codec.read_from_coordinator(message)
