"""Phantom institutions: drawn cervices, so that the demo and the tests need no images of women.

    anatomy      who a woman is: numbers that stay with her through all her visits, and her disease
    labels       the two institutions' criteria on the same disease
    scene        what is in front of the camera at one visit, painted on a canvas
    camera       how a device photographs that canvas
    collection   a whole institution, in Table I's proportions, written to a folder

Rules
1. Everything is drawn from (seed, institution, woman, visit, photograph); nothing depends on what was drawn before.
2. No single easy sign gives the label away. White is also mucus, metaplasia and reflected light; red is also
   inflammation and blood; colour and brightness vary between women and photographs more than disease changes them.
3. The picture shows the disease, the label is a reviewer's opinion of it: criteria weigh it differently and err.
"""

from site_agent.phantom.collection import INSTITUTIONS, Institution, Protocol, write_institution

__all__ = ["INSTITUTIONS", "Institution", "Protocol", "write_institution"]
