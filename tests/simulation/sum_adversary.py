"""A malicious coordinator of secure sums, with up to c of the sites: what it can do, and what it must never know.

It speaks with each site as it likes, forges whatever needs no honest site's key, and keeps all that it is told. Its
colluders sign anything for it, and give it their keys. `violations` says what it got that the rules promise it cannot.
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from fedcervix.trust.boxes import NamedKey, OwnKey
from fedcervix.trust.contexts import RoundContext
from fedcervix.trust.holder_rules import NotAllowed, Proposal
from fedcervix.trust.statements import sign
from fedcervix.trust.sum_closes import ClosedAttempt, SignedClose, signed_close
from fedcervix.trust.sum_lists import SignedRelease, SumList, signed_release
from fedcervix.trust.sum_reports import SumReport
from fedcervix.trust.sum_roster import OPENING, Opening, outweighs, signed_opening
from tests.simulation.sum_algebra import Row, decodable, projected, rational_basis
from tests.simulation.sum_world import Mask, Site, Switches, Terms, Vector, digest, identity, run_context

OWN = "the coordinator's own"


def run_number(run: str) -> int:
    return int(run.rpartition("-")[2])


@dataclass
class Adversary:
    """The coordinator and its colluders, and what they know."""

    homes: dict[str, Site]
    """of the honest sites: it can only call them, and replace a home by an older copy of it"""
    colluders: frozenset[str]
    colluding: int
    """c: what the honest sites expect at most"""
    switches: Switches = field(default_factory=Switches)
    rows: list[Row] = field(default_factory=list)
    keys: set[bytes] = field(default_factory=set)
    """public keys whose secrets it has"""
    reports: dict[tuple[str, str], SumReport] = field(default_factory=dict)
    """by context and site"""
    openings: list[Opening] = field(default_factory=list)
    true_bases: set[str] = field(default_factory=set)
    kin: dict[str, str] = field(default_factory=dict)
    """bases of its choice, by what they were made from: what they teach a site is nearly the same"""

    def chosen_base(self, base: str) -> str:
        """Return a base that differs from another one by next to nothing."""
        chosen = digest("kin", base)
        self.kin[chosen] = base
        return chosen

    # --- the run ------------------------------------------------------------------------------------------------

    def key_of(self, name: str, salt: str = "") -> OwnKey:
        """Return a run key that it made itself."""
        own = OwnKey(name, hashlib.sha256(f"adversary {name} {salt}".encode()).digest())
        self.keys.add(own.public.key)
        return own

    def forged_opening(self, run: str, terms: Terms, site: str, images: int, signer: str | None = None) -> Opening:
        """Return an opening with a key of its own; an honest site's name needs somebody else's signature."""
        context = run_context(run, terms)
        own = self.key_of(site, run)
        return signed_opening(identity(signer or site), context, own, images, hashlib.sha256(site.encode()).digest())

    def copied_opening(self, run: str, terms: Terms, site: str, victim: Opening, images: int) -> Opening:
        """Return the opening of a colluder that gives an honest site's key as its own."""
        bare = Opening(site=site, key=NamedKey(site, victim.key.key), images=images, rho=victim.rho)
        context = run_context(run, terms)
        return replace(bare, signature=sign(identity(site), OPENING, *context.texts, *bare.texts))

    def begin(self, run: str, terms: Terms, images: dict[str, int]) -> list[Opening]:
        """Collect the openings of a run: the honest ones from the sites, the others of its own making."""
        found = []
        for site in terms.sites:
            if site in self.colluders:
                found.append(self.forged_opening(run, terms, site, images[site]))
            elif opening := self.homes[site].open(run, terms, images[site]):
                found.append(opening)
        self.openings += found
        return found

    def join(self, run: str, openings: Sequence[Opening], names: Collection[str]) -> list[str]:
        """Show a roster to some sites; return those that took it."""
        honest = [site for site in names if site in self.homes and run in self.homes[site].runs]
        took = [site for site in honest if self.homes[site].join(run, openings)]
        self.true_bases |= {self.homes[site].runs[run].bases[0] for site in took}
        return took

    # --- what it asks for ---------------------------------------------------------------------------------------

    def ready(self, run: str) -> list[str]:
        return [name for name, home in self.homes.items() if home.ready(run)]

    def honest_context(self, run: str) -> RoundContext | None:
        """Return the context of the newest round that a site sees."""
        views = [self.homes[name].view(run).context for name in self.ready(run)]
        return max(views, key=lambda context: context.round, default=None)

    def ask_report(self, site: str, proposal: Proposal, weight: int | None = None) -> bool:
        run = proposal.context.run.run
        if site in self.colluders:
            return self.forge_report(site, proposal.context)
        if site not in self.homes or not self.homes[site].ready(run):
            return False
        answer = self.homes[site].report(proposal, weight)
        if isinstance(answer, NotAllowed):
            return False
        report, vector = answer
        self.rows.append(vector.row)
        self.reports[proposal.context.digest, site] = report
        return True

    def forge_report(self, site: str, context: RoundContext, signer: str | None = None, before: str = "") -> bool:
        """Make a line for a colluder, or in the name of another site."""
        commit = digest("forged", site, context.digest)
        bare = SumReport(site=site, commit=commit, upload=commit, steps=1, norm=1.0, loss=1.0, before=before)
        self.reports[context.digest, site] = bare.signed(identity(signer or site), context)
        return True

    def lines(self, context: RoundContext) -> dict[str, SumReport]:
        return {site: report for (of, site), report in self.reports.items() if of == context.digest}

    def listed(self, context: RoundContext, names: Collection[str]) -> SumList:
        lines = self.lines(context)
        return SumList(context.digest, tuple(lines[name] for name in sorted(names) if name in lines))

    def ask_release(self, holder: str, proposal: Proposal, listed: SumList) -> SignedRelease | None:
        run = proposal.context.run.run
        if holder in self.colluders:
            return signed_release(identity(holder), holder, proposal.context, listed, digest("any"))
        if holder not in self.homes or not self.homes[holder].ready(run):
            return None
        try:
            answer = self.homes[holder].release(proposal, listed)
        except KeyError:  # a site that is not in this holder's roster
            return None
        if isinstance(answer, NotAllowed):
            return None
        self.rows.append(answer[1].row)
        return answer[0]

    def ask_close(self, holder: str, proposal: Proposal, remaining: tuple[str, ...]) -> SignedClose | None:
        if holder in self.colluders:
            return signed_close(identity(holder), holder, proposal.context, remaining)
        if holder not in self.homes or not self.homes[holder].ready(proposal.context.run.run):
            return None
        answer = self.homes[holder].close(proposal, remaining)
        return None if isinstance(answer, NotAllowed) else answer

    def release_all(self, proposal: Proposal, listed: SumList) -> list[SignedRelease]:
        found = [self.ask_release(holder, proposal, listed) for holder in proposal.context.holders]
        return [release for release in found if release]

    def publish(
        self, proposal: Proposal, listed: SumList, releases: Sequence[SignedRelease], names: Collection[str]
    ) -> None:
        """Publish a sum to some sites; the sum itself may be any."""
        run = proposal.context.run.run
        total = Vector((run_number(run), proposal.context.round, 0, 0), {})
        for name in names:
            there = name in self.homes and self.homes[name].ready(run)
            if there and self.homes[name].learn(proposal, listed, releases, total):
                self.true_bases.add(self.homes[name].runs[run].bases[-1])

    def next_attempt(self, proposal: Proposal, remaining: tuple[str, ...], asked: Collection[str]) -> Proposal | None:
        """Try to close an attempt and begin another one, with what the asked holders sign."""
        closes = [self.ask_close(holder, proposal, remaining) for holder in asked]
        attempt = ClosedAttempt(proposal.context, tuple(close for close in closes if close))
        pins = next(iter(self.homes.values())).pins
        context = attempt.next_context(pins)
        return Proposal(context, (*proposal.earlier, attempt)) if context else None

    def restore(self, site: str, backup: Site, *, with_secrets: bool) -> None:
        self.homes[site] = backup.restored(with_secrets=with_secrets)

    # --- what it knows ------------------------------------------------------------------------------------------

    def knows(self, unknown: Hashable) -> bool:
        return isinstance(unknown, Mask) and not self.keys.isdisjoint(unknown.keys)

    def sums(self) -> list[Row]:
        """Return all that it can compute of the honest sites' steps."""
        rows = [{unknown: n for unknown, n in row.items() if not self.knows(unknown)} for row in self.rows]
        return decodable(rows, lambda unknown: isinstance(unknown, Mask))

    def violations(self) -> Iterator[str]:
        """Say what it knows and should not."""
        found = self.sums()
        by_round, by_base = defaultdict(list), defaultdict(list)
        for row in found:
            rounds = {(step.run, step.round) for step in row}  # type: ignore[attr-defined]
            bases = {self.kin.get(step.base, step.base) for step in row}  # type: ignore[attr-defined]
            if len(rounds) > 1 or len(bases) > 1:
                yield f"steps of several rounds or bases stand in one combination: {row}"
            by_round[min(rounds)].append(row)
            by_base[min(bases)].append(row)
        for place, rows in by_round.items():
            if len(rows) > 1:
                yield f"two sums of round {place}: {rows}"
        for base, rows in by_base.items():
            yield from self._faults_of_base(base, rows)

    def _faults_of_base(self, base: str, rows: list[Row]) -> Iterator[str]:
        once = rational_basis(projected(row, lambda step: (step.site, step.weight)) for row in rows)  # type: ignore[attr-defined]
        if len(once) > 1:
            yield f"sums over the base {base[:8]} whose sites or weights differ: {once}"
        for row in once:
            weights = {str(site): abs(number) for site, number in row.items()}
            if len(weights) < max(2, 3 - len(self.colluders)) or outweighs(weights, 0):  # type: ignore[arg-type]
                yield f"a site is isolated, for the adversary or for another site: {weights}"
        if base not in self.true_bases:
            yield f"a sum over a base of its own choice: {base[:8]}"
        for row in rows:
            if any(step.base != base for step in row):  # type: ignore[attr-defined]
                yield f"a sum over a base of its own choice, made from {base[:8]}"


# --- what it tries ---------------------------------------------------------------------------------------------------


@dataclass
class Scene:
    """A federation in the hands of an adversary."""

    dice: random.Random
    adversary: Adversary
    terms: Terms
    images: dict[str, int]
    run: str = "run-1"
    runs: int = 1

    @property
    def honest(self) -> list[str]:
        return [site for site in self.terms.sites if site not in self.adversary.colluders]

    def proposal(self) -> Proposal | None:
        context = self.adversary.honest_context(self.run)
        return Proposal(context) if context else None

    def gather(self, proposal: Proposal, names: Collection[str] | None = None) -> None:
        for site in self.terms.sites if names is None else names:
            self.adversary.ask_report(site, proposal)

    def another_run(self, terms: Terms, images: dict[str, int] | None = None) -> list[Opening]:
        """Begin another run, and go on in it."""
        self.runs += 1
        self.run, self.terms = f"run-{self.runs}", terms
        self.images = images or self.images
        openings = self.adversary.begin(self.run, terms, self.images)
        self.adversary.join(self.run, openings, terms.sites)
        return openings

    def some(self, names: Sequence[str]) -> list[str]:
        return self.dice.sample(list(names), self.dice.randint(1, len(names)))

    def all_but_one(self, names: Sequence[str]) -> list[str]:
        left_out = self.dice.choice([*names]) if names else ""
        return [name for name in names if name != left_out]


def honest_round(scene: Scene) -> None:
    """One round as it should be."""
    proposal = scene.proposal()
    if proposal:
        scene.gather(proposal)
        listed = scene.adversary.listed(proposal.context, scene.terms.sites)
        releases = scene.adversary.release_all(proposal, listed)
        scene.adversary.publish(proposal, listed, releases, scene.terms.sites)


def two_lists(scene: Scene) -> None:
    """Two lists for one round: to each holder both, in some order; or the second one when a site comes in late."""
    if not (proposal := scene.proposal()):
        return
    late = scene.dice.choice(scene.honest)
    without = [site for site in scene.terms.sites if site != late]
    if scene.dice.random() < 0.5:
        scene.gather(proposal)
        lists = [scene.terms.sites, without]
    else:
        scene.gather(proposal, without)
        lists = [without, scene.terms.sites]
    for names in lists:
        if late in names:
            scene.gather(proposal, [late])
        scene.adversary.release_all(proposal, scene.adversary.listed(proposal.context, names))


def small_list(scene: Scene) -> None:
    """A list of one honest site, or few, with all colluders."""
    if proposal := scene.proposal():
        scene.gather(proposal)
        few = scene.dice.sample(scene.honest, min(len(scene.honest), scene.dice.choice([1, 1, 2])))
        names = {*few, *scene.adversary.colluders}
        scene.adversary.release_all(proposal, scene.adversary.listed(proposal.context, names))


def split_sets(scene: Scene) -> None:
    """Half of the sites for one holder, the other half for another."""
    if proposal := scene.proposal():
        scene.gather(proposal)
        half = scene.some(scene.terms.sites)
        rest = [site for site in scene.terms.sites if site not in half]
        for holder in proposal.context.holders:
            names = scene.dice.choice([half, rest, scene.all_but_one(scene.terms.sites)])
            scene.adversary.ask_release(holder, proposal, scene.adversary.listed(proposal.context, names))


def invented_sites(scene: Scene) -> None:
    """A run of one honest site among inventions, who bear the names of the others."""
    victim = scene.dice.choice(scene.honest)
    terms = replace(scene.terms, holders=_held_by(scene, victim))
    scene.runs += 1
    run = f"run-{scene.runs}"
    adversary = scene.adversary
    if not (opening := adversary.homes[victim].open(run, terms, scene.images[victim])):
        return
    others = [site for site in terms.sites if site != victim]
    forged = [adversary.forged_opening(run, terms, site, 20, signer=OWN) for site in others]
    openings = [opening, *forged]
    openings.sort(key=lambda one: terms.sites.index(one.site))
    if adversary.join(run, openings, [victim]):
        proposal = Proposal(adversary.homes[victim].view(run).context)
        adversary.ask_report(victim, proposal)
        for site in others:
            adversary.forge_report(site, proposal.context, signer=OWN)
        adversary.release_all(proposal, adversary.listed(proposal.context, terms.sites))


def forged_weights(scene: Scene) -> None:
    """Tell every site another weight than its own."""
    if proposal := scene.proposal():
        victim = scene.dice.choice(scene.honest)
        for site in scene.terms.sites:
            scene.adversary.ask_report(site, proposal, weight=1 if site == victim else 0)
        scene.adversary.release_all(proposal, scene.adversary.listed(proposal.context, scene.terms.sites))


def two_openings(scene: Scene) -> None:
    """A colluder opens with other numbers of images towards some sites."""
    if not scene.adversary.colluders:
        return
    liar = scene.dice.choice(sorted(scene.adversary.colluders))
    adversary, terms = scene.adversary, replace(scene.terms, average="by-images")
    openings = scene.another_run(terms)
    for site in scene.honest:  # nobody has joined another roster than the first that held
        lie = adversary.forged_opening(scene.run, terms, liar, scene.dice.choice([1, 10**6]))
        adversary.join(scene.run, [lie if one.site == liar else one for one in openings], [site])
    honest_round(scene)


def split_rosters(scene: Scene) -> None:
    """Two groups of sites with two rosters, in which a colluder has other images and another key."""
    if not scene.adversary.colluders:
        return
    liar = scene.dice.choice(sorted(scene.adversary.colluders))
    adversary, terms = scene.adversary, replace(scene.terms, average="by-images")
    scene.runs += 1
    scene.run, scene.terms = f"run-{scene.runs}", terms
    openings = adversary.begin(scene.run, terms, scene.images)
    group = scene.some(scene.honest)
    lie = adversary.forged_opening(scene.run, terms, liar, 10**6)
    adversary.join(scene.run, [lie if one.site == liar else one for one in openings], group)
    adversary.join(scene.run, openings, [site for site in scene.honest if site not in group])
    for proposal in _proposals(scene):
        scene.gather(proposal)
        adversary.release_all(proposal, adversary.listed(proposal.context, terms.sites))


def _proposals(scene: Scene) -> list[Proposal]:
    """Return what each site sees: where they have been told different things, these differ."""
    homes = scene.adversary.homes
    views = [homes[name].view(scene.run).context for name in scene.adversary.ready(scene.run)]
    return [Proposal(context) for context in dict.fromkeys(views)]


def outweigh(scene: Scene) -> None:
    """A run in which one honest site has nearly all images, or a colluder takes a share that hides no one."""
    victim = scene.dice.choice(scene.honest)
    images = {site: 10_000 if site == victim else scene.dice.randint(5, 40) for site in scene.terms.sites}
    if scene.adversary.colluders:
        images[min(scene.adversary.colluders)] = scene.dice.choice([1, 10_000, 10**6])
    scene.another_run(replace(scene.terms, average="by-images"), images)
    honest_round(scene)


def two_bases(scene: Scene) -> None:
    """Some sites get a base of its choice, or two rounds begin from what is nearly the same base."""
    if not (proposal := scene.proposal()):
        return
    true = proposal.context.base
    chosen = Proposal(replace(proposal.context, base=scene.adversary.chosen_base(true)))
    honest, adversary = scene.honest, scene.adversary
    left_out = scene.dice.choice(honest)
    order = scene.dice.choice([(chosen, proposal), (proposal, chosen), (chosen,)])
    for place, one in enumerate(order):
        names = [site for site in scene.terms.sites if place == 0 or site != left_out]
        scene.gather(one, names)
        adversary.release_all(one, adversary.listed(one.context, names))


def second_run(scene: Scene) -> None:
    """Another run over the same first base, without one site, or with other holders, weights or numbers of images."""
    adversary, dice = scene.adversary, scene.dice
    if dice.random() < 0.5:
        proposal = scene.proposal()
        if proposal and proposal.context.round == 1:  # its sum is kept from the sites
            scene.gather(proposal)
            adversary.release_all(proposal, adversary.listed(proposal.context, scene.terms.sites))
    images = {site: n + dice.choice([0, 0, 5]) for site, n in scene.images.items()}
    terms = scene.terms
    if dice.random() < 0.7 and len(terms.sites) > 3:
        terms = replace(terms, sites=tuple(scene.all_but_one(terms.sites)))
    terms = replace(terms, holders=_drawn_holders(dice, terms.sites, len(terms.holders)))
    terms = replace(terms, average=dice.choice(["equal", "by-images"]))
    scene.another_run(terms, images)
    honest_round(scene)


def ended_run(scene: Scene) -> None:
    """A run is ended with its round closed, so that its base is free; what was closed is asked for all the same."""
    adversary, dice = scene.adversary, scene.dice
    if not (proposal := scene.proposal()):
        return
    released = dice.random() < 0.5
    scene.gather(proposal, scene.terms.sites if released else scene.some(scene.terms.sites))
    listed = adversary.listed(proposal.context, scene.terms.sites)
    if released:
        adversary.release_all(proposal, listed)
    remaining = tuple(scene.all_but_one(proposal.context.holders)) if dice.random() < 0.5 else proposal.context.holders
    following = adversary.next_attempt(proposal, remaining, remaining)
    if following:
        if dice.random() < 0.3:
            scene.gather(following, scene.some(scene.terms.sites))
        for site in scene.honest:
            if adversary.homes[site].ready(scene.run) and dice.random() < 0.9:
                adversary.homes[site].free(following)
    left_out = dice.choice([*scene.terms.sites, *scene.terms.holders])
    terms, sites, run = scene.terms, [site for site in scene.terms.sites if site != left_out], scene.run
    if len(sites) >= 3:
        scene.another_run(replace(terms, sites=tuple(sites), holders=_drawn_holders(dice, sites, len(terms.holders))))
        honest_round(scene)
    for one in filter(None, (proposal, following)):
        adversary.release_all(one, adversary.listed(one.context, terms.sites))
    scene.run, scene.terms = dice.choice([(run, terms), (scene.run, scene.terms)])


def newcomer_holds(scene: Scene) -> None:
    """The sum of a run is kept from its sites, or told; another run over the same base has a holder that is new."""
    terms = scene.terms
    newcomer = scene.dice.choice(scene.honest)
    others = [site for site in terms.sites if site != newcomer]
    if len(others) < 3:
        return
    old_holders = _drawn_holders(scene.dice, others, len(terms.holders))
    new_holders = _held_by(scene, newcomer)
    first = digest("base of two runs", scene.runs)
    scene.another_run(replace(terms, sites=tuple(others), holders=old_holders, first_base=first))
    if not (proposal := scene.proposal()):
        return
    scene.gather(proposal)
    listed = scene.adversary.listed(proposal.context, others)
    releases = scene.adversary.release_all(proposal, listed)
    if scene.dice.random() < 0.5:
        scene.adversary.publish(proposal, listed, releases, others)
    scene.another_run(replace(terms, holders=new_holders, first_base=first))
    if scene.dice.random() < 0.5:
        honest_round(scene)
    elif proposal := scene.proposal():  # whoever released before would say so
        forgetful = [site for site in terms.sites if site not in old_holders or site in scene.adversary.colluders]
        scene.gather(proposal, forgetful)
        scene.adversary.release_all(proposal, scene.adversary.listed(proposal.context, forgetful))


def false_list(scene: Scene) -> None:
    """The sum of some sites is published as that of all; then all are summed, with the late site as the holder."""
    terms, adversary = scene.terms, scene.adversary
    late = scene.dice.choice(scene.honest)
    others = [site for site in terms.sites if site != late]
    first = digest("base of two runs", scene.runs)
    scene.another_run(replace(terms, holders=_drawn_holders(scene.dice, others, len(terms.holders)), first_base=first))
    if not (proposal := scene.proposal()):
        return
    scene.gather(proposal, others)
    releases = adversary.release_all(proposal, adversary.listed(proposal.context, others))
    scene.gather(proposal, [late])
    if len(adversary.colluders) < terms.colluders or scene.dice.random() < 0.7:
        adversary.publish(proposal, adversary.listed(proposal.context, terms.sites), releases, terms.sites)
    else:  # an attempt that never was, of holders who sign anything
        accomplices = tuple(sorted({*adversary.colluders, scene.dice.choice(scene.honest)}))
        attempt = replace(proposal.context, attempt=2, follows=proposal.context.digest, holders=accomplices)
        for site in terms.sites:
            adversary.forge_report(site, attempt, signer=site if site in adversary.colluders else OWN)
        signed = adversary.release_all(Proposal(attempt), adversary.listed(attempt, terms.sites))
        adversary.publish(Proposal(attempt), adversary.listed(attempt, terms.sites), signed, terms.sites)
    scene.another_run(replace(terms, holders=_held_by(scene, late), first_base=first))
    honest_round(scene)


def _drawn_holders(dice: random.Random, sites: Sequence[str], count: int) -> tuple[str, ...]:
    return tuple(sorted(dice.sample(list(sites), min(count, len(sites)))))


def _held_by(scene: Scene, site: str) -> tuple[str, ...]:
    """Return c + 1 holders: one site, and as many colluders as there are."""
    others = sorted(scene.terms.sites, key=lambda other: other not in scene.adversary.colluders)
    names = dict.fromkeys([site, *others])
    return tuple(sorted([*names][: scene.terms.colluders + 1]))


def restored_homes(scene: Scene) -> None:
    """A list is released; homes are set back to before it; another list is asked for."""
    if not (proposal := scene.proposal()):
        return
    adversary, copies = scene.adversary, scene.dice.random() < 0.5
    early = scene.dice.random() < 0.5
    backups = {site: adversary.homes[site].backup() for site in scene.honest}
    scene.gather(proposal)
    if not early:
        backups = {site: adversary.homes[site].backup() for site in scene.honest}
    adversary.release_all(proposal, adversary.listed(proposal.context, scene.terms.sites))
    for site in scene.honest:
        if site in proposal.context.holders:
            adversary.restore(site, backups[site], with_secrets=copies)
    scene.gather(proposal, proposal.context.holders)
    without = scene.all_but_one([site for site in scene.terms.sites if site not in proposal.context.holders])
    for names in ({*without, *proposal.context.holders}, without):
        adversary.release_all(proposal, adversary.listed(proposal.context, names))


def reopened_round(scene: Scene) -> None:
    """Attempts are closed and begun again, with other holders, for other groups of sites, before or after a release."""
    adversary, dice = scene.adversary, scene.dice
    if not (proposal := scene.proposal()):
        return
    attempts = [proposal]
    for _ in range(dice.randint(2, 6)):
        one = dice.choice(attempts)
        if dice.random() < 0.6:
            scene.gather(one, dice.choice([scene.terms.sites, scene.some(scene.terms.sites)]))
        if dice.random() < 0.5:
            names = dice.choice([scene.terms.sites, scene.all_but_one(scene.terms.sites)])
            adversary.release_all(one, adversary.listed(one.context, names))
        remaining = tuple(scene.all_but_one(one.context.holders)) if dice.random() < 0.8 else one.context.holders
        if dice.random() < 0.2:
            remaining = _drawn_holders(dice, scene.terms.sites, len(remaining))
        if following := adversary.next_attempt(one, remaining, remaining):
            attempts.append(following)


def abandoned_holder(scene: Scene) -> None:
    """The sum is released; the others close the attempt as if a holder were lost; the round is done again."""
    adversary = scene.adversary
    if not (proposal := scene.proposal()):
        return
    scene.gather(proposal)
    abandoned = scene.dice.choice(proposal.context.holders)
    listed = adversary.listed(proposal.context, scene.terms.sites)
    for holder in proposal.context.holders:
        if holder == abandoned or scene.dice.random() < 0.5:
            adversary.ask_release(holder, proposal, listed)
    remaining = tuple(holder for holder in proposal.context.holders if holder != abandoned)
    if following := adversary.next_attempt(proposal, remaining, remaining):
        scene.gather(following)
        names = scene.all_but_one([site for site in scene.terms.sites if site not in remaining])
        adversary.release_all(following, adversary.listed(following.context, {*names, *remaining}))
    for holder in proposal.context.holders:
        adversary.ask_release(holder, proposal, listed)


def split_attempts(scene: Scene) -> None:
    """Each of two holders is told that the other one is lost; two groups of sites do the round again."""
    adversary = scene.adversary
    if not (proposal := scene.proposal()) or scene.dice.random() < 0.2:
        return
    scene.gather(proposal)
    honest = [holder for holder in proposal.context.holders if holder in scene.honest]
    if len(honest) < 2:
        return
    groups = scene.dice.sample(scene.honest, len(scene.honest))
    groups = [groups[: len(groups) // 2], groups[len(groups) // 2 :]]
    for group, gone in zip(groups, scene.dice.sample(honest, 2), strict=True):
        remaining = tuple(holder for holder in proposal.context.holders if holder != gone)
        following = adversary.next_attempt(proposal, remaining, remaining)
        again = adversary.next_attempt(following, remaining, remaining) if following else None
        for one in (following, again):
            if one and scene.dice.random() < 0.8:
                names = {*group, *adversary.colluders}
                others = [site for site in scene.terms.sites if site != gone]
                scene.gather(one, scene.dice.choice([names, others]))
                adversary.release_all(one, adversary.listed(one.context, names))
                adversary.release_all(one, adversary.listed(one.context, others))


def replays(scene: Scene) -> None:
    """Lines and openings of other rounds and runs are shown again."""
    adversary, dice = scene.adversary, scene.dice
    if not (proposal := scene.proposal()):
        return
    scene.gather(proposal, scene.some(scene.terms.sites))
    for (_, site), line in list(adversary.reports.items()):
        if dice.random() < 0.3:
            adversary.reports.setdefault((proposal.context.digest, site), line)
    adversary.release_all(proposal, adversary.listed(proposal.context, scene.terms.sites))
    old = {opening.site: opening for opening in adversary.openings}
    fresh = adversary.begin(f"run-{scene.runs + 1}", scene.terms, scene.images)
    scene.runs += 1
    scene.run = f"run-{scene.runs}"
    adversary.join(scene.run, [old[one.site] if dice.random() < 0.3 else one for one in fresh], scene.honest)
    honest_round(scene)


def copied_keys(scene: Scene) -> None:
    """A colluder gives the key of an honest site as its own, and stands in its place in the list."""
    adversary = scene.adversary
    if not adversary.colluders:
        return
    thief, victim = scene.dice.choice(sorted(adversary.colluders)), scene.dice.choice(scene.honest)
    scene.runs += 1
    scene.run = f"run-{scene.runs}"
    openings = adversary.begin(scene.run, scene.terms, scene.images)
    original = [one for one in [*openings, *adversary.openings] if one.site == victim]
    if original:
        copy = adversary.copied_opening(scene.run, scene.terms, thief, scene.dice.choice(original), 20)
        adversary.join(scene.run, [copy if one.site == thief else one for one in openings], scene.honest)
    two_lists(scene)


def anything(scene: Scene) -> None:
    """Steps without a plan."""
    adversary, dice, known = scene.adversary, scene.dice, []
    for _ in range(dice.randint(5, 25)):
        if (proposal := scene.proposal()) and dice.random() < 0.3:
            known.append(proposal)
        if not known:
            continue
        one = dice.choice(known)
        changed = replace(one.context, base=adversary.chosen_base(one.context.base))
        one = one if dice.random() < 0.9 else Proposal(changed, one.earlier)
        match dice.randrange(6):
            case 0 | 1:
                scene.gather(one, scene.some(scene.terms.sites))
            case 2 | 3:
                listed = adversary.listed(one.context, scene.some(scene.terms.sites))
                adversary.ask_release(dice.choice(scene.terms.sites), one, listed)
            case 4:
                if following := adversary.next_attempt(
                    one, tuple(sorted(scene.some(one.context.holders))), one.context.holders
                ):
                    known.append(following)
            case 5:
                listed = adversary.listed(one.context, scene.terms.sites)
                adversary.publish(one, listed, adversary.release_all(one, listed), scene.terms.sites)


ATTACKS: tuple[Callable[[Scene], None], ...] = (
    two_lists,
    small_list,
    split_sets,
    invented_sites,
    forged_weights,
    two_openings,
    split_rosters,
    outweigh,
    two_bases,
    second_run,
    ended_run,
    newcomer_holds,
    false_list,
    restored_homes,
    reopened_round,
    abandoned_holder,
    split_attempts,
    replays,
    copied_keys,
    anything,
)
