"""The demo: real earthquakes from obspy's test data, by SeedLink to the daemon, by MQTT to a subscriber."""
