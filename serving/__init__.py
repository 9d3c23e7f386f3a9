"""The models: their catalogue, and Ray Serve replicas of vLLM built from it."""
