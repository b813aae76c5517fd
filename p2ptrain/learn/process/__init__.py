"""The trainer as a process of its own, and what it says to the daemon."""
