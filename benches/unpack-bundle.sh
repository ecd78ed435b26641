#!/usr/bin/env bash
# Unpacks a bundle for raw-kubeadm.sh: unpack-bundle.sh BUNDLE DIR. Needs zstd and python3.
set -eu
bundle=$1 dir=$2
rm -rf "$dir"; mkdir -p "$dir/bin" "$dir/images" "$dir/raw"
tar -C "$dir/raw" -xf "$bundle"
python3 - "$dir" <<'P'
import json, os, subprocess, sys
d = sys.argv[1]
m = json.load(open(f"{d}/raw/manifest.json"))
members, roles = open(f"{d}/members", "w"), open(f"{d}/roles", "w")
roles.write(f"kubernetes {m['kubernetes']}\n")
for x in m["members"]:
    stored, role = f"{d}/raw/{x['stored']['path']}", "all" if x["role"] == "all" else "cp"
    if x["kind"] == "binary":
        path = x["install"].lstrip("/")
        os.makedirs(os.path.dirname(f"{d}/bin/{path}"), exist_ok=True)
        subprocess.run(["zstd", "-qdf", stored, "-o", f"{d}/bin/{path}"], check=True)
        os.chmod(f"{d}/bin/{path}", 0o755)
        members.write(f"{x['name']} binary {role} {path}\n")
    else:
        os.rename(stored, f"{d}/images/{x['name']}.tar.zst")
        members.write(f"{x['name']} image {role} {x['name']}.tar.zst\n")
        roles.write(f"{x['name']} image {x['images'][0]}\n")
P
rm -rf "$dir/raw"
