"""What every program does: configuration, command line, printing, logs, exit codes."""
