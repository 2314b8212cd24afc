# Sourced: a fresh Debian in a directory, from a copy that is made once and kept in target/ship.

chroot_suite=bookworm
# What weir depends on, what boots, and what its scenario needs.
chroot_packages=adduser,libelf1,zlib1g,systemd,systemd-sysv,dbus,iproute2,iputils-ping,procps
chroot_cache=target/ship/$chroot_suite-$(md5sum <<<"$chroot_packages" | cut -c-8).tar

free_space() {
    echo "$(df -h --output=avail target | tail -n1 | tr -d ' ') are free in $PWD/target"
}

# Makes a Debian for the purpose $1 and prints where it is.
fresh_root() {
    (($(id -u) == 0)) || { echo "ship: a Debian in a directory needs root" >&2; exit 1; }
    mkdir -p target/ship
    if [[ ! -e $chroot_cache ]]; then
        echo "ship: fetching Debian $chroot_suite" >&2
        local draft
        draft=$(mktemp -d target/ship/draft.XXXXXX)
        debootstrap --variant=minbase --include="$chroot_packages" "$chroot_suite" "$draft" >"$draft.log" 2>&1 ||
            { tail -n 20 "$draft.log" >&2; exit 1; }
        rm -rf "$draft"/var/cache/apt/archives/*.deb "$draft"/var/lib/apt/lists/*
        tar -C "$draft" -cf "$chroot_cache.$$" . || {
            echo "ship: cannot keep a copy of Debian $chroot_suite: $(free_space)" >&2
            rm -rf "$draft" "$draft.log" "$chroot_cache.$$"
            exit 1
        }
        mv "$chroot_cache.$$" "$chroot_cache"
        rm -rf "$draft" "$draft.log"
    fi
    local root
    root=$(mktemp -d "$PWD/target/ship/$1.XXXXXX")
    tar -C "$root" -xf "$chroot_cache" || {
        echo "ship: cannot make a Debian in a directory: $(free_space)" >&2
        remove_root "$root"
        exit 1
    }
    chmod 755 "$root"
    echo "$root"
}

remove_root() {
    [[ $1 == "$PWD"/target/ship/* ]] && rm -rf --one-file-system "$1"
}
