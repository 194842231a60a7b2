"""Parts for schedulers: ranked queues, the choice of a victim, known output lengths."""
