"""The gateway: who is it, may they spend it, may it start now, which replica, and what was used.

It imports neither ray nor vllm nor torch: any OpenAI-compatible server can be its fleet.
"""

from gateway import compiled

compiled.prefer()
