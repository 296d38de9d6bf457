"""The command line: ``beamlit``."""
