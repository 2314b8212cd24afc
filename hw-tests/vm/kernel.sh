# Sourced: kernels of Debian, unpacked and never installed, and the initramfs that starts the machine's system.
#   needs $lab_cache, and packages.sh

# What the machine needs before it sees the host's files; everything else is loaded from there.
lab_early_modules=(virtio_pci 9p 9pnet_virtio overlay)

# lab_kernel SUITE: fetches the newest kernel of the suite, once; sets $kernel_directory and $kernel_release.
lab_kernel() {
    kernel_directory=$lab_cache/kernels/$1
    if [[ ! -e $kernel_directory/release ]]; then
        echo "lab: fetching the kernel of $1" >&2
        lab_apt_for "kernel-$1" "$1"
        local image draft part
        image=$(apt-cache -c "$lab_cache/apt/kernel-$1/apt.conf" show linux-image-amd64 |
            sed -n 's/^Depends:.*\(linux-image-[0-9][^ ]*\) .*/\1/p' | head -n 1)
        [[ -n $image ]] || lab_fail "$1 has no kernel"
        draft=$(mktemp -d "$lab_cache/draft.XXXXXX")
        lab_unpack "kernel-$1" "$image" "$draft"
        # Newer suites keep the kernel and its modules in packages of their own, below /usr.
        if ! compgen -G "$draft/boot/vmlinuz-*" >/dev/null; then
            for part in binary modules; do
                lab_unpack "kernel-$1" "${image/image/$part}" "$draft"
            done
        fi
        if [[ -d $draft/usr/lib/modules && ! -e $draft/lib ]]; then
            mkdir "$draft/lib"
            mv "$draft/usr/lib/modules" "$draft/lib/modules"
        fi
        find "$draft" -name 'vmlinuz*' -exec mv {} "$draft/vmlinuz" ';'
        rm -rf "$draft/usr" "$draft/boot"
        depmod -b "$draft" "${image#linux-image-}" 2>/dev/null
        echo "${image#linux-image-}" >"$draft/release"
        rm -rf "$kernel_directory"
        mkdir -p "$lab_cache/kernels"
        mv "$draft" "$kernel_directory"
    fi
    kernel_release=$(<"$kernel_directory/release")
    kernel_image=$kernel_directory/vmlinuz
    [[ -r $kernel_image ]] || lab_fail "$kernel_image is missing: delete $kernel_directory and try again"
}

# lab_initramfs TO INIT: packs busybox, the early modules of the kernel that lab_kernel set, and the script INIT.
lab_initramfs() {
    local root module file
    root=$(mktemp -d "$lab_cache/draft.XXXXXX")
    mkdir -p "$root"/{bin,modules,proc,sys,dev,host,changes,run,root}
    cp "$lab_cache/busybox/bin/busybox" "$root/bin/"
    cp "$2" "$root/init"
    chmod 755 "$root/init"
    for module in "${lab_early_modules[@]}"; do
        modprobe -d "$kernel_directory" -S "$kernel_release" --show-depends "$module" 2>/dev/null || true
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' |
        while read -r file; do
            case $file in
            *.xz) xz -dc "$file" >"$root/modules/$(basename "$file" .xz)" ;;
            *.zst) zstd -dcq "$file" >"$root/modules/$(basename "$file" .zst)" ;;
            *) cp "$file" "$root/modules/" ;;
            esac
            file=$(basename "$file")
            echo "${file%.ko*}.ko" >>"$root/modules/order"
        done
    [[ -s $root/modules/order ]] || lab_fail "no modules for $kernel_release"
    (cd "$root" && find . | "$lab_cache/busybox/bin/busybox" cpio -o -H newc 2>/dev/null) | gzip -1 >"$1"
    rm -rf "$root"
}
