"""What to do about each reason: the other half of :mod:`reasons`, for docs/operations.md.

Every reason has an entry; a test says so. Of one that is no trouble, the entry says that.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from beamlit_operator.api.reasons import Reason

NOTHING = "Nothing."

REMEDIES: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.READY: NOTHING,
        Reason.IDLE: NOTHING,
        Reason.SERVING: NOTHING,
        Reason.DEACTIVATED: "Set `spec.enabled: true` to serve again.",
        Reason.ORIGIN_RESOLVED: NOTHING,
        Reason.NO_ORIGIN: "Nothing, if every deployment of it has `modelSourceRef`. Else set "
        "`spec.origin`.",
        Reason.STARTING: "Wait. `status.progress` says how far it is; `kubectl get pods` if it "
        "does not move.",
        Reason.ROLLING_OUT: "Wait. If `Stalled` is True too, the new revision cannot start: its "
        "message says why. Mend the spec, or put the old one back.",
        Reason.ROLLOUT_PAUSED: "Approve or abort it: `beamlit rollout promote` or `abort`. The "
        "message has the annotations that do the same.",
        Reason.ROLLOUT_STEP: NOTHING,
        Reason.ROLLOUT_COMPLETED: NOTHING,
        Reason.ROLLOUT_ABORTED: "Change the spec, or put the former one back "
        "(`beamlit rollout undo`): it still asks for the revision that was aborted.",
        Reason.ANALYSIS_FAILED: "The message has the numbers. Change the spec or put the former "
        "one back; where `onFailure: Pause` holds it, promote or abort.",
        Reason.TRIAL_START_FAILED: "The message has the pod's words. Correct the spec, or put the "
        "former one back.",
        Reason.ORDER_IGNORED: "Remove the annotation; set it when the step has come.",
        Reason.PREFETCHED: NOTHING,
        Reason.PREFETCH_FAILED: "The message has the pod's words; `status.prefetch` of the Model "
        "says how it stands. Deployments of it fetch for themselves.",
        Reason.TIDYING_FAILED: "The message has the pod's words. Look at the volume "
        "(`beamlit cache list`); it is tried again when a revision comes or goes.",
        Reason.RESOLVING: "Wait. If it lasts for minutes, read the operator's log.",
        Reason.INVALID_SPEC: "Correct the field that the message names.",
        Reason.UNSUPPORTED_FIELD: "Remove the field, or upgrade operator and definitions.",
        Reason.DUPLICATE: "Delete this one or the older one, or give this one another `model` or "
        "`environment`.",
        Reason.MODEL_NOT_FOUND: "Create the Model in this namespace, or correct `spec.model`.",
        Reason.ENVIRONMENT_NOT_FOUND: "Create the Environment in this namespace, or correct "
        "`spec.environment`.",
        Reason.POLICY_NOT_FOUND: "Create the Policy in this namespace, or take its name off the "
        "Environment or the deployment.",
        Reason.SECRET_NOT_FOUND: "Create the Secret with the key that the message names. It is "
        "found by itself within seconds.",
        Reason.CONFIG_MAP_NOT_FOUND: "Create the ConfigMap with the key that the message names. It "
        "is found by itself within seconds.",
        Reason.SERVICE_ACCOUNT_NOT_USABLE: "Create or annotate the ServiceAccount as the message "
        "says, or give the operator the right that it names. It is tried again within seconds.",
        Reason.CLAIM_NOT_FOUND: "Create the PersistentVolumeClaim that the message names and fill "
        "it. It is found by itself within seconds.",
        Reason.CLAIM_NOT_USABLE: "`kubectl describe persistentvolumeclaim NAME` says what it waits "
        "for, or who still uses it. It is tried again within seconds.",
        Reason.ORIGIN_NOT_READY: "`beamlit status MODEL`: the Model's own condition says what is "
        "wrong with its origin.",
        Reason.FLAVOR_NOT_ALLOWED: "Ask for a flavor that the policies allow, which "
        "`beamlit policy explain` lists, or have the policies changed.",
        Reason.FLAVOR_TOO_SMALL: "Ask for what the message offers: another flavor in "
        "`spec.flavors`, or more GPUs in `spec.runtime.resources.limits`. Where the server keeps "
        'weights elsewhere, set the annotation `beamlit.com/skip-memory-check: "true"`.',
        Reason.NO_PLACEMENT: "Add a node within what the message lists, label one "
        "(`beamlit.com/location`, `beamlit.com/flavor`), or have the policies changed. "
        "Where nodes scale by themselves, wait: a pending pod asks for one.",
        Reason.PLACEMENT_OUTDATED: "Mend what the message names; the rest follows by itself.",
        Reason.START_FAILED: "The message has the pod's or the API server's own words, and the "
        "command that shows the log. Correct image, command, resources or quota.",
        Reason.POLICIES_UNRESOLVED: "Create the Policy that the message names, or take it off the "
        "Environment.",
        Reason.UNKNOWN_NAME: "Correct the name, or add it to the catalogue of the cluster "
        "([policies.md](policies.md)).",
        Reason.APPLY_FAILED: "The message has the API server's words: an admission policy, a "
        "quota, a name that is taken. It is tried again by itself.",
        Reason.INVALID_REFERENCE: "Correct `spec.origin` of the Model.",
        Reason.CREDENTIALS_INVALID: "Put a valid key into the Secret of the origin.",
        Reason.NODE_CREDENTIALS_NOT_ALLOWED: "Use `webIdentity` or a Secret, or set the chart's "
        "value `origins.allowNodeCredentials`: then every Model may use the nodes' identity.",
        Reason.ACCESS_DENIED: "Allow the key to list and read the prefix or repository.",
        Reason.PICKLE_NOT_ALLOWED: "Convert the weights to safetensors, GGUF or ONNX; or set "
        "`spec.allowPickle` of the Model, if you trust everybody who can write to the origin.",
        Reason.BUCKET_NOT_FOUND: "Correct bucket or `endpoint`.",
        Reason.WRONG_REGION: "Set `origin.s3.region` to the region that the message names.",
        Reason.NO_OBJECTS: "Upload the files, or correct the prefix or the patterns.",
        Reason.INTEGRATION_NOT_ALLOWED: "Extend the annotation `beamlit.com/allowed` of the "
        "integration's Secret, or name a Secret of its own in the Model.",
        Reason.REPO_NOT_FOUND_OR_NO_ACCESS: "Correct the name, or give a token that may read it.",
        Reason.GATED: "Ask for access at the repository's page with the account of the token.",
        Reason.TOKEN_INVALID: "Put a valid token into the Secret.",
        Reason.REVISION_UNKNOWN: "Correct `revision` of the Model or `version` of the deployment.",
        Reason.UNSAFE_PATH: "Rename the file that the message names, or leave it out by a pattern.",
        Reason.TOO_MANY_FILES: "Make the prefix longer, or choose files by patterns.",
        Reason.RATE_LIMITED: "Wait. If it comes back, use a token or a mirror (`--hub-endpoint`).",
        Reason.UNREACHABLE: "Check the endpoint, DNS, proxies and NetworkPolicies of the "
        "operator's namespace.",
        Reason.CHANGED: "Wait until the upload is done.",
        Reason.BAD_ARCHIVE: "Pack the archive anew, without a password, and upload it.",
        Reason.CORRUPT: "Wait. If it comes back, upload the files again.",
        Reason.LOCAL_DISK: "Give the node more ephemeral storage, or the pod a larger volume.",
        Reason.NO_RESOURCE_REQUEST: "Request cpu or memory for every container, or scale by "
        "`concurrency`.",
        Reason.REPLICAS_REFUSED: "Raise the quota that the message names, or lower "
        "`maxNumReplicas` or the requests. Kubernetes tries again by itself.",
        Reason.NO_RESOURCE_METRICS: "Install or mend metrics-server.",
        Reason.DEFINITION_DIFFERS: "Upgrade what is older: the definitions "
        "(`kubectl apply --server-side -f crds/`, or the chart with `crds.enabled`) or the "
        "operator.",
        Reason.GATEWAY_REFUSED: "Correct what the message names. If nothing of it is yours, report "
        "it with a support bundle.",
        Reason.POLICY_COLLISION: "Give the deployment a policy that overlaps with the "
        "environment's, or none.",
        Reason.EDITED: NOTHING,
        Reason.MANDATORY_POLICY_KEPT: "Take the name out of `withoutPolicies` or `replaces`.",
    }
)
