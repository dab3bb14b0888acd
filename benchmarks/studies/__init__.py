"""Questions asked once of the recordings of a checkout; not installed."""
