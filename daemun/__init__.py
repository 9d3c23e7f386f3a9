"""The command line of daemun, and nothing else: it starts, stops and asks what the other packages do."""
