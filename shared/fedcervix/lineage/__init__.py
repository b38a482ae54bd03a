"""Models as people ask about them: where one comes from, and what was decided on it, signed."""
