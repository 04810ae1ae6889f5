"""The files of onnxruntime-web, from its npm package -> a folder of a site."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from pathlib import Path

from openmofi.errors import InputError
from openmofi.files.folders import cache_folder, replace_file

VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web@{VERSION}"
RUNTIME_FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
"""The build that computes on the processor: its module, and what that loads."""
_LIMIT = 600
_BLOCK = 1 << 20


def copy_runtime(package: Path | str | None, folder: Path) -> None:
    """Copies the files that a page needs.

    Args:
        package: the npm package, as `npm pack` writes it or unpacked; None asks npm for it, once.
        folder: where to copy them.

    Raises:
        InputError: the package is not there, or is another.
    """
    package = _packed() if package is None else Path(package)
    if package.is_dir():
        inside = next(
            (p for p in (package / "dist", package) if (p / RUNTIME_FILES[0]).is_file()), package
        )
        found = {name: (inside / name) for name in RUNTIME_FILES if (inside / name).is_file()}
        for name, file in found.items():
            shutil.copyfile(file, folder / name)
    else:
        found = _unpack(package, folder)
    if missing := [name for name in RUNTIME_FILES if name not in found]:
        raise InputError(
            f"{str(package)!r} lacks {missing[0]}; expected the npm package {PACKAGE}, as "
            f"`npm pack {PACKAGE}` writes it."
        )


def _unpack(package: Path, folder: Path) -> dict[str, str]:
    found = {}
    try:
        with gzip.open(package) as unzipped, tarfile.open(fileobj=unzipped) as archive:
            for member in archive:
                name = member.name.removeprefix("package/dist/")
                file = archive.extractfile(member) if name in RUNTIME_FILES else None
                if file is not None:
                    with file, (folder / name).open("wb") as copy:
                        shutil.copyfileobj(file, copy)
                    found[name] = member.name
            while unzipped.read(_BLOCK):  # whose checksum is behind the last byte
                pass
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise InputError(
            f"--runtime {str(package)!r} cannot be read ({error}); make it with "
            f"`npm pack {PACKAGE}`."
        ) from None
    return found


def _packed() -> Path:
    """Returns the package's file in the cache; npm fetches it, and checks it, if it is not there.

    Raises:
        InputError: npm is not installed, or cannot fetch it.
    """
    name = f"onnxruntime-web-{VERSION}.tgz"
    kept = cache_folder() / "npm" / name
    if kept.is_file():
        return kept
    npm = shutil.which("npm")
    advice = f"run `npm pack {PACKAGE}` where that works, and give the file as --runtime."
    if npm is None:
        raise InputError(
            f"The page needs onnxruntime-web, and there is no npm to fetch it; {advice}"
        )
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as temporary:
        try:
            subprocess.run(
                [npm, "pack", "--silent", PACKAGE],
                cwd=temporary,
                check=True,
                capture_output=True,
                text=True,
                timeout=_LIMIT,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            said = str(getattr(error, "stderr", "") or error).strip().splitlines()[:1]
            raise InputError(f"npm cannot fetch {PACKAGE} ({' '.join(said)}); {advice}") from None
        with replace_file(kept) as partial:
            shutil.move(Path(temporary) / name, partial)
    return kept
