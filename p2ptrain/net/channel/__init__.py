"""Connections that stand: accepted with bounds, one to each peer, closed in order."""
