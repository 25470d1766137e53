"""environment.yml, pyproject.toml and the lock say the same."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gexlib.files import home

ROOT = home()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DECLARED = PROJECT["dependencies"] + [line for extra in PROJECT["optional-dependencies"].values() for line in extra]


def locked(python: str, platform: str) -> dict[str, str]:
    environment = {"python_version": python, "python_full_version": f"{python}.1", "sys_platform": platform}
    environment |= {"platform_system": {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}[platform]}
    environment |= {"platform_machine": "x86_64", "implementation_name": "cpython", "extra": ""}
    environment |= {"platform_python_implementation": "CPython", "os_name": "nt" if platform == "win32" else "posix"}
    pins = {}
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (pin,) = requirement.specifier
            assert pin.operator == "==" and canonicalize_name(requirement.name) not in pins, line
            pins[canonicalize_name(requirement.name)] = pin.version
    return pins


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_the_lock_pins_every_declared_dependency_within_its_bounds(python, platform):
    pins = locked(python, platform)
    for line in DECLARED:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"sys_platform": platform}):
            continue
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), line


def test_both_pythons_get_the_same_versions_of_what_decides_a_number():
    older, newer = locked("3.11", "linux"), locked("3.12", "linux")
    for package in ("tensorflow", "keras", "jax", "numpy", "scipy", "scikit-learn", "pandas", "anndata", "statsmodels"):
        assert older[package] == newer[package]


def test_the_conda_environment_installs_the_package_under_the_lock_on_a_supported_python():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python = next(line for line in environment["dependencies"] if str(line).startswith("python="))
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert python.split("=")[1] in ("3.11", "3.12") and PROJECT["requires-python"] == ">=3.11,<3.13"
    assert pip == ["--constraint requirements.lock", "--editable .[dev]"]


def test_the_makefile_installs_under_the_same_lock_with_byte_compilation():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (install,) = re.findall(r"uv pip install .*", makefile)
    assert "--constraint requirements.lock" in install and "--compile-bytecode" in install


def test_what_the_package_imports_is_declared():
    distributions = packages_distributions()
    lines = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["sweep"]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    for path in (ROOT / "gexlib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for name in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"gexlib"}:
                assert {canonicalize_name(d) for d in distributions.get(name, [name])} & declared, (path.name, name)


def test_the_libraries_asked_for_and_the_extras_are_declared():
    names = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    asked_for = "tensorflow keras jax scikit-learn pandas seaborn anndata jupyterlab papermill nbval geoparse six pooch"
    asked_for += " polars gseapy lifelines statsmodels numba"
    assert set(asked_for.split()) <= names
    assert set(PROJECT["optional-dependencies"]) == {"gpu", "sweep", "docs", "dev"}
