"""The coordinator's home folder: where everything lies, its configuration, and who may connect."""
