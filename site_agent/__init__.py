"""The process that runs at a hospital: it owns the images, the labels and the trainer."""
