"""Volumes of a pod as folders on this machine."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from beamlit_operator.devcluster.kubelet.tokens import key_of
from beamlit_operator.devcluster.kubelet.variables import (
    ConfigError,
    Facts,
    expand,
    field_value,
    resource_value,
    secret_bytes,
)
from beamlit_operator.kube import Json

SUPPORTED = (
    *("emptyDir", "secret", "configMap", "projected", "downwardAPI", "hostPath"),
    "persistentVolumeClaim",
)


class VolumeError(Exception):
    """A volume cannot be set up yet; the text is kubelet's FailedMount message."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of a volume."""

    content: bytes
    mode: int


def referenced(pod: Json) -> tuple[set[str], set[str]]:
    """Names of the Secrets and of the ConfigMaps the pod's volumes refer to."""
    secrets, config_maps = set(), set()
    for volume in pod["spec"].get("volumes") or ():
        sources = [volume, *((volume.get("projected") or {}).get("sources") or ())]
        for source in sources:
            if source.get("secret"):
                secrets.add(source["secret"].get("secretName") or source["secret"].get("name"))
            if source.get("configMap"):
                config_maps.add(source["configMap"]["name"])
    return secrets, config_maps


def follows_api(volume: Json) -> bool:
    """Whether the volume's content comes from objects that may change."""
    return any(volume.get(kind) is not None for kind in _READERS)


def contents(volume: Json, facts: Facts) -> dict[str, File] | None:
    """The files a volume holds, None when it is not made of files of the API. Pure.

    Raises:
        ConfigError: a Secret, ConfigMap, key or field that is not optional is missing.
    """
    for kind, reader in _READERS.items():
        if volume.get(kind) is not None:
            source = volume[kind]
            return reader(source, facts, int(source.get("defaultMode") or 0o644))
    return None


def set_up(pod: Json, folder: Path, facts: Facts) -> dict[str, Path]:
    """Creates or refreshes every volume; the folder of each by volume name.

    Raises:
        VolumeError: one cannot be set up.
    """
    result = {}
    for volume in pod["spec"].get("volumes") or ():
        name = volume["name"]
        try:
            result[name] = _set_up_one(volume, folder / name, facts)
        except (ConfigError, OSError) as error:
            raise VolumeError(f'MountVolume.SetUp failed for volume "{name}" : {error}') from error
    return result


def mounts_of(
    container: Json, folders: Mapping[str, Path], values: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Mount path and folder of each volume mount; ``values`` are the container's variables.

    Raises:
        ConfigError: a mount names a volume the pod does not have, or leaves its volume.
    """
    result = []
    for mount in container.get("volumeMounts") or ():
        folder = folders.get(mount["name"])
        if folder is None:
            raise ConfigError(f'volume "{mount["name"]}" of a volume mount is not in the pod')
        part = mount.get("subPath") or _expanded(mount.get("subPathExpr") or "", values)
        if part:
            folder = _sub_path(folder, part, mount["name"], container["name"])
        result.append((mount["mountPath"], str(folder)))
    return result


def _expanded(text: str, values: Mapping[str, str]) -> str:
    """A ``subPathExpr`` with its variables; every one of them must be there."""
    for name in re.findall(r"(?<!\$)\$\(([^)]*)\)", text):
        if name not in values:
            raise ConfigError(f"cannot expand subPathExpr: missing value for {name}")
    return expand(text, values)


def _sub_path(folder: Path, part: str, volume: str, container: str) -> Path:
    """A folder or file in a volume; a folder is made where nothing is, as the kubelet does.

    Where it leads outside, be it along a link, nothing is made and nothing mounted. What is where
    on the machine is not told.
    """
    where = f'volumeMount "{volume}" of container "{container}"'
    if Path(part).is_absolute() or ".." in Path(part).parts:
        raise ConfigError(f'subPath "{part}" must stay inside the volume')
    target = folder / part
    try:
        if not target.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(f"failed to prepare subPath for {where}")
        if not target.exists():
            target.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"failed to create subPath directory for {where}") from error
    return target


def wipe(folder: Path) -> None:
    """Removes everything a pod had."""
    shutil.rmtree(folder, ignore_errors=True)


def _set_up_one(volume: Json, folder: Path, facts: Facts) -> Path:
    kind = next((key for key in volume if key != "name" and volume[key] is not None), "emptyDir")
    if kind not in SUPPORTED:
        raise ConfigError(
            f"the embedded cluster has no {kind} volumes; it has {', '.join(SUPPORTED)}"
        )
    if kind == "hostPath":
        return _host_path(volume["hostPath"])
    if kind == "persistentVolumeClaim":
        return _claimed(volume["persistentVolumeClaim"], facts)
    folder.mkdir(parents=True, exist_ok=True)
    files = contents(volume, facts)
    if files is None:
        return folder
    for name, file in files.items():
        target = folder / name
        if target.exists() and target.read_bytes() == file.content:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{target.name}.new")
        fresh.unlink(missing_ok=True)
        fresh.write_bytes(file.content)
        fresh.chmod(file.mode)
        fresh.replace(target)
    for path in folder.rglob("*"):
        if path.is_file() and str(path.relative_to(folder)) not in files:
            path.unlink()
    return folder


def _host_path(source: Json) -> Path:
    path, kind = Path(source["path"]), source.get("type") or ""
    if kind == "DirectoryOrCreate":
        path.mkdir(parents=True, exist_ok=True)
    elif kind == "FileOrCreate":
        path.touch()
    elif kind == "Directory" and not path.is_dir():
        raise ConfigError(f"hostPath type check failed: {path} is not a directory")
    elif kind == "File" and not path.is_file():
        raise ConfigError(f"hostPath type check failed: {path} is not a file")
    return path


def _claimed(source: Json, facts: Facts) -> Path:
    volume = facts.claimed.get(source["claimName"])
    if volume is None:
        raise ConfigError(f'persistentvolumeclaim "{source["claimName"]}" not found')
    spec = volume["spec"]
    if spec.get("hostPath") is not None:
        return _host_path(spec["hostPath"])
    if spec.get("local") is not None:
        path = Path(spec["local"]["path"])
        if not path.is_dir():
            raise ConfigError(f'path "{path}" does not exist, or is not a directory')
        return path
    raise ConfigError(
        f"the embedded cluster cannot mount volume {volume['metadata']['name']}: of persistent "
        "volumes it has hostPath and local"
    )


def _chosen(source: Json, data: Mapping[str, bytes], mode: int, what: str) -> dict[str, File]:
    items = source.get("items")
    if not items:
        return {name: File(content, mode) for name, content in data.items()}
    result = {}
    for item in items:
        if item["key"] in data:
            result[_inside(item["path"])] = File(data[item["key"]], int(item.get("mode") or mode))
        elif not source.get("optional"):
            raise ConfigError(f"references non-existent {what} key: {item['key']}")
    return result


def _secret(source: Json, facts: Facts, mode: int) -> dict[str, File]:
    name = source.get("secretName") or source["name"]
    item = facts.secrets.get(name)
    if item is None:
        if source.get("optional"):
            return {}
        raise ConfigError(f'secret "{name}" not found')
    return _chosen(source, secret_bytes(item), mode, "secret")


def _config_map(source: Json, facts: Facts, mode: int) -> dict[str, File]:
    item = facts.config_maps.get(source["name"])
    if item is None:
        if source.get("optional"):
            return {}
        raise ConfigError(f'configmap "{source["name"]}" not found')
    data = {name: text.encode() for name, text in (item.get("data") or {}).items()}
    data.update(secret_bytes({"data": item.get("binaryData") or {}}))
    return _chosen(source, data, mode, "config")


def _downward(source: Json, facts: Facts, mode: int) -> dict[str, File]:
    result = {}
    for item in source.get("items") or ():
        if item.get("fieldRef"):
            text = field_value(item["fieldRef"]["fieldPath"], facts)
        else:
            text = resource_value({}, item["resourceFieldRef"], facts)
        result[_inside(item["path"])] = File(text.encode(), int(item.get("mode") or mode))
    return result


def _projected(source: Json, facts: Facts, mode: int) -> dict[str, File]:
    result: dict[str, File] = {}
    for part in source.get("sources") or ():
        kind = next((key for key in part if part[key] is not None), "")
        if kind not in _PROJECTED:
            raise ConfigError(
                f"the embedded cluster cannot project {kind or 'nothing'}; "
                f"it can project {', '.join(_PROJECTED)}"
            )
        result.update(_READERS[kind](part[kind], facts, mode))
    return result


def _token(source: Json, facts: Facts, mode: int) -> dict[str, File]:
    """A ServiceAccount token; readable by the owner only, as other users of this machine exist."""
    token = facts.tokens.get(key_of(source))
    if token is None:
        raise ConfigError("no token of the pod's ServiceAccount is known")
    return {_inside(source["path"]): File(token.encode(), 0o600)}


def _inside(path: str) -> str:
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ConfigError(f'path "{path}" must stay inside the volume')
    return path


_READERS: dict[str, Callable[[Json, Facts, int], dict[str, File]]] = {
    "secret": _secret,
    "configMap": _config_map,
    "downwardAPI": _downward,
    "projected": _projected,
    "serviceAccountToken": _token,
}

_PROJECTED = ("secret", "configMap", "downwardAPI", "serviceAccountToken")
