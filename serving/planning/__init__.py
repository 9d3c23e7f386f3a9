"""Will a model fit on these GPUs, and how fast can it be at most? Pure arithmetic: no file, no GPU, no clock."""
