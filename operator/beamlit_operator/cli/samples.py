"""The sample models: trained here, and put into an S3 store as MLServer wants them.

``python -m beamlit_operator.cli.samples ENDPOINT`` trains them all and uploads them to the bucket
``models`` of that store; it prints one JSON object a line that says what was made. The model of the
lifecycle samples, which is a small server, is there too.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from beamlit_operator.cli.shipped import sample_folder

BUCKET = "models"


@dataclass(frozen=True, slots=True)
class Sample:
    """A model of the samples, and how well it does on the rows it has not seen."""

    name: str
    kind: str
    rows: int
    accuracy: float
    bytes: int


def train(name: str) -> tuple[Sample, bytes]:
    """Trains one model on a data set that comes with scikit-learn; returns it as joblib writes it.

    Raises:
        KeyError: there is no sample of that name.
    """
    import joblib
    from sklearn.datasets import load_iris, load_wine
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    data_sets: dict[str, Callable[[], Any]] = {"iris": load_iris, "wine": load_wine}
    estimators: dict[str, Any] = {
        "iris": make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)),  # type: ignore[no-untyped-call]
        "wine": DecisionTreeClassifier(max_depth=4, random_state=0),  # type: ignore[no-untyped-call]
    }
    data = data_sets[name]()
    seen, unseen, seen_classes, unseen_classes = train_test_split(
        data.data, data.target, test_size=0.25, random_state=0, stratify=data.target
    )
    model = estimators[name].fit(seen, seen_classes)
    buffer = io.BytesIO()
    joblib.dump(model, buffer)  # type: ignore[no-untyped-call]
    sample = Sample(
        name=name,
        kind=type(model[-1] if hasattr(model, "steps") else model).__name__,
        rows=len(seen),
        accuracy=round(float(model.score(unseen, unseen_classes)), 3),
        bytes=buffer.tell(),
    )
    return sample, buffer.getvalue()


def settings_of(name: str) -> bytes:
    """MLServer's ``model-settings.json``."""
    return json.dumps(
        {
            "name": name,
            "implementation": "mlserver_sklearn.SKLearnModel",
            "parameters": {"uri": "./model.joblib"},
        },
        indent=2,
    ).encode()


def upload(endpoint: str, name: str, files: dict[str, bytes]) -> None:
    """Puts a model's files under ``s3://models/NAME``; makes the bucket if it is missing."""
    import boto3
    from botocore.config import Config

    client = boto3.client(  # type: ignore[no-untyped-call]
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        # Any will do: the store of the samples checks none.
        aws_access_key_id="samples",
        aws_secret_access_key="samples",  # noqa: S106
        config=Config(s3={"addressing_style": "path"}),  # type: ignore[no-untyped-call]
    )
    client.create_bucket(Bucket=BUCKET)
    for file, content in files.items():
        client.put_object(Bucket=BUCKET, Key=f"{name}/{file}", Body=content)


def greeter() -> dict[str, bytes]:
    """The files of the model of the lifecycle samples: a small server."""
    return {"server.py": (sample_folder("lifecycle") / "server.py").read_bytes()}


def main(arguments: list[str]) -> int:
    """Makes every sample and uploads it to the store."""
    (endpoint,) = arguments
    upload(endpoint, "greeter", greeter())
    for name in ("iris", "wine"):
        sample, model = train(name)
        upload(endpoint, name, {"model.joblib": model, "model-settings.json": settings_of(name)})
        print(json.dumps(asdict(sample)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
