"""Names this project writes on, or reads from, Kubernetes objects."""

from __future__ import annotations

GROUP = "beamlit.com"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CATEGORY = "beamlit"

# On the objects the operator creates.
MODEL = "beamlit.com/model"
ENVIRONMENT = "beamlit.com/environment"
MODEL_DEPLOYMENT = "beamlit.com/model-deployment"
REVISION = "beamlit.com/revision"
APP_PROTOCOL = "beamlit.com/app-protocol"
"""Annotation on a revision's Deployment: what its server speaks, where that is not `http`."""
MODEL_ARGUMENTS = "beamlit.com/model-arguments"
"""Annotation on a revision's Deployment: the arguments that the model's files call for, a list in
JSON."""
MODEL_FACTS = "beamlit.com/model-facts"
"""Annotation on a revision's Deployment: what was known of the model's files when it was made, in
JSON."""
RUNTIMES = "beamlit.com/runtimes"
"""Label of the ConfigMaps in the operator's namespace that add runtime presets: `true`."""

# On pods of the cache's own: prefetch or tidy.
ERRAND = "beamlit.com/errand"

# On Secrets: what a workspace integration is for, and (an annotation) for which repositories or
# buckets it may be used.
INTEGRATION = "beamlit.com/integration"
ALLOWED = "beamlit.com/allowed"

# On ServiceAccounts (annotations): the role it stands for at AWS, where else its token goes, and
# for whom else it is.
ROLE_ARN = "eks.amazonaws.com/role-arn"
STS_ENDPOINT = "beamlit.com/sts-endpoint"
STS_AUDIENCE = "beamlit.com/sts-audience"

# On an Environment, a Policy or a Model (an annotation): it may be deleted although it is in use.
ALLOW_DELETION = "beamlit.com/allow-deletion"

# On a ModelDeployment (annotations): orders about a rollout. Each names the revision it is for, so
# that one that is left over means nothing; the operator never removes them.
ROLLOUT_PROMOTE = "beamlit.com/rollout-promote"
"""`REVISION`: all traffic to it now. `REVISION/STEP`: leave that step, counted from 1."""
ROLLOUT_PAUSE = "beamlit.com/rollout-pause"
"""`REVISION`: go no further while this stands."""
ROLLOUT_ABORT = "beamlit.com/rollout-abort"
"""`REVISION`: all traffic back to the stable revision."""

SKIP_MEMORY_CHECK = "beamlit.com/skip-memory-check"
"""Annotation on a ModelDeployment: `true` where its server needs less memory of GPUs than its files
say."""

# On a ModelDeployment (annotations): where its version was released from, when and by whom.
RELEASED_FROM = "beamlit.com/released-from"
RELEASED_REVISION = "beamlit.com/released-revision"
RELEASED_AT = "beamlit.com/released-at"
RELEASED_BY = "beamlit.com/released-by"

# On Nodes: where a node is and what hardware it has, said by an administrator.
API_KEYS = "beamlit.com/api-keys"
"""Marks the Secret with a workspace's API keys, for people who look for it; gateways go by name."""

NODE_LOCATION = "beamlit.com/location"
NODE_COUNTRY = "beamlit.com/country"
NODE_CONTINENT = "beamlit.com/continent"
NODE_FLAVOR = "beamlit.com/flavor"
NODE_REGION = "topology.kubernetes.io/region"

# The recommended labels of Kubernetes.
NAME = "app.kubernetes.io/name"
INSTANCE = "app.kubernetes.io/instance"
APP_VERSION = "app.kubernetes.io/version"
COMPONENT = "app.kubernetes.io/component"
PART_OF = "app.kubernetes.io/part-of"
MANAGED_BY = "app.kubernetes.io/managed-by"
OPERATOR_NAME = "beamlit-operator"

# Field managers of server-side apply.
FIELD_MANAGER = "beamlit-operator"
STATUS_FIELD_MANAGER = "beamlit-operator-status"
GATEWAY_FIELD_MANAGER = "beamlit-gateway"
AUTOSCALER_FIELD_MANAGER = "beamlit-autoscaler"
