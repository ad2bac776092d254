# SPDX-License-Identifier: Apache-2.0
"""Owns how a service of the fake cloud says no."""


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def not_found(what):
    """Return the answer for what is not there."""
    return Refusal(404, f"{what} could not be found.")
