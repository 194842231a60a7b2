"""What a cell leaves: its record, the metrics in it, trackers that export it, and the analysis of many records."""
