"""The admission webhook: what is refused and warned about before it is stored.

A review is pure and reads what the operator holds in memory. It is a courtesy, not the guard: the
controller checks all of it again, so that nothing unsafe is placed while the webhook is away.
"""
