"""Streams of bytes between two members, as they come about: `flows.py` offers and reads them."""
