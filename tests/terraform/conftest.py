"""A stack that Terraform made on moto."""

import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.terraform import cloud as moto_cloud
from tests.terraform.cloud import Cloud
from tests.terraform.root import KEYS, PROJECT, Root, copy_stack


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
) -> Iterator[Callable[..., Root]]:
    """Return a function that copies the stack's root, ready to apply; destroyed at the end."""
    roots: list[Root] = []

    def new(**variables: object) -> Root:
        root = copy_stack(tmp_path_factory.mktemp("stack"), cloud.url, **variables)
        roots.append(root)
        return root

    yield new
    for root in roots:
        root.destroy()


@pytest.fixture(scope="session")
def stack(new_stack: Callable[..., Root]) -> Root:
    """A stack with the defaults, to look at: tests that change a stack make one of their own."""
    root = new_stack(**KEYS)
    root.apply()
    return root
