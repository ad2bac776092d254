# SPDX-License-Identifier: Apache-2.0
"""Extensions of ``cinder-backup``: owns the backup notifications, nothing else."""
