"""The families of models: one file each, from a Hugging Face config to the layers."""
