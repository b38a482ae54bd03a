"""Files, folders, locks, databases, the journal; system errors become FedcervixErrors here."""
