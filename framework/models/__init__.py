"""The network: one decoder for the Llama, Qwen2, Qwen3 and Mistral families."""
