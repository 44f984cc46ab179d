#!/bin/sh
# Leaves a ready .venv beside this file: an interpreter >= 3.12, the packages of constraints.txt, ffmpeg, EGL.
# May be run again at any time; `make` does so when pyproject.toml, constraints.txt or this file change.
#
#   PYTHON=/path/to/python3.12   the interpreter to use, where the search below finds the wrong one
set -eu
cd "$(dirname "$0")"

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# An interpreter's own path, if it runs (pyenv's shims exist on PATH also for versions that are not selected).
real_path() { "$1" -c 'import sys; print(sys.executable)' </dev/null 2>/dev/null; }
at_least_312() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 12))' </dev/null >/dev/null 2>&1; }
tested() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 12), (3, 13)))' </dev/null >/dev/null 2>&1; }

find_interpreter() {
    for candidate in python3.12 python3.13 python3 python \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python3.12 \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13*/bin/python3.13; do
        if command -v "$candidate" >/dev/null 2>&1 && tested "$candidate"; then
            real_path "$candidate"
            return 0
        fi
    done
    return 1
}

# uv from PATH if it runs, else a private copy in .uv, made with whatever Python there is.
find_uv() {
    for candidate in uv .uv/bin/uv .uv/lib/bin/uv; do
        if "$candidate" --version </dev/null >/dev/null 2>&1; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}

install_uv() {
    for any_python in "$1" python3 python; do
        if [ -z "$any_python" ] || ! real_path "$any_python" >/dev/null; then continue; fi
        say "installing uv into .uv"
        rm -rf .uv
        if "$any_python" -m venv .uv </dev/null >/dev/null 2>&1 && .uv/bin/python -m pip install -q uv </dev/null; then return 0; fi
        rm -rf .uv # what a Python without ensurepip leaves
        if "$any_python" -m pip install -q --target .uv/lib uv </dev/null 2>/dev/null; then return 0; fi
        rm -rf .uv
        if as_root_with_apt && apt_install python3-venv && "$any_python" -m venv .uv </dev/null >/dev/null 2>&1 &&
            .uv/bin/python -m pip install -q uv </dev/null; then return 0; fi
        rm -rf .uv
    done
    return 1
}

as_root_with_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; }
apt_install() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -q --no-install-recommends "$@" </dev/null >/dev/null 2>&1 ||
        { apt-get update -q </dev/null >/dev/null 2>&1 &&
            apt-get install -y -q --no-install-recommends "$@" </dev/null >/dev/null 2>&1; }
}

has_library() {
    for ldconfig in ldconfig /sbin/ldconfig /usr/sbin/ldconfig; do
        if command -v "$ldconfig" >/dev/null 2>&1; then
            "$ldconfig" -p 2>/dev/null | grep -q "$1\.so" && return 0
        fi
    done
    return 1
}

# torchcodec loads FFmpeg's shared libraries; without them pictures are read by PyAV, half as fast.
has_ffmpeg() { has_library libavcodec || command -v ffmpeg >/dev/null 2>&1; }

install_ffmpeg() {
    if has_ffmpeg; then return 0; fi
    if as_root_with_apt; then
        say "installing ffmpeg"
        if apt_install ffmpeg; then return 0; fi
    fi
    if command -v brew >/dev/null 2>&1; then line="brew install ffmpeg"; else line="sudo apt-get install ffmpeg"; fi
    say "ffmpeg is missing, so videos are decoded by PyAV at half the speed; to mend it run: $line"
}

# The egg garden draws its pictures through EGL, also without a screen or a GPU.
install_egl() {
    if [ "$(uname)" != Linux ] || has_library libEGL; then return 0; fi
    packages="libegl1 libgl1-mesa-dri"
    if as_root_with_apt; then
        say "installing EGL"
        # shellcheck disable=SC2086 # two packages
        if apt_install $packages; then return 0; fi
    fi
    say "EGL is missing, so the egg garden has no pictures; to mend it run: sudo apt-get install $packages"
}

if [ -n "${PYTHON:-}" ]; then
    at_least_312 "$PYTHON" || die "PYTHON=$PYTHON does not run or is older than 3.12; give the path of a newer one"
    interpreter=$(real_path "$PYTHON")
else
    interpreter=$(find_interpreter) || interpreter=""
fi

uv=$(find_uv) || { install_uv "$interpreter" && uv=$(find_uv); } ||
    die "uv could not be installed; install it by hand (https://docs.astral.sh/uv) and run this again"

if [ -z "$interpreter" ]; then
    say "no Python 3.12 or 3.13 found; uv installs one"
    "$uv" python install 3.12 </dev/null || die "no Python >= 3.12; install one and run: PYTHON=/path/to/python3.12 make setup"
    interpreter=$("$uv" python find 3.12 </dev/null)
fi

if [ -e .venv ] && ! at_least_312 .venv/bin/python; then
    say "removing a .venv whose Python does not run or is older than 3.12"
    rm -rf .venv
fi
if [ ! -e .venv ]; then
    say "making .venv with $interpreter"
    "$uv" venv -q --python "$interpreter" .venv </dev/null
fi

say "installing packages (about 6 GB; a minute where they are cached)"
"$uv" pip install -q --python .venv/bin/python -e '.[dev,sim]' -c constraints.txt </dev/null ||
    die "the packages could not be installed; see uv's message above and run this again"

# Where Python may not write bytecode (PYTHONDONTWRITEBYTECODE, as in many containers), each process would compile
# torch, transformers and Ray anew: half a minute a trial.
say "compiling packages"
.venv/bin/python -W ignore -m compileall -qq -j 0 .venv/lib </dev/null || say "some packages could not be compiled; they are at the first import"

install_ffmpeg
install_egl

: >.venv/.ready.part
mv .venv/.ready.part .venv/.ready
say "ready: .venv ($(.venv/bin/python --version))"
