#!/usr/bin/env bash
# Builds the images for real with buildah, runs the one for the CPU and asks it for /healthz. Needs root, no Docker daemon and no GPU.
# It installs buildah, crun and debootstrap with apt-get where they are missing. What cannot be done here it skips, and says so.
# Containers run as buildah does it in a plain folder (--isolation chroot): they share the network of the machine.
#
#   CHECK_FOLDER   where images and logs go (default: a new temporary folder, removed at the end)
#   CHECK_PORT     port of the server while it is checked (default 18000)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

port=${CHECK_PORT:-18000}
base_image=$(sed -n 's/^ARG PYTHON_IMAGE=//p' docker/Dockerfile)
cuda_image=$(sed -n 's/^ARG CUDA_IMAGE=//p' docker/Dockerfile)
skipped=()

say() { printf 'docker-check: %s\n' "$*"; }
skip() { skipped+=("$*"); say "skipped: $*"; }
nothing_to_do() { skip "everything: $*"; exit 0; }
fail() { say "failed: $*" >&2; exit 1; }

[ "$(id -u)" -eq 0 ] || nothing_to_do "building in a chroot needs root"
missing=()
for tool in buildah crun debootstrap; do command -v "$tool" >/dev/null || missing+=("$tool"); done
if [ ${#missing[@]} -gt 0 ]; then
	command -v apt-get >/dev/null || nothing_to_do "${missing[*]} not installed, and there is no apt-get"
	say "installing ${missing[*]}"
	{ apt-get update --quiet && DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends "${missing[@]}"; } >/dev/null 2>&1 ||
		nothing_to_do "apt-get could not install ${missing[*]}"
fi

if [ -n "${CHECK_FOLDER:-}" ]; then
	folder=$(mkdir -p "$CHECK_FOLDER" && cd "$CHECK_FOLDER" && pwd)
else
	folder=$(mktemp --directory)
fi
server=
clean() {
	if [ -n "$server" ] && kill -0 "$server" 2>/dev/null; then kill -- "-$server" 2>/dev/null || true; fi
	[ -n "${CHECK_FOLDER:-}" ] || rm -rf "$folder"
}
trap clean EXIT

program=$(type -P buildah)
storage=(--storage-driver vfs --root "$folder/storage" --runroot "$folder/run")
buildah() { "$program" "${storage[@]}" "$@"; }
pull() { timeout "$1" "$program" "${storage[@]}" pull --quiet "$2" >/dev/null 2>"$folder/pull.log"; }
why() { tail -n 1 "$folder/pull.log" | cut -c1-200; }
have() { buildah inspect --type image "$1" >/dev/null 2>&1; }

# The base image: the real one where the registry answers, else Debian's own Python of the same release under its name.
if have "$base_image"; then
	say "base image $base_image from an earlier run"
elif pull 120 "$base_image"; then
	say "base image $base_image pulled"
else
	skip "pulling $base_image ($(why)); a Debian made by debootstrap stands in for it"
	release=${base_image##*-}
	[ -x "$folder/rootfs/usr/bin/python3" ] ||
		debootstrap --variant=minbase --include=python3,python3-dev,python3-venv,ca-certificates "$release" "$folder/rootfs" >"$folder/debootstrap.log" 2>&1 ||
		fail "debootstrap, see $folder/debootstrap.log (kept where CHECK_FOLDER is set)"
	container=$(buildah from scratch)
	mounted=$(buildah mount "$container")
	cp -a "$folder/rootfs/." "$mounted/"
	buildah umount "$container" >/dev/null
	buildah commit --quiet "$container" "$base_image" >/dev/null
	buildah rm "$container" >/dev/null
fi

# pip in the build asks the same indexes as pip on this machine: its settings, and the folders and files that they name.
{
	printf '[global]\n'
	python3 -m pip config list | python3 -c '
import ast, sys
found = {}
for line in sys.stdin:
    key, _, value = line.strip().partition("=")
    name = key.rpartition(".")[2]
    if name not in {"cert", "client-cert"}:
        found[name] = ast.literal_eval(value)
for name, value in found.items():
    print(name, "=", " ".join(value.split()))
'
} >"$folder/pip.conf"
mounts=(--volume "$folder/pip.conf:/etc/pip.conf:ro")
for word in $(cat "$folder/pip.conf"); do
	path=${word#file://}
	path=${path%/simple} # the packages of a local index lie beside its pages
	if [ "${path:0:1}" = / ]; then
		while [ ! -e "$path" ] && [ "$path" != / ]; do path=$(dirname "$path"); done
		[ "$path" = / ] || mounts+=(--volume "$path:$path:ro")
	fi
done
certificates=$(python3 -c 'import os, ssl; print(os.environ.get("PIP_CERT") or ssl.get_default_verify_paths().cafile or "")')
[ -z "$certificates" ] || mounts+=(--volume "$certificates:/etc/ssl/certs/ca-certificates.crt:ro")

build() { # target
	local started=$SECONDS
	buildah bud --format docker --pull=never --isolation chroot "${mounts[@]}" --file docker/Dockerfile --target "$1" \
		--tag "onnx-trt-optimizer:$1" . >"$folder/build-$1.log" 2>&1 ||
		{ tail -n 30 "$folder/build-$1.log" >&2; fail "the image $1 does not build"; }
	say "image $1 built in $((SECONDS - started)) s"
}

build cpu
buildah inspect --type image onnx-trt-optimizer:cpu >"$folder/image.json"
python3 - "$folder/image.json" <<-'PYTHON' || fail "the image cpu is not configured as the Dockerfile says"
	import json, sys

	config = json.load(open(sys.argv[1]))["Docker"]["config"]
	assert config["User"] == "10001", config["User"]
	assert config["Entrypoint"] == ["python3", "/app/entrypoint.py"], config["Entrypoint"]
	assert config["Cmd"] == ["serve"], config["Cmd"]
	assert config["Healthcheck"]["Test"][0] == "CMD", config["Healthcheck"]
	PYTHON
container=$(buildah from --pull-never onnx-trt-optimizer:cpu)
inside() { buildah run --isolation chroot --env "ONNX_TRT_OPTIMIZER_PORT=$port" --env ONNX_TRT_OPTIMIZER_API_KEY=check "$container" -- "$@"; }

[ "$(inside id -u)" = 10001 ] || fail "the image cpu runs as $(inside id -u), not as 10001"
if inside sh -c 'command -v gcc || command -v git' >/dev/null 2>&1; then fail "the image cpu holds a compiler or git"; fi
if inside touch /app/written >/dev/null 2>&1; then fail "the image cpu lets its user write to /app"; fi

set -m # a process group of its own, so that it can be ended whole
inside python3 /app/entrypoint.py serve >"$folder/server.log" 2>&1 &
server=$!
set +m
healthy=
for _ in $(seq 1 120); do
	if inside python3 /app/entrypoint.py --check-health 2>/dev/null; then healthy=yes && break; fi
	kill -0 "$server" 2>/dev/null || break
	sleep 0.5
done
[ -n "$healthy" ] || { tail -n 20 "$folder/server.log" >&2; fail "the server in the image cpu does not answer /healthz"; }
answer=$(python3 -c 'import sys, urllib.request as u; print(u.urlopen(f"http://127.0.0.1:{sys.argv[1]}/healthz").read().decode())' "$port")
say "its targets: $(inside python3 -P -m service targets --local | cut -d ' ' -f 1 | paste -s -d ' ')"
say "its first line: $(head -n 1 "$folder/server.log")"
say "its /healthz: $answer"
kill -- "-$server" && wait "$server" 2>/dev/null || true
server=

build rtx
container=$(buildah from --pull-never onnx-trt-optimizer:rtx)
found=$(inside python3 -P -m service targets --local | cut -d ' ' -f 1 | paste -s -d ' ')
[[ " $found " == *" tensorrt-rtx "* ]] || fail "the image rtx lacks the target tensorrt-rtx: it has $found"
say "targets of rtx: $found"

if have "$cuda_image" || pull 600 "$cuda_image"; then
	build gpu
else
	skip "the image gpu: $cuda_image cannot be pulled ($(why))"
fi
skip "a run on a GPU: the chroot has no NVIDIA container toolkit"
say "passed, with ${#skipped[@]} steps skipped"
