"""How many replicas several policies ask for and what it comes to: our own, Ray Serve's default, KEDA's, and one that knows."""
