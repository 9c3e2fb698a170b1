"""What SeedLink servers sent, packet by packet with the time of arrival, kept in files and played back."""
