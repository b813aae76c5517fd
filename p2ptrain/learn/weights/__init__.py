"""A net's numbers: as one vector, as bytes, mixed, checked, kept and measured."""
