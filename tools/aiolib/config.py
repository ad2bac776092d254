# SPDX-License-Identifier: Apache-2.0
"""Writes the configuration files of all services; starts nothing.

Everything is stock except the lines of EXTENSION and EXTENSION_PASTE, which are
the lines that an operator adds.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pathlib

from aiolib import ceph, command, devices, hosts, ini, wheels
from aiolib.settings import ADDRESS, REGION, REPO, STORAGE_HOST, Settings

EXTENSION_PASTE = (
    "paste.app_factory = nova.api.openstack.compute:APIRouterV21.factory",
    "paste.app_factory = nova_ext.wsgi.paste:osapi_compute_app_v21",
)
EXTENSION_OPTIONS = {
    "pmem_copy_timeout": 20,
    "pmem_progress_interval": 1,
    "quiesce_agent_timeout": 5,
    "quiesce_default_timeout": 60,
    "quiesce_max_timeout": 600,
}
BACKUP_OPTIONS = {
    "format": "both",
    "min_interval": 0,
    "max_interval": 2,
    "min_percent_step": 5,
    "stall_time": 20,
}
# name: availability zone, the default one if it has none
BACKUP_SERVICES = {
    "cinder-backup": "",
    "cinder-backup-ceph": "ceph",
    "cinder-backup-s3": "s3",
}
# what follows the site in the name of a cloud: user, project
_CLOUDS = {
    "admin": ("admin", "admin"),
    "demo": ("demo", "demo"),
    # who may export and import the backups of the tenant
    "demo-admin": ("admin", "demo"),
}
_SECOND = "site2"
SHIMS = pathlib.Path(__file__).resolve().parent / "shims"
_FIXED_KEY = "00112233445566778899aabbccddeeff"


def backup_host(name: str) -> str:
    """What cinder knows a backup service's host as; each of them has its own."""
    return "-".join(filter(None, (STORAGE_HOST, BACKUP_SERVICES[name])))


def backup_services(settings: Settings) -> list[str]:
    """A second site needs but the store that it shares with the first one."""
    return ["cinder-backup-s3"] if settings.beside else list(BACKUP_SERVICES)


def back_ends(settings: Settings) -> list[str]:
    """The back ends of cinder; a volume type has the name of each."""
    return ["rbd"] if settings.beside else ["nfs", "rbd"]


def path_variable(settings: Settings) -> str:
    system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return f"{SHIMS}:{settings.venv}/bin:{system}"


def _user(settings: Settings, name: str) -> dict[str, object]:
    return {
        "auth_type": "password",
        "auth_url": settings.url("keystone", "/v3"),
        "username": name,
        "password": settings.password,
        "project_name": "service",
        "user_domain_name": "Default",
        "project_domain_name": "Default",
        "region_name": REGION,
    }


def _authtoken(settings: Settings, name: str, kind: str) -> ini.Ini:
    return {
        "keystone_authtoken": {
            "www_authenticate_uri": settings.url("keystone", "/v3"),
            "service_type": kind,
            "service_token_roles": "service",
            "service_token_roles_required": "true",
            **_user(settings, name),
        }
    }


def _common(settings: Settings, name: str) -> ini.Ini:
    state = settings.state(name)
    (state / "locks").mkdir(parents=True, exist_ok=True)
    return {
        "DEFAULT": {
            "debug": os.environ.get("AIO_DEBUG", "false"),
            "use_stderr": "true",
            "transport_url": settings.rabbit_url,
            "state_path": state,
            # Half of the default, for tests that lose answers wait for it.
            "rpc_response_timeout": 30,
        },
        "oslo_messaging_rabbit": {"rabbit_quorum_queue": "false"},
        "oslo_messaging_notifications": {"driver": "messagingv2"},
        "oslo_concurrency": {"lock_path": state / "locks"},
    }


def _database(settings: Settings, name: str) -> dict[str, object]:
    return {"connection": settings.database_url(name)}


def _keystone(settings: Settings) -> None:
    etc = settings.etc / "keystone"
    ini.write(
        etc / "keystone.conf",
        {
            "DEFAULT": {
                "use_stderr": "true",
                "public_endpoint": settings.url("keystone"),
            },
            "database": _database(settings, "keystone"),
            "identity": {"password_hash_rounds": 4},
            "token": {"provider": "fernet"},
            "fernet_tokens": {"key_repository": etc / "fernet-keys"},
            "credential": {"key_repository": etc / "credential-keys"},
            "cache": {"enabled": "true", "backend": "dogpile.cache.memory"},
        },
    )


def _placement(settings: Settings) -> None:
    ini.write(
        settings.etc / "placement" / "placement.conf",
        {
            "DEFAULT": {"use_stderr": "true"},
            "api": {"auth_strategy": "keystone"},
            "placement_database": _database(settings, "placement"),
            **_authtoken(settings, "placement", "placement"),
        },
    )


def _glance(settings: Settings) -> None:
    etc, content = settings.etc / "glance", _common(settings, "glance")
    stores = {
        "fs": settings.state("glance") / "images",
        "os_glance_staging_store": settings.state("glance") / "staging",
        "os_glance_tasks_store": settings.state("glance") / "tasks",
    }
    for section, directory in stores.items():
        directory.mkdir(parents=True, exist_ok=True)
        content[section] = {"filesystem_store_datadir": directory}
    content["DEFAULT"] |= {
        "enabled_backends": "fs:file",
        "worker_self_reference_url": settings.url("glance"),
        "enabled_import_methods": "[]",
    }
    content |= {
        "glance_store": {"default_backend": "fs"},
        "database": _database(settings, "glance"),
        "paste_deploy": {
            "flavor": "keystone",
            "config_file": etc / "glance-api-paste.ini",
        },
        **_authtoken(settings, "glance", "image"),
    }
    content["oslo_messaging_notifications"] = {"driver": "noop"}
    ini.write(etc / "glance-api.conf", content)


def _nova(settings: Settings, state: str, host: str) -> ini.Ini:
    """What all nova services share."""
    content = _common(settings, state)
    content["DEFAULT"] |= {
        "host": host,
        "my_ip": ADDRESS,
        "rootwrap_config": settings.etc / "nova" / "rootwrap.conf",
        "service_down_time": 60,
        "report_interval": 5,
    }
    return content | {
        "notifications": {
            "notification_format": "both",
            "notify_on_state_change": "vm_and_task_state",
        },
        "glance": {"api_servers": settings.url("glance")},
        "placement": _user(settings, "placement"),
        "neutron": _user(settings, "neutron"),
        "cinder": {
            "catalog_info": "block-storage::publicURL",
            **_user(settings, "cinder"),
        },
        "service_user": {
            "send_service_user_token": "true",
            **_user(settings, "nova"),
        },
        "key_manager": {
            "backend": "nova.keymgr.conf_key_mgr.ConfKeyManager",
            "fixed_key": _FIXED_KEY,
        },
        "vnc": {"enabled": "false"},
        **_authtoken(settings, "nova", "compute"),
    }


def _nova_control(settings: Settings, directory: str, host: str) -> ini.Ini:
    content = _nova(settings, directory, host)
    content |= {
        "api_database": _database(settings, "nova_api"),
        "database": _database(settings, "nova_cell1"),
        "conductor": {"workers": 1},
        "scheduler": {"workers": 1},
        "wsgi": {"api_paste_config": settings.etc / directory / "api-paste.ini"},
    }
    return content


def _nova_compute(settings: Settings, host: str, virt_type: str) -> ini.Ini:
    content = _nova(settings, f"nova-{host}", host)
    content["DEFAULT"] |= {
        "my_ip": settings.host_address(host),
        "instances_path": settings.instances,
        "compute_driver": "libvirt.LibvirtDriver",
        "shutdown_timeout": 5,
        "vif_plugging_is_fatal": "false",
        "vif_plugging_timeout": 0,
        "update_resources_interval": 30,
        "periodic_fuzzy_delay": 0,
        "resume_guests_state_on_host_boot": "false",
    }
    content["libvirt"] = {
        "virt_type": virt_type,
        "cpu_mode": "none" if virt_type == "qemu" else "host-passthrough",
        "connection_uri": "qemu:///system",
        # %s is the name of the host that a guest migrates to
        "live_migration_uri": "qemu+unix:///system?socket="
        f"{hosts.libvirt_socket(settings, '%s')}",
        "images_type": "qcow2",
        "nfs_mount_point_base": settings.state(f"nova-{host}") / "mnt",
        "pmem_namespaces": devices.option(settings, host),
    }
    if settings.extended(host):
        content["DEFAULT"] |= {
            "config_source": "nova_ext",
            "compute_driver": "nova_ext.LibvirtDriver",
        }
        content["nova_ext"] = {
            "driver": "nova_ext",
            **EXTENSION_OPTIONS,
            "guard_directory": settings.guard_directory(host),
            "guard_libvirt_uri": content["libvirt"]["connection_uri"],
        }
    return content


def _all_nova(settings: Settings, virt_type: str) -> None:
    etc = settings.etc
    ini.write(etc / "nova" / "nova.conf", _nova_control(settings, "nova", "ctl"))
    api = _nova_control(settings, "nova-api", "ctl-ext")
    paste = (etc / "nova" / "api-paste.ini").read_text()
    if not settings.stock:
        api["nova_ext"] = dict(EXTENSION_OPTIONS)
        before, after = EXTENSION_PASTE
        if paste.count(before) != 1:
            raise AssertionError(f"the stock api-paste.ini has no line {before!r}")
        paste = paste.replace(before, after)
    ini.write(etc / "nova-api" / "nova.conf", api)
    (etc / "nova-api" / "api-paste.ini").write_text(paste)
    conductor = _nova_control(settings, "nova-conductor", "ctl")
    if not settings.stock:
        conductor["DEFAULT"] |= {"config_source": "nova_ext"}
        conductor["nova_ext"] = {"driver": "nova_ext"}
    ini.write(etc / "nova-conductor" / "nova.conf", conductor)
    for host in settings.computes:
        content = _nova_compute(settings, host, virt_type)
        ini.write(etc / f"nova-{host}.conf", content)


def _cinder(settings: Settings) -> None:
    etc, state = settings.etc / "cinder", settings.state("cinder")
    (state / "share").mkdir(parents=True, exist_ok=True)
    (etc / "nfs_shares").write_text(f"{ADDRESS}:{state / 'share'}\n")
    content = _common(settings, "cinder")
    content["DEFAULT"] |= {
        "my_ip": ADDRESS,
        "host": STORAGE_HOST,
        "control_exchange": "cinder",  # cinder leaves oslo's default, "openstack"
        "api_paste_config": etc / "api-paste.ini",
        "rootwrap_config": etc / "rootwrap.conf",
        "resource_query_filters_file": etc / "resource_filters.json",
        "auth_strategy": "keystone",
        "enabled_backends": ",".join(back_ends(settings)),
        # without a manager daemon Ceph tells no free space
        "scheduler_default_filters": "AvailabilityZoneFilter,CapabilitiesFilter",
        "glance_api_servers": settings.url("glance"),
        "quota_backups": 1000,
        "report_interval": 5,
        "service_down_time": 25,
    }
    if not settings.stock:
        content["DEFAULT"] |= {
            "backup_manager": "cinder_ext.backup.manager.BackupManager",
            "scheduler_manager": "cinder_ext.scheduler.manager.SchedulerManager",
        }
        content["backup_notifications"] = dict(BACKUP_OPTIONS)
    content |= {
        "nfs": {
            "volume_driver": "cinder.volume.drivers.nfs.NfsDriver",
            "volume_backend_name": "nfs",
            "nfs_shares_config": etc / "nfs_shares",
            "nfs_mount_point_base": state / "mnt",
            "nfs_snapshot_support": "true",
            "nfs_qcow2_volumes": "true",
            "nas_secure_file_operations": "false",
            "nas_secure_file_permissions": "false",
        },
        "rbd": {
            "volume_driver": "cinder.volume.drivers.rbd.RBDDriver",
            "volume_backend_name": "rbd",
            "rbd_pool": "volumes",
            "rbd_user": ceph.USER,
            "rbd_ceph_conf": "/etc/ceph/ceph.conf",
        },
        "database": _database(settings, "cinder"),
        "coordination": {"backend_url": f"file://{state}/coordination"},
        "key_manager": {
            "backend": "cinder.keymgr.conf_key_mgr.ConfKeyManager",
            "fixed_key": _FIXED_KEY,
        },
        "nova": _user(settings, "nova"),
        "service_user": {
            "send_service_user_token": "true",
            **_user(settings, "cinder"),
        },
        **_authtoken(settings, "cinder", "block-storage"),
    }
    ini.write(etc / "cinder.conf", content)
    drivers = _backup_drivers(settings)
    for name in backup_services(settings):
        options = drivers[name]
        own = {**content, "DEFAULT": content["DEFAULT"] | options}
        ini.write(etc / f"{name}.conf", own)


def _backup_drivers(settings: Settings) -> dict[str, dict[str, object]]:
    """What the backup services differ in; a backup chooses one by its zone."""
    directory = settings.state("cinder") / "backup"
    directory.mkdir(parents=True, exist_ok=True)
    common = {
        "backup_workers": 1,
        "backup_driver_stats_polling_interval": 10,
        "backup_driver_init_check_interval": 5,
    }
    chunked = {
        "backup_compression_algorithm": "none",
        "backup_object_number_per_notification": 1,
    }
    drivers: dict[str, dict[str, object]] = {
        "cinder-backup": {
            "backup_driver": "cinder.backup.drivers.posix.PosixBackupDriver",
            "backup_posix_path": directory,
            "backup_file_size": 32 << 20,
            **chunked,
        },
        "cinder-backup-ceph": {
            "backup_driver": "cinder.backup.drivers.ceph.CephBackupDriver",
            "backup_ceph_conf": "/etc/ceph/ceph.conf",
            "backup_ceph_user": ceph.USER,
            "backup_ceph_pool": "backups",
            "backup_ceph_chunk_size": 32 << 20,
        },
        "cinder-backup-s3": {
            "backup_driver": "cinder.backup.drivers.s3.S3BackupDriver",
            "backup_s3_endpoint_url": settings.first.url("s3"),
            "backup_s3_store_access_key": "aio",
            "backup_s3_store_secret_key": settings.first.password,
            "backup_s3_object_size": 32 << 20,
            **chunked,
        },
    }
    for name, options in drivers.items():
        if zone := BACKUP_SERVICES[name]:
            options["storage_availability_zone"] = zone
        options |= {"host": backup_host(name), **common}
    return drivers


def _ceilometer(settings: Settings) -> None:
    """The notification agent, which writes what it keeps to two files."""
    etc, state = settings.etc / "ceilometer", settings.state("ceilometer")
    content = _common(settings, "ceilometer")
    content["oslo_messaging_notifications"] = {
        "driver": "noop",
        "topics": "notifications,versioned_notifications",
    }
    for kind, name in (("samples", "pipeline"), ("events", "event_pipeline")):
        what = "meters" if kind == "samples" else "events"
        pipeline = {
            "sources": [{"name": "all", what: ["*"], "sinks": ["file"]}],
            "sinks": [{"name": "file", "publishers": [f"file://{state}/{kind}?json"]}],
        }
        # JSON is YAML
        (etc / f"{name}.yaml").write_text(json.dumps(pipeline, indent=2) + "\n")
    package = next(settings.venv.glob("lib/python3.*/site-packages/ceilometer"))
    meters, events = package / "data/meters.d", "pipeline/data/event_definitions.yaml"
    content |= {
        "DEFAULT": content["DEFAULT"]
        | {
            "pipeline_cfg_file": etc / "pipeline.yaml",
            "event_pipeline_cfg_file": etc / "event_pipeline.yaml",
        },
        "event": {"definitions_cfg_file": package / events},
        "meter": {"meter_definitions_dirs": meters},
    }
    if not settings.stock:
        merged = etc / "event_definitions.yaml"
        merged.unlink(missing_ok=True)
        merge = [settings.venv / "bin/cinder-ext-telemetry-merge", "events"]
        command.run(
            [*merge, "--write", merged], timeout=60, log=settings.log / "setup.log"
        )
        content["event"] = {"definitions_cfg_file": merged}
        # of a meter that is there twice the first one counts
        ours = REPO / "cinder_ext/telemetry/data/meters.d"
        content["meter"] = {
            "meter_definitions_dirs": f"{ours}\nmeter_definitions_dirs = {meters}"
        }
    ini.write(etc / "ceilometer.conf", content)


def _rootwrap(settings: Settings, service: str) -> None:
    """The stock file knows neither a virtual environment nor our /etc."""
    path = settings.etc / service / "rootwrap.conf"
    if not path.exists():
        return
    lines = []
    for line in path.read_text().splitlines():
        if line.startswith("exec_dirs"):
            line = "exec_dirs = " + path_variable(settings).replace(":", ",")
        lines.append(line.replace(f"/etc/{service}/", f"{settings.etc}/{service}/"))
    path.write_text("\n".join(lines) + "\n")


def _rabbitmq(settings: Settings) -> None:
    """Definitions and not commands, because rabbitmqctl takes seconds to start.

    Nobody reads the notification queues unless a test does, so they are bounded.
    """
    directory = settings.state("rabbitmq")
    directory.mkdir(parents=True, exist_ok=True)
    salt = hashlib.sha256(settings.password.encode()).digest()[:4]
    digest = hashlib.sha256(salt + settings.password.encode()).digest()
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    definitions = {
        "users": [
            {
                "name": "aio",
                "password_hash": base64.b64encode(salt + digest).decode(),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": ["administrator"],
            }
        ],
        "vhosts": [{"name": "/"}],
        "permissions": [{"user": "aio", "vhost": "/", **everything}],
        "policies": [
            {
                "vhost": "/",
                "name": "bounded-notifications",
                "pattern": r"^(versioned_)?notifications\.",
                "apply-to": "queues",
                "priority": 0,
                "definition": {"max-length": 2000, "overflow": "drop-head"},
            }
        ],
    }
    (directory / "definitions.json").write_text(json.dumps(definitions, indent=1))
    (directory / "enabled_plugins").write_text("[].\n")
    options = {
        "listeners.tcp.default": f"{ADDRESS}:{settings.port('rabbitmq')}",
        "load_definitions": directory / "definitions.json",
        "vm_memory_high_watermark.relative": 0.2,
        "log.console": "true",
        "log.console.level": "warning",
    }
    text = "".join(f"{name} = {value}\n" for name, value in options.items())
    (directory / "rabbitmq.conf").write_text(text)


def _clients(settings: Settings) -> None:
    clouds, shown = {}, {}
    for name, (user, project) in _CLOUDS.items():
        auth = {
            "auth_url": settings.url("keystone", "/v3"),
            "username": user,
            "password": settings.password,
            "project_name": project,
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        }
        cloud = {"auth": auth, "region_name": REGION}
        clouds[f"aio-{name}"], shown[f"{_SECOND}-{name}"] = cloud, cloud
        lines = [f"export OS_{name.upper()}={value}" for name, value in auth.items()]
        lines += [
            f"export OS_REGION_NAME={REGION}",
            "export OS_IDENTITY_API_VERSION=3",
            f"export PATH={settings.venv}/bin:$PATH",
        ]
        suffix = "" if name == "demo" else f"-{name}"
        (settings.home / f"openrc{suffix}").write_text("\n".join(lines) + "\n")
    path = settings.home / "clouds.yaml"
    # JSON is YAML
    known = json.loads(path.read_text())["clouds"] if path.exists() else {}
    _write_clouds(path, known | clouds)
    if settings.beside:
        path = settings.first.home / "clouds.yaml"
        _write_clouds(path, json.loads(path.read_text())["clouds"] | shown)


def _write_clouds(path: pathlib.Path, clouds: dict[str, object]) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps({"clouds": clouds}, indent=2) + "\n")
    draft.rename(path)  # clients may read it meanwhile


def forget_clouds(settings: Settings) -> None:
    """Take the clouds of a second site out of what the first one shows."""
    path = pathlib.Path(settings.beside) / "clouds.yaml"
    if settings.beside and path.exists():
        clouds = json.loads(path.read_text())["clouds"]
        own = {name: clouds[name] for name in clouds if not name.startswith(_SECOND)}
        _write_clouds(path, own)


SERVICES = ("keystone", "glance", "placement", "nova", "cinder", "ceilometer")


def write(settings: Settings, virt_type: str) -> None:
    for service in SERVICES:
        (settings.etc / service).mkdir(parents=True, exist_ok=True)
        wheels.stock_files(settings, service)
        _rootwrap(settings, service)
    _rabbitmq(settings)
    _keystone(settings)
    _placement(settings)
    _glance(settings)
    _all_nova(settings, virt_type)
    _cinder(settings)
    if not settings.beside:
        _ceilometer(settings)
    _clients(settings)
