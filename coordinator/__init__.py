"""The coordinator process: owns the run's truth, no image and no torch."""
