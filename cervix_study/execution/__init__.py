"""Making the cells: in which order, in which processes, and what each of them computes."""
