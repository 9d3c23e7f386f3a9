"""How many replicas each model should have. `policy` and `forecast` decide, pure; `ray_policy` asks and carries out."""
