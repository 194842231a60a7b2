"""What a person sees of a sweep, before and while it runs."""
