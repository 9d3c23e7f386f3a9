"""How fast the fleet's simulator is."""
