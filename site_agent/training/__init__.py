"""Contrastive training: steps, epochs, checkpoints, one process or several, and whether it is learning."""
