"""Architectures of transformers and diffusers from configurations of small sizes: no weights, no download."""
