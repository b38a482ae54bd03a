"""Flower's client that trains in no time: it gives back what it got, with one number changed."""

from __future__ import annotations

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, _context: Context) -> Message:
    """Return the model with its first number changed."""
    model = message.content["arrays"].to_numpy_ndarrays(keep_input=False)
    model[0].flat[0] += 1
    content = {"arrays": ArrayRecord(model), "metrics": MetricRecord({"num-examples": 1})}
    return Message(content=RecordDict(content), reply_to=message)
