"""How much one party may use: calls, log lines, descriptors, entries of the journal. Decisions only."""
