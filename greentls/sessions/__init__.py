"""Sessions that are kept for later handshakes, by servers and by clients."""
