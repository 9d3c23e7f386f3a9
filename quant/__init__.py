"""Quantised matrix products for vLLM. Empty until its kernels are proven; the engine then uses stock kernels."""
