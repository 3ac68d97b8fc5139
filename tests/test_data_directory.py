"""The data directory where nothing but the file system has a say."""

import os
from pathlib import Path

import pytest

from lambstead.config import SettingsError
from lambstead.data_directory import MAX_SOCKET_FOLDER, agents_socket


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A data directory that is too deep for sockets."""
    data = tmp_path / ("d" * MAX_SOCKET_FOLDER)
    data.mkdir()
    return data


def test_sockets_of_a_deep_directory_are_in_a_short_one_of_ours(deep: Path) -> None:
    folder = agents_socket(deep).parent
    assert len(os.fsencode(folder)) <= MAX_SOCKET_FOLDER
    assert folder.stat().st_mode & 0o777 == 0o700
    assert agents_socket(deep).parent == folder, "the next server finds it again"
    folder.rmdir()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make folders of others")
def test_a_folder_that_somebody_else_put_there_is_not_used(deep: Path) -> None:
    folder = agents_socket(deep).parent
    os.chown(folder, 65534, 65534)
    try:
        with pytest.raises(SettingsError, match="belongs to somebody else"):
            agents_socket(deep)
    finally:
        folder.rmdir()
