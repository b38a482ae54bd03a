"""`site-agent doctor`: what a site needs before a run, and the archive for support."""
