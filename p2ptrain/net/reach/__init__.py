"""How a connection to a peer comes about, whatever lies between."""
