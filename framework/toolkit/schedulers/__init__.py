"""Parts for schedulers: ranked queues, the choice of a victim, predicted output lengths."""
