"""Samplers: how the next token is picked from the logits."""
