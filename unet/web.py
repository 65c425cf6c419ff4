"""Write a page that runs two networks in browsers.

The page is the folder ``web/`` of the checkout; ONNX Runtime for browsers comes from npm.
"""

import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

from .bundle import Bundle, BundleError
from .export import export
from .model import count_parameters
from .overlay import OPACITY, unpainted_classes

ROOT = Path(__file__).parents[1]
RUNTIME = "onnxruntime-web@1.30.0"
RUNTIME_FILES = ("dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm")
PAGE_FILE = "page.json"  # what page.js reads of the networks


def export_page(networks: Mapping[str, Bundle], folder: str | Path, runtime: str | Path | None = None) -> Path:
    """Write a static page that runs two networks.

    networks: by the names that the page shows, left first. runtime: an unpacked onnxruntime-web; None fetches it.
    Raises BundleError before anything is written, and OSError if the folder cannot be written.
    """
    folder, bundles = Path(folder), list(networks.values())
    if len(bundles) != 2 or bundles[0].class_names != bundles[1].class_names:
        raise BundleError("the page shows two networks with the same classes; name two of one task")
    if folder.exists() and any(folder.iterdir()) and not (folder / PAGE_FILE).exists():
        raise BundleError(f"{folder} holds other files, which the page could overwrite; name a new folder")
    with tempfile.TemporaryDirectory() as temporary:
        package = Path(runtime or fetch_runtime(temporary))
        if missing := [name for name in RUNTIME_FILES if not (package / name).is_file()]:
            raise BundleError(f"{package / missing[0]} is missing; name an unpacked {RUNTIME}")
        shutil.copytree(ROOT / "web", folder, dirs_exist_ok=True)
        for name in RUNTIME_FILES:
            shutil.copy(package / name, folder)
    shown = []
    for side, (name, bundle) in zip(("left", "right"), networks.items(), strict=True):
        file = export(bundle, folder / f"{side}.onnx").name
        facts = [f"skips: {bundle.net.config.skip}", f"{count_parameters(bundle.net) / 1e6:.2f} M parameters"]
        if "val" in bundle.scores:
            facts.append(f"val mIoU {bundle.scores['val']['miou']:.2f}")
        shown.append({"name": name, "file": file, "facts": " · ".join(facts)})
    first, weights = bundles[0], ROOT / "weights"
    source = next((path for path in (weights / first.task / "examples", weights / "examples") if path.is_dir()), None)
    if source:
        shutil.copytree(source, folder / "examples", ignore=shutil.ignore_patterns("*.png"), dirs_exist_ok=True)
    page = {
        "task": first.task,
        "class_names": first.class_names,
        "palette": first.palette.tolist(),
        "unpainted": unpainted_classes(first.class_names),
        "opacity": OPACITY,
        "networks": shown,
        "examples": [f"examples/{path.name}" for path in sorted(source.glob("*.jpg"))] if source else [],
        "terms": ". ".join(str(first.data[key]).rstrip(".") for key in ("source", "terms") if first.data.get(key)),
    }
    (folder / PAGE_FILE).write_text(json.dumps(page, indent=1))
    return folder


def fetch_runtime(folder: str | Path) -> Path:
    """Fetch ONNX Runtime with npm -> its folder. Raises BundleError."""
    npm = shutil.which("npm")
    if npm is None:
        how = f"install Node.js, or name an unpacked {RUNTIME} with --onnxruntime-web"
        raise BundleError(f"npm is not installed; {how}")
    pack = [npm, "pack", RUNTIME, "--silent", "--prefer-offline"]
    done = subprocess.run(pack, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        why = " ".join(done.stderr.split())[-300:] or "it does not say why"
        raise BundleError(f"npm cannot fetch {RUNTIME}: {why}")
    archive = Path(folder, done.stdout.split()[-1])
    with tarfile.open(archive) as tar:
        for name in RUNTIME_FILES:
            tar.extract(f"package/{name}", folder, filter="data")
    archive.unlink()
    return Path(folder, "package")
