"""The network and the operations on one batch: views, loss, optimiser, devices, precision."""
