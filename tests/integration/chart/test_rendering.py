"""What Helm makes of the chart, and what an API server says to it."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration.chart.conftest import Installer
from tests.support.chart import CHART, SYSTEM, Rendered, Values, merged
from tests.support.stack import ROOT

from beamlit_operator.controllers.options import parse
from beamlit_operator.gateway.__main__ import parse_arguments, settings_from
from beamlit_operator.gateway.bootstrap import bootstrap
from beamlit_operator.gateway.process import find_envoy
from beamlit_operator.gateway.settings import GatewaySettings
from beamlit_operator.kube import DEPLOYMENTS, NAMESPACES, Json, resource_of

EVERYTHING: Values = {
    "image": {
        "registry": "registry.example.com:5000",
        "digest": "sha256:" + "a" * 64,
        "pullPolicy": "Always",
    },
    "imagePullSecrets": [{"name": "registry"}],
    "commonLabels": {"team": "platform"},
    "clusterDomain": "corp.example",
    "proxy": {
        "https": "http://proxy.example.com:3128",
        "http": "http://[2001:db8::1]:3128",
        "noProxy": ["10.0.0.0/8", ".example.com"],
    },
    "certificateAuthorities": {"configMap": "our-ca", "key": "bundle.pem"},
    "bindAddress": "::",
    "logLevel": "debug",
    "logFormat": "text",
    "operator": {
        "replicas": 3,
        "namespaces": ["team-a", "team-b"],
        "engine": "knative",
        "workers": 16,
        "hubEndpoint": "https://hub.example.com",
        "prometheusUrl": "http://prometheus.monitoring:9090",
        "extraArgs": ["--resync=300"],
        "extraEnv": [{"name": "TZ", "value": "UTC"}],
        "extraVolumes": [{"name": "ca", "configMap": {"name": "our-ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca", "readOnly": True}],
        "serviceAccountAnnotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x"},
        "podAnnotations": {"example.com/a": "b"},
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "infra", "operator": "Exists"}],
        "podDisruptionBudget": {"maxUnavailable": "50%"},
    },
    "gateway": {
        "autoscaling": {"enabled": True, "minReplicas": 3, "maxReplicas": 40, "targetCPU": 60},
        "url": "https://models.example.com",
        "domain": "models.example.com",
        "authentication": {
            "enabled": True,
            "audiences": ["models", "https://kubernetes.default.svc"],
            "oidc": [
                {
                    "issuer": "https://id.example.com/realms/ml",
                    "audiences": ["beamlit"],
                    "usernameClaim": "email",
                    "usernamePrefix": "id:",
                    "groupsClaim": "groups",
                    "groupsPrefix": "id:",
                }
            ],
        },
        "tls": {"enabled": True, "secretName": "gateway-tls"},
        "authenticatedElsewhere": True,
        "maxHeld": 1_000_000,
        "drainTime": 90.5,
        "accessLog": "off",
        "tracing": {"enabled": True, "otlpEndpoint": "collector.tracing:4317", "sampling": 0.5},
        "service": {
            "type": "LoadBalancer",
            "loadBalancerClass": "example.com/internal",
            "externalTrafficPolicy": "Local",
            "loadBalancerSourceRanges": ["10.0.0.0/8"],
            "annotations": {"example.com/internal": "true"},
        },
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "hosts": ["models.example.com"],
            "tls": [{"hosts": ["models.example.com"], "secretName": "models-tls"}],
        },
        "httpRoute": {
            "enabled": True,
            "parentRefs": [{"name": "public", "namespace": "gateways"}],
            "hostnames": ["models.example.com"],
        },
        "agent": {"extraEnv": [{"name": "BEAMLIT_GATEWAY_DOMAIN", "value": "unused"}]},
        "envoy": {
            "image": {"digest": "sha256:" + "b" * 64},
            "concurrency": 4,
            "maxHeap": "4Gi",
            "maxHeldMemory": 1073741824,
            "resources": {"limits": {"memory": "5Gi", "cpu": 4}},
        },
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "ScheduleAnyway",
            }
        ],
    },
    "webhook": {
        "failurePolicy": "Fail",
        "certificateSecret": "webhook-tls",
        "annotations": {"cert-manager.io/inject-ca-from": "beamlit-system/webhook"},
    },
    "placementGuard": "Enforce",
    "networkPolicies": {"metricsFrom": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]},
    "serviceMonitor": {
        "enabled": True,
        "labels": {"release": "prometheus"},
        "relabelings": [{"targetLabel": "cluster", "replacement": "one"}],
        "metricRelabelings": [
            {"sourceLabels": ["__name__"], "regex": "python_.*", "action": "drop"}
        ],
    },
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    "dashboard": {"enabled": True, "annotations": {"grafana_folder": "Models"}},
    "test": {"gatewayUrl": "https://models.example.com"},
}
NOTHING: Values = {
    "rbac": {"people": False},
    "operator": {"replicas": 1, "podDisruptionBudget": {"enabled": False}},
    "gateway": {"replicas": 1, "podDisruptionBudget": {"enabled": False}},
    "webhook": {"enabled": False},
    "networkPolicies": {"enabled": False},
}

POD_FIELDS = {"$(POD_NAME)": "beamlit-0", "$(POD_IP)": "10.0.0.1"}


def arguments(container: Json) -> list[str]:
    """As the kubelet hands them over."""
    known = {each["name"] for each in container["env"]}
    result = []
    for text in container["args"]:
        for reference, value in POD_FIELDS.items():
            if reference in text:
                assert reference.strip("$()") in known, f"{text} refers to no variable"
                text = text.replace(reference, value)
        assert "$(" not in text
        result.append(text)
    return result


def gateway_settings(container: Json) -> GatewaySettings:
    return settings_from(parse_arguments(arguments(container)))


@pytest.fixture(params=["defaults", "everything", "nothing"])
async def rendered(request: pytest.FixtureRequest, installer: Installer) -> Rendered:
    values = {"defaults": {}, "everything": EVERYTHING, "nothing": NOTHING}[request.param]
    return await installer.install(values)


async def test_what_is_installed_agrees_with_itself(rendered: Rendered, tmp_path: Path) -> None:
    """One installation, because each takes a second: all that must hold whatever the values are."""
    operator = rendered.container("beamlit-operator", "operator")
    options = parse(arguments(operator), {})
    agent = gateway_settings(rendered.container("beamlit-gateway", "agent"))
    check_the_operator_finds_the_others(rendered, options)
    check_services_lead_to_ports_of_pods(rendered)
    check_pods_are_restricted(rendered)
    check_definitions_stay_and_are_those_of_the_repository(rendered)
    check_roles_are_those_of_the_repository(rendered)
    assert agent == gateway_settings(rendered.container("beamlit-gateway", "bootstrap"))
    grace = rendered.one("Deployment", "beamlit-gateway")["spec"]["template"]["spec"]
    assert grace["terminationGracePeriodSeconds"] >= agent.drain_time + 10
    check_envoy_takes_its_bootstrap(rendered, agent, tmp_path)
    assert f"namespace {SYSTEM}" in rendered.notes


def check_the_operator_finds_the_others(rendered: Rendered, options: Any) -> None:
    assert options.operator_namespace == SYSTEM
    assert options.leader_election
    assert options.image == rendered.container("beamlit-operator", "operator")["image"]
    domain = options.cluster_domain
    assert options.gateway_service == f"beamlit-gateway.{SYSTEM}.svc.{domain}"
    (load,) = options.gateway_load
    assert load == f"http://beamlit-gateway-agent.{SYSTEM}.svc.{domain}:8081/load"
    assert gateway_settings(rendered.container("beamlit-gateway", "agent")).cluster_domain == domain
    hooks = rendered.all("ValidatingWebhookConfiguration")
    assert bool(options.webhook_listen) is bool(hooks)
    for hook in hooks:
        assert hook["metadata"]["name"] == options.webhook_configuration
        (webhook,) = hook["webhooks"]
        assert "caBundle" not in webhook["clientConfig"]
        service = webhook["clientConfig"]["service"]
        assert f"{service['name']}.{service['namespace']}.svc" in options.webhook_names
        chosen = webhook.get("namespaceSelector", {}).get("matchExpressions")
        assert (chosen[0]["values"] if chosen else []) == list(options.namespaces)
    assert options.placement_guard is ("beamlit-operator-placements" in rendered.names("Role"))


def check_services_lead_to_ports_of_pods(rendered: Rendered) -> None:
    for service in rendered.all("Service"):
        spec = service["spec"]
        targets = [
            each["spec"]["template"]
            for each in rendered.all("Deployment")
            if spec["selector"].items() <= each["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert len(targets) == 1, (
            f"{service['metadata']['name']} selects {len(targets)} Deployments"
        )
        pod = targets[0]["spec"]
        ports = {
            either
            for container in (*pod.get("initContainers", ()), *pod["containers"])
            for port in container.get("ports", ())
            for either in (port["name"], port["containerPort"])
        }
        assert {port["targetPort"] for port in spec["ports"]} <= ports
        for constraint in pod["topologySpreadConstraints"]:
            assert constraint["labelSelector"]["matchLabels"] == spec["selector"]
    for policy in rendered.all("NetworkPolicy"):
        assert policy["spec"]["policyTypes"] == ["Ingress"]


def check_pods_are_restricted(rendered: Rendered) -> None:
    """Pod Security `restricted` (kubernetes.io/docs/concepts/security/pod-security-standards)."""
    pods = [each["spec"]["template"]["spec"] for each in rendered.all("Deployment")]
    pods += [each["spec"] for each in rendered.all("Pod")]
    assert len(pods) == 3
    volumes = {"configMap", "csi", "downwardAPI", "emptyDir", "projected", "secret"}
    for pod in pods:
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for volume in pod.get("volumes", ()):
            assert volume.keys() - {"name"} <= volumes
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["readOnlyRootFilesystem"] is True
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert "privileged" not in own
            assert container["resources"]["limits"]["memory"]
            assert all("hostPort" not in port for port in container.get("ports", ()))


def check_definitions_stay_and_are_those_of_the_repository(rendered: Rendered) -> None:
    found = {each["metadata"]["name"]: each for each in rendered.all("CustomResourceDefinition")}
    files = [yaml.safe_load(path.read_text()) for path in (ROOT / "crds").glob("*.yaml")]
    assert found.keys() == {each["metadata"]["name"] for each in files}
    for each in files:
        crd = found[each["metadata"]["name"]]
        assert crd["spec"] == each["spec"]
        assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


RIGHTS = ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")


def check_roles_are_those_of_the_repository(rendered: Rendered) -> None:
    files = ["rbac/operator", "rbac/gateway"]
    if "beamlit-viewer" in rendered.names("ClusterRole"):
        files.append("rbac/people")
    if "beamlit-operator-placements" in rendered.names("Role"):
        files.append("admission/placement-policy")
    wanted = {
        (each["kind"], each["metadata"]["name"]): each
        for file in files
        for each in yaml.safe_load_all((ROOT / "manifests" / f"{file}.yaml").read_text())
    }
    for kind in RIGHTS:
        names = {name for found, name in wanted if found == kind}
        # Those of `helm test` are in the chart alone: they come and go with it.
        assert rendered.names(kind) - {"beamlit-test"} == names
        for name in names:
            one, other = rendered.one(kind, name), wanted[kind, name]
            for field in ("rules", "subjects", "roleRef"):
                assert one.get(field) == other.get(field), f"{kind} {name}: {field}"
            labels = other["metadata"]["labels"].items()
            assert one["metadata"]["labels"].items() >= labels, "aggregation would be lost"


def check_envoy_takes_its_bootstrap(
    rendered: Rendered, settings: GatewaySettings, folder: Path
) -> None:
    envoy = rendered.container("beamlit-gateway", "envoy")
    assert envoy["restartPolicy"] == "Always"
    assert str(settings.envoy_admin.host) == "127.0.0.1"
    config = folder / "envoy.json"
    config.write_text(json.dumps(bootstrap(settings)))
    given = [str(config) if each == "/etc/beamlit/envoy.json" else each for each in envoy["args"]]
    assert str(config) in given
    done = subprocess.run(
        [find_envoy(), *given, "--mode", "validate"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


async def test_another_namespace_is_named_everywhere(installer: Installer) -> None:
    values = {"crds": {"enabled": False}, "placementGuard": "Enforce"}
    rendered = await installer.install(values, namespace="elsewhere")
    text = yaml.safe_dump_all([*rendered.objects, *rendered.hooks])
    assert SYSTEM not in text
    (policy,) = rendered.all("ValidatingAdmissionPolicy")
    user = "system:serviceaccount:elsewhere:beamlit-operator"
    assert user in json.dumps(policy["spec"]["matchConditions"])
    assert rendered.all("CustomResourceDefinition") == []


async def test_workspaces_are_begun_once_and_never_taken_away(installer: Installer) -> None:
    several = [{"name": "team-a", "environments": ["production", "development"]}]
    values: Values = {"workspaces": several}
    first = await installer.install(values)
    assert first.names("Environment") == {"production", "development"}
    environments = resource_of("beamlit.com/v1alpha1", "Environment")
    await installer.client.delete(environments, "development", "team-a")
    policies = [{"name": "us-only", "mandatory": True}]
    mine = {
        "apiVersion": "beamlit.com/v1alpha1",
        "kind": "Environment",
        "metadata": {"name": "production", "namespace": "team-a"},
        "spec": {"policies": policies},
    }
    await installer.client.apply(environments, mine, field_manager="admin", force=True)
    # Uninstalled meanwhile, and installed again.
    second = await installer.install(values)
    assert second.names("Environment") == {"development"}
    assert second.all("Namespace") == []
    found = await installer.client.get(environments, "production", "team-a")
    assert found["spec"]["policies"] == policies
    assert await installer.client.get(NAMESPACES, "team-a")


async def test_the_way_out_is_told_to_operator_gateway_and_fetchers(
    installer: Installer,
) -> None:
    rendered = await installer.install(EVERYTHING)
    operator = rendered.container("beamlit-operator", "operator")
    proxy = EVERYTHING["proxy"]
    for container in (operator, rendered.container("beamlit-gateway", "agent")):
        env = {each["name"]: each.get("value", "") for each in container["env"]}
        assert (env["HTTPS_PROXY"], env["HTTP_PROXY"]) == (proxy["https"], proxy["http"])
        # The API server and the cluster's Services are no way out.
        direct = env["NO_PROXY"].split(",")
        assert {"$(KUBERNETES_SERVICE_HOST)", ".svc", ".corp.example", *proxy["noProxy"]} <= {
            *direct
        }
        (folder,) = {
            each["mountPath"] for each in container["volumeMounts"] if each["name"] == "authorities"
        }
        assert env["BEAMLIT_CA_FILE"] == f"{folder}/bundle.pem"
    outgoing = parse(arguments(operator), {}).outgoing
    assert outgoing.variables["HTTPS_PROXY"] == proxy["https"]
    assert ".corp.example" in outgoing.variables["NO_PROXY"]
    assert (outgoing.authorities, outgoing.key) == ("our-ca", "bundle.pem")


async def test_the_right_to_ask_for_tokens_is_given_only_where_it_was_asked_for(
    installer: Installer,
) -> None:
    name = "beamlit-operator-web-identity"
    asked = {"webIdentity": {"enabled": True}, "allowNodeCredentials": True}
    proxied = {"proxy": {"https": "http://proxy.example.com:3128"}}
    everywhere = await installer.install({"origins": asked, **proxied})
    for workspace in ("token-a", "token-b"):
        metadata = {"name": workspace}
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
        await installer.client.create(NAMESPACES, body)
    named = {"operator": {"namespaces": ["token-a", "token-b"]}, "origins": asked}
    somewhere = await installer.install(named)
    for workspace in ("token-a", "token-b"):
        await installer.client.delete(NAMESPACES, workspace)

    rights = everywhere.one("ClusterRole", name)["rules"]
    assert {
        (right, verb) for each in rights for right in each["resources"] for verb in each["verbs"]
    } == {
        ("serviceaccounts", "get"),
        ("serviceaccounts/token", "create"),
    }
    assert everywhere.one("ClusterRoleBinding", name)["subjects"][0]["namespace"] == SYSTEM
    assert name not in somewhere.names("ClusterRoleBinding")
    bindings = [each for each in somewhere.all("RoleBinding") if each["metadata"]["name"] == name]
    assert [each["metadata"]["namespace"] for each in bindings] == ["token-a", "token-b"]
    assert {each["roleRef"]["kind"] for each in bindings} == {"ClusterRole"}
    operator = everywhere.container("beamlit-operator", "operator")
    options = parse(arguments(operator), {})
    assert options.allow_node_credentials
    # A node's metadata is asked of the node.
    assert "169.254.169.254" in options.outgoing.variables["NO_PROXY"].split(",")
    env = {each["name"]: each.get("value", "") for each in operator["env"]}
    assert "169.254.169.254" in env["NO_PROXY"].split(",")


async def test_gateways_that_are_scaled_have_no_number_in_the_release(
    installer: Installer,
) -> None:
    rendered = await installer.install({"gateway": {"autoscaling": {"enabled": True}}})
    gateway = rendered.one("Deployment", "beamlit-gateway")
    assert "replicas" not in gateway["spec"], "an upgrade would undo what was scaled"
    scaler = rendered.one("HorizontalPodAutoscaler", "beamlit-gateway")["spec"]
    assert scaler["scaleTargetRef"]["name"] == gateway["metadata"]["name"]
    (metric,) = scaler["metrics"]
    container = rendered.container("beamlit-gateway", metric["containerResource"]["container"])
    assert container["resources"]["requests"]["cpu"]


CHOICES: dict[str, list[Any]] = {
    "bindAddress": ["0.0.0.0", "::"],
    "crds.enabled": [True, False],
    "rbac.people": [True, False],
    "operator.namespaces": [[], ["team-a"]],
    "operator.scaleToZeroGrace": [1, 12.5],
    "gateway.maxHeld": [10_000, 1_000_000],
    "gateway.drainTime": [5, 30.25, 3600],
    "gateway.openaiBodyLimit": ["8Mi", 1048576, "1Gi"],
    "gateway.tracing.enabled": [True, False],
    "gateway.podDisruptionBudget.enabled": [True, False],
    "webhook.enabled": [True, False],
    "webhook.failurePolicy": ["Ignore", "Fail"],
    "placementGuard": ["Off", "Record", "Enforce"],
    "networkPolicies.enabled": [True, False],
    "serviceMonitor.enabled": [True, False],
}


@pytest.mark.parametrize("seed", range(4))
async def test_values_go_together(installer: Installer, seed: int) -> None:
    chance = random.Random(seed)
    values: Values = {}
    for path, choices in CHOICES.items():
        value: Any = chance.choice(choices)
        for key in reversed(path.split(".")):
            value = {key: value}
        values = merged(values, value)
    rendered = await installer.install(values)
    parse(arguments(rendered.container("beamlit-operator", "operator")), {})
    settings = gateway_settings(rendered.container("beamlit-gateway", "agent"))
    assert settings.max_held == values["gateway"]["maxHeld"]
    assert settings.drain_time == values["gateway"]["drainTime"]
    check_services_lead_to_ports_of_pods(rendered)
    check_roles_are_those_of_the_repository(rendered)


UNGUARDED: Values = {"authentication": {"enabled": False}}

WRONG: list[tuple[Values, str]] = [
    ({"gateway": {"tls": {"enabled": True}}}, "gateway.tls.enabled and gateway.tls.secretName"),
    ({"gatway": {}}, "gatway"),
    ({"gateway": {"replica": 2}}, "replica"),
    ({"gateway": {"replicas": 0}}, "/gateway/replicas"),
    ({"operator": {"replicas": "two"}}, "/operator/replicas"),
    ({"image": {"digest": "sha256:short"}}, "/image/digest"),
    ({"gateway": {"envoy": {"image": {"tag": ""}}}}, "gateway.envoy.image needs a tag or a digest"),
    ({"gateway": {"envoy": {"maxHeap": "1.5Gi"}}}, "/gateway/envoy/maxHeap"),
    ({"logLevel": "verbose"}, "/logLevel"),
    ({"placementGuard": False}, "/placementGuard"),
    ({"operator": {"namespaces": ["Team A"]}}, "/operator/namespaces"),
    ({"operator": {"podDisruptionBudget": {"maxUnavailable": 0}}}, "maxUnavailable"),
    ({"gateway": {"drainDelay": 31}}, "gateway.drainDelay (31 s) is a part of gateway.drainTime"),
    ({"gateway": {"maxHeld": 10}}, "gateway.maxHeldPerDeployment (1000) is above gateway.maxHeld"),
    ({"gateway": {"envoy": {"maxHeap": "2Gi"}}}, "must be below gateway.envoy.resources.limits"),
    ({"gateway": {"envoy": {"maxHeldMemory": "1700Mi"}}}, "gateway.envoy.maxHeldMemory (1700Mi)"),
    (
        {"gateway": {**UNGUARDED, "service": {"type": "NodePort"}}},
        "gateway.authenticatedElsewhere=true",
    ),
    (
        {"gateway": {**UNGUARDED, "ingress": {"enabled": True, "hosts": ["a.example.com"]}}},
        "gateway.ingress.enabled lets callers in from outside the cluster",
    ),
    (
        {"gateway": {"authenticatedElsewhere": True, "ingress": {"enabled": True}}},
        "gateway.ingress.hosts is empty",
    ),
    (
        {"gateway": {"authenticatedElsewhere": True, "httpRoute": {"enabled": True}}},
        "gateway.httpRoute.parentRefs is empty",
    ),
    (
        {"gateway": {"service": {"loadBalancerSourceRanges": ["10.0.0.0/8"]}}},
        "gateway.service.loadBalancerSourceRanges",
    ),
    (
        {"gateway": {"service": {"externalTrafficPolicy": "Local"}}},
        "gateway.service.externalTrafficPolicy counts with",
    ),
    (
        {"gateway": {"tracing": {"otlpEndpoint": "collector:4317"}}},
        "gateway.tracing.enabled is false",
    ),
    ({"webhook": {"enabled": False, "certificateSecret": "x"}}, "webhook.enabled is false"),
    ({"proxy": {"https": "http://user:secret@proxy:3128"}}, "/proxy/https"),
    ({"proxy": {"noProxy": ["a"]}}, "neither proxy.https nor proxy.http"),
    ({"clusterDomain": "Cluster Local"}, "/clusterDomain"),
    ({"clusterDomain": None}, "clusterDomain"),
    (
        {"gateway": {"autoscaling": {"enabled": True, "minReplicas": 20}}},
        "minReplicas (20) is above gateway.autoscaling.maxReplicas (10)",
    ),
    (
        {
            "gateway": {
                "autoscaling": {"enabled": True},
                "envoy": {"resources": {"requests": {"cpu": None}}},
            }
        },
        "needs gateway.envoy.resources.requests.cpu",
    ),
    (
        {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}},
        "would count everything twice",
    ),
    (
        {"workspaces": [{"name": "a", "environments": []}, {"name": "a", "environments": ["b"]}]},
        'workspaces names "a" twice',
    ),
    (
        {"operator": {"namespaces": ["b"]}, "workspaces": [{"name": "a", "environments": []}]},
        "nobody would serve it",
    ),
    ({"origins": {"cache": {"limit": "500Gi"}}}, "origins.cache.claimName is empty"),
]


async def test_wrong_values_are_refused_by_name(installer: Installer) -> None:
    for values, words in WRONG:
        with pytest.raises(installer.helm.InstallError) as refused:
            await installer.install(values)
        assert words in str(refused.value), f"{values}: {refused.value}"
    assert (await installer.client.list(DEPLOYMENTS, SYSTEM)).items == []


async def test_the_chart_lints(installer: Installer) -> None:
    configuration = installer.helm.Configuration(SYSTEM)
    found = await installer.helm.Lint(configuration).run(str(CHART))
    messages = json.dumps(found, default=str)
    assert "ERROR" not in messages, messages
    assert "WARNING" not in messages, messages
