"""Recorded data: miniSEED files and archives read in time order and picked as the daemon picks live data."""
