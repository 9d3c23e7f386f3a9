"""How fast the allocator is on a national fleet, and what its plans are worth there."""
