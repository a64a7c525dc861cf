"""What every other test relies on."""

import contextlib
import socket

import pytest
from pytest_socket import SocketConnectBlockedError

from obs_assets.settings import Settings
from obs_assets_tests.conftest import connect_postgres, connect_s3


@pytest.mark.parametrize("run", [1, 2])
def test_each_test_has_an_empty_database_and_bucket(settings: Settings, run: int) -> None:
    """What one test leaves behind, another does not see."""
    assert settings.postgres
    assert settings.s3
    with connect_postgres(settings.postgres) as connection:
        connection.execute("CREATE TABLE left_behind (n int)")
    with contextlib.closing(connect_s3(settings.s3)) as client:
        assert client.list_objects_v2(Bucket=settings.s3.bucket)["KeyCount"] == 0
        client.put_object(Bucket=settings.s3.bucket, Key="left_behind", Body=b"1")


def test_the_internet_is_out_of_reach() -> None:
    """A test cannot depend on another machine."""
    with (
        pytest.warns(UserWarning, match=r"192\.0\.2\.1"),
        pytest.raises(SocketConnectBlockedError),
        socket.socket() as outside,
    ):
        outside.connect(("192.0.2.1", 80))
