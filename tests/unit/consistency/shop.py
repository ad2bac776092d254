#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""The group of most tests: a web server on an image, and a database on a volume."""

STAGES = [["web"], ["db"]]

#: The disks of the group, as they are told to people.
DISKS = ["web /dev/vda", "web /dev/vdb", "db /dev/vda"]


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


def parts(cloud):
    """Return what kind of part a cloud has of which disk, in any order."""
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
    """Whether nothing is left of a group: no part, no server that is frozen."""
    return (parts(cloud), cloud.compute.frozen()) == ([], [])


def thawed_in_reverse(cloud):
    """Whether what was frozen was thawed in reverse, before anything was deleted."""
    with cloud.lock:
        froze = [name for verb, name in cloud.log if verb == "freeze"]
        thawed = [name for verb, name in cloud.log if verb == "thaw"]
        verbs = [entry[0] for entry in cloud.log]
    deletions = [n for n, verb in enumerate(verbs) if verb.startswith("delete")]
    last = max((n for n, verb in enumerate(verbs) if verb == "thaw"), default=-1)
    return thawed == froze[::-1] and all(number > last for number in deletions)
