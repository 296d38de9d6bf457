"""``beamlit fetch`` runs in every cold start: what it imports is time that a caller waits."""

import subprocess
import sys

HEAVY = ("typer", "rich", "click", "kubernetes", "aiohttp", "pydantic", "kopf", "yaml", "boto3")


def test_fetch_imports_nothing_of_the_other_commands() -> None:
    script = (
        "import sys\n"
        "from beamlit_operator.cli.main import main\n"
        "status = main(['fetch', '--help'])\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)), status)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[] 0"


def test_fetch_with_wrong_usage_ends_with_status_2() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "beamlit_operator.cli.main", "fetch", "ftp://x/y", "/nowhere"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
    assert ran.stderr.startswith("beamlit fetch: ")
