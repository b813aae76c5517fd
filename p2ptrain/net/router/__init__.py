"""Asking the home's router to open a port."""
