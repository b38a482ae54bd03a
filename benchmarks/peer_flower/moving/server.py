"""Flower's server: its own FedAvg, which notes when each round was averaged."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

NUMBERS = {"F32": np.float32, "I64": np.int64}
app = ServerApp()


class Noting(FedAvg):
    """FedAvg that writes the time of each average, and its first number, on a line of its own."""

    def __init__(self, times: Path, **options: Any) -> None:
        super().__init__(**options)
        self._times = times

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        """Average, and note when."""
        averaged, metrics = super().aggregate_train(server_round, replies)
        at, first = time.time(), next(iter(averaged.values())).numpy()
        with self._times.open("a") as file:
            file.write(f"{at} {first.flat[0]}\n")
        return averaged, metrics


def arrays(model: Path) -> list[Any]:
    """Read a model: safetensors, whose header is JSON behind its length."""
    content = model.read_bytes()
    start = 8 + struct.unpack_from("<Q", content)[0]
    header = json.loads(content[8:start])
    found = []
    for name, tensor in header.items():
        if name != "__metadata__":
            begin, end = (start + at for at in tensor["data_offsets"])
            found.append(np.frombuffer(content[begin:end], NUMBERS[tensor["dtype"]]).reshape(tensor["shape"]))
    return found


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run all rounds; nothing is evaluated."""
    asked = context.run_config
    sites = int(asked["sites"])
    everyone = {"min_train_nodes": sites, "min_available_nodes": sites}
    strategy = Noting(Path(str(asked["times"])), fraction_evaluate=0.0, **everyone)
    first = ArrayRecord(arrays(Path(str(asked["model"]))))
    strategy.start(grid, first, num_rounds=int(asked["rounds"]))
