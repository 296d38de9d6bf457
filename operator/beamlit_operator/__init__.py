"""beamlit-operator: a serverless, governed inference platform on Kubernetes.

The rooms and who may call whom are described in ``docs/architecture.md``.
"""

__version__ = "0.1.0"
