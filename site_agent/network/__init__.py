"""The network and what acts on one batch: views, loss, optimiser, devices, precision."""
