"""The manifests for Kubernetes: against the schemas of Kubernetes, against each other, and against what the program takes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from service.settings import PREFIX, Settings, settings_from_environment
from tests.docker.test_files import DOCKER
from tests.docs.commands import problem

FOLDER = DOCKER / "kubernetes"
KUSTOMIZATION = YAML(typ="safe").load(FOLDER / "kustomization.yaml")
VERSIONS = ("1.29", kubernetes_validate.latest_version())
Object = Mapping[str, Any]


def objects() -> Iterator[Object]:
    """Give every object that ``kubectl apply --kustomize`` makes."""
    for name in KUSTOMIZATION["resources"]:
        yield from YAML(typ="safe").load_all((FOLDER / name).read_text(encoding="utf-8"))


OBJECTS = tuple(objects())
WORKLOADS = tuple(one for one in OBJECTS if one["kind"] in ("Deployment", "StatefulSet"))


def named(kind: str) -> dict[str, Object]:
    return {one["metadata"]["name"]: one for one in OBJECTS if one["kind"] == kind}


def pod_of(workload: Object) -> Object:
    return dict(workload["spec"]["template"]["spec"])


def name_of(one: Object) -> str:
    return f"{one['kind']}-{one['metadata']['name']}"


def chosen_by(selector: Mapping[str, str]) -> list[str]:
    """Return the workloads whose pods have all these labels."""
    return [one["metadata"]["name"] for one in WORKLOADS if selector.items() <= one["spec"]["template"]["metadata"]["labels"].items()]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("one", OBJECTS, ids=name_of)
def test_every_object_follows_the_schema_of_kubernetes(one: Object, version: str) -> None:
    kubernetes_validate.validate(dict(one), version, strict=True)


def test_a_misspelt_key_would_be_found() -> None:
    wrong = {**WORKLOADS[0], "spec": {**WORKLOADS[0]["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_the_kustomization_has_every_file_and_every_image() -> None:
    assert sorted(KUSTOMIZATION["resources"]) == sorted(path.name for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml")
    images = {container["image"] for workload in WORKLOADS for container in pod_of(workload)["containers"]}
    assert images == {image["name"] for image in KUSTOMIZATION["images"]}


@pytest.mark.parametrize("workload", WORKLOADS, ids=name_of)
def test_what_a_pod_runs_and_is_told_is_known_to_the_program(workload: Object) -> None:
    known = {PREFIX + field.name.upper() for field in dataclasses.fields(Settings)}
    settings = named("ConfigMap")
    for container in pod_of(workload)["containers"]:
        assert problem(["onnx-trt-optimizer", *container["args"]]) is None
        told = {one["name"]: one for one in container["env"]}
        shared = {key for source in container["envFrom"] for key in settings[source["configMapRef"]["name"]]["data"]}
        assert {key for key in {*told, *shared} if key.startswith(PREFIX)} <= known
        assert {PREFIX + "DATABASE_URL", PREFIX + "EXECUTOR_ID", PREFIX + "SHARED_DIR"} <= {*told, *shared}
        is_api = container["args"][0] == "serve"
        assert (PREFIX + "API_KEY" in told, told[PREFIX + "HOST"]["value"]) == (is_api, "0.0.0.0" if is_api else "127.0.0.1")


def test_the_settings_are_taken_as_they_stand() -> None:
    (settings,) = named("ConfigMap").values()
    told = {key: value for key, value in settings["data"].items() if key.startswith(PREFIX)}
    secrets = {PREFIX + "DATABASE_URL": "postgresql+psycopg://optimizer:p@db/optimizer", PREFIX + "EXECUTOR_ID": "optimizer-gpu-l4-0"}
    found = settings_from_environment({**told, **secrets})
    assert (str(found.shared_dir), str(found.data_dir)) == ("/shared", "/data")


@pytest.mark.parametrize("workload", WORKLOADS, ids=name_of)
def test_a_process_that_needs_too_much_memory_is_ended_before_its_pod_is(workload: Object) -> None:
    for container in pod_of(workload)["containers"]:
        told = {one["name"]: one.get("value") for one in container["env"]}
        stage = int(told.get(PREFIX + "STAGE_MEMORY_BYTES") or Settings().stage_memory_bytes)
        (gib,) = re.findall(r"^(\d+)Gi$", container["resources"]["limits"]["memory"])
        assert stage + 2**29 <= int(gib) * 2**30  # and half a GB for the process itself


@pytest.mark.parametrize("workload", WORKLOADS, ids=name_of)
def test_everything_that_a_pod_names_is_there(workload: Object) -> None:
    pod = pod_of(workload)
    claims = {one["metadata"]["name"] for one in workload["spec"].get("volumeClaimTemplates", ())}
    volumes = {volume["name"] for volume in pod["volumes"]} | claims
    assert pod["serviceAccountName"] in named("ServiceAccount")
    assert {volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume} <= set(
        named("PersistentVolumeClaim")
    )
    said = (FOLDER / "kustomization.yaml").read_text(encoding="utf-8")
    for container in pod["containers"]:
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        secrets = [one["valueFrom"]["secretKeyRef"] for one in container["env"] if "secretKeyRef" in one.get("valueFrom", {})]
        assert secrets
        for secret in secrets:  # the command that makes it has the key
            assert re.search(rf"create secret generic {secret['name']} \\\n(#.*\\?\n)*?#.*--from-literal={secret['key']}=", said)


@pytest.mark.parametrize("workload", WORKLOADS, ids=name_of)
def test_pods_run_without_root_and_rights(workload: Object) -> None:
    pod = pod_of(workload)
    (user,) = re.findall(r"useradd --uid (\d+)", (DOCKER / "Dockerfile").read_text(encoding="utf-8"))
    security = pod["securityContext"]
    assert (security["runAsNonRoot"], security["runAsUser"], security["fsGroup"]) == (True, int(user), int(user))
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        allowed = container["securityContext"]
        assert allowed == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        assert {"/tmp", "/data", "/shared"} == {mount["mountPath"] for mount in container["volumeMounts"]}


@pytest.mark.parametrize("workload", WORKLOADS, ids=name_of)
def test_selectors_choose_the_pods_of_one_workload_and_a_budget_keeps_it_up(workload: Object) -> None:
    name = workload["metadata"]["name"]
    assert chosen_by(workload["spec"]["selector"]["matchLabels"]) == [name]
    budgets = [one for one in named("PodDisruptionBudget").values() if name in chosen_by(one["spec"]["selector"]["matchLabels"])]
    assert [chosen_by(one["spec"]["selector"]["matchLabels"]) for one in budgets] == [[name]]


def test_each_type_of_gpu_has_a_stateful_set_with_one_gpu_a_pod() -> None:
    sets = named("StatefulSet").values()
    products = [pod_of(one)["nodeSelector"]["nvidia.com/gpu.product"] for one in sets]
    assert len(set(products)) == len(products) == 2
    for one in sets:
        (container,) = pod_of(one)["containers"]
        assert container["args"] == ["worker", "--role", "gpu"]
        assert {container["resources"][part]["nvidia.com/gpu"] for part in ("requests", "limits")} == {"1"}
        service = named("Service")[one["spec"]["serviceName"]]
        assert (service["spec"]["clusterIP"], chosen_by(service["spec"]["selector"])) == ("None", [one["metadata"]["name"]])


def test_workers_take_no_connection_and_the_api_takes_them_at_its_port() -> None:
    policies = named("NetworkPolicy")
    workers, api = policies["optimizer-workers"]["spec"], policies["optimizer-api"]["spec"]
    (role,) = [one for one in workers["podSelector"]["matchExpressions"] if one["key"].endswith("component")]
    components = {one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"] for one in WORKLOADS}
    assert {*role["values"], "api"} == components
    assert workers["ingress"] == []
    (container,) = pod_of(named("Deployment")["optimizer-api"])["containers"]
    port = container["ports"][0]["containerPort"]
    assert [one["port"] for rule in api["ingress"] for one in rule["ports"]] == [port]
    assert chosen_by(api["podSelector"]["matchLabels"]) == ["optimizer-api"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": container["ports"][0]["name"]}
