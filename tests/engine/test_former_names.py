"""Import paths of before the modules moved."""

import importlib
import subprocess
import sys
from importlib.util import find_spec

import pytest

from engine.former_names import MOVED

# What needs a package that tests may lack is looked at without importing it.
HEAVY = ("adapters.cuda", "adapters.faiss.gpu", "adapters.onnx.gpu", "app.device_process")


@pytest.mark.parametrize(("former", "name"), MOVED.items())
def test_a_former_name_is_the_module_itself(former: str, name: str) -> None:
    assert find_spec(name) is not None
    if name.removeprefix("engine.").startswith(HEAVY):
        return
    sys.modules.pop(former, None)
    with pytest.warns(DeprecationWarning, match=f"{former} is now {name}"):
        module = importlib.import_module(former)
    assert module is importlib.import_module(name)


def test_modules_that_became_packages_still_give_what_was_in_them() -> None:
    code = (
        "from engine.config import EngineConfig; from engine.publish import publish_users\n"
        "from engine.adapters.embedded_redis import EmbeddedRedis; from engine.settings.seen import SeenConfig\n"
        "print(EngineConfig.__module__, publish_users.__module__, EmbeddedRedis.__module__, SeenConfig.__module__)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [
        "engine.config.serving", "engine.publish.users", "engine.adapters.redis.embedded", "engine.config.seen",
    ]  # fmt: skip


def test_what_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"engine\.never"):
        importlib.import_module("engine.never")
    with pytest.raises(ImportError, match="cannot import name 'Never'"):
        exec("from engine.config import Never")
