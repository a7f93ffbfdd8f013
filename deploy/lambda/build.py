"""Makes an AWS Lambda function of an exported student: a folder for a container image, and a zip, with their sizes.

    python deploy/lambda/build.py export/best                       # build/lambda/function/ and build/lambda/function.zip

The packages are wheels for Lambda's Linux, whatever this machine is, in the versions that the student was exported with. Left out
is what a function never loads: tests, stubs, numpy's Fortran tools, the backends' converters and the libraries they ship for
other languages and processors, and tokenizers' hub client.
Lambda takes 250 MB unpacked, and zips over 50 MB only from S3; a container image may have 10 GB
(https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html). The container: Dockerfile, beside this file.

Handler: mangakd.runtime.aws_lambda.handler
"""

import argparse
import compileall
import py_compile
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.runtime.manifest import read

REPO = Path(__file__).resolve().parents[2]
OURS = (
    "mangakd/__init__.py", "mangakd/core/__init__.py", "mangakd/core/errors.py", "mangakd/core/spec.py", "mangakd/runtime",
)  # fmt: skip
UNUSED = (
    "bin", "*.dist-info", "**/tests", "**/test", "**/*.pyi", "**/*.pxd", "**/*.h", "**/*.a", "**/__pycache__",
    "numpy/f2py", "numpy/distutils",
    "onnxruntime/tools", "onnxruntime/quantization", "onnxruntime/transformers", "onnxruntime/datasets",
    "onnxruntime/capi/libonnxruntime.so*",
    "openvino/tools", "openvino/include", "openvino/cmake", "openvino/torch", "openvino/libs/cache.json",
    *(f"openvino/libs/*{name}*" for name in ("gpu", "npu", "pytorch", "tensorflow", "paddle", "jax", "onnx", "gguf")),
)  # fmt: skip
UNPACKED, UPLOAD = 250 * 2**20, 50 * 2**20  # Lambda's limits, bytes
MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}


def main(words: list[str] | None = None) -> None:
    it = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    it.add_argument("folder", type=Path, help="of an exported variant, such as export/best")
    it.add_argument("--out", type=Path, default=Path("build/lambda"))
    it.add_argument("--python", default="3.12", help="3.12 (default) or newer: the wheels need its Linux")
    it.add_argument("--machine", choices=sorted(MACHINES), default="x86_64")
    options = it.parse_args(words)
    try:
        build(options.folder, options.out, options.python, options.machine)
    except UserError as error:
        sys.exit(f"error: {error}")


def build(folder: Path, out: Path, python: str, machine: str) -> None:
    function = out / "function"
    shutil.rmtree(function, ignore_errors=True)
    function.mkdir(parents=True)
    install(requirements(read(folder).content), function, python, machine)
    put(folder, function)
    prune(function)
    if python == f"{sys.version_info[0]}.{sys.version_info[1]}":
        compile_all(function)
    else:
        print(f"not compiled: this is not Python {python}. A function that was starts a little faster.")
    packed = pack(function, out / "function.zip")
    print(sizes(function, packed))
    if size(function) > UNPACKED:
        packed.unlink()
        raise UserError(f"{function} is larger than the 250 MB that Lambda unpacks; use the container (Dockerfile).")


def requirements(manifest: dict[str, Any]) -> list[str]:
    """What the function imports, in the versions that the manifest knows. numpy: any that fits the function's Python."""
    known = manifest.get("versions", {})
    names = ("tokenizers", manifest["backend"])
    return ["numpy", *(f"{name}=={known[name]}" if name in known else name for name in names)]


def install(wanted: list[str], to: Path, python: str, machine: str) -> None:
    tags = [
        f"{tag}_{MACHINES[machine]}" for tag in ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
    ]
    platform = [word for tag in tags for word in ("--platform", tag)]
    options = ["--no-deps", "--no-compile", "--only-binary=:all:", "--python-version", python, *platform]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(to), *options, *wanted]
    if subprocess.run(command, check=False).returncode:
        raise UserError(
            f"pip found no wheels of {', '.join(wanted)} for Python {python} on {machine}; it says why above."
        )


def put(folder: Path, function: Path) -> None:
    """Our own modules, and the student as `model`."""
    for name in OURS:
        source, target = REPO / name, function / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    (function / "model").mkdir()
    for name in ("manifest.json", *read(folder).content["files"]):
        # Without its mode: a file that only its owner may read could not be read by the container's user.
        shutil.copyfile(folder / name, function / "model" / name)


def prune(function: Path) -> None:
    for pattern in UNUSED:
        for path in list(function.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def compile_all(function: Path) -> None:
    """Bytecode that Python takes unchecked: Lambda's folder cannot be written, so each cold start would compile anew."""
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(function, quiet=2, invalidation_mode=mode, stripdir=str(function))


def pack(function: Path, file: Path) -> Path:
    """The same bytes for the same content: sorted names, one date, readable by everyone, as Lambda needs."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in files(function):
            entry = zipfile.ZipInfo(path.relative_to(function).as_posix(), (1980, 1, 1, 0, 0, 0))
            entry.external_attr, entry.compress_type = 0o644 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())
    return file


def files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in files(folder))


def sizes(function: Path, packed: Path) -> str:
    """MB of each part and of the whole, beside Lambda's limits."""
    parts = {path.name: size(path) if path.is_dir() else path.stat().st_size for path in function.iterdir()}
    rows: Iterable[tuple[str, int]] = sorted(parts.items(), key=lambda part: -part[1])
    lines = [f"{amount / 2**20:8.1f} MB  {name}" for name, amount in rows if amount > 2**15]
    whole, small = size(function), packed.stat().st_size
    lines.append(f"{whole / 2**20:8.1f} MB  unpacked: {whole / UNPACKED:.0%} of Lambda's 250 MB")
    upload = "may be uploaded as it is" if small <= UPLOAD else "over 50 MB: upload it through S3"
    return "\n".join([*lines, f"{small / 2**20:8.1f} MB  {packed}: {upload}"])


if __name__ == "__main__":
    main()
