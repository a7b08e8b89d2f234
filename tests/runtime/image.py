"""An image with nothing but busybox in it, made here, so that no test pulls one."""

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

from node import find

# `.invalid` is nobody's (RFC 6761): were the image not there, pulling it could not succeed.
NAME = "registry.invalid/busybox:test"

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}


def busybox() -> str:
    """The path of a busybox that needs nothing else to run."""
    path = find("busybox")
    if b"/ld-linux" in Path(path).read_bytes()[:4096]:
        raise RuntimeError(f"`{path}` is dynamically linked: install busybox-static")
    return path


def root() -> bytes:
    """The image's files, as a tar archive."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "www"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        add_file(tar, "bin/busybox", Path(busybox()).read_bytes(), 0o755)
        add_file(tar, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\n")
        applets = subprocess.run([busybox(), "--list"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        for applet in applets:
            if applet != "busybox":
                entry = tarfile.TarInfo(f"bin/{applet}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(entry)
    return archive.getvalue()


def write_oci_archive(path: Path, machine: str) -> None:
    """Writes the image for `machine` (as uname names it) in the layout that containerd imports."""
    blobs: dict[str, bytes] = {}

    def blob(data: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def document(content: dict[str, object], media_type: str) -> dict[str, object]:
        return blob(json.dumps(content).encode(), media_type)

    layer = blob(root(), "application/vnd.oci.image.layer.v1.tar")
    config = document(
        {
            "architecture": ARCHITECTURE.get(machine, machine),
            "os": "linux",
            # What a pod's sandbox runs: it only has to stay.
            "config": {"Env": ["PATH=/bin"], "Entrypoint": ["/bin/sleep", "2147483647"]},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        },
        "application/vnd.oci.image.config.v1+json",
    )
    manifest_type = "application/vnd.oci.image.manifest.v1+json"
    manifest = document(
        {"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": [layer]}, manifest_type
    )
    manifest["annotations"] = {"io.containerd.image.name": NAME}
    index = {"schemaVersion": 2, "manifests": [manifest]}
    with tarfile.open(path, "w") as tar:
        add_file(tar, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        add_file(tar, "index.json", json.dumps(index).encode())
        for name, data in blobs.items():
            add_file(tar, name, data)


def add_file(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))
