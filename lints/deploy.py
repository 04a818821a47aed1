"""Checks the files under ``deploy/``, each by the linter of its kind.

    python3 lints/deploy.py

A linter that is not installed is left out, with a printed reason. The names of the stream and of
the consumer in the KEDA trigger are compared with those in the source. Exits with 1 if a file is
wrong.
"""

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
STORES = ROOT / "crates/concurrent-futures-cluster/src/nats/stores.rs"

#: The options that the script of Slurm may have, with the form of their values.
#: (`sbatch --test-only` needs a cluster.)
SBATCH = {
    "job-name": r"[\w-]+",
    "nodes": r"\d+",
    "ntasks-per-node": r"\d+",
    "cpus-per-task": r"\d+",
    "time": r"(\d+-)?\d+:\d\d:\d\d",
    "signal": r"(B:)?[A-Z]+@\d+",
    "requeue": "",
}
#: The members that the trigger of KEDA knows, with the form of their values.
TRIGGER = {
    "natsServerMonitoringEndpoint": r"[\w.-]+:\d+",
    "account": r"\$G|\w+",
    "stream": r"cf-tasks-[\w-]+",
    "consumer": r"(python3-\d+t?|rust)-[0-9a-f]{24}-[012]",
    "lagThreshold": r"\d+",
    "activationLagThreshold": r"\d+",
}


def tool(name: str) -> str | None:
    """Return the path of a program: of this Python's environment, or of PATH."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.is_file() else shutil.which(name)


def skip(what: str, why: str) -> None:
    """Print that a check is left out."""
    print(f"skipped: {what}: {why}")


def run(command: list[str]) -> Iterator[str]:
    """Yield what a linter says if it is not content."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        yield f"{' '.join(command)}: {done.stdout}{done.stderr}".strip()


def kubernetes() -> Iterator[str]:
    """Check the manifests against the schemas of Kubernetes, and the trigger of KEDA."""
    if importlib.util.find_spec("kubernetes_validate") is None:
        skip("deploy/kubernetes", "kubernetes-validate is not installed")
        return
    import kubernetes_validate
    import yaml

    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        name = path.relative_to(ROOT).as_posix()
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if document["kind"] == "ScaledObject":
                yield from (f"{name}: {problem}" for problem in scaled_object(document))
                continue
            try:
                kubernetes_validate.validate(document, "1.34", strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{name}: {document['kind']}: {error.message}"


def scaled_object(document: dict) -> Iterator[str]:
    """Check a KEDA object, for which Kubernetes has no schema."""
    if document["apiVersion"] != "keda.sh/v1alpha1":
        yield f"apiVersion is {document['apiVersion']}"
    spec = document["spec"]
    known = {"scaleTargetRef", "triggers", "minReplicaCount", "maxReplicaCount"}
    if unknown := spec.keys() - known - {"pollingInterval", "cooldownPeriod"}:
        yield f"unknown members: {unknown}"
    for trigger in spec["triggers"]:
        if trigger["type"] != "nats-jetstream":
            yield f"the type of a trigger is {trigger['type']}"
        metadata = trigger["metadata"]
        if metadata.keys() != TRIGGER.keys():
            yield f"members of a trigger: {metadata.keys() ^ TRIGGER.keys()}"
        for member, form in TRIGGER.items():
            value = metadata.get(member, "")
            if not isinstance(value, str) or not re.fullmatch(form, value):
                yield f"{member} is {value!r}"
    source = STORES.read_text(encoding="utf-8")
    for text in (
        'format!("cf-tasks-{queue}")',
        'format!("{}-{}", lane.environment, lane.priority)',
    ):
        if text not in source:
            yield f"the names of stream and consumer are not those of {STORES.name}: {text}"


def systemd() -> Iterator[str]:
    """Check the units."""
    program = tool("systemd-analyze")
    if program is None:
        skip("deploy/systemd", "systemd-analyze is not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted((DEPLOY / "systemd").glob("*.service")):
            copy = Path(folder, path.name)
            copy.write_bytes(path.read_bytes())
            # Other units of this system are not checked.
            yield from run([program, "verify", "--man=no", "--recursive-errors=no", str(copy)])


def slurm() -> Iterator[str]:
    """Check the scripts, and their options."""
    program = tool("shellcheck")
    if program is None:
        skip("the shell of deploy/slurm", "shellcheck is not installed")
    for path in sorted((DEPLOY / "slurm").glob("*.sbatch")):
        name = path.relative_to(ROOT).as_posix()
        text = path.read_text(encoding="utf-8")
        if program is not None:
            yield from run([program, "--shell=bash", name])
        head, _, rest = text.partition("\nset -euo pipefail\n")
        if "#SBATCH" in rest:
            yield f"{name}: Slurm reads no option behind the first command"
        options = re.findall(r"^#SBATCH (.*)$", head, re.MULTILINE)
        if not options:
            yield f"{name}: no options"
        for option in options:
            match = re.fullmatch(r"--([\w-]+)(?:=(\S+))?", option)
            if match is None or match[1] not in SBATCH:
                yield f"{name}: unknown option: {option}"
            elif not re.fullmatch(SBATCH[match[1]], match[2] or ""):
                yield f"{name}: the value makes no sense: {option}"


def main() -> int:
    """Print what is wrong; return the exit code."""
    problems = [*kubernetes(), *systemd(), *slurm()]
    print("\n".join(problems), end="\n" if problems else "")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
