"""The commands of `site-agent`, one module each."""
