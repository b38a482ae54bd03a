"""The secrets of one attempt at a round: the streams that a site adds and a holder releases, and what weighs the tag.

A stream lies between one site and one holder. Both derive it from their run keys, for one vector in one attempt.
"""

from __future__ import annotations

from collections.abc import Mapping

from fedcervix.trust.boxes import OwnKey
from fedcervix.trust.contexts import RoundContext
from fedcervix.trust.mask_streams import MaskSecret
from fedcervix.trust.sum_lists import SumList, mask_secret
from fedcervix.trust.sum_roster import SumRoster
from fedcervix.trust.sum_tag import tag_secret


def site_secrets(own: OwnKey, roster: SumRoster, context: RoundContext, commit: str) -> list[MaskSecret]:
    """Return what a site adds to the vector that it committed to: one stream for each holder."""
    return [mask_secret(own, roster, context, own.name, holder, commit) for holder in context.holders]


def holder_secrets(own: OwnKey, roster: SumRoster, context: RoundContext, listed: SumList) -> list[MaskSecret]:
    """Return what a holder releases in one sum: one stream for each line of the list."""
    return [mask_secret(own, roster, context, line.site, own.name, line.commit) for line in listed.reports]


def attempt_tag(roster: SumRoster, context: RoundContext, rhos: Mapping[str, bytes]) -> MaskSecret:
    """Return the secret of the tag, from the secret bytes of all sites. Raises KeyError where some are missing."""
    return tag_secret([rhos[site] for site in roster.names], context.digest.encode())
