"""One site's part in the secure sums of a run: from its opening to the models that it derives from the sums.

`fedcervix.trust` decides and signs, `fedcervix.models` computes the files; here is what lies between: the disk.

Rules
1. What is decided is on the disk before anything follows from it (`SumJournal`). Done again after a kill, every method
   gives the same bytes.
2. What the coordinator says is a `Proposal`, a list, an opening, a box. What this site knows by itself is `KnownRound`:
   the caller takes it from the ledger that this site has verified.
3. A vector that is not masked (q) is as secret as the model that it was made from. It is deleted as soon as its masked
   form is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedcervix.core.plan import Plan
from fedcervix.disk.storage import disk
from fedcervix.errors import FedcervixError, ModelError, PolicyError, RemoteError, RunError
from fedcervix.models.aggregate import Momentum
from fedcervix.models.blobs import BlobStore
from fedcervix.models.secure_averages import Summed, derive
from fedcervix.models.secure_sums import check_sum, mask, release
from fedcervix.models.secure_updates import quantise
from fedcervix.models.secure_vectors import vector_form
from fedcervix.models.weights import read_layout
from fedcervix.trust.contexts import RoundContext, RunContext, first_attempt
from fedcervix.trust.fixed_point import Share, together
from fedcervix.trust.holder_rules import (
    Decision,
    NotAllowed,
    OwnView,
    Proposal,
    decide_close,
    decide_free,
    decide_learn,
    decide_opening,
    decide_release,
    decide_roster,
    decide_upload,
    sum_before,
)
from fedcervix.trust.ledger_run import KnownRound
from fedcervix.trust.mask_streams import MaskSecret
from fedcervix.trust.statements import PrivateKey
from fedcervix.trust.sum_closes import SignedClose, signed_close
from fedcervix.trust.sum_lists import SignedRelease, SumList, signed_release
from fedcervix.trust.sum_memory import BaseVouched
from fedcervix.trust.sum_papers import AttemptShown
from fedcervix.trust.sum_reports import SumReport, commit_nonce, commitment, three_digits
from fedcervix.trust.sum_roster import (
    Opening,
    PinnedKeys,
    SumRoster,
    checked_roster,
    opened_rho,
    rho_boxes,
    signed_opening,
)
from fedcervix.trust.sum_secrets import attempt_tag, holder_secrets, site_secrets
from site_agent.home import SiteHome
from site_agent.store.run_secrets import RunSecrets, SecretsFile
from site_agent.store.sum_journal import SumJournal

VECTOR = "sum-vector"
"""the unfinished file of a vector that is not masked"""


@dataclass(frozen=True, slots=True)
class TrainedUpdate:
    """What training gave, as far as a report tells it."""

    model: str
    """digest"""
    steps: int
    loss: float


@dataclass(frozen=True, slots=True)
class SigningSite:
    """Who this site is, and the key that shows it."""

    site: str
    key: PrivateKey


class SumSite:
    """One site in one run. Its methods may be called from one thread at a time; all raise StorageError."""

    def __init__(
        self,
        home: SiteHome,
        me: SigningSite,
        run: RunContext,
        plan: Plan,
        journal: SumJournal,
    ) -> None:
        self._home, self._site, self._identity = home, me.site, me.key
        self._run, self._plan = run, plan
        self._journal, self._file = journal, SecretsFile(home, run.run)
        self._blobs = BlobStore(home.blobs)
        self._secrets = self._file.read()
        self._roster: SumRoster | None = None
        self.keys: PinnedKeys = {}
        """the identity keys of the sites, this one's among them; set before anything else is asked"""

    # --- S0 ---

    def opening(self, images: int) -> Opening:
        """Return this site's opening of the run; the number of images stays what it was at first.

        Raises PolicyError where this home may not take part, or has lost the secrets of the run.
        """
        known, drawn_before = self._journal.memory.openings.get(self._run.run), self._secrets is not None
        if self._secrets is None and known is None:
            self._secrets = RunSecrets.drawn(images)
            self._file.write(self._secrets)
        drawn = self._drawn()
        made = signed_opening(
            self._identity, self._run, drawn.own_key(self._site), drawn.images, bytes.fromhex(drawn.rho)
        )
        decision = decide_opening(self._journal.memory, self._run, made, drawn_before=drawn_before)
        self._act(decision, "take part", PolicyError)
        return made

    def join(self, openings: Sequence[Opening]) -> dict[str, bytes]:
        """Check and keep the openings of all sites; return this site's secret bytes, in a box for each other site.

        Raises RemoteError, PolicyError.
        """
        roster = checked_roster(self._run, self._plan.sites, openings, self.keys)
        self._act(decide_roster(self._journal.memory, self._site, roster), "take part", PolicyError)
        drawn = self._drawn()
        if not drawn.openings:
            self._keep(drawn.told(roster.openings))
        self._roster = roster
        return rho_boxes(drawn.own_key(self._site), roster, bytes.fromhex(drawn.rho))

    def take_boxes(self, boxes: Mapping[str, bytes]) -> None:
        """Open the boxes of other sites, and keep what is in them. Raises RemoteError."""
        drawn, roster = self._drawn(), self.roster
        if others := set(boxes) ^ {name for name in roster.names if name != self._site}:
            raise RemoteError(
                f"the boxes that the coordinator shows are not those of the other sites: {', '.join(sorted(others))}",
                cause="the coordinator is faulty, or it is not honest",
                next_step="compare with the other sites and the coordinator's operator",
            )
        own = drawn.own_key(self._site)
        self._keep(drawn.boxed({site: opened_rho(own, roster, site, box) for site, box in boxes.items()}))

    @property
    def roster(self) -> SumRoster:
        """The run's roster. Raises RunError before the openings have come, RemoteError."""
        if self._roster is None:
            held = self._drawn().openings
            if not held:
                raise RunError(f"the openings of run {self._run.run} have not come yet")
            openings = [one.opening() for one in held]
            self._roster = checked_roster(self._run, self._plan.sites, openings, self.keys)
        return self._roster

    @property
    def is_joined(self) -> bool:
        """Say whether it has the openings and the secret bytes of all sites."""
        return self._secrets is not None and len(self._secrets.all_rhos(self._site)) == len(self._plan.sites)

    def vouch(self, base: str) -> None:
        """Note that a first model was made from this run's roster: it was in no sum before."""
        if base not in self._journal.memory.vouched:
            self._journal.remember(BaseVouched(base))

    # --- a round ---

    def proposal(self, known: KnownRound, shown: AttemptShown) -> Proposal:
        """Return the attempt at a round that the coordinator shows. Raises RemoteError where it cannot be one."""
        try:
            return shown.proposal(self._first(known))
        except ValueError as error:
            raise RemoteError(f"there is no such attempt at round {known.round}: {error}") from error

    def listed(self, proposal: Proposal, shown: AttemptShown) -> SumList:
        """Return the list that the coordinator shows for an attempt. Raises RemoteError where it cannot be one."""
        try:
            return shown.listed(proposal.context)
        except ValueError as error:
            raise RemoteError(f"there is no such list of round {shown.round}: {error}") from error

    def upload(self, known: KnownRound, proposal: Proposal, trained: TrainedUpdate) -> SumReport:
        """Make the masked vector of a trained model, which lies in the blob store then; return the signed report.

        Raises RemoteError where a rule forbids it, ModelError where the update is out of range or the base may be old.
        """
        view, base = self._view(known), self._blobs.path(known.base)
        own, context = self._drawn().own_key(self._site), proposal.context
        update, q, y = self._blobs.path(trained.model), *map(self._blobs.scratch, (VECTOR, "sum-masked"))
        try:
            nonce = commit_nonce(bytes.fromhex(self._drawn().nonces), context, trained.model)
            share, rule, hasher = self._share(self._site), self._plan.terms.batch_norm, commitment(nonce)
            made = quantise(update, base, q, share, rule, self._tag(context), hasher, round_=known.round)
            commit = made.digest
            self._act(decide_upload(view, proposal, commit), "upload its vector")
            digest = mask(q, y, read_layout(base), site_secrets(own, self.roster, context, commit))
        finally:
            with disk(q, "write"):
                q.unlink(missing_ok=True)
        self._blobs.adopt(y, digest)
        report = SumReport(
            site=self._site,
            commit=commit,
            upload=digest,
            steps=trained.steps,
            norm=three_digits(made.norm),
            loss=three_digits(trained.loss),
            before=sum_before(view),
        )
        return report.signed(self._identity, context)

    def release(self, known: KnownRound, proposal: Proposal, listed: SumList) -> SignedRelease:
        """Make the sum of this holder's masks for a list, which lies in the blob store then; return its signed word.

        Raises RemoteError where a rule forbids it.
        """
        self._act(decide_release(self._view(known), proposal, listed), "release its masks")
        own, to = self._drawn().own_key(self._site), self._blobs.scratch("sum-release")
        layout = read_layout(self._blobs.path(known.base))
        digest = release(to, layout, holder_secrets(own, self.roster, proposal.context, listed))
        self._blobs.adopt(to, digest)
        return signed_release(self._identity, self._site, proposal.context, listed, digest)

    def learn(
        self, known: KnownRound, proposal: Proposal, listed: SumList, releases: Sequence[SignedRelease], total: str
    ) -> str:
        """Check the sum of a round (a blob), and derive its model into the blob store; return its digest.

        Raises RemoteError where a rule forbids it, or the sum is not that of the list.
        """
        self.remember_sum(known, proposal, listed, releases)
        base, sum_file = self._blobs.path(known.base), self._blobs.path(total)
        check_sum(sum_file, base, len(listed.sites), self._tag(proposal.context))
        of = Summed(together(map(self._share, listed.sites)), len(listed.sites))
        to = self._blobs.scratch("sum-model")
        rule, momentum = self._plan.terms.batch_norm, self._momentum(known)
        digest = derive(sum_file, base, to, of, rule, momentum, round_=known.round).digest
        self._blobs.adopt(to, digest)
        return digest

    def remember_sum(
        self, known: KnownRound, proposal: Proposal, listed: SumList, releases: Sequence[SignedRelease]
    ) -> None:
        """Note whose sum over the round's base there is, by the words of all holders. Raises RemoteError."""
        self._act(decide_learn(self._view(known), proposal, listed, releases), "take the sum of the round")

    def close(self, known: KnownRound, proposal: Proposal, remaining: tuple[str, ...]) -> SignedClose:
        """Promise never to release in this attempt, and return the signed word. Raises RemoteError."""
        self._act(decide_close(self._view(known), proposal, remaining), "close the attempt")
        return signed_close(self._identity, self._site, proposal.context, remaining)

    # --- the end ---

    def free(self, known: KnownRound, following: Proposal) -> None:
        """Let the base of a round whose attempts are all closed be used in another run. Raises RemoteError."""
        self._act(decide_free(self._view(known), following), "let the base be used in another run")

    def end(self) -> None:
        """The run has ended: its secrets go, and a vector that is not masked, which a killed process has left."""
        self._secrets = None
        self._file.forget()
        with disk(left := self._blobs.scratch(VECTOR), "write"):
            left.unlink(missing_ok=True)

    # --- what it knows ---

    def _drawn(self) -> RunSecrets:
        if self._secrets is None:
            raise PolicyError(
                f"the secrets of run {self._run.run} are not in {self._home.secrets}",
                cause="this home was restored from a backup, which does not hold them, or they were deleted",
                next_step="tell the coordinator's operator: this run goes on without this site, or ends",
            )
        return self._secrets

    def _keep(self, drawn: RunSecrets) -> None:
        if drawn != self._secrets:
            self._file.write(drawn)
            self._secrets = drawn

    def _first(self, known: KnownRound) -> RoundContext:
        """Return the context of the first attempt at a round."""
        layout = vector_form(read_layout(self._blobs.path(known.base))).digest
        return first_attempt(
            self._run,
            self._plan,
            self.roster.digest,
            round_=known.round,
            base=known.base,
            head=known.head,
            layout=layout,
        )

    def _view(self, known: KnownRound) -> OwnView:
        return OwnView(
            me=self._site,
            memory=self._journal.memory,
            context=self._first(known),
            roster=self.roster,
            average=self._plan.terms.average,
            pins=self.keys,
        )

    def _share(self, site: str) -> Share:
        weights = self.roster.weights(self._plan.terms.average)
        return Share(weights[site], sum(weights.values()))

    def _tag(self, context: RoundContext) -> MaskSecret:
        return attempt_tag(self.roster, context, self._drawn().all_rhos(self._site))

    def _momentum(self, known: KnownRound) -> Momentum | None:
        if known.last_step is None:
            return None
        later, earlier = map(self._blobs.path, known.last_step)
        return Momentum(self._plan.terms.server_momentum, later, earlier)

    def _act(self, decision: Decision, what: str, kind: type[FedcervixError] = RemoteError) -> None:
        """Write down what was decided. Raises `kind` where it is forbidden; ModelError for a model that may be old."""
        if isinstance(decision, NotAllowed):
            restored = decision.rule == "H7"
            cause, next_step = RESTORED if restored else NOT_HONEST
            raise (ModelError if restored and kind is RemoteError else kind)(
                f"this site does not {what} in run {self._run.run} (rule {decision.rule}): {decision.why}",
                cause=cause,
                next_step=next_step.format(vouch=self._home.command("vouch")),
            )
        self._journal.remember(decision.entry)


RESTORED = (
    "this home was restored from a backup, or is a copy",
    (
        "if this home had begun the run: tell the coordinator's operator, because the run goes on without this site, "
        "or ends. If not: ask all other sites, and only if no sum was made of the first model: {vouch} DIGEST"
    ),
)
NOT_HONEST = (
    "the coordinator was restored from an old backup, is faulty, or is not honest",
    "telephone the other sites, and compare what each of them was asked; begin a new run when it is understood",
)
