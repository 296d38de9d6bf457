# syntax=docker/dockerfile:1
# The image of operator, agent, command line and fetcher: Python, the locked packages, their bill of
# materials, and nothing else. `make image` builds it. Envoy is not in it: it has an image of its own.

# By digest where a build must be the same again: --build-arg PYTHON=python:3.13-slim@sha256:...
ARG PYTHON=python:3.13-slim

FROM ${PYTHON} AS build
ARG SOURCE_DATE_EPOCH=1577836800
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1
COPY .ci/imageroot.sh .ci/locked.py .ci/
COPY constraints.txt pyproject.toml ./
RUN .ci/imageroot.sh packages /opt/beamlit
COPY README.md LICENSE ./
COPY operator operator
COPY crds crds
COPY manifests/samples manifests/samples
RUN .ci/imageroot.sh project /opt/beamlit

FROM ${PYTHON}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="beamlit-operator" \
      org.opencontainers.image.description="Operator, gateway agent and command line of Beamlit" \
      org.opencontainers.image.source="https://github.com/beamlit/beamlit-operator" \
      org.opencontainers.image.documentation="https://github.com/beamlit/beamlit-operator/tree/main/docs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="Beamlit" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# What installs packages has no business here. And the official images come without the bytecode of
# Python's own modules, which nobody could write later: each start would compile what it imports, for
# a quarter of a second where a fetch finds its files in place already.
RUN python -m pip uninstall --yes --quiet --root-user-action ignore pip \
    && python -m compileall -q --invalidation-mode unchecked-hash \
       "$(python -c 'import os; print(os.path.dirname(os.__file__))')"
COPY --from=build /opt/beamlit /opt/beamlit
# Nothing is written outside TMPDIR, so that the root file system can be read-only.
ENV PATH=/opt/beamlit/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /
ENTRYPOINT ["beamlit"]
