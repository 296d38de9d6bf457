"""``beamlit support-bundle``: what others need to find out what is wrong, and no secret.

contents (reads the cluster) ──► redaction (takes secrets out) ──► archive (.tar.gz)
"""
