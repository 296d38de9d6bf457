"""The kubelet: pretend nodes, and pods as groups of local processes.

What a container has and a process here has not: its own root folder (paths of volume mounts are
rewritten, see ``paths``), its own network (a loopback address per pod, see ``addresses``; there
is no cluster DNS and no kube-proxy), limits on resources (requests count for scheduling, limits are
not enforced) and on privileges (``securityContext`` has no effect: a process has the rights of
whoever started the cluster).
"""

from beamlit_operator.devcluster.kubelet.kubelet import Kubelet
from beamlit_operator.devcluster.kubelet.machine import Settings

__all__ = ["Kubelet", "Settings"]
