"""Load tests against any OpenAI-compatible server. Empty until the kit is there."""
