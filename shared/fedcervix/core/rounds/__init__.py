"""The federation as a function: `step(run, event) -> (run, answer)`. No network, clock, disk or tensor.

Rules
1. `step` accepts any event in any phase. It returns a new state and an answer, and never raises an exception.
2. `step` is deterministic, and the state is a frozen value. So replaying a journal gives the same state again.
3. No function here sends anything. Other functions of the state say what is to be done: by a site (`instruction`), by
   the coordinator itself (`coordinator_work`), and when the state can change by time alone (`deadline`). They give the
   same answer each time. So a lost message, a broken stream or a restarted process is no special case: it asks again.

How it works. An event is first *recorded*, if it is new and fits the state. Then the run *advances* through as many
phases as their conditions allow:

    GATHERING -> SEEDING -> TRAINING -> AGGREGATING -> SCORING -> TRAINING ... -> PUBLISHING -> FINISHED
        with secure sums: TRAINING -> RELEASING -> AGGREGATING, or RELEASING -> CLOSING -> TRAINING
        (any of them) -> ABORTED

Modules, from bottom to top; each imports only from those above its line:

    state             what a run is: frozen values
    readers           who can read a model under seal
    holders           secure sums: who opens a run, who holds the masks of an attempt, when it can be closed
    participants      which sites a phase is open to
    coordinator_work  the coordinator's own work: which updates are averaged, with which weights
    scores            which round has the best model
    instructions      what a site should be doing
    waits             who is waited for, until when, and what follows; the quorum
    objections        why a report does not count
    transitions       the moves from phase to phase
    unusable          which updates count when a model cannot be used, or a site was revoked
    unreadable        from which model a ring goes on where nobody that is there can read the newest one
    phases            when a phase ends: the table by phase
    recording         what an event changes: the table by event
    step              `step` and `replay`

The table `fedcervix.core.modes` says who may train in a mode, what a round needs, and what follows it. In csfssl all
sites train at the same time, and the round's updates are averaged (paper, II-B: "the updated models from all clients
are aggregated at the server and used as the initialized model for the next iteration"). In ppfssl the same phase
consists of hops: one site at a time has the model ("the updated model is sent to next client and so on"). Each hop has
a lease. A site that stays silent longer is skipped in this cycle, and takes part again in the next one.

A site whose certificate was revoked does not take part in the run again. The run continues with the other sites.

If a site does not contribute to a round, the ledger has a line with the reason. A run with such a line ends DEGRADED.

A round can end with a model that gives no finite loss. The sites' answers decide this: the model is unusable when at
least half of the sites that answered say so. With two sites, one is enough, and the other cannot prevent it. So a site
that lies can exclude updates of other sites; the ledger names the site that reported the model as unusable.
    scored, unusable       the average is made again without one update, that with the largest step first, and is scored
                           again. If this does not help, the update counts again and the next one is left out. The
                           update whose absence helps does not count. In a ring the newest hop is left out first, then
                           the one before it too, because later hops are built on earlier ones
    trained, unusable      in a ring the newest hop is left out, and the site that has the model now is asked again.
                           Otherwise the run goes back to the model before the one that the round began with
    neither helps          no update of the round counts (it is *void*), and the run continues from the last good model
An update of a site whose certificate is revoked is removed from the current round in the same way.

With secure sums (docs/secure-sums.md) nobody sees a single update, so none can be left out: such a model ends the run.
RELEASING: the list of the round is fixed, and its holders are asked for their masks; as long as none has released, only
while all are here. CLOSING: a holder is away for longer than `grace_s`, and c + 1 are here: these promise never to
release, and the round is done again with them (another attempt).
"""
