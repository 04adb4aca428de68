#!/bin/sh
# Make .venv, or add missing packages: `sh tools/set_up.sh '.[embedded]' "the demo's packages"`.
# Packages come through uv: the one on the PATH, else one from PyPI. Where neither can be had, pip installs them.
set -eu
requirements=$1 purpose=$2
python=.venv/bin/python

works() { # whether an interpreter runs, can make a virtual environment, and is one that all dependencies have wheels for
	"$1" -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

has_pip() { # whether an interpreter's pip can install into another interpreter
	"$1" -m pip --python "$("$1" -c 'import sys; print(sys.executable)')" --version >/dev/null 2>&1
}

make_venv() {
	for found in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
		works "$found" || continue
		# pip is added below; a venv that brings it takes seconds longer.
		if [ -n "$uv" ] || has_pip "$found"; then
			"$found" -m venv --clear --without-pip .venv && return
		else
			"$found" -m venv --clear .venv && return
		fi
	done
	# uv knows interpreters that are not on the PATH, and may download one.
	if [ -n "$uv" ] && [ -z "${PYTHON:-}" ]; then
		"$uv" venv --quiet --clear --python '>=3.11,<3.14' .venv && return
	fi
	echo "iidq needs Python 3.11, 3.12 or 3.13 with the modules venv and pip; found none${PYTHON:+ in $PYTHON}." >&2
	echo "Install it (Debian: apt-get install python3 python3-venv; macOS: brew install python@3.13)," >&2
	echo "or say where it is: make PYTHON=/path/to/python3.13" >&2
	exit 1
}

uv=$(command -v uv || true)
works "$python" || make_venv
[ -n "$uv" ] || uv=$(command -v .venv/bin/uv || true)
if [ -z "$uv" ]; then
	pip=$python
	has_pip "$pip" || pip=$(sed -n 's/^home = //p' .venv/pyvenv.cfg)/python3
	fetched=$(mktemp -d .venv/uv-XXXXXX)
	trap 'rm -rf "$fetched"' EXIT
	trap 'exit 130' INT TERM
	echo "Fetching uv, which installs the rest ..."
	"$pip" -m pip --python "$python" install --quiet --disable-pip-version-check --only-binary :all: --no-deps \
		--target "$fetched" -c constraints.txt uv && uv=$fetched/bin/uv
fi
if [ -n "$uv" ]; then
	echo "Installing $purpose into .venv with uv: once, about 10 s on a quick connection ..."
	set -- "$uv" pip install --python "$python"
else
	echo "Installing $purpose into .venv with pip: once, one to three minutes ..."
	set -- "$pip" -m pip --python "$python" install --disable-pip-version-check --prefer-binary
fi
# Steps and large downloads are shown, not a line for each package.
rm -f .venv/complete
{ "$@" -c constraints.txt pip -e "$requirements" && touch .venv/complete; } 2>&1 |
	sed -E '/^ [+~-] |^Requirement already|^  (Downloading .*metadata|Using cached|Created|Stored)/d'
[ -e .venv/complete ]
