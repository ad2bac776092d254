#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Owns how devstack installs and configures nova-ext. devstack sources it with a mode
# and a phase; functions and variables that are not defined here are devstack's.

function install_nova_ext {
    local extras=client
    if is_nova_ext_compute_enabled; then
        extras+=,nova
    fi
    if is_nova_ext_backup_enabled; then
        extras+=,cinder
    fi
    setup_develop "$NOVA_EXT_DIR" "$extras"
}

function is_nova_ext_compute_enabled {
    [[ "$NOVA_EXT_COMPUTE" == "True" ]] && is_service_enabled nova
}

function is_nova_ext_backup_enabled {
    [[ "$NOVA_EXT_BACKUP_NOTIFICATIONS" == "True" ]] && is_service_enabled c-bak
}

# The lines that load the extension into a stock daemon.
function add_nova_ext_config_source {
    local conf=$1
    iniset "$conf" DEFAULT config_source nova_ext
    iniset "$conf" nova_ext driver nova_ext
}

function configure_nova_ext_api {
    iniset "$NOVA_API_PASTE_INI" app:osapi_compute_app_v21 paste.app_factory \
        nova_ext.wsgi.paste:osapi_compute_app_v21
}

function configure_nova_ext_conductors {
    if [[ "$CELLSV2_SETUP" == "singleconductor" ]]; then
        add_nova_ext_config_source "$NOVA_CONF"
        return
    fi
    # The super-conductor reaches no cell's state and stays as it is.
    local i
    for i in $(seq 1 "$NOVA_NUM_CELLS"); do
        add_nova_ext_config_source "$(conductor_conf "$i")"
    done
}

# devstack makes NOVA_CPU_CONF from NOVA_CONF when it starts nova-compute, so that only
# what is written afterwards stays.
function configure_nova_ext_compute {
    add_nova_ext_config_source "$NOVA_CPU_CONF"
    iniset "$NOVA_CPU_CONF" DEFAULT compute_driver nova_ext.LibvirtDriver
    # The default is of another user than devstack's.
    iniset "$NOVA_CPU_CONF" nova_ext guard_directory "$NOVA_STATE_PATH/nova_ext/guard"
    restart_service devstack@n-cpu
    run_process nova-ext-guard \
        "$NOVA_BIN_DIR/nova-ext-guard --config-file $NOVA_CPU_CONF" "$LIBVIRT_GROUP"
}

function configure_nova_ext_backup {
    iniset "$CINDER_CONF" DEFAULT backup_manager cinder_ext.backup.manager.BackupManager
    iniset "$CINDER_CONF" oslo_messaging_notifications driver messagingv2
}

function cleanup_nova_ext {
    pip_uninstall nova-ext
}

case "$1 ${2:-}" in
    "stack install")
        echo_summary "Installing nova-ext"
        install_nova_ext
        ;;
    "stack post-config")
        echo_summary "Configuring nova-ext"
        if is_nova_ext_compute_enabled; then
            if is_service_enabled n-api; then
                configure_nova_ext_api
                # The cells are mapped by now, and no conductor runs yet.
                "$NOVA_BIN_DIR/nova-ext-manage" --config-file "$NOVA_CONF" db sync
            fi
            if is_service_enabled n-cond; then
                configure_nova_ext_conductors
            fi
        fi
        if is_nova_ext_backup_enabled; then
            configure_nova_ext_backup
        fi
        ;;
    "stack extra")
        if is_nova_ext_compute_enabled && is_service_enabled n-cpu \
                && [[ "$VIRT_DRIVER" == "libvirt" ]]; then
            configure_nova_ext_compute
        fi
        ;;
    "unstack ")
        stop_process nova-ext-guard
        ;;
    "clean ")
        cleanup_nova_ext
        ;;
esac
