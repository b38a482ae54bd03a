"""Which cells a study has, how they are named, what validation chooses. Pure functions."""
