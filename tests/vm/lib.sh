# What tests/vm/run and tests/vm/host share; both have changed to the top folder, and set `series`.

fail() {
    echo "$0: $*" >&2
    exit 1
}

# The kernel, into $root, and the module for it.
prepare() {
    local program
    for program in qemu-system-x86_64 busybox cpio make gcc; do
        command -v "$program" >/dev/null || fail "$program is not installed: run tests/setup"
    done
    root=$(tests/vm/kernel "$series")

    # Two may build it at once. Outside of the source tree. Debian's headers lack pahole (for BTF), and name a compiler that may be newer than this
    # machine's and know more switches.
    exec 8>"$root.lock"
    flock 8
    mkdir -p "$root/build-module"
    cp --update -r kmd-uapi/include kmd-uapi/module "$root/build-module/"
    local overrides=(CC=gcc CONFIG_DEBUG_INFO_BTF_MODULES=)
    gcc -fmin-function-alignment=16 -E -x c /dev/null >/dev/null 2>&1 ||
        overrides+=(CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=)
    make --directory "$root/build" M="$root/build-module/module" "${overrides[@]}" W=1 KCFLAGS=-Werror modules \
        >"$root/make.log" 2>&1 || {
        cat "$root/make.log" >&2
        fail "the module does not build for $(<"$root/complete")"
    }

    # The initial file system, into $tree.
    tree=$(mktemp -d)
    trap 'rm -rf "$tree" "$tree.initrd"' EXIT
    mkdir -p "$tree"/{bin,dev,proc,sys,tmp,modules,host}
    cp "$(command -v busybox)" "$tree/bin/busybox"
    cp tests/vm/init "$tree/init"
    cp "$root"/modules/*.ko "$tree/modules/"
    strip --strip-debug -o "$tree/modules/tidemark.ko" "$root/build-module/module/tidemark.ko"
    exec 8>&-
}

# Boots with $tree and QEMU's further arguments; the log is $log, one for each of those who call this. Ends badly if the machine hangs, if the kernel complains,
# or if `init` does not say that all went well.
boot() {
    log=$root/console-${0##*/}.log
    (cd "$tree" && find . | cpio --quiet --create --format newc --owner 0:0) >"$tree.initrd"
    timeout --kill-after 5 "${TIDEMARK_VM_SECONDS:-600}" qemu-system-x86_64 \
        -accel tcg,thread=multi -cpu max -smp 2 -m 1G -nic none -nographic -no-reboot \
        -kernel "$root/vmlinuz" -initrd "$tree.initrd" \
        -append "console=ttyS0 mitigations=off tsc=reliable no_timer_check oops=panic panic=-1" \
        "$@" </dev/null >"$log" 2>&1 || {
        tail -n 40 "$log" >&2
        fail "the virtual machine did not end by itself: see $log"
    }

    # All that was said after the first process began, without what the kernel said.
    sed -n '/Run \/init as init process/,$p' "$log" | tr -d '\r' | grep -avE '^\[ *[0-9]+\.[0-9]+\]' || true
    local complaints='WARNING:|BUG:|Oops|Call Trace|lockup|blocked for more than|general protection|corruption'
    complaints+='|refcount_t:|UBSAN|KFENCE|rcu:.*stall'
    if grep -aEq "$complaints" "$log"; then
        grep -aE -A 30 "$complaints" "$log" | head -n 80 >&2
        fail "the kernel complained: see $log"
    fi
    grep -aq '^vm: passed' "$log" || fail "it failed: see $log"
}
