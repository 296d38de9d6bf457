"""The embedded cluster: Kubernetes for laptops, demos and tests, never for production.

An API server, the controllers a workload needs, a scheduler and a kubelet that runs containers as
local processes, all in one Python process. Nothing outside this package may import it.
"""
