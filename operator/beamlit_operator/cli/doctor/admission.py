"""Checks of what stands between people and the API server: webhook, certificate, pod policy."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from datetime import timedelta

from cryptography import x509

from beamlit_operator.cli.doctor.findings import Finding, ok, problem, warning
from beamlit_operator.cli.doctor.picture import Picture, UnreadError
from beamlit_operator.controllers.admission.configuration import NAME
from beamlit_operator.kube import Json

SOON = timedelta(days=14)
"""A certificate that ends sooner should have been renewed: the operator does so with a third of its
life (30 days) left."""


def webhook(picture: Picture) -> Iterator[Finding]:
    """Whether the API server asks the operator before it stores what people write."""
    found = picture.webhooks.known()
    if not found:
        yield warning(
            f"there is no ValidatingWebhookConfiguration {NAME}: bad objects are stored, and told "
            f"of in their status only",
            "Install the chart with `webhook.enabled`, or apply manifests/admission/webhook.yaml.",
        )
        return
    for hook in found[0].get("webhooks") or ():
        yield from _asked(picture, str(hook.get("failurePolicy") or "Fail"))


def _asked(picture: Picture, policy: str) -> Iterator[Finding]:
    review = picture.review.known()
    if review.refused_by_webhook:
        yield ok(f"the API server asks it, and it answers; without an answer: {policy}")
    elif review.passed:
        yield problem(
            "the API server stores what the webhook should have refused: it gets no answer, and "
            "the failure policy is Ignore",
            "Check that the operator is ready, that `caBundle` is current, and that no "
            "NetworkPolicy keeps the API server from the operator's port 9443.",
        )
    else:
        yield problem(
            f"nothing can be written, for the webhook cannot be called: {review.error}",
            "Check that the operator is ready and that no NetworkPolicy keeps the API server from "
            "its port 9443. Until then `webhook.failurePolicy: Ignore` lets people work.",
        )


def certificates(picture: Picture) -> Iterator[Finding]:
    """Whether the API server trusts what the webhook shows, and for how long."""
    found = picture.webhooks.known()
    hooks = (found[0].get("webhooks") or ()) if found else ()
    for hook in hooks:
        trusted = _bundle(hook)
        if not trusted:
            yield problem(
                "the webhook configuration has no `caBundle`: the API server trusts nobody",
                "The operator writes it: see its log for `caBundle`. With cert-manager, check the "
                "annotation `cert-manager.io/inject-ca-from`.",
            )
            return
        newest = max(each.not_valid_after_utc for each in trusted)
        if newest < picture.now:
            yield problem(
                f"the authority in `caBundle` ended on {newest:%Y-%m-%d}",
                "Delete the Secret beamlit-webhook-tls: the operator makes all anew.",
            )
            return
        try:
            shown = x509.load_pem_x509_certificate(picture.certificate.known())
        except UnreadError as error:
            yield ok(f"the authority is good until {newest:%Y-%m-%d}")
            raise UnreadError(f"the certificate itself: {error}") from error
        yield from _served(picture, shown, trusted)


def _served(
    picture: Picture, shown: x509.Certificate, trusted: list[x509.Certificate]
) -> Iterator[Finding]:
    ends = shown.not_valid_after_utc
    if not any(_signed(shown, by=each) for each in trusted):
        yield problem(
            "the webhook's certificate was not signed by the authority in `caBundle`",
            "Wait for a minute: the operator writes both. If it lasts, somebody else owns "
            "`caBundle`: `kubectl get --show-managed-fields -o yaml` of the "
            "ValidatingWebhookConfiguration says who.",
        )
    elif ends < picture.now:
        yield problem(
            f"the webhook's certificate ended on {ends:%Y-%m-%d}",
            "Restart the operator if it makes its own, else renew the Secret.",
        )
    elif ends - picture.now < SOON:
        yield warning(
            f"the webhook's certificate ends on {ends:%Y-%m-%d}, and was not renewed",
            "Read the operator's log for `certificate`; renew the Secret if it is yours.",
        )
    else:
        yield ok(f"signed by the authority that the API server trusts, until {ends:%Y-%m-%d}")


def _signed(shown: x509.Certificate, *, by: x509.Certificate) -> bool:
    try:
        shown.verify_directly_issued_by(by)
    except Exception:
        # Another issuer, or a key of another kind.
        return False
    return True


def _bundle(hook: Json) -> list[x509.Certificate]:
    text = (hook.get("clientConfig") or {}).get("caBundle") or ""
    try:
        return x509.load_pem_x509_certificates(base64.b64decode(text))
    except (ValueError, binascii.Error):
        return []


def pod_policy(picture: Picture) -> Iterator[Finding]:
    """Whether the API server itself keeps pods to their policy."""
    policies, bindings = picture.guards.known(), picture.guard_bindings.known()
    if not policies and not bindings:
        yield ok("off (`placementGuard`): the operator alone keeps pods to their policy")
    elif not policies or not bindings:
        missing = "its binding" if policies else "the ValidatingAdmissionPolicy"
        yield problem(
            f"{missing} beamlit-placement is missing: pods are not checked",
            "Apply manifests/admission/placement-policy.yaml, or upgrade the chart's release.",
        )
    else:
        checked = ((policies[0].get("status") or {}).get("typeChecking") or {}).get(
            "expressionWarnings"
        )
        for each in checked or ():
            yield warning(
                f"the API server doubts an expression of beamlit-placement: {each.get('warning')}",
                "Upgrade the chart, or report it.",
            )
        if not checked:
            yield ok("the API server checks every pod of ours")
