"""What is promised of alerts and their outbox holds on an older PostgreSQL too."""

import pytest

from obs_assets_tests.delivery.conftest import connection  # noqa: F401
from obs_assets_tests.delivery.test_alert_delivery import *  # noqa: F403
from obs_assets_tests.delivery.test_outbox import *  # noqa: F403
from obs_assets_tests.system.older import older, server  # noqa: F401 - in the place of the server that we bring

pytestmark = pytest.mark.system
