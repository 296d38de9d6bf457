"""What policies allow a deployment, why, and on which nodes that lets it run. Pure."""

from beamlit_operator.policy.algebra import Value, ValueSet, written
from beamlit_operator.policy.attachments import IgnoredAttempt
from beamlit_operator.policy.catalogue import Catalogue
from beamlit_operator.policy.effective import (
    Aspect,
    Effect,
    EffectivePolicy,
    Trace,
    Unresolved,
    effective_policy,
    values_of,
)
from beamlit_operator.policy.explain import explain_json, explain_lines, policy_status
from beamlit_operator.policy.locations import PolicyType, normal, unknown
from beamlit_operator.policy.reading import built_in

__all__ = [
    "Aspect",
    "Catalogue",
    "Effect",
    "EffectivePolicy",
    "IgnoredAttempt",
    "PolicyType",
    "Trace",
    "Unresolved",
    "Value",
    "ValueSet",
    "built_in",
    "effective_policy",
    "explain_json",
    "explain_lines",
    "normal",
    "policy_status",
    "unknown",
    "values_of",
    "written",
]
