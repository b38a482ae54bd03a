"""NVIDIA FLARE's server: its own FedAvg, which notes when each round was averaged."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from nvflare.app_common.workflows.fedavg import FedAvg
from safetensors.numpy import load_file


class Noting(FedAvg):
    """FedAvg that reads its first model from a file, and writes each average's time and a number of it."""

    def __init__(self, first: str, times: str, num_clients: int, num_rounds: int) -> None:
        super().__init__(num_clients=num_clients, num_rounds=num_rounds)
        self.first, self.times = first, times

    def run(self) -> None:
        """Run all rounds."""
        self.model = load_file(self.first)
        super().run()

    def update_model(self, *given: Any, **named: Any) -> Any:
        """Take the average for the next model, and note when."""
        updated = super().update_model(*given, **named)
        at, first = time.time(), updated.params[min(updated.params)]
        with Path(self.times).open("a") as file:
            file.write(f"{at} {first.flat[0]}\n")
        return updated
