# syntax=docker/dockerfile:1
# The image of operator, agent, command line and fetcher: Python, the locked packages, and nothing
# else. `make image` builds it. Envoy is not in it: it has an image of its own.

# By digest where a build must be the same again: --build-arg PYTHON=python:3.13-slim@sha256:...
ARG PYTHON=python:3.13-slim

FROM ${PYTHON} AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY constraints.txt pyproject.toml .ci/locked.py ./
# constraints.txt locks tests and the embedded cluster too; only what runs here is chosen of it.
RUN python locked.py --project > runtime.txt \
 && python locked.py hatchling editables > backend.txt \
 && python -m venv /opt/beamlit \
 && /opt/beamlit/bin/python -m pip install --no-deps --require-hashes --only-binary :all: -r runtime.txt \
 && python -m pip install --no-deps --require-hashes -r backend.txt
COPY README.md LICENSE ./
COPY operator operator
COPY crds crds
COPY manifests/rbac manifests/rbac
COPY manifests/samples manifests/samples
RUN python -m pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /wheels . \
 && /opt/beamlit/bin/python -m pip install --no-deps --no-index /wheels/*.whl \
 && /opt/beamlit/bin/python -m pip uninstall --yes --quiet pip

FROM ${PYTHON}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="beamlit-operator" \
      org.opencontainers.image.description="Operator, gateway agent and command line of Beamlit" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /opt/beamlit /opt/beamlit
# Nothing is written outside TMPDIR, so that the root file system can be read-only.
ENV PATH=/opt/beamlit/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /
ENTRYPOINT ["beamlit"]
