"""What members of rings say, and who puts them into rings; see strategies/allreduce.py."""
