"""Numbers of a run, from the times and counts of its requests and steps."""
