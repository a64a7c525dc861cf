"""A receiver goes on in another folder, because the events folder of its pipeline has changed."""

import errno
import logging
import os
import shutil
from pathlib import Path

from obs_assets.errors import ObsError
from obs_assets.receive.app import Receiver
from obs_assets.receive.spool import FILE_MODE, Spool
from obs_assets.storage.disk import explained, make_private_dir, replacing

_log = logging.getLogger(__name__)


def move(receiver: Receiver, folder: Path) -> None:
    """Finish the files of a receiver, and go on in another folder.

    The other folder gets the finished files too, since the pipeline may not have landed them:
    landing knows a file by its content, and reads no event of it twice. Requests that come
    meanwhile are answered with 429.

    Args:
        receiver: the receiver.
        folder: its new folder.

    Raises:
        ObsError: the file system refused it, or another receiver writes there. The receiver goes
            on as before.
    """
    old = receiver.spool
    make_private_dir(folder, setting="OBS_EVENTS_DIR")
    # Most files before the pause.
    _bring(old, folder)
    old.close()
    try:
        _bring(old, folder)
        receiver.spool = old.reopened(folder)
    except ObsError:
        receiver.spool = old.reopened(old.folder)
        raise
    with explained(folder):
        receiver.keys.move(folder)
    _log.warning(
        "files go to %s, the new events folder. The files in %s stay: remove them when no pipeline "
        "needs them",
        folder,
        old.folder,
    )


def _bring(spool: Spool, folder: Path) -> None:
    """Give finished files a second name in another folder; a copy, if that is on another disk."""
    for path in spool.files():
        target = folder / path.name
        if path == spool.current or target.exists():
            continue
        try:
            os.link(path, target)
        except OSError as error:
            if error.errno not in {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK}:
                raise ObsError(f"cannot write {target}: {error.strerror}") from None
            with replacing(target, setting="OBS_EVENTS_DIR") as copy:
                shutil.copyfile(path, copy)
                copy.chmod(FILE_MODE)
