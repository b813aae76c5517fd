"""Weights: served, planned, fetched from several sources, bounded."""
