"""What peers of a line have in common, and who puts them into lines; see strategies/pipeline.py."""
