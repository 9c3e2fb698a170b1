"""The daemon: a bundle and SeedLink servers in, picks over MQTT out. It never imports a deep-learning framework."""
