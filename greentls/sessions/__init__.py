"""Where sessions are kept for later: by servers, and by clients."""
