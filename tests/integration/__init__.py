"""Whole runs of the command line, against real servers and against scripted ones."""
