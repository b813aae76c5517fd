"""Rounds of layers: what `strategies/layerwise.py` is made of."""
