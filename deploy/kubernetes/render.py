"""Writes the Kubernetes manifests of an exported student: Deployment, Service, autoscaler and disruption budget.

    python deploy/kubernetes/render.py export/best --image registry.example/mangakd-student:1 > student.yaml
    kubectl apply -f student.yaml

student.yaml beside this file is the template. The grace period follows from --linger and --patience, so that a pod is not killed
while it drains. Memory is an estimate from the size of the files; give --memory after you have measured it under load.
"""

import argparse
import json
import math
import re
import string
import sys
from pathlib import Path

from mangakd.core.errors import UserError
from mangakd.runtime import language_manifest, manifest
from mangakd.runtime.drain import GRACE

TEMPLATE = Path(__file__).with_name("student.yaml")
NAME = re.compile(r"[a-z]([-a-z0-9]{0,50}[a-z0-9])?")
QUANTITY = re.compile(r"[1-9][0-9]*(\.[0-9]+)?([KMGT]i|[kMGT])?")
ENGINE_SECONDS = 10  # to end llama.cpp, and to spare
LINGER, PATIENCE = 5.0, 30.0  # Kubernetes takes seconds until no balancer sends questions to a pod that ends
BASE_MB, FACTOR = 512, 2  # Python and libraries; files that are mapped and what is computed with them


def main(words: list[str] | None = None) -> None:
    it = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    it.add_argument("folder", type=Path, help="of an exported variant, such as export/best")
    it.add_argument("--image", required=True, help="made by deploy/service/Dockerfile or gguf.Dockerfile")
    it.add_argument("--name", default="mangakd-student")
    it.add_argument("--threads", type=int, default=1, help="of a pod, and the CPUs that it requests")
    it.add_argument("--memory", help="such as 2Gi; left out: estimated")
    it.add_argument("--replicas", type=int, nargs=2, default=(2, 10), metavar=("LEAST", "MOST"))
    it.add_argument("--waiting", type=int, default=4, help="texts in a pod's queue above which pods are added")
    it.add_argument("--linger", type=float, default=LINGER)
    it.add_argument("--patience", type=float, default=PATIENCE)
    try:
        print(render(it.parse_args(words)), end="")
    except UserError as error:
        sys.exit(f"error: {error}")


def render(options: argparse.Namespace) -> str:
    """Raises UserError for a folder that cannot be served, and for wrong options."""
    _check(options)
    estimate = memory(options.folder)  # in any case, because it reads the folder
    serve = [
        "--threads",
        str(options.threads),
        "--linger",
        f"{options.linger:g}",
        "--patience",
        f"{options.patience:g}",
    ]
    values = {
        "name": json.dumps(options.name), "image": json.dumps(options.image), "arguments": json.dumps(serve),
        "cpu": options.threads, "memory": options.memory or estimate, "least": options.replicas[0], "most": options.replicas[1],
        "waiting": options.waiting, "grace": math.ceil(options.linger + options.patience + GRACE + ENGINE_SECONDS),
    }  # fmt: skip
    return string.Template(TEMPLATE.read_text(encoding="utf-8")).substitute(values)


def memory(folder: Path) -> str:
    """512 MiB and twice the files of the variant."""
    language = language_manifest.is_language(folder)
    variant = language_manifest.read(folder) if language else manifest.read(folder)
    if isinstance(variant, language_manifest.LanguageManifest) and variant.engine != "llama.cpp":
        raise UserError(
            f"{folder} is a language model of {variant.engine}, which mangakd does not serve: give a GGUF variant."
        )
    files = variant.content["files"]
    size = sum((folder / name).stat().st_size for name in files)
    return f"{BASE_MB + math.ceil(FACTOR * size / 2**20)}Mi"


def _check(options: argparse.Namespace) -> None:
    least, most = options.replicas
    if not NAME.fullmatch(options.name):
        raise UserError(f"--name {options.name!r}: give a name of Kubernetes: small letters, digits and hyphens.")
    if not options.image or re.search(r"\s", options.image):
        raise UserError(f"--image {options.image!r}: give the name of an image, such as registry.example/student:1.")
    if options.memory is not None and not QUANTITY.fullmatch(options.memory):
        raise UserError(f"--memory {options.memory!r}: give a quantity of Kubernetes, such as 2Gi or 800Mi.")
    if not 1 <= least <= most:
        raise UserError(f"--replicas {least} {most}: give the least, from 1 on, and the most.")
    if options.threads < 1 or options.waiting < 1:
        raise UserError("--threads and --waiting are numbers from 1 on.")
    if not (0 <= options.linger < math.inf and 0 <= options.patience < math.inf):
        raise UserError("--linger and --patience are seconds from 0 on.")


if __name__ == "__main__":
    main()
