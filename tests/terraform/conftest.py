"""A stack that Terraform made on moto."""

import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.terraform import cloud as moto_cloud
from tests.terraform.cloud import Cloud
from tests.terraform.root import PROJECT, STACK, Root, copy_files, new_root


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    """Moto, mended, for the whole session."""
    with moto_cloud.start() as cloud:
        yield cloud


@pytest.fixture(scope="session")
def zips() -> None:
    """The functions' zips, made anew."""
    subprocess.run([PROJECT / "zipper.sh"], check=True, capture_output=True)


@pytest.fixture(scope="session")
def new_stack(
    cloud: Cloud, zips: None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Root]:
    """Return a function that copies the stack's root, with its settings and ready to apply."""

    def new(**settings: object) -> Root:
        folder = copy_files(PROJECT, tmp_path_factory.mktemp("stack"), *STACK)
        return new_root(folder, cloud.url, **settings)

    return new


@pytest.fixture(scope="session")
def new_example(
    cloud: Cloud, zips: None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Root]:
    """Return a function that copies one of examples/, a root that calls the stack as a module."""

    def new(name: str) -> Root:
        folder = copy_files(PROJECT, tmp_path_factory.mktemp("caller"), *STACK)
        copy_files(PROJECT, folder, f"examples/{name}/*.tf")
        return new_root(folder / "examples" / name, cloud.url)

    return new


@pytest.fixture(scope="session")
def stack(new_stack: Callable[..., Root]) -> Root:
    """A stack with the defaults, to look at: tests that change a stack make one of their own."""
    root = new_stack(tags={"team": "data"}, jobs={"nightly*": {"silent_after_hours": 26}})
    root.apply()
    return root
