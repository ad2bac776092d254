# SPDX-License-Identifier: Apache-2.0
"""The networks of a fake cloud, and the ports with which servers plug into them."""

import ipaddress
import uuid

from tests.unit.client import refusal


class Network:
    """neutron; each network has one subnet."""

    path = "network"

    def __init__(self, cloud):
        self.cloud = cloud
        self.networks = {}
        self.subnets = {}
        self.ports = {}
        self.groups = {}
        self.add_group("default")

    def add_group(self, name):
        """Add a security group."""
        with self.cloud.lock:
            made = {"id": self.cloud.new_id(name), "name": name}
            self.groups[made["id"]] = made
            return made

    def add(self, name, cidr="10.0.0.0/24"):
        """Add a network."""
        with self.cloud.lock:
            subnet_id = self.cloud.new_id(f"{name}-subnet")
            made = {
                "id": self.cloud.new_id(name),
                "name": name,
                "status": "ACTIVE",
                "subnets": [subnet_id],
                "port_security_enabled": True,
            }
            self.networks[made["id"]] = made
            self.subnets[subnet_id] = {
                "id": subnet_id,
                "network_id": made["id"],
                "cidr": cidr,
                "ip_version": 4,
            }
            return made

    def add_port(self, server, network, address):
        """Plug a server into a network."""
        with self.cloud.lock:
            wanted = [{"ip_address": address}]
            body = {"network_id": network["id"], "fixed_ips": wanted}
            port = self._create(body)
            port |= {"device_id": server.id, "nic": self.cloud.count()}
            return port

    def of_device(self, server_id):
        """Return the ports of a server, in the order of its NICs."""
        own = [p for p in self.ports.values() if p["device_id"] == server_id]
        return sorted(own, key=lambda port: port["nic"])

    def addresses_of(self, name):
        """Return network, MAC and address of each port of the server of that name."""
        with self.cloud.lock:
            (server,) = self.cloud.compute.by_name(name)
            return [
                (
                    self.networks[port["network_id"]]["name"],
                    port["mac_address"],
                    port["fixed_ips"][0]["ip_address"],
                )
                for port in self.of_device(server.id)
            ]

    def plug(self, server_id, networks):
        """Give a new server what it asks for."""
        if networks == "none":
            return
        for wanted in networks:
            if "port" not in wanted:
                body = {"network_id": wanted["uuid"]}
                if "fixed_ip" in wanted:
                    body["fixed_ips"] = [{"ip_address": wanted["fixed_ip"]}]
                port = self._create(body) | {"goes_too": True}
                self.ports[port["id"]] = port
            else:
                port = self.ports.get(wanted["port"])
            if port is None or port["device_id"]:
                raise refusal.Refusal(400, f"Port {wanted} cannot be used.")
            port |= {"device_id": server_id, "nic": self.cloud.count()}

    def unplug(self, server_id):
        """Free what a server had; the ports that nova made go with it."""
        for port in self.of_device(server_id):
            port["device_id"] = ""
            if port.get("goes_too"):
                del self.ports[port["id"]]

    # Requests.

    def answer(self, request, parts, _request_id):
        if parts in ([], ["v2.0"]):
            link = {"rel": "self", "href": f"{self.cloud.url}/network/v2.0/"}
            version = {"id": "v2.0", "status": "CURRENT", "links": [link]}
            return 200, {"versions": [version]}
        kinds = {
            "networks": self.networks,
            "subnets": self.subnets,
            "ports": self.ports,
            "security-groups": self.groups,
        }
        if parts[0] != "v2.0" or parts[1:2] == [] or parts[1] not in kinds:
            return None
        kind, things = parts[1], kinds[parts[1]]
        if request.method == "POST" and parts[1:] == ["ports"]:
            port = self._create(request.json["port"])
            self.cloud.tell("port", port["fixed_ips"][0]["ip_address"])
            return 201, {"port": port}
        if request.method == "GET" and parts[2:] == []:
            key = kind.replace("-", "_")
            return 200, {key: _filtered(things.values(), request.query)}
        found = things.get(parts[2])
        if found is None:
            raise refusal.not_found(f"{kind[:-1]} {parts[2]}")
        if request.method == "GET":
            return 200, {kind[:-1].replace("-", "_"): found}
        if request.method == "DELETE" and kind == "ports":
            del self.ports[found["id"]]
            self.cloud.tell("delete port", found["fixed_ips"][0]["ip_address"])
            return 204, None
        return None

    def _create(self, body):
        network = self.networks.get(body["network_id"])
        if network is None:
            raise refusal.not_found(f"Network {body['network_id']}")
        (subnet_id,) = network["subnets"]
        taken = {
            fixed["ip_address"]
            for port in self.ports.values()
            if port["network_id"] == network["id"]
            for fixed in port["fixed_ips"]
        }
        hosts = ipaddress.ip_network(self.subnets[subnet_id]["cidr"])
        wanted = [fixed.get("ip_address") for fixed in body.get("fixed_ips") or [{}]]
        addresses = []
        for address in wanted:
            if address is None:
                address = next(str(h) for h in hosts.hosts() if str(h) not in taken)
            if ipaddress.ip_address(address) not in hosts:
                raise refusal.Refusal(400, f"{address} is not in the subnet.")
            if address in taken:
                raise refusal.Refusal(409, f"IP address {address} is already used.")
            addresses.append(address)
        mac = body.get("mac_address", f"fa:16:3e:{uuid.uuid4().bytes.hex(':')[:8]}")
        if any(port["mac_address"] == mac for port in self.ports.values()):
            raise refusal.Refusal(409, f"The mac address {mac} is in use.")
        made = {
            "id": self.cloud.new_id(f"port-{addresses[0]}"),
            "name": body.get("name", ""),
            "description": body.get("description", ""),
            "network_id": network["id"],
            "mac_address": mac,
            "device_id": "",
            "fixed_ips": [{"subnet_id": subnet_id, "ip_address": a} for a in addresses],
            "security_groups": body.get("security_groups", []),
        }
        self.ports[made["id"]] = made
        return made


def _filtered(things, query):
    return [
        thing
        for thing in things
        if all(str(thing.get(key)) == v for key, v in query.items() if key != "fields")
    ]
