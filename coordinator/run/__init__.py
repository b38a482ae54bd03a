"""The loop around the round machine: what it is told, what it says, what an ended run leaves."""
