"""Simulated records: local earthquakes, noise and faults from physics, with labels that are exact to a sample."""
