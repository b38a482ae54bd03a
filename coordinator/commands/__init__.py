"""What the commands of `coordinator` do."""
