"""What a relay does for peers that cannot reach each other."""
