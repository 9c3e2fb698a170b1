"""``streamer check``: what the servers have and the daemon would pick of it, and whether the broker lets it in."""
