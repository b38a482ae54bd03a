"""The network's side: listeners, connections, and every call from its headers to its last message."""
