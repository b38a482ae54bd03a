"""The network's edge: addresses, certificates, messages to values, gRPC."""
