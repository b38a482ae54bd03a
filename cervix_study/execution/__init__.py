"""Computing the cells: their order, their processes, and what each of them computes."""
