"""``beamlit doctor``: is this installation well, and if not, what is to be done?

    gatherer ──► Picture ──► checks, a table of small pure functions ──► findings ──► report

The gatherer reads all there is to read, once. What it may not read is remembered as such, and the
checks that need it say that they could not be done: the command works with any rights.
"""
