"""The coordinator's home folder: its paths, its configuration, and who may connect."""
