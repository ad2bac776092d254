# SPDX-License-Identifier: Apache-2.0
"""The group of most tests: a web server on an image, and a database on a volume."""

STAGES = [["web"], ["db"]]

#: The disks of the group, as they are told to people.
DISKS = ["web /dev/vda", "web /dev/vdb", "db /dev/vda"]


class Boom(Exception):
    """What an observer of these tests raises."""


def interruptions():
    """Observers that raise at the first step, at the second one, and so on.

    Each comes with its number; whoever has seen one that did not raise stops.
    """
    for number in range(1, 100):
        steps = []

        def observe(step, steps=steps, number=number):
            steps.append(step)
            if len(steps) == number:
                raise Boom(step.kind)

        yield number, observe
    raise AssertionError("the steps have no end")


def open_in(cloud):
    """Add the servers to a cloud, and return them by name."""
    backend = cloud.network.add("backend")
    web = cloud.compute.add("web")
    cloud.compute.attach(web)
    db = cloud.compute.add_on_volume("db")
    cloud.network.add_port(web, backend, "10.0.0.5")
    cloud.network.add_port(db, backend, "10.0.0.6")
    return {"web": web, "db": db}


def volume(cloud, name):
    """Return the volume of a cloud that is named after server and device."""
    (found,) = [v for v in cloud.volumes.volumes.values() if v.name == name]
    return found


def members(cloud):
    """Return what kind of member a cloud has of which disk, in any order."""
    with cloud.lock:
        images = cloud.images.with_property("consistency:id")
        return sorted(
            [
                *(f"image {image['name']}" for image in images),
                *(f"snapshot {cloud.label(one)}" for one in cloud.volumes.snapshots),
                *(f"backup {cloud.label(one)}" for one in cloud.volumes.backups),
            ]
        )


def undone(cloud):
    """Whether nothing is left of a group: no member, no server that is frozen."""
    return (members(cloud), cloud.compute.frozen()) == ([], [])


def thawed_in_reverse(cloud):
    """Whether what was frozen was thawed in reverse, before anything was deleted."""
    with cloud.lock:
        froze = [name for verb, name in cloud.log if verb == "freeze"]
        thawed = [name for verb, name in cloud.log if verb == "thaw"]
        verbs = [entry[0] for entry in cloud.log]
    deletions = [n for n, verb in enumerate(verbs) if verb.startswith("delete")]
    last = max((n for n, verb in enumerate(verbs) if verb == "thaw"), default=-1)
    return thawed == froze[::-1] and all(number > last for number in deletions)
