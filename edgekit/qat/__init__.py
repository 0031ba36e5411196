"""Quantisation-aware training: fake-quantisers placed by an engine's scheme, with ranges that are learned."""
