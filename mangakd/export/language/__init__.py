"""Exports of causal language models (Llama, Qwen, Mistral, SmolLM): variants, their checks, and the one that ships."""
