# The C libraries and the data package: what is there, and getting what is not. Sourced, never run.

# name | pkg-config module | header | package, with other names it has had, best first
#
# Debian and Ubuntu agree on these today. Ubuntu calls the runtime behind libturbojpeg0-dev
# libturbojpeg, which comes along by itself, and keeps dataset-fashion-mnist in 'universe';
# older releases of both have pkg-config where newer ones have pkgconf.
system_needs() {
    cat <<'TABLE'
zmq|libzmq|zmq.h|libzmq3-dev
openblas|openblas|cblas.h|libopenblas-dev
hdf5|hdf5-serial hdf5|hdf5/serial/hdf5.h hdf5.h|libhdf5-dev
sqlite3|sqlite3|sqlite3.h|libsqlite3-dev
turbojpeg|libturbojpeg|turbojpeg.h|libturbojpeg0-dev libturbojpeg-dev
zlib|zlib|zlib.h|zlib1g-dev
TABLE
}

# Whether a header is where the compiler looks by itself.
has_header() {
    local folder
    for folder in /usr/include /usr/include/*-linux-gnu /usr/local/include; do
        [ -f "$folder/$1" ] && return 0
    done
    return 1
}

has_fashion_photographs() {
    local folder
    for folder in /usr/share/datasets /usr/local/share/datasets \
        "${HOME:-/nonexistent}/.local/share/datasets"; do
        [ -f "$folder/fashion-mnist/train-images-idx3-ubyte.gz" ] && return 0
    done
    return 1
}

# Prints the packages that are missing, each with its other names, one a line.
missing_packages() {
    local name modules headers packages found one pkg_config=
    command -v pkg-config >/dev/null 2>&1 && pkg_config=1
    [ -n "$pkg_config" ] || echo "pkg-config pkgconf"
    while IFS='|' read -r name modules headers packages; do
        found=
        if [ -n "$pkg_config" ]; then
            for one in $modules; do
                pkg-config --exists "$one" 2>/dev/null && found=1
            done
        fi
        for one in $headers; do
            [ -n "$found" ] || { has_header "$one" && found=1; }
        done
        [ -n "$found" ] || echo "$packages"
    done < <(system_needs)
    has_fashion_photographs || echo "dataset-fashion-mnist"
}

# Of a package's names the one that this system's lists know, else the first.
package_name() {
    local name
    for name in "$@"; do
        if apt-cache show --no-all-versions "$name" >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    echo "$1"
}

# Whether apt's lists are absent or older than a day.
lists_are_old() {
    [ -z "$(find /var/lib/apt/lists -maxdepth 1 -type f -name '*_*' -mtime -1 2>/dev/null | head -n 1)" ]
}

# How packages can be installed here: root, sudo, ask (nobody to type a password) or none (no apt).
# A pure function of: whether apt-get is there (yes|no), the user's id, whether sudo is there, and
# whether it may ask for a password (free: needs none, terminal: somebody can type it, no).
install_way() {
    local apt=$1 user=$2 sudo=$3 password=$4
    if [ "$apt" = no ]; then
        echo none
    elif [ "$user" = 0 ]; then
        echo root
    elif [ "$sudo" = yes ] && [ "$password" != no ]; then
        echo sudo
    else
        echo ask
    fi
}

observed_install_way() {
    local apt=no sudo=no password=no
    command -v apt-get >/dev/null 2>&1 && apt=yes
    if command -v sudo >/dev/null 2>&1; then
        sudo=yes
        if sudo -n true 2>/dev/null; then
            password=free
        elif [ -t 0 ]; then
            password=terminal
        fi
    fi
    install_way "$apt" "$(id -u)" "$sudo" "$password"
}

# Installs packages (each argument: one package's names, best first) or ends with one line.
install_packages() {
    local way names=() entry log
    way=$(observed_install_way)
    if [ "$way" = root ] || [ "$way" = sudo ]; then
        local run=()
        [ "$way" = sudo ] && run=(sudo)
        if lists_are_old; then
            say "package lists are older than a day: ${run[*]:+sudo }apt-get update"
            "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq update >&2 ||
                say "apt-get update failed; trying with the lists that are there"
        fi
    fi
    for entry in "$@"; do
        # shellcheck disable=SC2086  # the names of one package are separate words
        if [ "$way" = none ]; then names+=("${entry%% *}"); else names+=("$(package_name $entry)"); fi
    done
    case $way in
    root | sudo)
        say "installing: ${run[*]:+sudo }apt-get install -y --no-install-recommends ${names[*]}"
        log=$(mktemp)
        if ! "${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y \
            --no-install-recommends "${names[@]}" </dev/null >"$log" 2>&1; then
            tail -n 5 "$log" >&2
            rm -f "$log"
            fail "apt-get could not install ${names[*]} (its last words are above); check the network," \
                "run 'apt-get update', and on Ubuntu enable 'universe'"
        fi
        rm -f "$log"
        ;;
    ask) fail "missing packages; ask an administrator for: apt-get install ${names[*]}" ;;
    none) fail "missing, and there is no apt-get here; install what Debian calls: ${names[*]}" ;;
    esac
}

require_packages() {
    local missing=()
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} -eq 0 ] && return
    install_packages "${missing[@]}"
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} -eq 0 ] ||
        fail "installed, but still not found: ${missing[*]}; check 'pkg-config --list-all'"
}
