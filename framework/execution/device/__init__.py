"""The device: which one, its memory, its peaks, the thread that works on it."""
