"""The network: listeners, connections, and every call from its headers to its last message."""
