"""Members and open swarms on the same local network."""
