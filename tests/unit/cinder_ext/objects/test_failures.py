# SPDX-License-Identifier: Apache-2.0

import errno

import pytest

from cinder_ext import exception
from cinder_ext.objects import failures

VOLUME = "9c40f314-bea1-40f1-963b-5153db39bcb4"
KEY = "0f5a02b1-3684-4ee1-bc76-526ac4405e7e"


class QuotaError(Exception):
    pass


class BackupLimitExceeded(QuotaError):
    pass


class BackupRestoreCancel_Remote(Exception):  # noqa: N801 - as over RPC
    pass


class MessagingException(Exception):
    pass


class MessagingTimeout(MessagingException):
    pass


class CommandError(Exception):
    errno = 1


@pytest.mark.parametrize(
    ("failure", "phase", "code"),
    [
        (exception.ServiceRestarted(), "transfer", "service_restart"),
        (exception.NoBackupService(), "schedule", "scheduler_no_host"),
        (BackupLimitExceeded(), "prepare", "quota"),
        (BackupRestoreCancel_Remote(), "transfer", "cancelled"),
        (MessagingTimeout(), "attach", "volume_service"),
        (OSError(errno.ENOSPC, "No space left on device"), "transfer", "no_space"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "transfer", "no_space"),
        (CommandError("dd: No space left on device"), "transfer", "no_space"),
        (OSError(errno.EIO, "Input/output error"), "transfer", "driver_io"),
        (ValueError("x"), "attach", "attach"),
        (ValueError("x"), "detach", "detach"),
        (ValueError("x"), "prepare", "unknown"),
        (ValueError("x"), "finalize", "unknown"),
    ],
)
def test_code(failure: Exception, phase: str, code: str) -> None:
    assert code in failures.CODES
    assert phase in failures.PHASES
    assert failures.code(failure, phase) == code


def test_code_of_a_full_store_behind_the_exception_of_a_driver() -> None:
    failure = ValueError("the store failed")
    failure.__cause__ = OSError(errno.ENOSPC, "full")
    assert failures.code(failure, "transfer") == "no_space"


def test_code_of_exceptions_in_a_ring() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert failures.code(first, "transfer") == "driver_io"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Backup aborted.\nTraceback: secret", "Backup aborted."),
        (
            "Unexpected error while running command.\nCommand: ceph mon --id x",
            "Unexpected error while running command.",
        ),
        ("Failed. Command: rbd rm pool/x", "Failed."),
        ("login failed: password = 'hunter2'", "login failed: password = '***'"),
        (
            "[Errno 28] No space left on device: '/var/lib/cinder/backup/x-1'",
            "[Errno 28] No space left on device: '<path>'",
        ),
        ("GET https://u:p@s3.example.org/b?Signature=abc failed", "GET <url> failed"),
        (f"Key not found, uuid: {KEY}", "Key not found, uuid: <id>"),
        (f"Key {KEY.replace('-', '')} is gone", "Key <id> is gone"),
        (
            f"Volume {VOLUME} is gone.",
            f"Volume {VOLUME} is gone.",
        ),
        ("either/or 1/2 of it", "either/or 1/2 of it"),
        ("", None),
        (None, None),
        ("\n \n", None),
        ("/only/a/path", "<path>"),
    ],
)
def test_clean(text: str | None, told: str | None) -> None:
    assert failures.clean(text, {VOLUME, None}) == told


def test_clean_keeps_255_characters() -> None:
    assert failures.clean("x" * 1000) == "x" * 255


def test_describe_has_a_message_whatever_was_raised() -> None:
    assert failures.describe(ValueError(), "transfer") == {
        "code": "driver_io",
        "type": "ValueError",
        "message": "ValueError",
        "phase": "transfer",
    }
