# Sourced: QEMU with an emulated 82576 (8.0 and later), the system's own or unpacked beside it.
#   needs $lab_cache, packages.sh and kernel.sh

lab_qemu_oldest=8

# The major version of the QEMU that lies in $lab_qemu_root, 0 if none is there or it does not start.
lab_qemu_version() {
    local version
    version=$( (lab_qemu --version) 2>/dev/null | sed -n 's/^QEMU emulator version \([0-9]*\).*/\1/p' || true)
    echo "${version:-0}"
}

# The QEMU that lab_prepare found.
lab_qemu() {
    if [[ $lab_qemu_root == / ]]; then
        exec nice -n 5 qemu-system-x86_64 "$@"
    fi
    local libraries=$lab_qemu_root/usr/lib/x86_64-linux-gnu:$lab_qemu_root/lib/x86_64-linux-gnu
    LD_LIBRARY_PATH=$libraries QEMU_MODULE_DIR=$lab_qemu_root/usr/lib/x86_64-linux-gnu/qemu \
        exec nice -n 5 "$lab_qemu_root/usr/bin/qemu-system-x86_64" \
        -L "$lab_qemu_root/usr/share/qemu" -L "$lab_qemu_root/usr/share/seabios" "$@"
}

# Where a QEMU that is new enough lies; fetched if there is none.
lab_find_qemu() {
    local codename
    for lab_qemu_root in / "$lab_cache/qemu"; do
        (($(lab_qemu_version) < lab_qemu_oldest)) || return 0
    done
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    echo "lab: fetching QEMU" >&2
    lab_apt_for qemu "$codename" "$codename-updates" "$codename-backports"
    # What this system has already needs no fetching.
    echo 'Dir::State::status "/var/lib/dpkg/status";' >>"$lab_cache/apt/qemu/apt.conf"
    rm -rf "$lab_cache/qemu"
    lab_unpack_all qemu "$codename-backports" qemu-system-x86 "$lab_cache/qemu"
    (($(lab_qemu_version) >= lab_qemu_oldest)) || lab_fail "QEMU of $codename-backports does not start"
}

# lab_prepare SUITE…: fetches what is missing: QEMU, busybox, a kernel of each suite; the last one is the one to boot. Several
# runs may do it at once.
lab_prepare() {
    local suite
    mkdir -p "$lab_cache"
    exec 9>"$lab_cache/lock"
    flock 9
    lab_find_qemu
    if [[ ! -x $lab_cache/busybox/bin/busybox ]]; then
        lab_apt_for busybox "$(. /etc/os-release && echo "$VERSION_CODENAME")"
        lab_unpack busybox busybox-static "$lab_cache/busybox"
        # Where /bin is /usr/bin, the package may use either name.
        mkdir -p "$lab_cache/busybox/bin"
        [[ -e $lab_cache/busybox/bin/busybox ]] || mv "$lab_cache/busybox/usr/bin/busybox" "$lab_cache/busybox/bin/"
    fi
    for suite in "$@"; do
        lab_kernel "$suite"
    done
    exec 9>&-
}
