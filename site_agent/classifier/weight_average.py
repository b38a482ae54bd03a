"""The weights of a fit as a mean: of its last epochs, and of these with the weights that it began from.

It is meant for fits whose batch-norm statistics stand still (`lp-ft`). Elsewhere the mean of two networks' weights
would need statistics of its own, and trainings that begin from different weights have no mean that computes anything.

Sources: Izmailov et al., Averaging weights leads to wider optima and better generalization, UAI 2018 (epochs); Wortsman
et al., Robust fine-tuning of zero-shot models, CVPR 2022 (WiSE-FT: with the start).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from torch import Tensor

State = dict[str, Tensor]


class WeightAverage:
    """`share` x the mean of the last `epochs` states, and (1 - `share`) x the first one."""

    def __init__(self, first: Mapping[str, Tensor], epochs: int, share: float) -> None:
        self._first, self._share = first, share
        self._last: deque[Mapping[str, Tensor]] = deque(maxlen=epochs)

    def after(self, state: Mapping[str, Tensor]) -> State:
        """Return the mean after one epoch more, whose `state` it was; whole numbers (counters) are the last state's."""
        self._last.append(state)
        return {name: self._mean(name) if now.is_floating_point() else now for name, now in state.items()}

    def _mean(self, name: str) -> Tensor:
        mean = sum(one[name].double() for one in self._last) / len(self._last)
        found: Tensor = self._share * mean + (1 - self._share) * self._first[name].double()
        return found.to(self._first[name].dtype)
