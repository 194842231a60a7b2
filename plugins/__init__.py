"""Built-in plugins: one file, one class, one decorator."""
