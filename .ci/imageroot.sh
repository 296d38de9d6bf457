#!/bin/sh
# Makes what the image holds, in two steps. The Dockerfile runs them, and so does `make image-check`.
#   imageroot.sh packages TARGET   the locked packages in a virtual environment, by hash, and the tools
#   imageroot.sh project TARGET    the project itself, and the bill of materials of all of it
# PYTHON names the interpreter. To be run in the root of the sources.
set -eu
step=$1 target=$2 tools=$2.tools python=${PYTHON:-python3}
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# Files that are the same again: no times in bytecode or archives.
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-1577836800}"
install="-m pip install --quiet --no-deps --no-compile"

case $step in
packages)
  mkdir -p "$tools"
  # constraints.txt locks tests and the embedded cluster too; only what runs here is chosen of it.
  "$python" .ci/locked.py --project > "$tools/runtime.txt"
  "$python" .ci/locked.py hatchling editables cyclonedx-bom > "$tools/tools.txt"
  "$python" -m venv "$target"
  "$target/bin/python" $install --require-hashes --only-binary :all: -r "$tools/runtime.txt"
  "$python" -m venv "$tools/env"
  "$tools/env/bin/python" $install --require-hashes --only-binary :all: -r "$tools/tools.txt"
  ;;
project)
  "$tools/env/bin/python" -m pip wheel --quiet --no-deps --no-build-isolation --no-index \
      --wheel-dir "$tools/wheels" .
  "$target/bin/python" $install --no-index "$tools"/wheels/*.whl
  # Environments of Python 3.11 begin with setuptools, too.
  "$target/bin/python" -m pip uninstall --yes --quiet --quiet pip setuptools
  mkdir -p "$target/share/sbom"
  "$tools/env/bin/cyclonedx-py" environment --output-reproducible --output-format JSON \
      --pyproject pyproject.toml --mc-type application \
      --output-file "$target/share/sbom/beamlit-operator.cdx.json" "$target/bin/python"
  # Nobody can write bytecode later, and a start without it takes seconds longer.
  "$target/bin/python" -m compileall -q --invalidation-mode unchecked-hash "$target/lib"
  ;;
*)
  sed -n '2,5p' "$0" >&2
  exit 2
  ;;
esac
