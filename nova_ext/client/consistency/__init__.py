# SPDX-License-Identifier: Apache-2.0
"""One consistent snapshot of an ordered group of servers, and its restore.

A library on an ``openstack.connection.Connection``.
``transaction.create`` makes a consistency snapshot, ``groups`` finds and deletes it,
``restore.restore`` makes servers of it, ``replicate.replicate`` takes it to another
cloud.
"""
