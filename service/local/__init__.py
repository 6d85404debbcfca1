"""One job on this machine, without a server."""
