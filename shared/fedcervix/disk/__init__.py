"""Files, folders, locks, databases, the journal; and what the system says of them, as errors of ours."""
