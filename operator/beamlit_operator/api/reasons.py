"""Every reason a condition or an event of ours can carry, with what it means.

What to do about it stands in :mod:`remedies`: a new reason needs an entry there too.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """A reason; ``str(reason)`` is what stands on the wire, ``reason.doc`` explains it."""

    doc: str

    def __new__(cls, value: str, doc: str) -> Reason:
        member = str.__new__(cls, value)
        member._value_ = value
        member.doc = doc
        return member

    # All is well.
    READY = "Ready", "Everything the object asks for is in place."
    IDLE = "Idle", "No replica runs; the first request starts one."
    SERVING = "Serving", "At least one replica is ready to answer."
    DEACTIVATED = (
        "Deactivated",
        "`spec.enabled` is false: no replicas, and the endpoint answers 404.",
    )
    ORIGIN_RESOLVED = "OriginResolved", "The origin was reached and its revision is known."
    NO_ORIGIN = "NoOrigin", "The Model names no origin; deployments must bring `modelSourceRef`."

    # On the way.
    STARTING = "Starting", "Replicas are starting and none is ready yet."
    ROLLING_OUT = "RollingOut", "A new revision is starting; the old one serves until it is ready."
    ROLLOUT_PAUSED = (
        "RolloutPaused",
        "A canary waits for a person at one of its steps; both revisions serve.",
    )
    ROLLOUT_STEP = "RolloutStep", "An event: a canary has the weight of one of its steps."
    ROLLOUT_COMPLETED = "RolloutCompleted", "An event: a new revision gets all requests."
    RESOLVING = "Resolving", "The origin is being looked up."

    # What a person, or a missing object, must mend.
    INVALID_SPEC = "InvalidSpec", "A field has a value that cannot be used; the message names it."
    UNSUPPORTED_FIELD = (
        "UnsupportedField",
        "A field is set that this version does not act on; remove it or upgrade.",
    )
    DUPLICATE = "Duplicate", "An older ModelDeployment already serves this model and environment."
    MODEL_NOT_FOUND = "ModelNotFound", "`spec.model` names a Model that does not exist here."
    ENVIRONMENT_NOT_FOUND = (
        "EnvironmentNotFound",
        "`spec.environment` names an Environment that does not exist here; nothing is placed.",
    )
    POLICY_NOT_FOUND = (
        "PolicyNotFound",
        "A referenced Policy does not exist; nothing new is placed until it does.",
    )
    SECRET_NOT_FOUND = "SecretNotFound", "A referenced Secret, or its key, does not exist."
    CONFIG_MAP_NOT_FOUND = (
        "ConfigMapNotFound",
        "The ConfigMap with an origin's authorities, or its key, does not exist.",
    )
    SERVICE_ACCOUNT_NOT_USABLE = (
        "ServiceAccountNotUsable",
        "The ServiceAccount of `webIdentity` is missing or names no role, or the operator may not "
        "ask for its token.",
    )
    CLAIM_NOT_FOUND = (
        "ClaimNotFound",
        "The PersistentVolumeClaim that holds the model's files does not exist.",
    )
    CLAIM_NOT_USABLE = (
        "ClaimNotUsable",
        "The PersistentVolumeClaim that holds the model's files is not bound, lost its volume, is "
        "being deleted, or is a block device.",
    )
    ORIGIN_NOT_READY = "OriginNotReady", "The Model's origin could not be used; see the Model."
    FLAVOR_NOT_ALLOWED = "FlavorNotAllowed", "A requested flavor is outside what policies allow."
    FLAVOR_TOO_SMALL = (
        "FlavorTooSmall",
        "No requested flavor has the GPU memory that the model needs; the message says which would "
        "do.",
    )
    NO_PLACEMENT = "NoPlacement", "No node is within what policies and flavors allow."
    PLACEMENT_OUTDATED = (
        "PlacementOutdated",
        "Policies were tightened and the workload cannot be made anew for them yet; the message "
        "says why. Nothing starts until it is.",
    )
    ROLLOUT_ABORTED = (
        "RolloutAborted",
        "A rollout was aborted by an order; the stable revision serves everything.",
    )
    ANALYSIS_FAILED = (
        "AnalysisFailed",
        "The analysis of a step was bad: all went back to the stable revision, or waits.",
    )
    TRIAL_START_FAILED = (
        "TrialStartFailed",
        "The new revision could not be started while the deployment slept; the old one stays.",
    )
    ORDER_IGNORED = (
        "OrderIgnored",
        "An event: an annotation gives an order for a step that has not come.",
    )
    START_FAILED = "StartFailed", "A replica could not start; the message has the pod's reason."
    POLICIES_UNRESOLVED = "PoliciesUnresolved", "A Policy that the Environment names is missing."
    UNKNOWN_NAME = "UnknownName", "A location or flavor in the Policy is in no catalogue."
    APPLY_FAILED = "ApplyFailed", "The API server refused one of the objects to create."

    # Why an origin cannot be used; `origins.OriginReason` has the same words.
    INVALID_REFERENCE = "InvalidReference", "The origin cannot be right as it is written."
    CREDENTIALS_INVALID = "CredentialsInvalid", "The store does not know the key, or it is wrong."
    NODE_CREDENTIALS_NOT_ALLOWED = (
        "NodeCredentialsNotAllowed",
        "The origin asks for `nodeCredentials`, which the operator was not told to allow.",
    )
    ACCESS_DENIED = "AccessDenied", "The credentials may not read the origin."
    BUCKET_NOT_FOUND = "BucketNotFound", "There is no bucket of this name at this endpoint."
    WRONG_REGION = "WrongRegion", "The bucket is in another region than `origin.s3.region`."
    NO_OBJECTS = (
        "NoObjects",
        "The prefix, repository or folder holds no file that the patterns allow.",
    )
    INTEGRATION_NOT_ALLOWED = (
        "IntegrationNotAllowed",
        "The origin needs credentials, and the workspace's integration may not be used for it: its "
        "annotation `beamlit.com/allowed` or its key `endpoint` says otherwise.",
    )
    REPO_NOT_FOUND_OR_NO_ACCESS = (
        "RepoNotFoundOrNoAccess",
        "The Hub knows no such repository or hides it from this token; it does not say which.",
    )
    GATED = "Gated", "The repository is gated and access was not granted yet; ask at its page."
    TOKEN_INVALID = "TokenInvalid", "The Hub does not accept the token."
    REVISION_UNKNOWN = "RevisionUnknown", "The repository has no such branch, tag or commit."
    UNSAFE_PATH = "UnsafePath", "A file's name would leave the model's folder, or clashes."
    TOO_MANY_FILES = "TooManyFiles", "More files than a model has: the prefix may be too short."
    PICKLE_NOT_ALLOWED = (
        "PickleNotAllowed",
        "The files can run code when they are loaded, and `spec.allowPickle` is not set.",
    )
    RATE_LIMITED = "RateLimited", "The origin asks to come back later; it is retried by itself."
    UNREACHABLE = "Unreachable", "The origin did not answer; it is retried by itself."
    CHANGED = "Changed", "The files changed while they were looked at; it is retried by itself."
    BAD_ARCHIVE = (
        "BadArchive",
        "An archive cannot be unpacked: damaged, encrypted, or far larger than it looks.",
    )
    CORRUPT = "Corrupt", "What arrived is not what was announced; it is retried by itself."
    LOCAL_DISK = "LocalDisk", "There is no room for the files, or they cannot be written."

    # Scaling by cpu or memory.
    NO_RESOURCE_REQUEST = (
        "NoResourceRequest",
        "`metric: cpu` is percent of the requested cpu, and a container requests none.",
    )
    REPLICAS_REFUSED = (
        "ReplicasRefused",
        "Replicas run, and the API server refuses the pods of more; the message has its words.",
    )
    NO_RESOURCE_METRICS = (
        "NoResourceMetrics",
        "The HorizontalPodAutoscaler gets no metrics; the message has its words.",
    )

    # Of the operator's surroundings, as Events on its namespace.
    DEFINITION_DIFFERS = (
        "DefinitionDiffers",
        "The cluster's definition of a kind is older or newer than the operator; the message names "
        "the fields.",
    )

    PREFETCHED = "Prefetched", "An event: a Model's files were brought into the workspace's cache."
    PREFETCH_FAILED = (
        "PrefetchFailed",
        "An event: a Model's files could not be brought into the cache; it is tried again.",
    )
    TIDYING_FAILED = (
        "TidyingFailed",
        "An event on a cache's claim: what nobody uses could not be removed from it.",
    )
    GATEWAY_REFUSED = (
        "GatewayRefused",
        "A gateway's Envoy does not take a part of its configuration; the last good one stays.",
    )

    # Policies.
    POLICY_COLLISION = (
        "PolicyCollision",
        "The deployment's policy leaves nothing of the environment's, which is enforced instead.",
    )
    EDITED = (
        "Edited",
        "A Policy or Environment was changed: by whom, what, and what moved because of it.",
    )
    MANDATORY_POLICY_KEPT = (
        "MandatoryPolicyKept",
        "The deployment tried to remove or replace a mandatory policy; it stays.",
    )
