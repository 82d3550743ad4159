#!/usr/bin/env bash
# Prepares a Debian or Ubuntu machine that has no ROS installation. The Makefile calls the steps in this order:
#   setup.sh packages       system packages: a compiler and the Python headers, for the messages
#   setup.sh test-packages  the same and the libraries of simulation and viewer, for the tests
#   setup.sh venv           .venv with a supported Python (PYTHON=/path/to/python to choose one)
#   setup.sh wheels         torch, the ROS 2 wheels (ROS_DISTRO_WHEELS: jazzy or kilted), this package
#   setup.sh messages       momap_ros.msg, generated into .venv
# Every step may be repeated. What is missing is found out by trying it, not by asking a package manager.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly VENV="$PWD/.venv"
readonly DISTRO="${ROS_DISTRO_WHEELS:-jazzy}"
# What MuJoCo's renderer and Open3D load, and the package of each.
readonly TEST_LIBRARIES=(
    libEGL.so.1:libegl1 libGL.so.1:libgl1 libX11.so.6:libx11-6 libidn2.so.0:libidn2-0 libudev.so.1:libudev1
    libusb-1.0.so.0:libusb-1.0-0
)

say() { printf 'setup: %s\n' "$*"; }

fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

# Prints the first supported interpreter that really runs: a name on PATH may be a shim of a version manager.
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.12 python3.11 python3.10 python3}; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    return 1
}

can_make_venv() { # interpreter
    local folder
    local status=0
    folder="$(mktemp -d)"
    "$1" -m venv "$folder" >/dev/null 2>&1 || status=1
    rm -rf "$folder"
    return "$status"
}

can_compile() { # one line of C++, options
    local line="$1"
    shift
    printf '%s\n' "$line" | c++ -x c++ -fsyntax-only "$@" - >/dev/null 2>&1
}

can_load() { # interpreter, library
    "$1" -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "$2" 2>/dev/null
}

# Prints the missing packages, one a line.
missing_packages() { # base | test
    local python version include library
    python="$(find_python)" || {
        printf '%s\n' g++ python3 python3-dev python3-venv
        return
    }
    version="$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')"
    include="$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')"
    can_compile '#include <cstdint>' || echo g++
    # Without a compiler the header cannot be tried; then it is looked for.
    can_compile '#include <Python.h>' "-I$include" || [[ -e "$include/Python.h" ]] || echo "$version-dev"
    can_make_venv "$python" || echo "$version-venv"
    if [[ "$1" == test ]]; then
        for library in "${TEST_LIBRARIES[@]}"; do
            can_load "$python" "${library%%:*}" || echo "${library##*:}"
        done
    fi
}

apt_install() { # packages
    local -a as_root=()
    local -a command=(apt-get install -y --no-install-recommends "$@")
    if [[ "$(id -u)" != 0 ]]; then
        if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
            fail "system packages are missing; run this once, then make again:" "    sudo ${command[*]}"
        fi
        as_root=(sudo -n)
    fi
    command -v apt-get >/dev/null || fail "expected apt-get (Debian or Ubuntu), found none;" \
        "install the equivalents of these packages, then run make again: $*"
    say "installing system packages: $*"
    # The second attempt serves machines whose package lists are absent or old.
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "${command[@]}" -qq >/dev/null 2>&1 || {
        "${as_root[@]}" apt-get update -qq
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "${command[@]}" -qq >/dev/null
    }
}

install_packages() { # base | test
    local -a missing
    mapfile -t missing < <(missing_packages "$1")
    if ((${#missing[@]})); then
        apt_install "${missing[@]}"
        mapfile -t missing < <(missing_packages "$1")
        ((${#missing[@]} == 0)) || fail "still missing after installing: ${missing[*]};" \
            "$(find_python || echo 'Python 3.10 to 3.12') may not be the system's own: choose another, PYTHON=/usr/bin/python3 make setup"
    fi
}

require_python() {
    find_python || fail "expected Python 3.10, 3.11 or 3.12, got ${PYTHON:-$(python3 --version 2>&1 || true)};" \
        "install one of them and name it: PYTHON=/path/to/python3.12 make setup"
}

make_venv() {
    local python
    python="$(require_python)"
    if [[ "$(cat "$VENV/ros-wheels" 2>/dev/null)" != "$DISTRO" ]] || ! "$VENV/bin/python" -c ''; then
        say "creating .venv with $("$python" --version)"
        "$python" -m venv --clear "$VENV"
        "$VENV/bin/python" -m pip install -q --upgrade pip
        echo "$DISTRO" >"$VENV/ros-wheels"
    fi
}

install_wheels() {
    local -a pip=("$VENV/bin/python" -m pip install -q -c requirements/tested.txt)
    say "installing torch (requirements/torch.txt)"
    "${pip[@]}" -r requirements/torch.txt
    say "installing the ROS 2 ${DISTRO^} wheels and build tools"
    "${pip[@]}" -r "requirements/ros-$DISTRO.txt" -r "requirements/ros-$DISTRO-build.txt" -r requirements/tools.txt
    say "installing momap_ros and what it needs"
    # compat: one .pth entry. setuptools' other modes leave momap_ros a bare namespace beside the generated messages; it
    # warns that this mode may go one day, and requirements/tested.txt pins a setuptools that has it.
    PYTHONWARNINGS="ignore:Compat editable installs" "${pip[@]}" -c requirements/torch.txt --no-build-isolation \
        --config-settings editable_mode=compat -e '.[all]'
}

build_messages() {
    local log=build/messages.log
    say "generating the messages"
    mkdir -p build
    export AMENT_PREFIX_PATH="$VENV" CMAKE_PREFIX_PATH="$VENV" PATH="$VENV/bin:$PATH"
    {
        cmake --fresh -S . -B build/messages -G Ninja -DCMAKE_INSTALL_PREFIX="$VENV" -DBUILD_TESTING=OFF \
            -DINTERFACES_ONLY=ON -DPython3_EXECUTABLE="$VENV/bin/python" &&
            cmake --build build/messages && cmake --install build/messages
    } >"$log" 2>&1 || {
        tail -n 40 "$log" >&2
        fail "generating the messages failed; the whole log is in $log"
    }
}

[[ "$(uname -sm)" == "Linux x86_64" ]] || fail "expected Linux x86_64, got $(uname -sm): the ROS 2 wheels exist for" \
    "nothing else; install ROS 2 and build with colcon (CONTRIBUTING.md)"
[[ -f "requirements/ros-$DISTRO.txt" ]] || fail "ROS_DISTRO_WHEELS: expected jazzy or kilted, got '$DISTRO'"

case "${1:-}" in
    packages) install_packages base ;;
    test-packages) install_packages test ;;
    venv) make_venv ;;
    wheels) install_wheels ;;
    messages) build_messages ;;
    *) fail "expected packages, test-packages, venv, wheels or messages, got '${1:-}'" ;;
esac
