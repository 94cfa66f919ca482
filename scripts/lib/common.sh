# What all scripts share. Sourced, never run.

# Progress goes to standard error, one line a message.
say() { printf '%s: %s\n' "${LINEUP_SCRIPT:-lineup}" "$*" >&2; }

# Ends the script with one line that says what to do. Exit status 1.
fail() {
    say "$*"
    exit 1
}

# Bytes in words: 191 MB, 2.6 GB.
spoken_bytes() {
    awk -v n="$1" 'BEGIN {
        if (n >= 1e9) printf "%.1f GB", n / 1e9
        else if (n >= 1e6) printf "%.0f MB", n / 1e6
        else printf "%.0f KB", n / 1e3
    }'
}

# Free bytes on the disk that holds a folder, or its nearest existing ancestor.
free_bytes() {
    local folder=$1
    while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
    df -Pk "$folder" | awk 'NR == 2 { printf "%.0f\n", $4 * 1024 }'
}

# Whether version $1 is at least $2, number by number: 580.65 >= 580.
version_at_least() {
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

# Puts Swift on PATH where it is installed but not on it; ends the script where it is missing or
# too old.
require_swift() {
    local folder version
    if ! command -v swift >/dev/null 2>&1; then
        for folder in /opt/swift/usr/bin /usr/local/swift/usr/bin /usr/share/swift/usr/bin \
            "${HOME:-/nonexistent}/.local/share/swiftly/bin" "${HOME:-/nonexistent}/swift/usr/bin"; do
            if [ -x "$folder/swift" ]; then
                PATH=$folder:$PATH
                export PATH
                break
            fi
        done
    fi
    command -v swift >/dev/null 2>&1 ||
        fail "Swift is missing; install the toolchain, 6.2 or newer, and put its usr/bin on PATH"
    version=$(swift --version 2>/dev/null | sed -n 's/.*Swift version \([0-9.]*\).*/\1/p' | head -n 1)
    [ -n "$version" ] || fail "'swift --version' says nothing; reinstall the toolchain, 6.2 or newer"
    version_at_least "$version" 6.2 ||
        fail "Swift $version is too old; install the toolchain, 6.2 or newer, and put it on PATH first"
    SWIFT_VERSION=$version
}
