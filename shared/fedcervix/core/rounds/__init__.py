"""The federation as a function: `step(run, event) -> (run, answer)`. No network, clock, disk or tensor.

Rules
1. `step` is total: any event in any phase gives a new state and an answer, never an exception.
2. It is deterministic, and the state is a frozen value: replaying a journal gives the same state.
3. Nothing is *sent* from here. What a site should be doing, what the coordinator itself should be doing and when time
   matters next are functions of the state: `instruction`, `coordinator_work`, `deadline`. Whoever asks twice is told
   the same, so a lost message, a broken stream or a restarted process needs no special case: it asks again.

How to think about it. An event is first *recorded* (was it new? did it fit?), then the run *advances* through as many
phases as their conditions allow:

    GATHERING -> SEEDING -> TRAINING -> AGGREGATING -> SCORING -> TRAINING ... -> PUBLISHING -> FINISHED
        (any of them) -> ABORTED

Modules, from bottom to top; each imports only from those above its line:

    state             what a run is: frozen values
    participants      which sites a phase is open to
    coordinator_work  the coordinator's own work: which updates are averaged, with which weights
    scores            which round has the best model
    instructions      what a site should be doing
    waits             who is waited for, until when, and what follows; the quorum
    objections        why a report does not count
    transitions       the moves from phase to phase
    unusable          which updates count when a model cannot be used, or a site was revoked
    phases            when a phase ends: the table by phase
    recording         what an event changes: the table by event
    step              `step` and `replay`

Who may train, what is needed and what follows stands in a table: `fedcervix.core.modes`. In csfssl every site trains at
once and the round's updates are averaged (paper, II-B: "the updated models from all clients are aggregated at the
server and used as the initialized model for the next iteration"). In ppfssl the same phase is a row of hops: one site
at a time holds the model ("the updated model is sent to next client and so on"); the hop is a lease, so a site that
falls silent is passed over, and comes in again in the next cycle.

A site whose certificate was revoked is gone for good: the run goes on with the others.

A site that does not contribute to a round is written down with the reason. A run with such a line ends DEGRADED.

A model that gives no finite loss ends its round by rule, and no site's agent. The sites' answers decide: it counts as
unusable when at least half of those that answered say so. With two sites one is then enough, which the other cannot
prevent; a site that lies can cost others their place in rounds, and the ledger names it as the one who said so.
    scored, unusable       the average is made again without the update with the largest step, is scored again, and so
                           on; the update whose absence helps does not count. In a ring the newest hop is left out,
                           then the one before it: later hops are built on earlier ones
    trained, unusable      in a ring the newest hop is left out, and its holder is asked again. Else the model that the
                           round began with is given up, for the one before it
    neither helps          no update counts in the round (it is *void*), and the run goes on from the last good model
An update of a site whose certificate is revoked is taken out of the round in progress in the same way.
"""
