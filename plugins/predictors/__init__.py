"""How long answers will be: one predictor per file."""
