"""What an engine takes for which calls: a model of vLLM's scheduler, and the figures of engines by name."""
