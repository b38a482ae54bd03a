"""From opened test images to findings: rows, questions, comparisons, verdicts."""
