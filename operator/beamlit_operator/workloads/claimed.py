"""Where a pod has its model's files: fetched into a volume of its own, or mounted as they are.

| files           | volume `models`      | the fetching container  | the model server             |
|-----------------|----------------------|-------------------------|------------------------------|
| are fetched     | the pod's own, empty | fills it at /mnt/models | reads it at /mnt/models      |
| are in a claim  | the claim, read-only | checks it at /mnt/claim | reads the folder, same place |
| are in an image | the image (KEP-4639) | checks it at /mnt/claim | reads the folder, same place |

A cluster that does not know images as volumes drops the field, which leaves an empty volume: the
check finds that. The container that checks sees the whole claim: a kubelet makes a folder that a
mount names and that is missing, so that a wrong path would be found as an empty folder, and be left
in the claim. The volume itself is read-only, and not only its mounts: then no kubelet changes who
owns the files (`fsGroup`), which is what nobody asked for.
"""

from collections.abc import Mapping
from typing import Any

from beamlit_operator.api.runtime import Runtime
from beamlit_operator.workloads.files import MODELS, MOUNTED, ModelFiles
from beamlit_operator.workloads.presets import Preset, presets

Json = dict[str, Any]

VOLUME = "models"


def volume_of(files: ModelFiles) -> Json:
    """The volume that has the files."""
    if files.image:
        source: Json = {"reference": files.image, "pullPolicy": "IfNotPresent"}
        return {"name": VOLUME, "image": source}
    if not files.claim:
        return {"name": VOLUME, "emptyDir": {}}
    source = {"claimName": files.claim, "readOnly": True}
    return {"name": VOLUME, "persistentVolumeClaim": source}


def served_from(files: ModelFiles) -> Json:
    """What the model server mounts."""
    mount: Json = {"name": VOLUME, "mountPath": MODELS, "readOnly": True}
    if files.mounted and files.folder:
        mount["subPath"] = files.folder
    return mount


def filled_from(files: ModelFiles) -> Json:
    """What the fetching container mounts."""
    if files.mounted:
        return {"name": VOLUME, "mountPath": MOUNTED, "readOnly": True}
    return {"name": VOLUME, "mountPath": MODELS}


def unseen_problem(
    files: ModelFiles, runtime: Runtime, known: Mapping[str, Preset] | None
) -> str | None:
    """What must be said about files that nobody but a pod can see; None if it was said.

    | the runtime names                           | problem                       |
    |---------------------------------------------|-------------------------------|
    | (whatever), and the Model says unpack       | nothing is copied             |
    | neither type nor image                      | one must be named             |
    | a type that is told a file's name, no args  | the arguments must be given   |
    | else                                        | none                          |
    """
    if not files.mounted:
        return None
    if files.unpack:
        return (
            f"spec.unpack of the Model has no meaning for files of {files.mounted}, of which "
            f"nothing is copied: unpack them there, and remove it"
        )
    table = presets() if known is None else known
    if runtime.type is None and runtime.image is None:
        return (
            f"the operator does not see the files of {files.mounted}, so it cannot choose what "
            f"serves them: set spec.runtime.type of the Model or the deployment to one of "
            f"{', '.join(sorted(table))}, or set spec.runtime.image"
        )
    preset = table.get(runtime.type or "")
    if preset is not None and runtime.args is None and any("{gguf}" in arg for arg in preset.args):
        return (
            f"spec.runtime.type is {preset.type}, which is told a file's name, and the operator "
            f"does not see the files of {files.mounted}: name it in spec.runtime.args, such as "
            f"[--model, {MODELS}/model.gguf, --host, 0.0.0.0, --port, '{preset.port}']"
        )
    return None
