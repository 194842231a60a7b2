"""Parts for predictors: distributions of output lengths."""
