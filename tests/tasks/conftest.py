"""Real data sets where they are, small ones in their formats, and no download unless a test serves it."""

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from filelock import FileLock

SHARED = Path(__file__).parents[3] / "shared" / "data"
FASHION = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(autouse=True)
def own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let nothing be found that a test did not put there, and nothing be downloaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("P2PTRAIN_OFFLINE", "1")
    monkeypatch.delenv("P2PTRAIN_DATA", raising=False)


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Return a folder of the real data, or skip."""

    def find(name: str) -> Path:
        if not (SHARED / name).exists():
            pytest.skip(f"there is no {SHARED / name}")
        return SHARED / name

    return find


def _expand() -> ModuleType:
    spec = importlib.util.spec_from_file_location("expand", SHARED / "expand.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def cifar10(tmp_path_factory: pytest.TempPathFactory, shared: Callable[[str], Path]) -> Iterator[Path]:
    """Unpack both versions of CIFAR-10, once for all workers; the last one of them removes it."""
    shared("cifar10")
    run = tmp_path_factory.getbasetemp()
    folder = (run if run.name.startswith("pytest") else run.parent) / "cifar10"
    users = folder.with_name("cifar10.users")
    with FileLock(folder.with_name("cifar10.lock")):
        if not folder.exists():
            expand = _expand()
            expand.cifar10_bin(str(folder))
            expand.cifar10_py(str(folder))
        users.write_text(f"{int(users.read_text()) + 1 if users.exists() else 1}")
    yield folder
    with FileLock(folder.with_name("cifar10.lock")):
        left = int(users.read_text()) - 1
        users.write_text(str(left))
        if not left:
            shutil.rmtree(folder)
            users.unlink()
