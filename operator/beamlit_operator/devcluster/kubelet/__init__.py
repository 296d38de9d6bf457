"""The kubelet: pretend nodes, and pods as groups of local processes.

What a container has and a process here has not: its own root folder (paths of volume mounts are
rewritten, see ``paths``), its own network (each pod has a loopback address, see ``addresses``) and
resource limits (requests count for scheduling; limits are not enforced).
"""

from beamlit_operator.devcluster.kubelet.kubelet import Kubelet
from beamlit_operator.devcluster.kubelet.machine import Settings

__all__ = ["Kubelet", "Settings"]
