"""Shards of the weights and their servers: what `strategies/parameter_server.py` is made of."""
